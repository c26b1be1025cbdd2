"""Quality of service from parameters, and plain words when two ends of a topic do not fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

_PERIOD_S, _OPEN_S = 1.0, 0.05

_RELIABILITY = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
}


def profile(reliability: str, depth: int, latched: bool = False) -> QoSProfile:
    """Returns the profile that keeps the last `depth` messages; latched ones reach late joiners too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=_RELIABILITY[reliability],
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


class Seldom(MutuallyExclusiveCallbackGroup):
    """Lets the executor look at events once a second, for they can wait and there is one for each topic.

    rclpy's executor looks at all that it has for each message that comes: sixteen publishers' events double
    what an image costs there (80 microseconds on a 2020s server core).
    """

    def __init__(self) -> None:
        super().__init__()
        self._opened = -_PERIOD_S

    def can_execute(self, entity: Any) -> bool:
        """Says yes for a moment, in which an executor asks for all of them, and then no."""
        now = time.monotonic()
        if now - self._opened >= _PERIOD_S:
            self._opened = now
        return now - self._opened < _OPEN_S and bool(super().can_execute(entity))


def subscription_events(topic: str, warn: Callable[[str], None]) -> SubscriptionEventCallbacks:
    """Returns callbacks that warn, by topic name, of publishers that cannot be heard."""

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        hint = {
            "RELIABILITY": "set subscribe_reliability to best_effort",
        }.get(policy, "make the publisher's QoS fit")
        warn(
            f"A publisher of {topic} offers an incompatible {policy}: nothing is received from it "
            f"({event.total_count} so far); {hint}"
        )

    return SubscriptionEventCallbacks(incompatible_qos=incompatible)


def publisher_events(topic: str, warn: Callable[[str], None]) -> PublisherEventCallbacks:
    """Returns callbacks that warn, by topic name, of subscribers that cannot be served."""

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        hint = {
            "RELIABILITY": "set publish_reliability to reliable, or subscribe best effort",
            "DURABILITY": "subscribe with volatile durability",
        }.get(policy, "make the subscriber's QoS fit")
        warn(
            f"A subscriber of {topic} requests an incompatible {policy}: it gets no messages "
            f"({event.total_count} so far); {hint}"
        )

    return PublisherEventCallbacks(incompatible_qos=incompatible)


def _policy(event: Any) -> str:
    name: str = qos_policy_name_from_kind(event.last_policy_kind)
    return name.replace("QOS_POLICY_", "")
