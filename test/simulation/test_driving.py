"""Drivers, the referee who judges them, and recordings to train on."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from steering_bundle import make_steering_bundle
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.simulation.drivers import DRIVERS, FREE_WAY, Expert, Random, Straight
from robot_vision.simulation.free_way import BLOCKED_M
from robot_vision.simulation.planner import _CELL, Plan, _coarse
from robot_vision.simulation.recording import FolderRecording, Way
from robot_vision.simulation.referee import Verdict, evaluate, judge
from robot_vision.simulation.robot import STEP_NS, Mount
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import ModelDriver
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.homes import random_home

HOME = default_world()


@pytest.mark.parametrize("seed", range(8))
def test_free_way_ahead_is_how_far_a_robot_gets(seed: int) -> None:
    simulator = Simulator(random_home(seed), seed)
    ahead = simulator.free_ahead(20.0)
    simulator.command(0.5, 0.0)
    while not simulator.step():
        pass
    assert simulator.way_m == pytest.approx(ahead, abs=0.5 * STEP_NS * 1e-9 + 0.005)


# --- the expert -------------------------------------------------------------------------------------------


def test_plan_costs_what_another_program_finds() -> None:
    simulator = Simulator(random_home(2), 0)
    goal = np.array([simulator.motion.x, simulator.motion.y])
    plan = Plan(simulator.free, 0.25, goal)
    distance = _coarse(simulator.free.distance)
    rows, columns = distance.shape
    price = (1 + 6.0 * np.clip(1 - (distance - 0.25) / 0.35, 0, 1) ** 2) * 0.05 * _CELL
    number = np.arange(rows * columns).reshape(rows, columns)
    edges: list[tuple[int, int, float]] = []
    room = distance >= 0.25
    for i, j in ((0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1)):
        for r in range(max(0, -i), rows - max(0, i)):
            for c in range(max(0, -j), columns - max(0, j)):
                if room[r + i, c + j]:
                    length = math.hypot(i, j) * price[r + i, c + j]
                    edges.append((number[r, c], number[r + i, c + j], length))
    a, b, lengths = (np.array(v) for v in zip(*edges, strict=True))
    graph = coo_matrix((lengths, (a, b)), shape=(rows * columns, rows * columns)).tocsr()
    expected = dijkstra(graph, indices=number[plan.cell(goal)]).reshape(rows, columns)
    np.testing.assert_allclose(plan.cost, expected, rtol=2e-6)  # prices are float32
    reached = np.argwhere(np.isfinite(plan.cost))
    far = reached[plan.cost[tuple(reached.T)].argmax()]
    way = plan.way(simulator.free.points((far[0] * _CELL + 0.5, far[1] * _CELL + 0.5)), 100.0)
    assert np.hypot(*(way[-1] - goal)) < 0.1
    assert np.hypot(*np.diff(way, axis=0).T).max() < 0.15


@pytest.mark.slow
def test_expert_hits_nothing_and_sees_more_than_those_who_see_nothing() -> None:
    homes = [(f"home {s}", lambda s=s: Simulator(random_home(s), s)) for s in (500, 501)]
    expert, random, straight = (
        evaluate(DRIVERS[name], name, homes, 20.0).figures()
        for name in ("expert", "random", "straight")
    )
    assert expert["collisions"] == expert["stuck"] == 0
    assert expert["mean_speed_m_s"] > 0.45
    assert expert["visited"] > 1.3 * straight["visited"]
    assert random["collisions"] > 10 and straight["collisions"] > 5
    assert 0 < random["hits_outside_the_picture"] < random["collisions"]
    assert straight["turn_change_rad_s2"] == 0 < expert["turn_change_rad_s2"]


@pytest.mark.slow
def test_expert_frees_a_robot_from_wherever_it_is_put() -> None:
    """What imitation needs: an answer also where the expert alone would never be."""
    rng = np.random.default_rng(0)
    for seed in range(6):
        simulator, expert = Simulator(random_home(seed), seed), Expert(seed)
        rows, columns = np.nonzero(
            simulator.free.components(simulator.robot.radius_m + 0.05)[0]
            == simulator.free.components(simulator.robot.radius_m + 0.05)[1]
        )
        i = int(rng.integers(len(rows)))
        x, y = simulator.free.points((rows[i], columns[i]))
        start = (float(x), float(y), float(rng.uniform(-3, 3)))
        drive = judge(Simulator(simulator.world, seed, start=start), expert, 5.0)
        assert not drive.hits and not drive.stuck, seed


# --- the free way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_free_lengths_are_how_far_a_turned_robot_would_get(seed: int) -> None:
    simulator = Simulator(random_home(seed), seed)
    turns = np.radians([-60.0, -20.0, 0.0, 35.0])
    lengths = simulator.free_lengths(turns, at_most_m=2.5)
    for turn, length in zip(turns, lengths, strict=True):
        m = simulator.motion
        there = Simulator(simulator.world, seed, start=(m.x, m.y, m.yaw + float(turn)))
        assert length == pytest.approx(there.free_ahead(2.5), abs=1e-9)
    # What keeps more to its sides gets less far.
    assert (simulator.free_lengths(turns, 0.1, 2.5) <= lengths).all()


def test_only_what_is_in_the_cameras_field_is_in_view() -> None:
    corridor = (8.5, 0.5, 0.0)  # 1.5 m before its east wall
    simulator = Simulator(HOME, 0, start=corridor)
    turns = np.radians([0.0, 90.0, -90.0])
    there, seen = (simulator.free_lengths(turns, in_view=v) for v in (False, True))
    assert there[0] == seen[0] == pytest.approx(1.5 - simulator.robot.radius_m)
    assert (there[1:] < 2).all() and (seen[1:] == 5.0).all()  # the walls beside the robot
    wide = Simulator(HOME, 0, mount=Mount(forward_m=-0.5, field_deg=150.0), start=corridor)
    assert np.array_equal(wide.free_lengths(turns, in_view=True), there)  # from behind it


@pytest.mark.slow
def test_free_way_hits_nothing_and_never_gets_stuck() -> None:
    homes = [(f"home {s}", lambda s=s: Simulator(random_home(s), s)) for s in (500, 501)]
    found = evaluate(DRIVERS[FREE_WAY], FREE_WAY, homes, 25.0).figures()
    assert found["collisions"] == found["stuck"] == 0
    assert found["mean_speed_m_s"] > 0.38


# --- the referee ------------------------------------------------------------------------------------------


class Standing:
    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        return 0.0, 0.5

    def reset(self) -> None:
        pass


@pytest.mark.slow
def test_robot_that_turns_on_the_spot_is_stuck_and_the_drive_ends() -> None:
    drive = judge(Simulator(HOME, 1), Standing(), 1.5)
    assert drive.way_m == 0 and not drive.hits
    assert drive.time_s == pytest.approx(30.0, abs=0.2) and drive.stuck == 3
    assert drive.visited < 0.02


@pytest.mark.slow
def test_each_hit_says_where_how_fast_and_whether_it_was_in_the_picture() -> None:
    # Straight into the corridor's east wall; then turning left on the spot beside nothing hits nothing.
    drive = judge(Simulator(HOME, 0, start=(8.0, 0.5, 0.0)), Straight(), 2.0)
    hit = drive.hits[0]
    assert (hit.x, hit.y) == pytest.approx((9.8, 0.5), abs=0.02)
    assert hit.speed_m_s == pytest.approx(0.6) and hit.pictured
    assert hit.bearing_deg == pytest.approx(0, abs=1)
    # Along the north wall at a grazing angle: what it hits is left of the picture.
    drive = judge(Simulator(HOME, 0, start=(6.5, 0.65, 0.05)), Straight(), 3.0)
    assert drive.hits[0].bearing_deg == pytest.approx(87, abs=1) and not drive.hits[0].pictured


def test_rates_pool_all_worlds_and_have_their_interval() -> None:
    drive = judge(Simulator(HOME, 0, start=(8.0, 0.5, 0.0)), Straight(), 5.0)
    hits = drive.hits[:1]
    verdict = Verdict(
        "x", tuple(replace(drive, way_m=w, hits=h) for w, h in ((400.0, hits * 3), (600.0, ())))
    )
    rate, low, high = verdict.figures()["collisions_per_km"]
    assert (rate, low, high) == pytest.approx((3.0, 0.6187, 8.7673), abs=1e-3)  # tables of Garwood
    assert verdict.figures()["km"] == pytest.approx(1.0)


@pytest.mark.slow
def test_two_judgements_are_the_same() -> None:
    def found() -> tuple[dict, bytes]:
        drive = judge(Simulator(random_home(8), 8), Random(3), 10.0, "home")
        return drive.to_json(), drive.path.tobytes()

    assert found() == found()


# --- the command ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluate_writes_figures_and_a_page_with_every_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--worlds", "2", "--metres", "5", "--output", str(tmp_path), "--demo-home"]
    drivers = ["--driver", "straight", "expert"]
    assert main(["drive", "evaluate", *arguments, *drivers, "--format", "markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n| straight |") == printed.count("\n| expert |") == 1
    found = json.loads((tmp_path / "driving.json").read_text())
    assert [d["driver"] for d in found["drivers"]] == ["straight", "expert"]
    assert found["format"] == "robot_vision.driving/1" and found["robot"]["radius_m"] == 0.2
    names = [drive["world"] for drive in found["drivers"][0]["drives"]]
    assert names == ["home-10000", "home-10001", "demo home"]
    straight = found["drivers"][0]
    assert straight["collisions"] == sum(len(d["hits"]) for d in straight["drives"]) > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 6 and all(page.count(f"{name}, expert:") for name in names)
    assert page.count("<circle") == straight["collisions"] + found["drivers"][1]["collisions"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--driver", "ekspert"],
        ["evaluate", "--worlds", "0"],
        ["evaluate", "--metres", "nan"],
        ["record", "--out", "x", "--disturbed", "1.5"],
        ["record"],
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["drive", *arguments])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_recording_is_a_data_set_of_what_the_geometry_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "driven"
    arguments = ["--worlds", "8", "--metres", "1", "--image-size", "96", "64", "--out", str(folder)]
    assert main(["drive", "record", *arguments]) == 0
    splits = open_dataset(
        "labels_csv", str(folder / "labels.csv"), truth="number:steering,number:collision"
    )
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(splits.split("train")) + len(splits.split("validation")) == len(rows) > 100
    assert f"{len(rows)} images of 8 homes" in capsys.readouterr().out
    assert {row["world"] for row in rows if row["split"] == "val"} == {"home-7"}
    for row in rows:
        assert -1 <= float(row["steering"]) <= 1
        assert int(row["collision"]) == (float(row["free_m"]) < BLOCKED_M)
        assert row["image"].startswith(row["world"] + "/")
    assert {row["collision"] for row in rows} == {"0", "1"}
    assert cv2.imread(str(folder / rows[0]["image"])).shape == (64, 96, 3)
    pytest.importorskip("torch")
    from train_data import configuration

    from robot_vision.training.run import train

    network = {
        "backbone": "lenet",
        "weights": None,
        "input": {"height": 28, "width": 28, "channels": 1},
    }
    loop = {"epochs": 2, "batch_size": 32, "threads": 1, "accelerator": "cpu"}
    config = configuration(
        "labels_csv", folder, tmp_path / "run", heads=["dronet"], network=network, loop=loop,
        augmentation={"name": "labels", "flip": 0}, baselines=["constant"],
        dronet={"settings": {"start_epoch": 0}},
    )  # fmt: skip
    metrics = train(config, quiet=True, command="test").report["metrics"]
    assert metrics["validation"]["dronet"]["rmse"] > 0
    before = (folder / "labels.csv").read_bytes()
    assert main(["drive", "record", *arguments]) == 0  # has all of them already
    assert "0 images of 0 homes added, 8 homes were there already" in capsys.readouterr().out
    assert (folder / "labels.csv").read_bytes() == before


@pytest.mark.slow
def test_disturbances_bring_images_of_what_the_driver_avoids(tmp_path: Path) -> None:
    blocked, small = {}, Mount(width=48, height=32)
    for share in (0.0, 0.5):
        with FolderRecording(tmp_path / str(share), small) as recording:
            for seed in range(3):
                simulator = Simulator(random_home(seed), seed, mount=small)
                recording.add(seed, f"home-{seed}", simulator, Way(4.0, share))
        blocked[share] = recording.blocked / recording.images
    assert blocked[0.5] > 1.2 * blocked[0.0]


SMALL = ["--metres", "1.5", "--image-size", "48", "32"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.mark.slow
def test_recording_that_was_killed_goes_on_to_what_it_would_have_become(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["drive", "record", "--worlds", "2", *SMALL, "--out", str(whole)]) == 0
    assert main(["drive", "record", "--worlds", "1", *SMALL, "--out", str(cut)]) == 0
    # What kill -9 leaves: rows of a home that is not finished, the last of them half written.
    rows = (whole / "labels.csv").read_text().splitlines(keepends=True)
    done = len((cut / "labels.csv").read_text().splitlines())
    with (cut / "labels.csv").open("a", newline="") as file:
        file.write("".join(rows[done : done + 4]) + rows[done + 4][:30])
    (cut / "home-1").mkdir()
    (cut / "home-1" / "free_way-000000.jpg").write_bytes(b"half an image")
    capsys.readouterr()
    assert main(["drive", "record", "--worlds", "2", *SMALL, "--out", str(cut)]) == 0
    assert "1 home was there already" in capsys.readouterr().out
    assert files_of(cut) == files_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--blocked", "0.7"], "blocked_m 0.6, not 0.7"),
        (["--camera-height", "1.1"], "'height_m': 0.4"),
        (["--metres", "2"], "metres 1.5, not 2.0"),
        (["--disturbed", "0"], "disturbed 0.3, not 0.0"),
        (["--moving-doors"], "moving_doors False, not True"),
    ],
)
def test_recording_goes_on_only_as_it_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: list[str], said: str
) -> None:
    out = ["drive", "record", "--worlds", "1", *SMALL, "--out", str(tmp_path / "driven")]
    assert main(out) == 0
    record = tmp_path / "driven" / "recording.json"
    found = json.loads(record.read_text())
    del found["drives"]["home-0/free_way"]["moving_doors"]  # as before there were any
    record.write_text(json.dumps(found, indent=1) + "\n")
    before = files_of(tmp_path)
    capsys.readouterr()
    assert main([*out, *changed]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err and "another folder" in err
    assert main(out) == 0
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "record", [None, "", "[]", '{"format": "x", "settings": {}, "drives": {}}']
)
def test_table_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: str | None
) -> None:
    (tmp_path / "labels.csv").write_text("image,steering\na.jpg,0.5\n")
    if record is not None:
        (tmp_path / "recording.json").write_text(record)
    before = files_of(tmp_path)
    assert main(["drive", "record", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "choose another folder" in err
    assert files_of(tmp_path) == before


def test_two_cannot_record_into_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FolderRecording(tmp_path, Mount()):
        assert main(["drive", "record", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "another process records into" in err


@pytest.mark.slow
def test_model_drives_and_is_labelled_into_the_same_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A round of DAgger: where the model got to is labelled and added to what is there."""
    model = make_steering_bundle(tmp_path / "model", steering=0.4, collision=0.05)
    folder = tmp_path / "driven"
    words = ["drive", "record", "--worlds", "2", *SMALL, "--out", str(folder)]
    assert main(words) == 0
    first = (folder / "labels.csv").read_text()
    capsys.readouterr()
    assert main([*words, "--model", str(model)]) == 0
    said = capsys.readouterr().out
    assert (folder / "labels.csv").read_text().startswith(first)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    who = ModelBundle.load(model).sha256[:12]
    assert list(dict.fromkeys(row["driver"] for row in rows)) == ["free_way", who]
    own = [row for row in rows if row["driver"] == who]
    assert {row["world"] for row in own} == {"home-0", "home-1"}
    assert all((folder / row["image"]).is_file() for row in rows)
    assert len({row["image"] for row in rows}) == len(rows)
    # The labels are not what the model did, which is always the same.
    assert np.std([float(row["steering"]) for row in own]) > 0.2
    # It went where it goes without being watched.
    simulator = Simulator(random_home(0), 0, mount=Mount(width=48, height=32))
    with open_pipeline(model) as pipeline:
        robot = simulator.robot
        drive = judge(simulator, ModelDriver(Sight(pipeline, robot), robot, "dronet"), 1.5)
    steps = sum(row["world"] == "home-0" for row in own)
    assert abs(steps - drive.time_s / 0.1) <= 1 + len(drive.hits)
    drives = json.loads((folder / "recording.json").read_text())["drives"]
    hits = [drives[f"home-{i}/{who}"]["collisions"] for i in range(2)]
    assert hits[0] == len(drive.hits) and f"hit something {sum(hits)} time" in said
    assert "in 0.00 km" in said
    before = files_of(folder)
    assert main([*words, "--model", str(model)]) == 0
    assert "2 homes were there already" in capsys.readouterr().out
    assert files_of(folder) == before


def test_model_without_steering_cannot_drive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_bundle(tmp_path / "tiny")
    out = tmp_path / "driven"
    assert main(["drive", "record", "--out", str(out), "--model", str(model)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "has no steering head" in err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "option", "said"),
    [
        ("record", "--out", "labels.csv has the images so far"),
        ("evaluate", "--output", "nothing was written"),
    ],
)
def test_ctrl_c_says_what_is_there(tmp_path: Path, verb: str, option: str, said: str) -> None:
    out = tmp_path / "drive"
    words = ["drive", verb, "--worlds", "2", "--metres", "100000", option, str(out)]
    job = subprocess.Popen(
        [sys.executable, "-m", "robot_vision.cli", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (list(out.glob("*/*.jpg")) if verb == "record" else out.is_dir()):
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 130 and said in err.splitlines()[-1]
    if verb == "record":
        rows = list(csv.DictReader((out / "labels.csv").open(newline="")))
        assert rows and all((out / row["image"]).is_file() for row in rows)
    else:
        assert not list(out.iterdir())
