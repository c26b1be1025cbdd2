"""Active localisation: when a pose is sure, what a turn would show, and where the robot turns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from place_maps import make_map, unit

from robot_vision.driving.answers import POSE, RobotPoseAnswer
from robot_vision.errors import MeasurementError
from robot_vision.messages.types import message_types
from robot_vision.places.localising.agreement import Agreement
from robot_vision.places.localising.answers import PLACES, PlacesAnswer
from robot_vision.places.localising.localiser import DRIVE, STAND, TURN, ActiveLocaliser
from robot_vision.places.localising.next_view import TURNS, MapViews, left
from robot_vision.places.map.base import MapError
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import open_map
from robot_vision.simulation.drive import look

DIMENSION = 64


def camera(x: float = 0.0, y: float = 0.0, yaw_deg: float = 0.0) -> NDArray[np.float64]:
    """Returns a level camera's pose (4, 4); z is up."""
    return look((x, y, 0.4), np.radians(yaw_deg))


def views(path: Path, *keyframes: tuple[NDArray[np.float64], int]) -> MapViews:
    """Returns the views of a map of poses and the seeds of what they show."""
    with make_map(path / "a.map", DIMENSION) as places:
        places.add_many(
            Keyframe.checked(
                stamp_ns=i,
                camera="front",
                source="drive",
                T_map_camera=T,
                descriptor=unit(seed, DIMENSION),
            )
            for i, (T, seed) in enumerate(keyframes)
        )
    return MapViews(open_map(path / "a.map", "read"))


def chance(found: MapViews, turn_deg: float, *hypotheses: NDArray[np.float64]) -> float:
    mass = np.full(len(hypotheses), 1 / len(hypotheses))
    at = int(np.argmin(np.abs(np.degrees(TURNS) - turn_deg)))
    return float(found.chances(hypotheses, mass)[at])


# --- when a pose is sure ----------------------------------------------------------------------------------


def test_two_views_that_agree_are_sure_and_two_images_of_one_view_are_not() -> None:
    found = Agreement()
    assert found.add(camera(5, 3, 40), camera()) is None
    assert found.add(camera(5, 3, 41), camera(yaw_deg=1)) is None  # as good as the same view
    sure = found.add(camera(5.05, 3, 62), camera(yaw_deg=20))
    np.testing.assert_allclose(sure, camera(5.05, 3, 62))


def test_odometry_far_from_its_origin_does_not_make_small_angles_large() -> None:
    found = Agreement()
    found.add(camera(5, 3, 40), camera(100, 0, 0))
    assert found.add(camera(5, 3, 63), camera(100, 0, 20)) is not None  # 3 degrees off


def test_each_view_that_disagrees_takes_another_to_outweigh() -> None:
    found = Agreement()
    assert found.add(camera(-9, 1, 0), camera()) is None  # of a room that looks alike
    assert found.add(camera(5, 3, 20), camera(yaw_deg=20)) is None
    assert found.add(camera(5, 3, 40), camera(yaw_deg=40)) is None
    assert found.add(camera(5, 3, 60), camera(yaw_deg=60)) is not None
    found.reset()
    assert len(found) == 0 and found.add(camera(5, 3, 60), camera()) is None


# --- what a turn would show -------------------------------------------------------------------------------


def test_left_turns_a_camera_as_odometry_does() -> None:
    T = camera(yaw_deg=10)
    np.testing.assert_allclose(
        T[:3, :3] @ left(np.radians(30)), camera(yaw_deg=40)[:3, :3], atol=1e-9
    )


def test_a_turn_to_where_the_map_has_a_view_is_worth_more(tmp_path: Path) -> None:
    found = views(tmp_path, (camera(yaw_deg=0), 1), (camera(yaw_deg=90), 2))
    here = camera(0.1, 0, 0)
    assert chance(found, 90, here) == pytest.approx(0.99, abs=0.02)
    assert chance(found, -90, here) < 0.01
    assert chance(found, 60, here) < chance(found, 75, here) < chance(found, 90, here)
    assert 0 < found.coverage < 0.3


def test_a_view_that_two_places_share_is_worth_half_of_one_that_tells_them_apart(
    tmp_path: Path,
) -> None:
    rooms = [(0.0, 3), (20.0, 4)]  # equal to the front and to the left, not to the right
    keyframes = [
        view
        for x, right in rooms
        for view in ((camera(x), 1), (camera(x, yaw_deg=90), 2), (camera(x, yaw_deg=-90), right))
    ]
    found = views(tmp_path, *keyframes)
    both = [camera(0.0), camera(20.0)]
    assert chance(found, 90, *both) == pytest.approx(0.5, abs=0.01)
    assert chance(found, -90, *both) > 0.95


def test_views_of_keyframes_that_were_removed_are_refused(tmp_path: Path) -> None:
    found = views(tmp_path, (camera(yaw_deg=0), 1), (camera(yaw_deg=90), 2))
    with open_map(tmp_path / "a.map", "write") as places:
        places.remove([2])
    with pytest.raises(MapError, match="keyframes were removed"):
        chance(found, 90, camera())


# --- where the robot turns --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, -1])
def test_robot_turns_to_the_side_of_the_nearest_view(tmp_path: Path, side: int) -> None:
    here, there = camera(yaw_deg=0), camera(yaw_deg=45 * side)
    localiser = ActiveLocaliser(views(tmp_path, (here, 1), (there, 2)))
    step = localiser.look(10**9, camera(7, 7, 0), [(here, 0.9)], None)
    assert (step.what, step.side) == (TURN, side)


def test_a_verified_view_says_to_which_side_the_others_are(tmp_path: Path) -> None:
    """It turned left past the last view of the map there; the others are to the right."""
    localiser = ActiveLocaliser(views(tmp_path, (camera(), 1), (camera(yaw_deg=-40), 2)))
    step = localiser.look(10**9, camera(7, 7, 90), [], camera(yaw_deg=2))
    assert (step.what, step.side) == (TURN, -1.0)
    step = localiser.look(2 * 10**9, camera(7, 7, 50), [], camera(yaw_deg=-38))
    assert step.what == STAND and step.pose is not None


def test_without_a_view_it_turns_once_round_and_drives_on(tmp_path: Path) -> None:
    localiser = ActiveLocaliser(views(tmp_path, (camera(), 1), (camera(yaw_deg=120), 2)))
    steps = []
    for i in range(40):
        steps.append(localiser.look(i * 2 * 10**8, camera(yaw_deg=11 * i), [], None))
        if steps[-1].what == DRIVE:
            break
    assert {(s.what, s.side) for s in steps[:-1]} == {(TURN, 1.0)} and 26 <= len(steps) <= 33
    now = len(steps) * 2 * 10**8
    assert localiser.look(now, camera(0.6), [], None).what == DRIVE
    assert localiser.look(now + 10**9, camera(1.1), [], None).what == TURN
    # A way that is blocked ends after its time.
    for i in range(40):
        step = localiser.look(now + (10 + i) * 10**9, camera(1.1, 0, 11 * i), [], None)
        if step.what == DRIVE:
            break
    assert step.what == DRIVE
    assert localiser.look(now + 10**11, camera(1.1, 0, 11 * i), [], None).what == DRIVE


# --- what a strategy is worth -----------------------------------------------------------------------------


def test_a_wrong_pose_costs_a_hundred_late_ones_and_has_no_time() -> None:
    pytest.importorskip("faiss")
    from benchmarks.kidnapped import Outcome, figures, interval

    late = Outcome(1, 0, False, False, 15.0, 900.0, 1.0, math.nan, math.nan, 0, 1, 38)
    right = replace(late, sure=True, time_s=2.0, error_m=0.02, error_deg=0.5)
    wrong = replace(right, wrong=True, error_m=4.0)
    found = figures("spin", [right, right, late, wrong], 15.0)
    assert (found["right"], found["never_sure"], found["wrong"]) == (2, 1, 1)
    assert found["cost"] == (1 + 100) / 4
    assert found["time_median_s"] == 2.0 and found["time_p90_s"] == math.inf
    assert found["time_mean_s"] == (2 + 2 + 15 + 15) / 4 and found["error_max_m"] == 0.02
    # Clopper and Pearson's interval of 0 of 50 is 1 - 0.025^(1/50).
    assert interval(0, 50) == pytest.approx((0, 1 - 0.025 ** (1 / 50)), abs=1e-9)


def test_hostile_places_are_refused_or_left_out() -> None:
    """A message never ends the localiser, nor reaches the map with a number that it cannot have."""
    t = message_types().types

    def said(name: str, x: float = 1.0, variance: float = 0.01, accepted: bool = True) -> Any:
        pose = t["geometry_msgs/msg/Pose"](
            t["geometry_msgs/msg/Point"](x, 0.0, 0.0),
            t["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
        )
        covariance = (np.eye(6) * variance).ravel()
        result = SimpleNamespace(
            hypothesis=SimpleNamespace(class_id=name, score=0.9),
            pose=SimpleNamespace(pose=pose, covariance=covariance),
        )
        header = SimpleNamespace(frame_id="map")
        return SimpleNamespace(header=header, results=[result], id=name if accepted else "")

    rule = PlacesAnswer(PLACES, "places/places", 1.0)
    found = rule.read(said("17"))
    assert found.ids == (17,) and found.accepted is not None
    for message, reason in (
        (said("17", x=1e308), "out_of_range"),
        (said("17", x=float("nan")), "non_finite"),
        (said("17", variance=1.797e308), "covariance"),
        (said("17", variance=float("nan")), "covariance"),
    ):
        with pytest.raises(MeasurementError) as error:
            rule.read(message)
        assert error.value.reason == reason
    route = RobotPoseAnswer(POSE, "filters/pose", 1.0)
    assert route.read(
        SimpleNamespace(header=said("17").header, pose=said("17").results[0].pose)
    ) == (1, 0, 0)
    with pytest.raises(MeasurementError, match="beyond"):
        far = said("17", x=1e308)
        route.read(SimpleNamespace(header=far.header, pose=far.results[0].pose))
    # No keyframes: a word, digits that are not ASCII, and more than 64 bits hold.
    for name in ("unknown", "\u0664\u0662", "9" * 5000, "9" * 19):
        assert rule.read(said(name, accepted=False)).ids == ()
        with pytest.raises(MeasurementError):
            rule.read(said(name))
