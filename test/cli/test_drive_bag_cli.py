"""`robot-vision drive bag` records what a robot would, and what is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.recordings.opening import open_source
from robot_vision.simulation import drivers

SMALL = ["--metres", "1", "--image-size", "64", "48"]


@pytest.mark.slow
def test_bag_of_a_drive_is_a_data_set_with_poses_and_rooms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = str(tmp_path / "drive")
    assert main(["drive", "bag", *SMALL, "--scan", "--out", bag]) == 0
    assert "1.0 m through home 10000 on day 0" in capsys.readouterr().out
    true, wheels = (
        open_dataset("rosbag", bag, pose_topic=topic, label_topic="/ground_truth/room").samples
        for topic in ("/ground_truth/odom", "/odom")
    )
    assert len(true) == len(wheels) > 10
    assert all(sample.label for sample in true)
    steps = [
        np.linalg.norm(np.diff([s.T_map_camera[:3, 3] for s in some], axis=0), axis=1)
        for some in (true, wheels)
    ]
    assert steps[0].sum() == pytest.approx(1.0, abs=0.25)
    np.testing.assert_allclose(steps[0], steps[1], atol=0.02)  # the odometry drifts
    assert not np.array_equal(steps[0], steps[1])


@pytest.mark.slow
def test_another_day_looks_otherwise_and_the_same_day_alike(tmp_path: Path) -> None:
    def images(day: int, name: str) -> np.ndarray:
        out = tmp_path / name
        words = ["--world", "900", "--day", str(day), "--depth", "none", "--out", str(out)]
        assert main(["drive", "bag", *SMALL, *words]) == 0
        with open_source(out) as source:
            assert source.topics == ("/camera/image_raw",) and not source.notes
            return np.stack([np.asarray(frame.message.data) for frame in source][:5])

    first, again, later = images(0, "a"), images(0, "b"), images(3, "c")
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - later).mean() > 5


@pytest.mark.slow
def test_bag_that_is_there_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drive", "bag", *SMALL, "--out", str(tmp_path)]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "robot-vision" in text]
    assert "exists already" in line


@pytest.mark.slow
def test_true_poses_are_taken_before_the_wheels_unless_they_are_named(tmp_path: Path) -> None:
    bag = str(tmp_path / "drive")
    assert main(["drive", "bag", *SMALL, "--out", bag]) == 0
    found = open_dataset("rosbag", bag)
    assert any("poses are those of /ground_truth/odom" in note for note in found.notes)


@pytest.mark.slow
def test_a_robot_that_is_stuck_ends_the_drive_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(drivers.DRIVERS, drivers.EXPERT, lambda _seed: lambda _now: (0.0, 0.5))
    assert main(["drive", "bag", *SMALL, "--depth", "none", "--out", str(tmp_path / "drive")]) == 2
    assert "stuck after 0.0 m, and no bag was written" in capsys.readouterr().err
    assert not (tmp_path / "drive").exists()
