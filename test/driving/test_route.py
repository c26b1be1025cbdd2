"""Routes: their file, and a robot without errors that follows them from where it is put."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.driving.following import ARRIVED, BLOCKED, OFF_ROUTE, Follower, FollowSettings
from robot_vision.driving.route import ROUTE, Route, checked, read_route, thinned
from robot_vision.driving.taught_reflex import collisions
from robot_vision.errors import SourceError
from robot_vision.simulation.drive_bag import write_drive
from robot_vision.simulation.robot import Motion, Mount
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.home import default_world

DT_S = 0.05


def route_of(*corners: tuple[float, float], step: float = 0.05) -> Route:
    """Returns a route from corner to corner, on which the robot looks where it goes."""
    points: list[tuple[float, float, float]] = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:], strict=False):
        length, yaw = math.dist((ax, ay), (bx, by)), math.atan2(by - ay, bx - ax)
        for way in np.arange(0 if not points else step, length + 1e-9, step):
            share = way / length
            points.append((ax + share * (bx - ax), ay + share * (by - ay), yaw))
    return Route("places.map", "id", "map", "base_link", np.array(points))


CORNER = route_of((0, 0), (3, 0), (3, 2))
BACK = route_of((0, 0), (2, 0), (0, 0))
EIGHT = route_of((0, 0), (2, 0), (2, 1), (1, 1), (1, -1), (3, -1))


def followed(
    route: Route, start: Sequence[float], seconds: float = 60.0, backwards: bool = False
) -> tuple[str, np.ndarray, np.ndarray]:
    """Returns how a perfect robot ends, its path (n, 2) and its progress (n,)."""
    follower, at = Follower(route, backwards=backwards), Motion(*start)
    path, progress = [], []
    for _ in range(round(seconds / DT_S)):
        said = follower.drive(at.x, at.y, at.yaw)
        path.append((at.x, at.y))
        progress.append(said.progress_m)
        if said.reason:
            return said.reason, np.array(path), np.array(progress)
        at = at.moved(said.velocity.linear[0], said.velocity.angular[2], DT_S)
    return "", np.array(path), np.array(progress)


def aside(route: Route, path: np.ndarray) -> np.ndarray:
    return np.linalg.norm(path[:, None] - route.points[None, :, :2], axis=2).min(axis=1)


@pytest.mark.parametrize("route", [CORNER, BACK, EIGHT], ids=["corner", "back", "eight"])
def test_follows_a_route_to_its_end_without_cutting_corners(route: Route) -> None:
    reason, path, progress = followed(route, route.points[0])
    assert reason == ARRIVED
    assert math.dist(path[-1], route.points[-1, :2]) < 0.15
    assert aside(route, path).max() < 0.08
    # Where it passes a place twice it goes on with the pass that it is on.
    assert np.abs(np.diff(progress)).max() < 0.35 and progress[-1] > route.length_m - 0.11


def test_begins_anywhere_on_the_route_and_comes_back_to_it() -> None:
    reason, path, progress = followed(CORNER, (1.5, 0.3, 0.6))
    assert reason == ARRIVED and 1.3 < progress[0] < 1.7
    assert aside(CORNER, path[-60:]).max() < 0.04
    # By its heading it is on the way back.
    _, _, progress = followed(BACK, (1.0, 0.05, math.pi - 0.3))
    assert 2.8 < progress[0] < 3.2


def test_begins_a_loop_at_its_beginning_although_its_end_is_nearer() -> None:
    loop = route_of((0, 0), (2, 0), (2, 1.5), (-0.5, 1.5), (-0.5, 0), (0.1, 0))
    reason, path, progress = followed(loop, (0.08, 0.02, 0.0))
    assert reason == ARRIVED and progress[0] < 0.2 and progress[-1] > loop.length_m - 0.11
    assert aside(loop, path).max() < 0.08
    _, _, progress = followed(loop, (-0.3, 0.0, 0.0))  # only the last pass comes here
    assert progress[0] > loop.length_m - 0.6


def test_stands_off_the_route_and_goes_on_when_it_is_put_back() -> None:
    follower = Follower(CORNER)
    assert follower.drive(1.0, 0.0, 0.0).progress_m == pytest.approx(1.0, abs=0.06)
    away = follower.drive(1.0, 0.8, 0.0)
    assert away.reason == OFF_ROUTE and away.velocity.speed == 0
    back = follower.drive(1.1, 0.05, 0.0)
    assert back.reason == "" and back.velocity.linear[0] > 0.1
    assert back.cross_track_m == pytest.approx(0.05)
    assert follower.drive(1.1, 2.0, 0.0).reason == OFF_ROUTE
    assert follower.drive(3.0, 1.0, 1.5).progress_m == pytest.approx(4.0, abs=0.06)


def test_slows_and_stands_for_a_probable_collision_and_may_still_turn() -> None:
    follower = Follower(CORNER, FollowSettings(max_speed_m_s=0.4))
    free = follower.drive(1.0, 0.0, 0.0, 0.0).velocity.linear[0]
    assert follower.drive(1.0, 0.0, 0.0, 0.5).velocity.linear[0] == pytest.approx(free / 2)
    for collision, reason in ((0.8, BLOCKED), (0.5, BLOCKED), (0.3, ""), (0.5, "")):
        assert follower.drive(1.0, 0.0, 0.0, collision).reason == reason
    turning = Follower(CORNER).drive(2.95, 0.0, 0.0, 0.9)  # a wall behind the corner
    assert turning.velocity.linear[0] == 0 and turning.velocity.angular[2] > 0.3


@pytest.mark.parametrize("route", [CORNER, EIGHT], ids=["corner", "eight"])
def test_follows_a_route_backwards_slowly_and_looks_where_it_looked(route: Route) -> None:
    reason, path, progress = followed(route, route.points[-1], 90.0, backwards=True)
    assert reason == ARRIVED and math.dist(path[-1], route.points[0, :2]) < 0.15
    assert aside(route, path).max() < 0.08
    assert np.hypot(*np.diff(path, axis=0).T).max() <= 0.15 * DT_S + 1e-9
    # Back along the last leg it neither turns nor heeds what is seen at the other end.
    said = Follower(CORNER, backwards=True).drive(3, 1.5, math.pi / 2, 1.0)
    assert said.velocity.linear[0] < -0.1 and abs(said.velocity.angular[2]) < 0.01
    left = Follower(CORNER, backwards=True).drive(2.9, 1.5, math.pi / 2)
    assert left.velocity.angular[2] > 0.05  # its rear goes to the right of its heading


def test_backwards_a_rear_camera_lets_it_drive_faster_and_stops_it() -> None:
    follower = Follower(CORNER, backwards=True, watched=True)
    here = 3, 1.5, math.pi / 2
    assert follower.drive(*here, 0.0).velocity.linear[0] < -0.3
    assert follower.drive(*here, 0.9).reason == BLOCKED
    assert follower.drive(*here, 0.5).reason == BLOCKED  # until the way is free
    assert follower.drive(*here, 0.2).velocity.linear[0] < 0
    # Only a camera that looked back when the route was taught says how narrow it is for this one.
    narrow = np.full(len(CORNER.points), 0.9)
    for risks, reason in (({"risk": narrow}, BLOCKED), ({"rear_risk": narrow}, "")):
        follower = Follower(replace(CORNER, **risks), backwards=True, watched=True)
        assert follower.drive(*here, 0.9).reason == reason


def test_stands_only_for_what_is_more_blocked_than_it_was_taught() -> None:
    said = np.where(np.abs(CORNER.arc_m - 2.0) < 0.3, 0.9, 0.05)
    follower = Follower(replace(CORNER, risk=said))
    free = follower.drive(1.0, 0.0, 0.0, 0.05).velocity.linear[0]
    assert follower.drive(1.0, 0.0, 0.0, 0.85).reason == BLOCKED
    assert follower.drive(1.0, 0.0, 0.0, 0.1).reason == ""
    narrow = follower.drive(1.9, 0.0, 0.0, 0.95)
    assert narrow.reason == "" and narrow.velocity.linear[0] == pytest.approx(free / 2, rel=0.15)
    # 0.2 m before and after it as well: it may be seen from a little elsewhere.
    assert follower.drive(2.4, 0.0, 0.0, 0.95).reason == ""
    assert follower.drive(2.6, 0.0, 0.0, 0.95).reason == BLOCKED


@pytest.mark.slow
def test_a_long_route_is_read_in_little_memory() -> None:
    """Six kilometres: a table of all pairs of its points would take 140 GB."""
    far = route_of((0, 0), (6000, 0))
    risk = np.zeros(len(far.points))
    risk[[0, 70_000, -1]] = 0.5, 0.7, 0.9
    expected = replace(far, risk=risk).expected
    assert [expected[i] for i in (0, 3, 69_997, 70_003, -1)] == [0.5, 0.5, 0.7, 0.7, 0.9]
    assert np.count_nonzero(expected) == pytest.approx(9 + 2 * 5, abs=4)


def test_images_that_cannot_be_read_say_nothing_of_the_way() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    said = iter([0.2, 0.9, 0.4])
    risk, unread = collisions(
        lambda _: {"reflex": SimpleNamespace(collision=next(said))},
        "reflex",
        [image, None, image, None, image],
        np.array([0, 0, 0, 1, 2]),
        3,
    )
    assert unread == 2
    np.testing.assert_array_equal(risk, [0.9, 0.0, 0.4])


def test_route_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_route(CORNER.write(tmp_path)).risk is None
    said = np.linspace(0, 1, len(CORNER.points))
    both = replace(CORNER, risk=said, rear_risk=said / 2, reflex="steer")
    again = read_route(both.write(tmp_path).parent)
    assert again.reflex == "steer"
    np.testing.assert_allclose(again.rear_risk, said / 2, atol=1e-3)
    np.testing.assert_allclose(again.backwards().risk, said[::-1] / 2, atol=1e-3)
    np.testing.assert_allclose(again.risk, said, atol=1e-3)
    np.testing.assert_allclose(again.points, CORNER.points, atol=1e-4)
    assert (again.map, again.map_id, again.frame_id) == ("places.map", "id", "map")
    assert again.length_m == pytest.approx(5.0) and again.backwards_m == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "robot_vision.route/2"}, "its format is not"),
        ({"map_id": ""}, "map_id must be a text"),
        ({"points": [[0, 0], [1, 0]]}, "rows of x, y and yaw"),
        ({"points": [[0, 0, 0], [0, float("nan"), 0]]}, "all finite"),
        ({"points": [[0, 0, 0], [0.1, 0, 0]]}, "less than 0.3 m"),
        ({"risk": [0.5]}, "one probability a point, of 101"),
        ({"rear_risk": [0.5]}, "rear_risk must be one probability a point"),
        ({"risk": ["near"]}, "no numbers"),
        ({"reflex": 3}, "reflex must be a text"),
        ({"points": [[0, 0, 0], [0.5, 0, 0], [4, 0, 0]]}, "3.5 m are missing after 0.5 m"),
    ],
)
def test_what_is_no_route_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    CORNER.write(tmp_path)
    data = json.loads((tmp_path / ROUTE).read_text()) | change
    (tmp_path / ROUTE).write_text(json.dumps(data))
    with pytest.raises(SourceError, match=said):
        read_route(tmp_path)
    with pytest.raises(SourceError, match="teach"):
        read_route(tmp_path / "none")


def test_standing_adds_no_points_and_driving_backwards_is_known() -> None:
    poses = np.repeat(np.eye(4)[None], 100, axis=0)
    poses[:, 0, 3] = np.concatenate([np.zeros(30), -0.02 * np.arange(70)])
    points, at = thinned(poses)
    assert at[0] == at[29] == 0 and at[-1] == 23 and (np.diff(at) >= 0).all()
    assert len(points) == 24  # every third of the moving ones
    route = checked(Route("m", "i", "map", "base_link", points), "here")
    assert route.backwards_m == pytest.approx(route.length_m)


@pytest.mark.slow
def test_teach_makes_a_map_and_the_way_through_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator = Simulator(default_world(), 3, mount=Mount(width=160, height=120), start=(3, 0, 0))
    driven: list[tuple[float, float]] = []

    def driver(now: Simulator) -> tuple[float, float]:
        driven.append((now.motion.x - 3, now.motion.y))
        return 0.4, 0.15

    write_drive(tmp_path / "bag", simulator, driver, 30, depth="")
    out = tmp_path / "route"
    words = ["--model", "demo", "--engine", "onnx", "--option", "pose_topic=/odom"]
    reflex = ["--reflex", "steer"]
    assert main(["teach", str(tmp_path / "bag"), *words, *reflex, "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert "the reflex will not stop the robot there" in said.out
    assert "poses in odom are taken as poses in map" in said.err and "1.1 m, " in said.out
    route = read_route(out)
    assert (route.frame_id, route.base_frame) == ("map", "base_link")
    assert route.risk is not None and route.risk.shape == (len(route.points),)
    assert route.reflex == "steer"
    # The robot's way, not the camera's, which is 0.1 m before it.
    assert aside(route, np.array(driven)).max() < 0.06
    assert main(["map", "check", str(out / route.map)]) == 0
    shutil.copytree(tmp_path / "bag", tmp_path / "another")
    assert main(["teach", str(tmp_path / "another"), *words, *reflex, "--output", str(out)]) == 2
    assert "with keyframes of bag: name another --output" in capsys.readouterr().err
    none = [*words, "--base-frame", "laser", "--output", str(tmp_path / "no")]
    assert main(["teach", str(tmp_path / "bag"), *none]) == 2
    assert "--base-frame laser: " in capsys.readouterr().err
    # A drive of which nothing can be repeated is refused before anything is made.
    no = [*words, "--reflex", "demo", "--output", str(tmp_path / "no")]
    assert main(["teach", str(tmp_path / "bag"), *no]) == 2
    assert "bundle demo has no steering head" in capsys.readouterr().err
    write_drive(tmp_path / "still", simulator, lambda now: (0.0, 0.2), 4, depth="")
    assert main(["teach", str(tmp_path / "still"), *words, "--output", str(tmp_path / "no")]) == 2
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1 and "moved less than 0.3 m" in err and not (tmp_path / "no").exists()
    )
