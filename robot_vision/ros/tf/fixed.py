"""From the camera's pose to the robot's: the fixed transform between them, by numbers or from `/tf_static`.

tf2_ros is not needed for fixed transforms: they are latched, so one subscription knows them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.frames import FrameTree
from robot_vision.geometry.rigid import matrix_from_rpy, pose_matrix
from robot_vision.ros.node.incoming import checked_transforms

Array = NDArray[np.float64]


def transform_from_numbers(numbers: Sequence[float]) -> Array:
    """Returns the 4 x 4 matrix of x y z (m) roll pitch yaw (rad), as in a URDF's `origin`."""
    if len(numbers) != 6:
        raise ConfigError(f"a transform has {len(numbers)} numbers: give x y z roll pitch yaw")
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_rpy(np.asarray(numbers[3:], np.float64))
    matrix[:3, 3] = numbers[:3]
    return matrix


def add_static(
    tree: FrameTree[Any], message: Any, refuse: Callable[[str], None] = lambda why: None
) -> None:
    """Adds the transforms of a `tf2_msgs/TFMessage`; `refuse` hears of each that is none, and why."""
    for t in checked_transforms(message, refuse):
        tree.fix(t.parent, t.child, pose_matrix(t.position, t.xyzw))


def subscribe_static(
    node: Any, transforms: FrameTree[Any], refuse: Callable[[str], None]
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
    add = functools.partial(add_static, transforms, refuse=refuse)
    subscription = node.create_subscription(TFMessage, "/tf_static", add, qos)
    return lambda: node.destroy_subscription(subscription)
