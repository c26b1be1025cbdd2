"""`robot-vision init`: the project that it writes works, and what it cannot do it says in one line."""

from __future__ import annotations

import ast
import importlib.util
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from evaluation_bags import write_bag
from train_data import make_labelled, make_posed
from written_commands import run_page

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.datasets import SPLIT_NAMES, open_dataset
from robot_vision.places.map.base import MAX_DIMENSION
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.training.config_file import read_config


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the one line of a refusal."""
    capsys.readouterr()
    assert main(["init", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_missing_flags_are_named_without_a_terminal(tmp_path: Path, capsys) -> None:
    assert "--data is missing" in refused(capsys, str(tmp_path / "project"))
    rooms = make_labelled(tmp_path / "rooms", train=4, test=1)
    assert "PROJECT is missing" in refused(capsys, "--data", str(rooms))
    assert not (tmp_path / "project").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys) -> None:
    rooms = make_labelled(tmp_path / "rooms", train=4, test=1)
    (tmp_path / "project").mkdir()
    assert main(["init", str(tmp_path / "project"), "--data", str(rooms)]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "project").iterdir()}
    assert "not empty" in refused(capsys, str(tmp_path / "project"), "--data", str(rooms))
    assert {path: path.read_bytes() for path in (tmp_path / "project").iterdir()} == before
    assert "not empty" in refused(capsys, str(rooms / "train/red/000.png"), "--data", str(rooms))


def test_heads_are_those_that_the_data_can_teach(tmp_path: Path, capsys) -> None:
    rooms = make_labelled(tmp_path / "rooms", train=4, test=1)
    poses = make_posed(tmp_path / "walk")
    for data, heads in ((rooms, ("classifier",)), (poses, ("pose", "place", "cells"))):
        project = tmp_path / f"project_of_{data.name}"
        assert main(["init", str(project), "--data", str(data)]) == 0
        config = read_config(project / "training.yaml")
        assert config.heads == heads and config.data.path == str(data)
        assert len(set(config.baselines)) == len(config.baselines)
    # A camera that goes 4 m to and fro: within the default of 10 m everything would be one place.
    place = config.settings["place"]
    assert place.positive_m == pytest.approx(0.2, abs=0.06) and place.negative_m < 1
    clusters = config.network.heads["place"]["clusters"]
    assert clusters * 1280 <= MAX_DIMENSION, "a map takes the descriptors of MobileNetV2"
    line = refused(capsys, str(tmp_path / "new"), "--data", str(rooms), "--heads", "pose")
    assert "needs" in line and "pose" in line
    assert "did you mean 'classifier'" in refused(
        capsys, str(tmp_path / "new"), "--data", str(rooms), "--heads", "clasifier"
    )


def test_what_teaches_nothing_is_refused(tmp_path: Path, capsys) -> None:
    bag = write_bag(tmp_path / "drive", count=8, labels=False, poses=False)
    line = refused(capsys, str(tmp_path / "new"), "--data", str(bag))
    assert "Nothing can be learned" in line and "two classes" in line
    assert not (tmp_path / "new").exists()


def test_a_bag_of_several_cameras_wants_a_topic(tmp_path: Path, capsys) -> None:
    with RecordingWriter(tmp_path / "two") as bag:
        for i in range(3):
            for camera in ("left", "right"):
                bag.compressed_image(f"/{camera}/compressed", 10**18 + i, "optical", b"", "jpeg")
    line = refused(capsys, str(tmp_path / "new"), "--data", str(tmp_path / "two"))
    assert "--topic is missing" in line and "/left/compressed, /right/compressed" in line


@pytest.mark.slow
def test_labels_of_a_bag_are_a_file_or_a_topic(tmp_path: Path, capsys) -> None:
    bag = write_bag(tmp_path / "drive", count=60, poses=False, jpeg=True)
    spans = tmp_path / "spans.yaml"
    spans.write_text(
        "- {label: hall, from_s: 0, to_s: 2}\n- {label: kitchen, from_s: 2, to_s: 9}\n"
    )
    for i, (labels, option) in enumerate(
        (
            ([], {"label_topic": "/truth/room"}),
            (["--labels", "/truth/room"], {"label_topic": "/truth/room"}),
            (["--labels", str(spans)], {"label_spans": str(spans)}),
        )
    ):
        assert main(["init", str(tmp_path / f"p{i}"), "--data", str(bag), *labels]) == 0
        config = read_config(tmp_path / f"p{i}" / "training.yaml")
        topic, blocks = "/front/image_raw", config.data.options.get("block_frames")
        short = {"block_frames": blocks} if blocks else {}
        assert config.data.options == {"image_topic": topic, **option, **short}
        if "label_topic" in option:  # six seconds at 10 Hz are one block of the default 50 frames
            splits = open_dataset("rosbag", bag, **config.data.options)
            classes = [{s.label for s in splits.split(name)} for name in SPLIT_NAMES]
            assert len(classes[0]) > 1 and classes[0] == classes[1] == classes[2]
    parameters = yaml.safe_load((tmp_path / "p0" / "perception.yaml").read_text())
    assert parameters["/**"]["ros__parameters"] == {
        "cameras": ["camera"],
        "image_topics": ["/front/image_raw"],
        "transport": "compressed",
    }
    line = refused(capsys, str(tmp_path / "new"), "--data", str(bag), "--labels", "spams.yaml")
    assert "neither a file nor a topic" in line and "/truth/room" in line


def test_true_pixels_of_a_bag_are_taken_where_it_says_what_they_are(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    with RecordingWriter(tmp_path / "drive") as bag:
        bag.label_info("/truth/segmentation_label_info", 10**18, "camera", ("floor", "wall"))
        for i in range(60):
            stamp = 10**18 + i * 10**8
            image = rng.integers(0, 256, (24, 32, 3), np.uint8)
            bag.image("/camera/image_raw", stamp, "camera", image)
            bag.image("/truth/segmentation", stamp, "camera", image[..., 0] // 128, "mono8")
            bag.image("/truth/depth", stamp, "camera", np.full((24, 32), 2.0, np.float32), "32FC1")
            bag.image("/truth/unnamed", stamp, "camera", image[..., 0], "mono8")
    assert main(["init", str(tmp_path / "new"), "--data", str(tmp_path / "drive")]) == 0
    assert "learns segmentation, depth" in capsys.readouterr().out
    config = read_config(tmp_path / "new" / "training.yaml")
    wanted = "segmentation=/truth/segmentation, depth=/truth/depth"
    assert config.data.options["truth_images"] == wanted
    splits = open_dataset("rosbag", tmp_path / "drive", **config.data.options)
    assert splits.labels_of("image:segmentation") == ("floor", "wall")
    assert all({"image:segmentation", "image:depth"} <= set(s.truth) for s in splits.samples)


@pytest.mark.slow
def test_questions_are_asked_on_a_terminal(tmp_path: Path) -> None:
    make_labelled(tmp_path / "rooms", train=4, test=1)
    terminal, end = pty.openpty()
    answers = ["nowhere", "rooms", "", "pose", "", "mine"]
    os.write(terminal, "".join(f"{answer}\n" for answer in answers).encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "robot_vision.cli", "init"],
        cwd=tmp_path,
        stdin=end,
        stdout=end,
        stderr=subprocess.STDOUT,
    )
    os.close(end)
    said = b""
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait(60) == 0, said.decode()
    text = said.decode()
    assert "nowhere does not exist" in text and "The pose head needs" in text
    assert read_config(tmp_path / "mine" / "training.yaml").heads == ("classifier",)


@pytest.mark.slow
def test_the_written_project_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    bag = write_bag(tmp_path / "drive", count=120)
    project = tmp_path / "my rooms"
    assert main(["init", str(project), "--data", str(bag), "--heads", "classifier,pose"]) == 0
    monkeypatch.chdir(project)
    page = (project / "README.md").read_text()
    write_bag(tmp_path / "other", count=40, start=1_800_000_000_000_000_000)
    done, left = run_page(page.replace("OTHER_DRIVE", f"{tmp_path / 'other'}"))
    assert [words[0] for words in done] == ["data", "train", "infer", "evaluate"]
    bundle = ModelBundle.load(project / "runs" / "my_rooms" / "bundle")
    assert list(bundle.spec.heads) == ["classifier", "pose"]
    assert bundle.spec.heads["classifier"].labels == ("blue", "green", "red")
    assert "`/perception/camera/classification`" in page
    assert left == [["ros2", "launch", "./robot.launch.py"]]

    source = (project / "robot.launch.py").read_text()
    strings = [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)]
    assert "runs/my_rooms/bundle" in strings and "perception.launch.py" in strings
    if importlib.util.find_spec("launch_ros"):
        from launch import LaunchContext
        from launch.launch_description_sources import PythonLaunchDescriptionSource

        file = PythonLaunchDescriptionSource(str(project / "robot.launch.py"))
        arguments = file.get_launch_description(LaunchContext()).get_launch_arguments()
        assert "model" in {argument.name for argument in arguments}
