"""Routes that are taught and repeated in simulated homes, without ROS."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.driving.following import ARRIVED, Follower
from robot_vision.driving.route import Route, read_route, thinned
from robot_vision.gate.rule import read_scores
from robot_vision.simulation.drive_bag import write_drive
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.nearest_image import NearestImage, small
from robot_vision.simulation.nodes import COLLISION
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.repeating import BLOCKED, BOX, COLLIDED, Repeat, figures
from robot_vision.simulation.robot import Motion, Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.teaching import Taught, changed, start_of
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.homes import random_home

VIEWS = np.zeros((0, 90, 120), np.uint8)


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
    words += [
        "--by",
        "sight",
        "rear",
        "--reflex",
        "steer",
        "--format",
        "json",
        "--output",
        str(out),
    ]
    assert main(["drive", "repeat", *words]) == 0
    row, rear = json.loads(capsys.readouterr().out)
    assert rear["ends"] == {"arrived": 1} and rear["collisions"] == 0
    route = read_route(out / "home-10100" / "route")
    assert route.rear_risk is not None and not np.allclose(route.rear_risk, route.risk)
    assert row["ends"] == {"arrived": 1} and row["collisions"] == row["wrong"] == 0
    assert row["verified"] > 0.7 * row["looks"] and row["looks"] > 5
    assert row["cross_track_p95_m"] < 0.15 and 0.2 < 1000 * row["km"] < 2
    found = json.loads((out / "repeats.json").read_text())
    assert found["by"] == [row, rear] and found["repeats"][0]["route"] == "home-10100"
    assert main(["drive", "repeat", *words]) == 2
    assert "choose another --output" in capsys.readouterr().err


@pytest.mark.slow
def test_refuses_models_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    for words, said in (
        (["--model", "steer"], "no place head"),
        (["--reflex", "demo"], "on which the model demo says nothing"),
        (["--by", "sight", "box"], "give --reflex steer"),
        (["--by", "rear"], "give --reflex steer"),
    ):
        assert main(["drive", "repeat", *words, "--output", out]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err


def test_home_changes_away_from_the_taught_way() -> None:
    true = np.stack([np.linspace(1, 9, 200), np.zeros(200), np.zeros(200)], axis=1)
    taught = Taught(default_world(), true, true, VIEWS)
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
    taught, here = Taught(default_world(), true, said, VIEWS), Motion(3.0, 0.2, 0.1)
    assert not taught.wrong(planar(-0.2, 3.12, np.pi / 2 + 0.1), here)
    assert taught.wrong(planar(-0.2, 1.5, np.pi / 2 + 0.1), here)
    assert taught.wrong(planar(-0.2, 3.12, 0.1), here)


def taught_way(
    seed: int, images: int, keeps_m: float
) -> tuple[Taught, Simulator, list[float], np.ndarray]:
    """Returns a way that the expert drove, with the room that it had and what the reflex said on it."""
    simulator, expert = Simulator(random_home(seed), seed), Expert(seed, keeps_m)
    true, room, said, views = [], [], [], []
    with open_pipeline("steer") as steer:
        for _ in range(images):
            m = simulator.motion
            true.append((m.x, m.y, m.yaw))
            room.append(simulator.obstacles.clearance((m.x, m.y)) - simulator.robot.radius_m)
            said.append(steer(simulator.image())["dronet"].collision)
            views.append(small(simulator.image()))
            speed, turn_rate = expert(simulator)
            slower = min(1.0, 0.4 / max(speed, 1e-6))
            simulator.command(speed * slower, turn_rate * slower)
            for _ in range(IMAGE_STEPS):
                simulator.step()
    way = np.array(true)
    return Taught(simulator.world, way, way, np.array(views)), simulator, room, np.array(said)


@pytest.fixture(scope="module")
def careful() -> tuple[Taught, Simulator, list[float], np.ndarray]:
    return taught_way(10_110, 130, 0.15)


def test_rear_topic_that_is_the_camera_ahead_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator = Simulator(random_home(10100), 10100)
    write_drive(tmp_path / "bag", simulator, lambda _: (0.4, 0.15), 10, depth="")
    words = ["--model", "demo", "--output", str(tmp_path / "route")]
    assert main(["teach", str(tmp_path / "bag"), *words, "--rear-topic", "camera/image_raw"]) == 2
    assert "of which the images ahead are, too" in capsys.readouterr().err
    assert not (tmp_path / "route").exists()


@pytest.mark.slow
def test_who_teaches_keeps_away_from_things_where_there_is_room(careful: Any) -> None:
    _, simulator, room, _ = careful
    assert simulator.way_m > 3 and min(room) > 0.1
    hasty, expert = Simulator(random_home(10_110), 10_110), Expert(10_110)
    least = 1.0
    for _ in range(250):
        hasty.command(*expert(hasty))
        for _ in range(IMAGE_STEPS):
            hasty.step()
        least = min(least, hasty.obstacles.clearance((hasty.motion.x, hasty.motion.y)) - 0.2)
    assert least < 0.05


@pytest.mark.slow
def test_reflex_stands_before_a_box_on_the_way_and_not_where_it_was_taught(careful: Any) -> None:
    """Where the robot is, is true here: only the reflex and the follower are tried."""
    taught, _, _, said = careful
    poses = np.stack([planar(*at) for at in taught.true])
    points, at = thinned(poses)
    collision = np.array([said[at == i].max() for i in range(len(points))])
    assert collision.max() > 0.75  # a way that the reflex alone would not drive
    route = Route("m", "i", "map", "base_link", points, collision)
    with open_pipeline("steer") as steer:
        for box, reason in ((False, ARRIVED), (True, BLOCKED)):
            sight = Sight(steer, Robot())
            sight.read([("test", COLLISION)])
            simulator = start_of(taught, changed(taught, np.random.default_rng(4)), 4, box=box)
            follower, stood = Follower(route), 0
            for _ in range(250):
                m = simulator.motion
                p = read_scores(sight(simulator)[COLLISION])["collision"]
                now = follower.drive(m.x, m.y, m.yaw, p)
                stood = stood + 1 if now.reason else 0
                if stood > 10:
                    break
                simulator.command(now.velocity.linear[0], now.velocity.angular[2])
                for _ in range(IMAGE_STEPS):
                    simulator.step()
            assert (now.reason, simulator.collisions) == (reason, 0)


@pytest.mark.slow
def test_nearest_image_steers_along_a_taught_way_from_where_it_stands(careful: Any) -> None:
    taught, _, _, _ = careful
    x, y, yaw = taught.true[40]
    # The shift says how far it is turned, whatever the light.
    simulator = Simulator(taught.world, 5, start=(x, y, yaw + 0.2))
    focal = float(simulator.mount.camera.k[0, 0]) / simulator.mount.width
    steering = NearestImage(taught.views, taught.true, focal)
    _, turned = steering.drive(simulator.image())
    straight = Simulator(taught.world, 5, start=(x, y, yaw))
    same = NearestImage(taught.views, taught.true, focal)
    _, ahead = same.drive(straight.image())
    assert turned < ahead - 0.1 and abs(len(taught.views) - 1 - 40 - same.left) <= 2
    for _ in range(30):
        straight.command(*same.drive(straight.image()))
        for _ in range(IMAGE_STEPS):
            straight.step()
    m = straight.motion
    assert straight.way_m > 0.5
    assert np.hypot(*(taught.way() - (m.x, m.y)).T).min() < 0.15


def test_figures_pool_the_starts() -> None:
    found = [
        Repeat("a", "sight", "arrived", 8.0, 8.2, (0.0, 0.02, 0.04), 40, 36, 1),
        Repeat("a", "sight", "collision", 2.0, 8.2, (0.1,), 10, 9, 0),
    ]
    row = figures(found)
    assert row["well_share"] == pytest.approx([0.5, 0.0126, 0.9874], abs=1e-3)
    assert row["km"] == pytest.approx(0.01) and row["collisions_per_km"][0] == pytest.approx(100)
    assert row["collisions_per_km"][1:] == pytest.approx([2.5, 557.2], abs=0.1)
    assert (row["looks"], row["verified"], row["wrong"]) == (50, 45, 1)
    assert row["cross_track_median_m"] == pytest.approx(0.03)
    assert row["ends"] == {"arrived": 1, "collision": 1}
    # Before a box on the way it is to stand.
    boxes = [Repeat("a", BOX, end, 2.0, 8.0, (), 9, 9, 0) for end in (BLOCKED, "arrived", COLLIDED)]
    assert figures(boxes)["well"] == 1
