"""Puts poses of the robot's motion into the map's frame."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.anchor import Anchor
from robot_vision.ros.places.motion import Located

Array = NDArray[np.float64]


class Origin:
    """Where the frame of the motion lies in the map: the map itself, or found by matches (`Anchor`).

    Args:
        statistics: counts matches that contradict each other.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._anchor = Anchor()
        self._lock = threading.Lock()
        self._defines = False

    @property
    def known(self) -> bool:
        """Whether it is known for an odometry."""
        return self._anchor.T_map_odom is not None

    def define(self) -> None:
        """Makes the motion's frame the map's: the first run of an empty map defines it."""
        with self._lock:
            self._anchor.set(np.eye(4))

    def forget(self) -> None:
        """The odometry restarted."""
        with self._lock:
            self._anchor.clear()

    def match(self, pose: CameraPose, located: Located) -> None:
        """Takes an accepted match into account."""
        with self._lock:
            agrees = self._anchor.match(
                pose_matrix(pose.position, pose.orientation_xyzw),
                pose.covariance,
                located.T_fixed_camera,
            )
        if not agrees:
            self._statistics.count("matches_against_odometry")

    def placed(self, located: Located) -> tuple[Array, Array | None] | None:
        """Returns the pose (4, 4) in the map and its covariance (6, 6), if anybody knows."""
        if located.in_map:
            return located.T_fixed_camera, located.covariance
        with self._lock:
            return self._anchor.camera(located.T_fixed_camera)
