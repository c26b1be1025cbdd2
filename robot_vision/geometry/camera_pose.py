"""A camera's pose in the map, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import (
    compose_with_covariance,
    inverse,
    pose_matrix,
    xyzw_from_matrix,
)


@dataclass(frozen=True)
class CameraPose:
    """`T_map_camera`: pose of the camera's optical frame (z forward, x right, y down) in the map.

    Attributes:
        position: float64 (3,), metres.
        orientation_xyzw: float64 (4,), unit quaternion with w >= 0.
        covariance: float64 (6, 6), x y z in m^2, then rotation about the map's fixed X, Y, Z in rad^2
            (the order of geometry_msgs/PoseWithCovariance); symmetric positive definite.
    """

    position: NDArray[np.float64]
    orientation_xyzw: NDArray[np.float64]
    covariance: NDArray[np.float64]


def base_pose(camera: CameraPose, T_base_camera: NDArray[Any]) -> CameraPose:
    """Returns `T_map_base` with its covariance, from `T_map_camera` and the camera's mounting.

    `T_map_base = T_map_camera @ inverse(T_base_camera)`. An error in the camera's rotation swings the base
    on the lever between them, which adds to the variance of its position.
    """
    T_map_camera = pose_matrix(camera.position, camera.orientation_xyzw)
    matrix, covariance = compose_with_covariance(
        T_map_camera, camera.covariance, inverse(T_base_camera)
    )
    return CameraPose(matrix[:3, 3].copy(), xyzw_from_matrix(matrix[:3, :3]), covariance)
