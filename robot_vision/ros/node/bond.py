"""The node's half of a bond, by which Nav2's lifecycle manager sees that it is alive.

The ends of a bond publish their status on one topic (`bond` in the node's namespace) and know each other
by an id, here the node's name. The manager waits for the first status after it has activated a node. It takes
its nodes down when none comes for `bond_timeout`, or one that says so (ros/bond_core, `bondcpp`). What the
manager says is not listened to: a node goes on without it. The beat comes from the executor that also answers
messages, so that a node which hangs there is silent.
"""

from __future__ import annotations

import uuid
from typing import Any

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]

TOPIC = "bond"
PERIOD_S = 0.25  # of Nav2's own nodes
TIMEOUT_S = 4.0


class Bond:
    """Says that a node is active, from its making until `end`.

    Args:
        node: whose name and namespace it has.

    Raises:
        ImportError: the package `bond` is not installed.
    """

    def __init__(self, node: Any) -> None:
        from bond.msg import Status

        self._node, self._kind = node, Status
        self._instance = str(uuid.uuid4())
        self._clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._publisher = node.create_publisher(Status, TOPIC, 5)
        self._timer: Any = node.create_timer(PERIOD_S, self._beat, clock=self._clock)
        self.topic = str(self._publisher.topic_name)
        self._beat()

    def _beat(self, active: bool = True) -> None:
        status = self._kind(
            id=self._node.get_name(),
            instance_id=self._instance,
            active=active,
            heartbeat_timeout=TIMEOUT_S,
            heartbeat_period=PERIOD_S,
        )
        status.header.stamp = self._clock.now().to_msg()
        self._publisher.publish(status)

    def end(self) -> None:
        """Says that the node is no longer active; a second call does nothing."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self._node.destroy_timer(timer)
            self._beat(active=False)

    def free(self) -> None:
        """Gives its publisher back, which after `end` may still have a status to send."""
        self._node.destroy_publisher(self._publisher)
