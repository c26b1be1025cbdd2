"""What `robot-vision view` writes is read back by Rerun's own reader; the served page is fetched."""

from __future__ import annotations

import json
import re
import socket
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_bags import write_bag
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.contract.head import Material
from robot_vision.contract.topics import Shot
from robot_vision.errors import ConfigError
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.viewing.scene import short_names
from robot_vision.viewing.server import WebViewer

pytest.importorskip("rerun")


def rows_of(path: Path) -> Counter[str]:
    """Returns how many rows each entity has, and that there is one recording with a layout."""
    from rerun.chunk import RrdReader

    reader = RrdReader(path)
    assert len(reader.recordings()) == 1 and len(reader.blueprints()) == 1
    found: Counter[str] = Counter()
    for chunk in reader.stream():
        found[chunk.entity_path] += chunk.num_rows
        if not chunk.is_static:
            assert list(chunk.timeline_names) == ["stamp"]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65533)


def test_panels_are_named_by_what_tells_them_apart() -> None:
    topics = [
        "/a/image_raw",
        "/b/image_raw",
        "/p/a/depth",
        "/p/a/mask",
        "/p/a/mask/confidence",
        "/mask",
    ]
    assert short_names(topics) == [
        "a/image_raw",
        "b/image_raw",
        "depth",
        "a/mask",
        "confidence",
        "/mask",
    ]


@pytest.mark.slow
def test_a_bag_with_a_model_has_an_entity_for_each_topic_with_a_row_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bag, bundle = write_bag(tmp_path / "drive", count=12), make_tiny_bundle(tmp_path / "bundle")

    assert main(["view", str(bag), "--model", str(bundle)]) == 0

    rows = rows_of(tmp_path / "drive.rrd")
    images = [n for name, n in rows.items() if name.endswith("image_raw")]
    assert images == [12]
    answers = {name: n for name, n in rows.items() if name.endswith("/classification")}
    assert list(answers.values()) == [12]
    assert [n for name, n in rows.items() if name.endswith("/pose/ellipsoid_95")] == [12]
    assert not [name for name in rows if "descriptor" in name]  # its head says that it is hidden


@pytest.mark.slow
def test_an_evaluation_has_its_answers_and_its_errors_over_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bag, bundle = write_bag(tmp_path / "drive", count=12), make_tiny_bundle(tmp_path / "bundle")
    assert main(["evaluate", "--bag", str(bag), "--model", str(bundle), "--output", "ev"]) == 0
    metrics = json.loads((tmp_path / "ev/metrics.json").read_text())

    assert main(["view", "--evaluation", "ev", "--output", "seen.rrd"]) == 0

    rows = rows_of(tmp_path / "seen.rrd")
    assert rows["/evaluation/error_m/value"] == metrics["pose"]["frames"] == 12
    assert [n for name, n in rows.items() if name.endswith("/classification")] == [12]


def test_true_classes_of_pixels_are_masks_with_their_names(tmp_path, monkeypatch):
    """As a head's are: the ids of a few classes are nearly black as a picture."""
    from rerun.chunk import RrdReader

    monkeypatch.chdir(tmp_path)
    ids = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32) % 3
    png = cv2.imencode(".png", ids)[1].tobytes()
    colours = cv2.imencode(".png", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    with RecordingWriter(tmp_path / "drive") as bag:
        for topic in ("/truth/segmentation", "/truth/own"):
            bag.label_info(f"{topic}_label_info", 10**18, "camera", ("floor", "wall", "box"))
        for i in range(4):
            stamp = 10**18 + i * 10**8
            bag.image("/camera/image_raw", stamp, "camera", np.zeros((24, 32, 3), np.uint8))
            for topic in ("/truth/segmentation", "/truth/own"):  # the second is of no head
                bag.compressed_image(topic, stamp, "camera", png, "mono8; png compressed")
            bag.compressed_image("/truth/a/segmentation", stamp, "camera", colours, "rgb8; png")
    assert main(["view", "drive", "--output", "seen.rrd"]) == 0
    found: dict[str, set[str]] = {}
    for chunk in RrdReader(tmp_path / "seen.rrd").stream():
        found.setdefault(chunk.entity_path, set()).update(chunk.to_record_batch().schema.names)
    for topic in ("/truth/segmentation", "/truth/own"):
        (entity,) = [name for name in found if name.endswith(topic) and "/a/" not in name]
        said = " ".join(found[entity])
        assert "SegmentationImage:buffer" in said and "AnnotationContext:context" in said
    (entity,) = [name for name in found if name.endswith("/truth/a/segmentation")]
    assert "EncodedImage:blob" in " ".join(found[entity])


def test_cells_are_as_large_as_they_are_probable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rerun.chunk import RrdReader

    monkeypatch.chdir(tmp_path)
    head = registry.head("cells")
    spec = head.example()
    said = np.array([0.64, 0.36, 0.0, 0.0], np.float32)
    with RecordingWriter(tmp_path / "drive") as bag:
        shot = Shot(Stamp(10**9, 0), "camera", "front")
        options = head.resolve(head.options({}), spec, Material())
        for topic in head.topics(spec):
            write = topic.writer(rosbags_maker(bag.store))
            message = write(shot, head.Answer(spec.ground, said), options)
            bag.write(f"/perception/front/{topic.name}", 10**18, message)
    assert main(["view", "drive", "--output", "seen.rrd"]) == 0
    found = {}
    for chunk in RrdReader(tmp_path / "seen.rrd").stream():
        for name, column in chunk.to_record_batch().to_pydict().items():
            if name.endswith("Points3D:radii"):
                found[chunk.entity_path] = column[0]
    assert [name for name in found if name.endswith("/cell_points")] == list(found)
    (radii,) = found.values()
    np.testing.assert_allclose(radii, [40, 30, 0.01, 0.01], rtol=1e-5)  # of cells of 100 m


def test_without_rerun_one_line_says_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert main(["view", "bag", "--model", "demo"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'robot_vision[view]'" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing to show"),
        (["--model", "demo"], "needs a recording"),
        (["bag", "--model", "demo", "--predictions", "x"], "do not go together"),
        (["bag", "--serve", "--output", "x.rrd"], "writes no file"),
        (["bag", "--output", "x.txt"], "must end in .rrd"),
        (
            ["bag", "--port", "5", "--host", "0.0.0.0"],
            "--host, --port has no effect without --serve",
        ),
        (["bag", "--topic", "/nothing"], "--topic has no effect without --model"),
        (["--map", "x", "--threads", "2"], "--threads has no effect without --model"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and why in said


@pytest.mark.slow
def test_the_page_is_served_on_this_machine_alone_by_a_silent_process() -> None:
    port = free_port()
    viewer = WebViewer(port=port)
    try:
        with urllib.request.urlopen(viewer.page, timeout=60) as page:
            text = page.read()
            assert b"Rerun" in text and not re.search(rb'(href|src)="https?:', text)
            rules = page.headers["Content-Security-Policy"]
            assert f"http://*:{port + 1};" in rules and "https:" not in rules
        environment = Path(f"/proc/{viewer._process.pid}/environ").read_bytes().split(b"\0")
        folder = next(e for e in environment if e.startswith(b"XDG_CONFIG_HOME=")).split(b"=")[1]
        settings = json.loads((Path(folder.decode()) / "rerun/analytics.json").read_text())
        assert settings["analytics_enabled"] is False
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        for number in (port, port + 1):
            assert [a for a in listening if a.endswith(f":{number:04X}")][0].startswith("0100007F")
    finally:
        viewer.close()
    assert not viewer.alive and not Path(folder.decode()).exists()


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"127\.0\.0\.1:{port} cannot be listened on"
        ) as said:
            WebViewer(port=port)
    assert "\n" not in str(said.value)


def test_what_fails_leaves_no_file_and_the_one_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "house.map.rrd").write_bytes(b"of yesterday")
    assert main(["view", "--map", "house.map"]) == 2
    assert "house.map does not exist" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "house.map.rrd": b"of yesterday"
    }
