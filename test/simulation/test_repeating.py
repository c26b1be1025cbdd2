"""Routes that are taught and repeated in simulated homes, without ROS."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.repeating import Repeat, Taught, changed, figures
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.homes import random_home


def planar(x: float, y: float, yaw: float) -> np.ndarray:
    T = np.eye(4)
    T[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    T[:2, 3] = x, y
    return T


@pytest.mark.slow
def test_a_route_is_taught_and_repeated_on_another_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--worlds", "1", "--first-world", "10100", "--starts", "1", "--metres", "1.1"]
    words += ["--by", "sight", "--format", "json", "--output", str(out)]
    assert main(["drive", "repeat", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["ends"] == {"arrived": 1} and row["collisions"] == row["wrong"] == 0
    assert row["verified"] > 0.7 * row["looks"] and row["looks"] > 5
    assert row["cross_track_p95_m"] < 0.15 and 0.2 < 1000 * row["km"] < 2
    found = json.loads((out / "repeats.json").read_text())
    assert found["by"] == [row] and found["repeats"][0]["route"] == "home-10100"
    assert main(["drive", "repeat", *words]) == 2
    assert "choose another --output" in capsys.readouterr().err


def test_refuses_models_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    for words, said in (
        (["--model", "steer"], "no place head"),
        (["--reflex", "demo"], "on which the model demo says nothing"),
    ):
        assert main(["drive", "repeat", *words, "--output", out]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err


def test_home_changes_away_from_the_taught_way() -> None:
    true = np.stack([np.linspace(1, 9, 200), np.zeros(200), np.zeros(200)], axis=1)
    taught = Taught(default_world(), true, true)
    worlds = [changed(taught, np.random.default_rng(seed)) for seed in range(3)]
    before = taught.world
    pairs = [pair for w in worlds for pair in zip(before.rooms, w.rooms, strict=True)]
    assert all(old.light != new.light for old, new in pairs)
    moved = [len(set(new.boxes) - set(old.boxes)) for old, new in pairs]
    hung = [len(set(new.panels) - set(old.panels)) for old, new in pairs]
    assert sum(moved) > 10 and sum(hung) > 10
    for world in worlds:
        assert all(world.is_free(xy, 0.35) for xy in taught.way()[::50])


def test_a_pose_is_wrong_where_the_map_says_that_another_place_is() -> None:
    """The map's frame is turned and has drifted: it is judged by where it was at the same place."""
    true = np.stack([np.linspace(0, 5, 100), np.zeros(100), np.zeros(100)], axis=1)
    said = np.stack([np.zeros(100), np.linspace(0, 5.2, 100), np.full(100, np.pi / 2)], axis=1)
    taught, here = Taught(default_world(), true, said), Motion(3.0, 0.2, 0.1)
    assert not taught.wrong(planar(-0.2, 3.12, np.pi / 2 + 0.1), here)
    assert taught.wrong(planar(-0.2, 1.5, np.pi / 2 + 0.1), here)
    assert taught.wrong(planar(-0.2, 3.12, 0.1), here)


def test_who_teaches_keeps_away_from_things_where_there_is_room() -> None:
    least = []
    for keeps_m in (0.0, 0.15):
        simulator, expert = Simulator(random_home(10_110), 10_110), Expert(10_110, keeps_m)
        at = []
        for _ in range(300):
            speed, turn_rate = expert(simulator)
            slower = min(1.0, 0.4 / max(speed, 1e-6))
            simulator.command(speed * slower, turn_rate * slower)
            for _ in range(IMAGE_STEPS):
                simulator.step()
            at.append(simulator.obstacles.clearance((simulator.motion.x, simulator.motion.y)))
        assert simulator.way_m > 4
        least.append(min(at) - simulator.robot.radius_m)
    assert least[0] < 0.05 and least[1] > 0.1


def test_figures_pool_the_starts() -> None:
    found = [
        Repeat("a", "sight", "arrived", 8.0, 8.2, (0.0, 0.02, 0.04), 40, 36, 1),
        Repeat("a", "sight", "collision", 2.0, 8.2, (0.1,), 10, 9, 0),
    ]
    row = figures(found)
    assert row["arrived_share"] == pytest.approx([0.5, 0.0126, 0.9874], abs=1e-3)
    assert row["km"] == pytest.approx(0.01) and row["collisions_per_km"][0] == pytest.approx(100)
    assert row["collisions_per_km"][1:] == pytest.approx([2.5, 557.2], abs=0.1)
    assert (row["looks"], row["verified"], row["wrong"]) == (50, 45, 1)
    assert row["cross_track_median_m"] == pytest.approx(0.03)
    assert row["ends"] == {"arrived": 1, "collision": 1}
