"""The covariance of a pose that is only as near as a keyframe, against a transcription with loops."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy", reason="the node needs ROS 2")

from robot_vision.ros.places.hypotheses import hypotheses_of
from robot_vision.ros.places.parameters import PlaceParameters

pytestmark = pytest.mark.ros
PARAMETERS = PlaceParameters(
    place_radius_m=1.0, keyframe_distance_m=0.1, keyframe_angle_deg=2.0
)  # smaller than what the spreads below give


@dataclass(frozen=True)
class Candidate:
    keyframe_id: int
    probability: float
    position: np.ndarray
    quaternion_xyzw: np.ndarray


def at(number, x, yaw_deg=0.0):
    turn = Rotation.from_euler("z", yaw_deg, degrees=True).as_quat()
    return Candidate(number, 0.5 / (number + 1), np.array([x, 0.0, 0.0]), turn)


def test_the_others_of_the_same_place_say_how_far_the_camera_is():
    first, *_ = hypotheses_of([at(0, 0.0), at(1, 0.3, 6.0), at(2, -0.6, -12.0)], PARAMETERS)
    assert (first.place, first.probability) == (0, 0.5)
    sigma = np.sqrt(np.diag(first.pose.covariance))
    np.testing.assert_allclose(sigma[:3], np.sqrt((0.3**2 + 0.6**2) / 2 / 3))
    turns = np.radians([6.0, 12.0])
    np.testing.assert_allclose(sigma[3:], np.sqrt(np.mean(turns**2) / 3))


def test_other_places_and_other_headings_do_not_count():
    options = PARAMETERS.recogniser
    for other in (at(1, 1.01), at(1, 0.2, options.heading_deg + 1)):
        alone, _ = hypotheses_of([at(0, 0.0), other], PARAMETERS)
        sigma = np.sqrt(np.diag(alone.pose.covariance))
        np.testing.assert_allclose(sigma[:3], options.radius_m / 2)
        np.testing.assert_allclose(sigma[3:], np.radians(options.heading_deg) / 2)


def test_keyframes_on_one_spot_are_not_believed_to_be_exact():
    first, _ = hypotheses_of([at(0, 0.0), at(1, 0.0)], PARAMETERS)
    sigma = np.sqrt(np.diag(first.pose.covariance))
    np.testing.assert_allclose(sigma[:3], 0.05)
    np.testing.assert_allclose(sigma[3:], np.radians(1.0))


def test_no_candidates_are_no_hypotheses():
    assert hypotheses_of([], PARAMETERS) == ()


@pytest.mark.parametrize("seed", range(5))
def test_many_candidates_agree_with_one_by_one(seed):
    random = np.random.default_rng(seed)
    candidates = [
        Candidate(i, 0.1, random.normal(0, 0.6, 3), Rotation.from_rotvec(random.normal(0, 0.4, 3)).as_quat())
        for i in range(12)
    ]  # fmt: skip
    options = PARAMETERS.recogniser
    for found, best in zip(hypotheses_of(candidates, PARAMETERS), candidates, strict=True):
        near = []
        for other in candidates:
            gap = np.linalg.norm(other.position - best.position)
            turn = (
                Rotation.from_quat(best.quaternion_xyzw).inv()
                * Rotation.from_quat(other.quaternion_xyzw)
            ).magnitude()
            same = gap <= options.radius_m and np.degrees(turn) <= options.heading_deg
            if other is not best and same:
                near.append((gap, turn))
        gap, turn = np.sqrt(np.mean(np.square(near), axis=0) / 3) if near else (
            options.radius_m / 2, np.radians(options.heading_deg) / 2)  # fmt: skip
        expected = [max(gap, 0.05) ** 2] * 3 + [max(turn, np.radians(1.0)) ** 2] * 3
        np.testing.assert_allclose(np.diag(found.pose.covariance), expected, rtol=1e-9)
