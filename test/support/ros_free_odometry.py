"""Writes odometry into a bag, without ROS."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.recordings.writing import RecordingWriter


def write_odometry(
    path: Path, stamps_ns: np.ndarray, poses: np.ndarray, topic: str = "/odom"
) -> None:
    """Writes poses (N, 4, 4) of base_link as `nav_msgs/Odometry`."""
    with RecordingWriter(path) as bag:
        make = bag.types
        vector = make["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
        twist = make["geometry_msgs/msg/TwistWithCovariance"](
            make["geometry_msgs/msg/Twist"](vector, vector), np.zeros(36)
        )
        for stamp, T in zip(stamps_ns, poses, strict=True):
            pose = make["geometry_msgs/msg/Pose"](
                make["geometry_msgs/msg/Point"](*(float(v) for v in T[:3, 3])),
                make["geometry_msgs/msg/Quaternion"](
                    *(float(v) for v in xyzw_from_matrix(T[:3, :3]))
                ),
            )
            full = make["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36))
            header = bag.header(int(stamp), "odom")
            message = make["nav_msgs/msg/Odometry"](header, "base_link", full, twist)
            bag.write(topic, int(stamp), message)
