"""Transforms on /tf, of which each frame has one source: tf2 takes the last one."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robot_vision.geometry.frames import plain_frame
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.statistics import Statistics

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
