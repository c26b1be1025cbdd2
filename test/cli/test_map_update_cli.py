"""`robot-vision map update`: later drives of a bag, and what is said and written of changed places."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_bags import START
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.places.map.evidence import Evidence
from robot_vision.places.map.opening import open_map
from robot_vision.recordings.writing import RecordingWriter

DAY_NS = 86_400 * 10**9
PLACES = 10


def drive(path: Path, day: int, changed: tuple[int, ...] = (), shift: int = 0) -> Path:
    """Writes a drive with two images at each of some places, in a hue of its own; changed ones are grey."""
    with RecordingWriter(path) as bag:
        for i in range(2 * PLACES):
            place = i // 2
            stamp = START + day * DAY_NS + i * 10**9
            where = (2.0 * ((place + shift) % PLACES) + 0.1 * (i % 2), 1.0, 0.5)
            bag.camera_pose("/slam/pose", stamp, where, (0.0, 0.0, 0.0, 1.0))
            r, g, b = colorsys.hsv_to_rgb(place / PLACES, 1.0, 1.0)
            colour = np.array((0.5, 0.5, 0.5) if place in changed else (r, g, b)) * 255
            bag.image("/front/image", stamp, "front", np.full((32, 48, 3), colour, np.uint8))
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def home(tmp_path: Path, bundle: Path) -> Path:
    path = tmp_path / "home.map"
    first = drive(tmp_path / "first", 0)
    assert (
        main(["map", "build", str(path), str(first), "--model", str(bundle), "--engine", "onnx"])
        == 0
    )
    return path


def update(home: Path, bag: Path, bundle: Path, *more: str) -> int:
    arguments = [str(home), str(bag), "--model", str(bundle), "--engine", "onnx", *more]
    return main(["map", "update", *arguments])


@pytest.mark.slow
def test_a_changed_place_is_replaced_said_and_shown(
    tmp_path: Path, home: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "changes.html"
    for day in (1, 2):
        bag = drive(tmp_path / f"day{day}", day, changed=(4,))
        before = home.read_bytes()
        capsys.readouterr()
        assert update(home, bag, bundle, "--dry-run") == 0
        assert home.read_bytes() == before and "would" in capsys.readouterr().out
        assert update(home, bag, bundle, "--report", str(report)) == 0
        said = capsys.readouterr().out
        if day == 1:
            assert "18 of 20 images of 'day1' that show its places are recognised" in said
            assert "0 keyframes gone; 1 in doubt; 1 added (0 on new ground); 11 in the map" in said
            assert "0 changed places" in said
    assert "1 keyframe gone; 0 in doubt; 0 added" in said and "10 in the map (before: 11)" in said
    (line,) = [line for line in said.splitlines() if line.startswith("changed: ")]
    assert "keyframe 5 of 'first' at (8.00, 1.00, 0.50) m, facing up" in line
    assert "(2 drives, 0 of 4 images)" in line and line.endswith(
        "keyframe 11 shows what is there now"
    )
    page = report.read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and "(8.00, 1.00, 0.50) m" in page
    with open_map(home) as places:
        places.check()
        (record,) = Evidence.from_bytes(places.evidence()[11], "").replaced
        assert record.keyframe_id == 5 and 11 in places.poses().ids and 5 not in places.poses().ids
    assert main(["map", "info", str(home), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["with_evidence"], info["replaced"]) == (10, 1)
    assert main(["map", "evaluate", str(home), str(bag), "--model", str(bundle), "--single"]) == 0
    assert "100" in capsys.readouterr().out.split("recall@1")[1].splitlines()[0]


@pytest.mark.slow
def test_what_cannot_be_right_is_refused_in_one_line_and_changes_nothing(
    tmp_path: Path, home: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shifted = drive(tmp_path / "shifted", 1, shift=3)
    good = drive(tmp_path / "good", 2)
    before = home.read_bytes()
    for bag, more, reason in (
        (
            shifted,
            (),
            "of 20 images of 'shifted' that its poses put near keyframes, 0 look like them",
        ),
        (tmp_path / "first", (), "has keyframes of 'first' already"),
        (good, ("--distance", "3"), "beyond 1 m or 45 deg is another place"),
        (good, ("--capacity", "0"), "Capacity is 0"),
        (good, ("--thumbnail", "-1"), "--thumbnail is -1"),
    ):
        capsys.readouterr()
        assert update(home, bag, bundle, *more) == 2
        said = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("note: ")]
        assert len(said) == 1 and reason in said[0], said
        assert home.read_bytes() == before
    assert update(home, good, bundle) == 0
    assert update(home, good, bundle) == 2
    assert "a drive counts once" in capsys.readouterr().err
