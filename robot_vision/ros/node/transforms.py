"""From the camera's pose to the robot's: the fixed transform between them, by numbers or from `/tf_static`.

tf2_ros is not needed for fixed transforms: they are latched, so one subscription knows them all.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.prediction import CameraPose
from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import (
    compose_with_covariance,
    inverse,
    matrix_from_rpy,
    pose_matrix,
    xyzw_from_matrix,
)
from robot_vision.ros.node.incoming import checked_transforms, plain_frame

Array = NDArray[np.float64]


def transform_from_numbers(numbers: Sequence[float]) -> Array:
    """Returns the 4 x 4 matrix of x y z (m) roll pitch yaw (rad), as in a URDF's `origin`."""
    if len(numbers) != 6:
        raise ConfigError(f"a transform has {len(numbers)} numbers: give x y z roll pitch yaw")
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_rpy(np.asarray(numbers[3:], np.float64))
    matrix[:3, 3] = numbers[:3]
    return matrix


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


class StaticTransforms:
    """The tree of fixed transforms, and chains through it. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parents: dict[str, tuple[str, Array]] = {}
        self._found: dict[tuple[str, str], Array] = {}

    def add(self, parent: str, child: str, T_parent_child: Array) -> None:
        """Adds or replaces the transform of a child; a frame has one parent."""
        with self._lock:
            self._parents[plain_frame(child)] = (plain_frame(parent), T_parent_child)
            self._found.clear()

    def add_message(self, message: Any, refuse: Callable[[str], None]) -> None:
        """Adds the transforms of a `tf2_msgs/TFMessage`; `refuse` hears of each that is none, and why."""
        for t in checked_transforms(message, refuse):
            self.add(t.parent, t.child, pose_matrix(t.position, t.xyzw))

    def lookup(self, target: str, source: str) -> Array | None:
        """Returns `T_target_source` (4, 4) if fixed transforms join the two frames; None otherwise."""
        key = (plain_frame(target), plain_frame(source))
        with self._lock:
            if key not in self._found:
                up_source, up_target = self._to_ancestors(key[1]), self._to_ancestors(key[0])
                common = next((frame for frame in up_source if frame in up_target), None)
                if common is None:
                    return None
                self._found[key] = inverse(up_target[common]) @ up_source[common]
            return self._found[key]

    def _to_ancestors(self, frame: str) -> dict[str, Array]:
        """Returns `T_ancestor_frame` for the frame itself and each of its ancestors, nearest first."""
        transform = np.eye(4)
        found = {frame: transform}
        while frame in self._parents:
            frame, T_parent_child = self._parents[frame]
            if frame in found:  # two publishers made a loop
                break
            transform = T_parent_child @ transform
            found[frame] = transform
        return found


def subscribe_static(
    node: Any, transforms: StaticTransforms, refuse: Callable[[str], None]
) -> Callable[[], None]:
    """Fills `transforms` from `/tf_static`; returns what ends the subscription.

    Args:
        node: subscribes.
        transforms: is filled.
        refuse: hears of each transform that is none, and why.
    """
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    qos = QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )
    add = functools.partial(transforms.add_message, refuse=refuse)
    subscription = node.create_subscription(TFMessage, "/tf_static", add, qos)
    return lambda: node.destroy_subscription(subscription)
