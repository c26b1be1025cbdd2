"""Recordings that label themselves, held to what a simulator knows and to rooms whose geometry is plain."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.datasets.pictures import contact_sheet
from robot_vision.datasets.sample import true_values
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.labelling import label as label_module
from robot_vision.labelling.motion import Motion
from robot_vision.labelling.outline import Outline, free_ahead, free_along
from robot_vision.simulation.drive_bag import write_drive
from robot_vision.simulation.robot import Mount
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.homes import random_home

ROUND = ("--robot-width", "0.4", "--obstacle-height", "0.05", "0.5")
FORWARD = ("--camera-to-base", "0", "0", "0", "-1.5707963", "0", "-1.5707963")


def label(source: Path, out: Path, *words: object) -> int:
    return main(["data", "label", str(source), "--out", str(out), *map(str, words)])


def run(*words: object) -> int:
    return main([str(word) for word in words])


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def column(out: Path, name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows(out)])


def numbers(out: Path) -> list[int]:
    return [int(Path(row["image"]).stem) for row in rows(out)]


def home() -> Simulator:
    mount = Mount(width=160, height=120)
    return Simulator(random_home(3), 3, mount=mount)


# --- how far it is ----------------------------------------------------------------------------------------


def wall(x: float, y: tuple[float, float] = (-3, 3)) -> np.ndarray:
    """Points (3, n) of a wall across the way, from the floor to 1 m."""
    across, up = np.meshgrid(np.arange(*y, 0.02), np.arange(0.01, 1, 0.05))
    return np.stack([np.full(across.size, x), across.ravel(), up.ravel()])


def test_a_round_robot_comes_as_near_as_its_outline_lets_it() -> None:
    robot = Outline(0.4, 0.1, 0.5)
    assert free_ahead(wall(2.0), robot, 5) == pytest.approx(1.8, abs=2e-3)
    post = wall(2.0, (0.15, 0.17))  # which the rounding passes later
    assert free_ahead(post, robot, 1) == pytest.approx(2.0 - np.sqrt(0.2**2 - 0.15**2), abs=1e-6)
    flat = Outline(0.4, 0.1, 0.5, 0.3)
    assert free_ahead(post, flat, 1) == pytest.approx(1.7)
    assert free_ahead(wall(2.0, (0.21, 0.4)), robot, 1) == np.inf
    assert np.isnan(free_ahead(wall(2.0) * np.nan, robot, 1))


def test_the_driven_way_passes_what_is_straight_ahead() -> None:
    """A quarter of a circle to the left of a wall, and on: it is free until the wall to the side."""
    robot, radius = Outline(0.4, 0.1, 0.5), 1.0
    angles = np.linspace(0, np.pi / 2, 40)
    way = np.tile(np.eye(4), (len(angles), 1, 1))
    way[:, 0, 3], way[:, 1, 3] = radius * np.sin(angles), radius * (1 - np.cos(angles))
    way[:, 0, 0] = way[:, 1, 1] = np.cos(angles)
    way[:, 1, 0], way[:, 0, 1] = np.sin(angles), -np.sin(angles)
    ahead = wall(1.5)
    side = wall(3.0)[[1, 0, 2]]  # a wall across y, at y = 3
    points = np.concatenate([ahead, side], axis=1)
    assert free_ahead(points, robot, 5) == pytest.approx(1.3, abs=2e-3)
    expected = np.pi / 2 * radius + (3.0 - radius) - 0.2
    assert free_along(points, way, robot, 5, 10.0) == pytest.approx(expected, abs=0.02)
    # The way ends before the wall: straight on from there.
    assert free_along(ahead, way[:1], robot, 5, 10.0) == pytest.approx(1.3, abs=2e-3)
    assert free_along(points, way, robot, 5, 1.0) == np.inf  # beyond the reach


def test_motion_is_left_positive_and_not_known_across_gaps() -> None:
    times = np.arange(10) * 0.1
    times[6:] += 5.0
    T = np.tile(np.eye(4), (10, 1, 1))
    yaw = 0.3 * np.arange(10) * 0.1
    T[:, 0, 0] = T[:, 1, 1] = np.cos(yaw)
    T[:, 1, 0], T[:, 0, 1] = np.sin(yaw), -np.sin(yaw)
    T[:, 0, 3] = 0.05 * np.arange(10)
    motion = Motion(times, T)
    assert motion.turn_rad_s(0, 0.3) == pytest.approx(0.3)
    assert np.isnan(motion.turn_rad_s(4, 0.3)) and motion.turn_rad_s(6, 0.2) == pytest.approx(0.3)
    assert motion.speed_m_s(1) == pytest.approx(0.5, rel=1e-2)
    assert len(motion.way(2, 10.0)) == 4 and len(motion.way(0, 0.1)) == 3
    T[5, :3, 3] += 3.0  # it was carried
    assert np.isnan(Motion(times, T).turn_rad_s(3, 0.2))


# --- a simulated robot ------------------------------------------------------------------------------------


class Approach:
    """Turns to the left, then to the right, and drives straight on until it stands before something."""

    def __init__(self) -> None:
        self.images, self.stands = 0, False

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        self.images += 1
        self.stands |= simulator.free_ahead() < 0.35
        turn = {0: 0.5, 1: -0.5}.get(self.images // 8, 0.0)
        return (0.0, 0.0) if self.stands else (0.5, turn)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "scan", "worst"),
    [
        ("32FC1", False, 0.04),
        ("16UC1", False, 0.04),
        ("compressedDepth", False, 0.04),
        ("", True, 0.06),
    ],
)
def test_labels_of_a_bag_are_what_the_simulator_knows(
    depth: str, scan: bool, worst: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_drive(tmp_path / "drive", home(), Approach(), 70, depth, scan)
    words = ("--collision", "--steering", "--max-turn", 1.5, "--pixels", 4, *ROUND)
    assert label(tmp_path / "drive", tmp_path / "out", *words) == 0
    found = rows(tmp_path / "out")
    assert len(found) == 70
    true = np.minimum(np.array(truth.free_m), 5.0)
    errors = np.abs(column(tmp_path / "out", "free_m") - true)
    assert np.median(errors) < 0.02 and np.percentile(errors, 95) < worst
    blocked = column(tmp_path / "out", "collision")
    sure = np.abs(true - 0.5) > 0.06
    assert (blocked[sure] == (true[sure] < 0.5)).all() and 5 < blocked.sum() < 65
    # Half a second of the turn that followed, as the wheels say it.
    steering, yaw = column(tmp_path / "out", "steering"), np.array(truth.yaw)
    np.testing.assert_allclose(steering[:65], (yaw[5:] - yaw[:65]) / 0.5 / 1.5, atol=0.03)
    assert steering[:65].max() > 0.2 and steering[:65].min() < -0.2
    speeds = column(tmp_path / "out", "speed_m_s")[2:-2]
    np.testing.assert_allclose(speeds, truth.speed_m_s[2:-2], atol=0.1)
    said = capsys.readouterr()
    assert "70 images of 1 recording" in said.out
    assert "steering: 5 frames skipped, whose motion in the next 0.5 s is not known" in said.err
    splits = open_dataset("labels_csv", tmp_path / "out", truth="number:steering,number:collision")
    read = {s.name: s.of("number:collision") for s in splits.samples}
    assert read == {row["image"]: float(row["collision"]) for row in found}


@pytest.mark.slow
def test_the_frames_before_a_stop_count(tmp_path: Path) -> None:
    """It drives at something and stands before it: the way that it drove led there."""
    truth = write_drive(tmp_path / "drive", home(), Approach(), 70)
    words = ("--collision", "--corridor", "driven", "--blocked-within", 2.0, "--pixels", 4)
    assert label(tmp_path / "drive", tmp_path / "out", *words, *ROUND) == 0
    true, speed = np.array(truth.free_m), np.array(truth.speed_m_s)
    straight = slice(24, None)
    free = column(tmp_path / "out", "free_m")
    np.testing.assert_allclose(free[straight], true[straight], atol=0.06)
    blocked = column(tmp_path / "out", "collision")
    assert blocked[-1] == 1
    moving = np.flatnonzero((speed > 0.45) & (np.abs(true / 0.5 - 2.0) > 0.3))
    moving = moving[moving >= 24]
    assert (blocked[moving] == (true[moving] / 0.5 < 2.0)).all()
    assert 0 < blocked[moving].sum() < len(moving)


def blind(i: int, metres: np.ndarray) -> np.ndarray:
    """A structured-light camera: Khoshelham and Elberink (2012) for its noise; nothing nearer than 0.7 m."""
    noise = np.random.default_rng(i).normal(0, 1.425e-3, metres.shape) * metres**2
    return np.where(metres < 0.7, 0, metres + noise).astype(np.float32)


@pytest.mark.slow
def test_what_is_too_near_to_be_measured_is_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_drive(tmp_path / "drive", home(), Approach(), 70, change=blind)
    words = ("--collision", "--blocked", 0.7, "--pixels", 4)
    assert label(tmp_path / "drive", tmp_path / "out", *words, *ROUND) == 0
    said = capsys.readouterr().err
    assert "blocked by what was seen up to 3 s before" in said
    free = dict(zip(numbers(tmp_path / "out"), rows(tmp_path / "out"), strict=True))
    near = [i for i, metres in enumerate(truth.free_m) if metres < 0.6]
    assert len(near) > 8 and all(free[i]["collision"] == "1" for i in near)
    for i in near:
        assert float(free[i]["free_m"]) == pytest.approx(truth.free_m[i], abs=0.08)
    clear = [i for i, metres in enumerate(truth.free_m) if metres > 0.8]
    assert all(free[i]["collision"] == "0" for i in clear if i in free)


@pytest.mark.slow
def test_traversable_pixels_are_floor_that_the_robot_then_drove_over(tmp_path: Path) -> None:
    simulator = home()
    write_drive(tmp_path / "drive", simulator, Approach(), 40)
    assert label(tmp_path / "drive", tmp_path / "out", "--traversable", *ROUND) == 0
    options = {"split": "train", "validation": "0"}
    splits = open_dataset("mask_folder", tmp_path / "out", **options)
    assert splits.pixel_classes["image:segmentation"].names == ("traversable", "obstacle")
    assert len(splits.samples) == 39  # nothing followed the last
    mount = simulator.mount
    lens = Intrinsics.of_matrix(mount.camera.k, mount.width, mount.height)
    columns, lines = np.meshgrid(np.arange(mount.width), np.arange(mount.height))
    rays = lens.rays(np.stack([columns.ravel(), lines.ravel()], axis=1))
    T = simulator.T_base_camera
    ahead = T[:3, :3] @ np.concatenate([rays.T, np.ones((1, len(rays)))])
    with np.errstate(divide="ignore"):
        far = -T[2, 3] / ahead[2]
        y = T[1, 3] + far * ahead[1]
    straight = true_values(splits.samples[20].of("image:segmentation"), "float32", np.nan).ravel()
    over = straight == 0
    assert over.mean() > 0.03 and (ahead[2, over] < 0).all()
    assert np.abs(y[over]).max() < 0.26  # the robot's width, and the image's pixels
    # What it did not drive over says nothing or is an obstacle, which stands out of the floor.
    assert (straight == 1).mean() > 0.03


# --- folders ----------------------------------------------------------------------------------------------


def scenes(folder: Path, distances: list[float], holes: tuple[int, ...] = ()) -> Path:
    """Writes a 7-Scenes folder: a camera before a wall, as far away as it is said, in millimetres."""
    folder.mkdir()
    for i, metres in enumerate(distances):
        image = np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"frame-{i:06d}.color.png"), image)
        depth = np.full((48, 64), round(metres * 1000), np.uint16)
        if i in holes:
            depth[8:40, 12:52] = 65535
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), depth)
        pose = np.eye(4)
        pose[2, 3] = -metres  # z of the camera is ahead
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    return folder


def test_a_folder_of_depth_and_poses_labels_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distances = [3.0 - 0.05 * i for i in range(40)]
    folder = scenes(tmp_path / "scene", distances, holes=(7, 39))
    words = ("--collision", "--blocked", 1.52, *FORWARD, "--robot-width", 0.4, "--robot-front", 0.2)
    words += ("--obstacle-height", -0.2, 0.2, "--rate", 10, "--pixels", 5)
    words += ("--option", "split=blocks", "--option", "block_frames=10", "--option", "validation=0")
    assert label(folder, tmp_path / "out", *words) == 0
    found = {row["image"]: row for row in rows(tmp_path / "out")}
    assert len(found) == 39
    first = found["train/images/scene/frame-000000.png"]
    assert float(first["free_m"]) == pytest.approx(2.8, abs=2e-3) and first["collision"] == "0"
    assert float(first["speed_m_s"]) == pytest.approx(0.5, abs=1e-3)
    assert float(first["ttc_s"]) == pytest.approx(5.6, abs=0.02)
    near = found["test/images/scene/frame-000035.png"]
    assert near["collision"] == "1" and near["split"] == "test"
    # Its depth has holes; the wall was seen before, and has come as near as the poses say.
    last = found["test/images/scene/frame-000039.png"]
    assert last["collision"] == "1" and float(last["free_m"]) == pytest.approx(0.85, abs=2e-3)
    source = folder / "frame-000000.color.png"
    assert (
        tmp_path / "out/train/images/scene/frame-000000.png"
    ).read_bytes() == source.read_bytes()
    said = capsys.readouterr()
    assert "collision: 1 frame skipped, whose measurement has holes in the corridor" in said.err
    assert "scene/frame-000007" in said.err
    assert "14 blocked nearer than 1.52 m straight ahead (35.9%), 25 free" in said.out
    splits = open_dataset("labels_csv", tmp_path / "out", truth="number:collision", validation=0)
    # A row for what is free and one for what is blocked; all test images are blocked.
    assert contact_sheet(splits).shape[0] == 3 * (22 + 112 + 4)
    assert (
        run(
            "data",
            "inspect",
            "labels_csv",
            tmp_path / "out",
            "--output",
            tmp_path / "look",
            "--option",
            "truth=number:collision",
            "--option",
            "validation=0",
        )
        == 0
    )
    assert "number:collision: 29 of 29 train" in (shown := capsys.readouterr().out)
    assert "1 for 35.9%, 0 for the others" in shown
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (29, 0, 10)


def test_what_is_near_counts_in_spite_of_holes(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "scene", [3.0, 0.6])
    depth = np.full((48, 64), 65535, np.uint16)
    depth[20:28, 28:36] = 600
    cv2.imwrite(str(folder / "frame-000001.depth.png"), depth)
    words = ("--collision", *FORWARD, "--robot-width", 0.4, "--obstacle-height", -0.2, 0.2)
    assert label(folder, tmp_path / "out", *words, "--option", "split=train") == 0
    assert column(tmp_path / "out", "collision").tolist() == [0.0, 1.0]


REFUSED = {
    "--collision": "how wide is the robot",
    "--robot-width 0.4": "nothing to label: give --collision, --steering, --traversable",
    "--collision --robot-width 0.4": "does not say where the camera is on the robot",
    "--collision --robot-width 0.4 MOUNT --obstacle-height 1 0": "the second must be the higher one",
    "--collision --robot-width 0.4 MOUNT --blocked 9": "beyond --reach",
    "--collision --robot-width 0.4 MOUNT --scan /scan": "--scan is a topic of a bag",
    "--collision --robot-width 0.4 MOUNT --option depth=none": "has no depth for any image",
    "--collision --robot-width 0.4 MOUNT --obstacle-height 5 6": "does not see the corridor",
    "--steering MOUNT": "no image could be labelled",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_labelled_is_refused_in_one_line(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scenes(tmp_path / "scene", [2.0, 1.9, 1.8])
    given = words.replace("MOUNT", " ".join(FORWARD)).split()
    assert label(folder, tmp_path / "out", *given) == 2
    said = capsys.readouterr().err
    assert REFUSED[words] in said and len(said.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene"]


@pytest.mark.slow
def test_bags_without_depth_or_a_place_of_the_camera_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, depth, tf, text in (
        ("blind", "", True, "has neither a topic of depth"),
        ("loose", "32FC1", False, "/tf_static does not connect"),
    ):
        write_drive(tmp_path / name, home(), Approach(), 3, depth, tf=tf)
        assert label(tmp_path / name, tmp_path / "out", "--collision", *ROUND) == 2
        said = capsys.readouterr().err
        assert text in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scenes(tmp_path / "scene", [2.0])
    (tmp_path / "out").mkdir()
    assert label(folder, tmp_path / "out", "--collision", *FORWARD, "--robot-width", 0.4) == 2
    assert "exists already" in capsys.readouterr().err


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scenes(tmp_path / "scene", [2.0, 1.9, 1.8])
    ahead, calls = label_module.free_ahead, []

    def interrupts(*arguments: object) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ahead(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(label_module, "free_ahead", interrupts)
    words = ("--collision", *FORWARD, "--robot-width", 0.4, "--obstacle-height", -0.2, 0.2)
    assert label(folder, tmp_path / "out", *words) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene"]


def test_a_damaged_image_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scenes(tmp_path / "scene", [2.0, 1.9, 1.8])
    (folder / "frame-000001.depth.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    words = ("--collision", *FORWARD, "--robot-width", 0.4, "--obstacle-height", -0.2, 0.2)
    assert label(folder, tmp_path / "out", *words) == 1
    assert len(rows(tmp_path / "out")) == 2
    assert "warning: left out" in (err := capsys.readouterr().err) and "frame-000001" in err
