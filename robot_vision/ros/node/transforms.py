"""Transforms: what a node publishes on /tf, and the fixed ones that it reads.

Each frame on /tf has one source: tf2 takes the last one. The fixed transform from the camera's pose to the
robot's is given by numbers or read from `/tf_static`. That is latched, so one subscription knows them all,
and tf2_ros is not needed.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.frames import FrameTree, plain_frame
from robot_vision.geometry.rigid import matrix_from_rpy, pose_matrix
from robot_vision.messages.incoming import checked_transforms
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.statistics import Statistics

Array = NDArray[np.float64]

LAPSE_S = 2.0  # a source that is silent for this long gives its frame up
_KEPT = 200  # transforms of our own that are known again when they come back


@dataclass
class _Source:
    name: str
    until: float  # steady time


class TfBroadcaster:
    """Broadcasts transforms, and says which frames others broadcast too.

    Args:
        node: owns the publisher and the subscriptions.
        statistics: counts transforms of others, as `tf_doubled`.
        warn: throttled log: a key and a line.
    """

    def __init__(self, node: Any, statistics: Statistics, warn: Callable[[str, str], None]) -> None:
        from tf2_msgs.msg import TFMessage

        self._node, self._statistics, self._warn = node, statistics, warn
        self._kind = TFMessage
        self._publisher = node.create_publisher(TFMessage, "/tf", 100)
        self._subscriptions: list[Any] = []
        self._watches = False
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}  # by child frame
        self._own: deque[tuple[Any, ...]] = deque(maxlen=_KEPT)
        self._doubled: dict[str, float] = {}  # child frame to the steady time until when that holds

    @property
    def listened(self) -> bool:
        """Whether somebody else subscribes to /tf."""
        return bool(self._publisher.get_subscription_count() > bool(self._subscriptions))

    def send(self, transform: Any, source: str) -> str:
        """Broadcasts a transform unless another source gives its frame; returns that one, or nothing."""
        child, now = plain_frame(transform.child_frame_id), time.monotonic()
        with self._lock:
            holder = self._sources.get(child)
            if holder is not None and holder.name != source and now < holder.until:
                return holder.name
            self._sources[child] = _Source(source, now + LAPSE_S)
            self._own.append(_key(transform))
        self._publisher.publish(self._kind(transforms=[transform]))
        return ""

    def problem(self) -> str:
        """Returns which frames another node broadcasts too; empty for none."""
        frames = [child for child, until in self._doubled.items() if time.monotonic() < until]
        return f"another node broadcasts {', '.join(frames)} on /tf too" if frames else ""

    def watch(self) -> None:
        """Listens to what others broadcast, once something was sent. Call it now and then."""
        if self._watches or not self._sources:
            return
        self._watches = True
        for topic, latched in (("/tf", False), ("/tf_static", True)):
            qos = profile("reliable" if latched else "best_effort", 100, latched)
            take = functools.partial(self._on_tf, math.inf if latched else LAPSE_S)
            try:
                made = self._node.create_subscription(self._kind, topic, take, qos)
            except Exception as error:  # an SROS 2 policy of before
                self._warn(
                    f"{topic} watch", f"{topic} cannot be heard, so doubles on it are not: {error}"
                )
                continue
            self._subscriptions.append(made)

    def _on_tf(self, holds_s: float, message: Any) -> None:
        for transform in message.transforms:
            child = plain_frame(transform.child_frame_id)
            with self._lock:
                ours = child in self._sources
                same = _key(transform) in self._own
            if not ours or same:
                continue
            total = self._statistics.count("tf_doubled")
            until = max(self._doubled.get(child, 0.0), time.monotonic() + holds_s)
            self._doubled[child] = until
            self._warn(
                f"tf {child}",
                f"Another node broadcasts {child!r} too, in {transform.header.frame_id!r} ({total} so far): "
                "tf2 takes the last one. Set publish_tf to false in one of them, or give the frames "
                "other names",
            )

    def destroy(self) -> None:
        """Ends publisher and subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._node.destroy_publisher(self._publisher)


def _key(transform: Any) -> tuple[Any, ...]:
    stamp, p = transform.header.stamp, transform.transform.translation
    return stamp.sec, stamp.nanosec, transform.child_frame_id, p.x, p.y, p.z


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


def refusing(statistics: Statistics, warn: Callable[[str, str], None]) -> Callable[[str], None]:
    """Returns what counts, and says, that a transform is none."""

    def refuse(why: str) -> None:
        total = statistics.count("tf_refused")
        warn("tf", f"Transform refused ({total} so far): {why}")

    return refuse


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
