"""What comes in: poses with finite numbers that a robot can have, and messages that are missing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Point, Pose, Quaternion
from ros_helpers import running, set_header, wait_until
from std_msgs.msg import Header

from robot_vision.errors import MeasurementError
from robot_vision.messages.incoming import checked_covariance, checked_pose, checked_stamp_ns
from robot_vision.ros.node.sequence import MessageSequence


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


def _info(number: int, publisher: bytes = b"a") -> dict[str, Any]:
    return {"publication_sequence_number": number, "publisher_gid": {"data": publisher}}


def test_missing_messages_are_counted_for_each_publisher() -> None:
    lost: list[int] = []
    sequence = MessageSequence(lost.append)
    for number, publisher in [(7, b"a"), (8, b"a"), (1, b"b"), (11, b"a"), (2, b"b"), (5, b"b")]:
        sequence.take(_info(number, publisher))
    assert lost == [
        2,
        2,
    ]  # 9 and 10 of a, 3 and 4 of b; what came before the first is nobody's loss
    for info in ({}, _info((1 << 64) - 1), {"publication_sequence_number": 90}):  # not numbered
        sequence.take(info)
    sequence.take(_info(12))
    assert lost == [2, 2]


@pytest.mark.slow
@pytest.mark.ros
def test_filter_node_outlives_what_drivers_send_for_unknown(tmp_path: Path) -> None:
    """Over DDS: a covariance of the largest double, an odometry at 1e308 m, and then good ones."""
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from nav_msgs.msg import Odometry

    given = {"cameras": "[front]", "diagnostics_period_s": 0.1}
    with running(tmp_path, "filter_node", **given) as (process, client):
        poses = client.listen(PoseWithCovarianceStamped, "/filters/pose")
        publishers = {
            PoseWithCovarianceStamped: client.publisher(
                PoseWithCovarianceStamped, "/perception/front/pose"
            ),
            Odometry: client.publisher(Odometry, "/odom"),
        }

        def send(kind: Any, **changes: float) -> None:
            message = kind()
            set_header(message, time.time_ns(), "map" if kind is not Odometry else "odom")
            message.pose.pose.orientation.w = 1.0
            message.pose.pose.position.x = changes.get("x", 0.0)
            covariance = np.eye(6) * 0.01
            covariance[0, 0] = changes.get("variance", 0.01)
            message.pose.covariance = covariance.ravel()
            if kind is Odometry:
                message.child_frame_id = "base_link"
            publishers[kind].publish(message)

        def hostile() -> None:
            send(PoseWithCovarianceStamped, variance=1.7976931348623157e308)
            send(PoseWithCovarianceStamped, x=-1e300)
            send(Odometry, x=1e308)

        def refused() -> bool:
            names = ("refused_covariance", "refused_out_of_range", "odometry_out_of_range")
            return all(client.count("pose", name) > 0 for name in names)

        wait_until(refused, what="refusals", each=hostile)
        wait_until(
            lambda: len(poses) > 3,
            what=process.output,
            each=lambda: (send(PoseWithCovarianceStamped), time.sleep(0.02)),
        )
        assert client.count("filters", "callback_errors") == 0
        assert all(np.all(np.isfinite(p.pose.covariance)) for p in poses)
        assert "1.79769e+308" in process.output and "1e+308" in process.output
