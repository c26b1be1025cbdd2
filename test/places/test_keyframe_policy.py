"""Which views become keyframes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.places.map.keyframe_policy import KeyframePolicy, KeyframeSelector


def pose(x: float, yaw_deg: float = 0.0, y: float = 0.0) -> NDArray[np.float64]:
    turn = Rotation.from_euler("z", yaw_deg, degrees=True)
    return pose_matrix(np.array([x, y, 0.0]), turn.as_quat())


def drive(
    policy: KeyframePolicy,
    views: list[tuple[NDArray[np.float64], NDArray[np.float64] | None]],
) -> list[int]:
    """Returns which views become keyframes."""
    selector = KeyframeSelector(policy)
    chosen = []
    for i, (T, descriptor) in enumerate(views):
        if selector.wants(T, descriptor):
            selector.added(T, descriptor)
            chosen.append(i)
    return chosen


def looking(angle: float) -> NDArray[np.float64]:
    """Returns a descriptor whose similarity to that of another angle is the cosine between them."""
    return np.array([np.cos(angle), np.sin(angle)])


def test_keyframes_follow_distance_angle_and_change() -> None:
    straight = [(pose(0.1 * i), None) for i in range(10)]
    assert drive(KeyframePolicy(), straight) == [0, 3, 6, 9]
    turning = [(pose(0, 6.0 * i), None) for i in range(10)]
    assert drive(KeyframePolicy(), turning) == [0, 3, 6, 9]
    door = [(pose(0.06 * i), looking(0.0 if i < 2 else 1.0)) for i in range(4)]
    assert drive(KeyframePolicy(), door) == [0, 2]
    assert drive(KeyframePolicy(similarity=0), door) == [0]


def test_a_robot_that_stands_adds_nothing_while_people_walk_by() -> None:
    crowd = [(pose(0.001 * (i % 3)), looking(0.5 * i)) for i in range(200)]
    assert drive(KeyframePolicy(), crowd) == [0]


def test_rounds_over_known_ground_add_nothing_unless_it_looks_different() -> None:
    circle = [
        (pose(np.cos(a), np.degrees(a), np.sin(a)), looking(0.0))
        for a in np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ]
    once = drive(KeyframePolicy(), circle)
    assert drive(KeyframePolicy(), circle * 5) == once
    assert len(drive(KeyframePolicy(revisits=True), circle * 5)) > 4 * len(once)
    by_night = [(T, looking(1.2)) for T, _ in circle]
    assert len(drive(KeyframePolicy(), circle + by_night)) > 1.8 * len(once)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(-20, 20)), max_size=60
    ),
    st.floats(0.05, 1.0),
    st.floats(2, 60),
)
def test_every_view_left_out_has_a_keyframe_beside_it(
    steps: list[tuple[float, float, float]], distance_m: float, angle_deg: float
) -> None:
    walk = np.cumsum(np.array([(0, 0, 0), *steps]), axis=0)
    policy = KeyframePolicy(distance_m, angle_deg)
    chosen = drive(policy, [(pose(x, yaw, y), None) for x, y, yaw in walk])
    kept = walk[chosen]
    for x, y, yaw in walk:
        metres = np.hypot(kept[:, 0] - x, kept[:, 1] - y)
        degrees = np.abs((kept[:, 2] - yaw + 180) % 360 - 180)
        assert np.any((metres < distance_m + 1e-9) & (degrees < angle_deg + 1e-6))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"distance_m": -1.0}, "distance_m is -1.0"),
        ({"distance_m": float("nan")}, "distance_m is nan"),
        ({"angle_deg": 400.0}, "angle_deg is 400.0"),
        ({"similarity": 2.0}, "similarity is 2.0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings_: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KeyframePolicy(**settings_)
