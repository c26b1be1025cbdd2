"""What a message may say of poses: finite numbers that a robot can have, and one guard for all the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Point, Pose, Quaternion
from std_msgs.msg import Header

from robot_vision.filters.refusal import MeasurementError
from robot_vision.ros.incoming import checked_covariance, checked_pose, checked_stamp_ns


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position": (1e308, 0.0, 0.0)}, "out_of_range"),
        ({"position": (0.0, float("nan"), 0.0)}, "non_finite"),
        ({"position": (0.0, 0.0, -float("inf"))}, "non_finite"),
        ({"orientation": (0.0, 0.0, 0.0, 0.0)}, "quaternion"),
        ({"orientation": (1e308, 1e308, 1e308, 1e308)}, "quaternion"),
        ({"orientation": (5e-324, 0.0, 0.0, 0.0)}, "quaternion"),
        ({"orientation": (0.0, 0.0, 0.0, 2.0)}, "quaternion"),
    ],
)
def test_pose_that_no_robot_has_is_refused_with_its_numbers(change: dict, reason: str) -> None:
    values = {"position": (7.0, 5.5e6, 0.0), "orientation": (0.0, 0.0, 0.0, 1.0)}
    assert checked_pose(_pose(values))[0].tolist() == [7.0, 5.5e6, 0.0]
    with pytest.raises(MeasurementError) as refusal:
        checked_pose(_pose({**values, **change}))
    assert refusal.value.reason == reason


def _pose(values: dict) -> Any:
    position, orientation = values["position"], values["orientation"]
    return Pose(
        position=Point(**dict(zip("xyz", position, strict=True))),
        orientation=Quaternion(**dict(zip("xyzw", orientation, strict=True))),
    )


@pytest.mark.parametrize("worst", [1.797e308, -1e10, float("inf"), float("nan")])
def test_covariance_that_is_none_is_refused_with_its_number(worst: float) -> None:
    numbers = np.eye(6).ravel()
    assert checked_covariance(numbers).shape == (6, 6)
    numbers[14] = worst
    with pytest.raises(MeasurementError, match=f"{worst:g}".replace("+", r"\+")):
        checked_covariance(numbers)


def test_stamp_that_no_message_can_carry_is_refused() -> None:
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 2**31 - 1, 999_999_999
    assert checked_stamp_ns(header) == (2**31 - 1) * 10**9 + 999_999_999
    header.stamp.nanosec = 2**32 - 1
    with pytest.raises(MeasurementError):
        checked_stamp_ns(header)
    header.stamp.sec, header.stamp.nanosec = -1, 0
    with pytest.raises(MeasurementError):
        checked_stamp_ns(header)
