"""What the robot that carries the demo's camera says of its own way: odometry and transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse, xyzw_from_matrix
from robot_vision.messages.making import rosbags_maker, set_header
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.simulation.drive import CAMERA_HEIGHT_M, DriveFrame, look
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors, simulated_odometry

ODOMETRY_TOPIC = "/odom"
BASE_FRAME, ODOMETRY_FRAME = "base_link", "odom"
# The base is below the camera and looks where it does: it pitches and rolls with it.
T_BASE_CAMERA = look((0.0, 0.0, CAMERA_HEIGHT_M), 0.0)
_CARRIED_M_S = 4.0  # faster than it drives: its wheels do not know


class Wheels:
    """Odometry of a drive, which begins at the origin, drifts, and does not notice when the robot is carried.

    Args:
        frames: of the drive.
        seed: of its errors.

    Attributes:
        T_odom_base: (N, 4, 4), one a frame.
    """

    def __init__(self, frames: Sequence[DriveFrame], seed: int) -> None:
        self._stamps_s = np.array([frame.stamp_s for frame in frames])
        stamps_ns = np.round(self._stamps_s * 1e9).astype(np.int64)
        poses = [frame.T_map_camera @ inverse(T_BASE_CAMERA) for frame in frames]
        driven = poses[:1]
        for i in range(1, len(poses)):
            step = inverse(poses[i - 1]) @ poses[i]
            dt_s = self._stamps_s[i] - self._stamps_s[i - 1]
            carried = np.linalg.norm(step[:3, 3]) > _CARRIED_M_S * dt_s
            driven.append(driven[-1] if carried else driven[-1] @ step)
        self.T_odom_base = simulated_odometry(stamps_ns, np.array(driven), OdometryErrors(), seed)

    def write_mount(self, bag: RecordingWriter, stamp_ns: int, camera_frame: str) -> None:
        """Writes once where the camera is, on /tf_static."""
        _write_transform(bag, "/tf_static", stamp_ns, BASE_FRAME, camera_frame, T_BASE_CAMERA)

    def write(self, bag: RecordingWriter, index: int, stamp_ns: int) -> None:
        """Writes a frame's odometry and its transform on /tf."""
        T = self.T_odom_base[index]
        _write_transform(bag, "/tf", stamp_ns, ODOMETRY_FRAME, BASE_FRAME, T)
        message = rosbags_maker(bag.store)("nav_msgs/msg/Odometry")()
        set_header(message.header, bag.header(stamp_ns, ODOMETRY_FRAME))
        message.child_frame_id = BASE_FRAME
        _set_pose(message.pose.pose.position, message.pose.pose.orientation, T)
        if index:
            rates = se3.log(inverse(self.T_odom_base[index - 1]) @ T)
            rates /= self._stamps_s[index] - self._stamps_s[index - 1]
            twist = message.twist.twist
            twist.linear.x, twist.linear.y, twist.linear.z = (float(v) for v in rates[:3])
            twist.angular.x, twist.angular.y, twist.angular.z = (float(v) for v in rates[3:])
        bag.write(ODOMETRY_TOPIC, stamp_ns, message)


def _write_transform(
    bag: RecordingWriter, topic: str, stamp_ns: int, parent: str, child: str, T: NDArray[np.float64]
) -> None:
    make = rosbags_maker(bag.store)
    message = make("geometry_msgs/msg/TransformStamped")()
    set_header(message.header, bag.header(stamp_ns, parent))
    message.child_frame_id = child
    _set_pose(message.transform.translation, message.transform.rotation, T)
    tf = make("tf2_msgs/msg/TFMessage")()
    tf.transforms = [message]
    bag.write(topic, stamp_ns, tf)


def _set_pose(place: Any, turn: Any, T: NDArray[np.float64]) -> None:
    place.x, place.y, place.z = (float(v) for v in T[:3, 3])
    turn.x, turn.y, turn.z, turn.w = (float(v) for v in xyzw_from_matrix(T[:3, :3]))
