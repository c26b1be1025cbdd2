"""A head from another package, as docs/how-to/add-a-head.md writes it: installed, trained, served and judged.

It is installed into a folder of its own, which only the processes that are started here see.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot_vision.recordings.writing import RecordingWriter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "add-a-head.md").read_text(encoding="utf-8")
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "height-head"
version = "0.1"

[project.entry-points."robot_vision.heads"]
height = "height_head:HEAD"
broken = "height_head.nothing:HEAD"

[tool.setuptools]
packages = ["height_head"]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that has the package of the guide."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "height_head").mkdir()
    files = ("__init__.py", "judging.py", "training.py")
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    for name, block in zip(files, blocks, strict=True):
        (source / "height_head" / name).write_text(block)
    options = (
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
    )
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    path = os.pathsep.join(filter(None, (str(target), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path}


def picture(height: float, rng: np.random.Generator) -> np.ndarray:
    """The higher the camera, the brighter."""
    image = np.full((48, 64, 3), 40 + 80 * height) + rng.normal(0, 4, (48, 64, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def record(path: Path, seed: int, count: int) -> Path:
    """A bag of a camera that goes up and down, with its poses."""
    rng = np.random.default_rng(seed)
    with RecordingWriter(path) as bag:
        for i in range(count):
            height = 1 + np.sin(0.37 * i + seed)
            stamp_ns = (i + 1) * 10**8
            bag.image("/camera/image_raw", stamp_ns, "camera", picture(height, rng))
            bag.camera_pose("/pose", stamp_ns, (0.1 * i, 0.0, height), (0, 0, 0, 1), "map")
    return path


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robot_vision.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def bundle(installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("training")
    record(folder / "drives" / "a", 1, 80), record(folder / "drives" / "b", 2, 40)
    (folder / "height.yaml").write_text(
        f"""
name: height
heads: [height]
data: {{kind: rosbag, path: {folder / "drives"}}}
network: {{backbone: lenet, weights: null, input: {{height: 28, width: 28, channels: 1}}}}
augmentation: {{name: none}}
loop: {{epochs: 12, batch_size: 16, accelerator: cpu, threads: 1}}
baselines: []
"""
    )
    done = run(installed, "train", folder / "height.yaml", "--output", folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run" / "bundle"


def test_it_is_trained_and_its_answers_are_printed(
    bundle: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    bag = record(tmp_path / "bag", 3, 20)
    done = run(installed, "infer", "--model", bundle, bag, "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 20 and all(isinstance(line["height"], float) for line in lines)
    info = run(installed, "info", bundle)
    assert info.returncode == 0 and "height" in info.stdout


def test_it_is_judged_by_its_own_table(
    bundle: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    bag = record(tmp_path / "bag", 3, 60)
    done = run(installed, "evaluate", "--model", bundle, "--bag", bag, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["height"]["rmse_m"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["value"] < 0.5  # heights are from 0 to 2 m: always the mean is 0.7 m off
    assert "RMSE" in done.stdout
    assert "Height of the camera" in (tmp_path / "out" / "report.html").read_text()


def test_it_keeps_what_every_head_promises(installed: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", "--pyargs"]
    asked = {**installed, "ROBOT_VISION_HEAD": "height", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [*command, "robot_vision.contract.check"],
        env=asked,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout) and "the height head has no fitter" in done.stdout


@pytest.mark.ros
def test_the_node_publishes_it(bundle: Path, installed: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    from geometry_msgs.msg import PointStamped
    from ros_helpers import rgb_message, running, wait_until
    from sensor_msgs.msg import Image

    prefix = ("env", f"PYTHONPATH={installed['PYTHONPATH']}")
    given = {"model": bundle, "cameras": "[camera]"}
    with running(tmp_path, "perception_node", prefix=prefix, **given) as (node, client):
        heights = client.listen(PointStamped, "/perception/camera/height", 10)
        images = client.publisher(Image, "/camera/image_raw")
        rng = np.random.default_rng(0)

        def answered() -> bool:
            images.publish(rgb_message(picture(1.0, rng), time.time_ns()))
            return bool(heights)

        wait_until(answered, what="a height; " + node.output[-2000:])
        assert np.isfinite(heights[0].point.z)


def test_one_that_is_broken_harms_only_who_asks_for_it(
    bundle: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    assert run(installed, "info", bundle).returncode == 0
    (tmp_path / "broken.yaml").write_text(
        "name: x\nheads: [broken]\ndata: {kind: rosbag, path: .}\n"
    )
    done = run(installed, "train", tmp_path / "broken.yaml")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "broken" in done.stderr and "height-head" in done.stderr


def test_a_bundle_whose_head_is_not_installed_says_what_to_do(bundle: Path) -> None:
    done = run(dict(os.environ), "info", bundle)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "height" in done.stderr and "pip install" in done.stderr
