"""What the nodes that command a robot share: their lifecycle around a `Commanding`."""

from __future__ import annotations

from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.ros.gate.commanding import Commanding
from robot_vision.ros.gate.parameters import CommandParameters
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.status import status_message
from robot_vision.ros.node.transitions import SUCCESS, reported

P = TypeVar("P", bound=CommandParameters)


class CommandingNode(ManagedNode[P]):
    """Commands a robot while it is active; `on_configure` of a subclass sets `_commanding`."""

    def __init__(self, name: str, kind: type[P], **options: Any) -> None:
        self._commanding: Commanding[P] | None = None
        super().__init__(name, kind, **options)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes; the robot stands until all that is needed is there."""
        super().on_activate(state)
        assert self._commanding is not None
        self._commanding.activate()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the robot."""
        if self._commanding is not None:
            self._commanding.deactivate()
        super().on_deactivate(state)
        return SUCCESS

    def _free(self) -> None:
        commanding, self._commanding = self._commanding, None
        if commanding is not None:
            commanding.destroy()

    def _on_change(self, before: P, after: P) -> None:
        if self._commanding is not None:
            self._commanding.on_change()

    def _statuses(self) -> list[DiagnosticStatus]:
        name, state = self.get_fully_qualified_name(), self.state_label
        level, text = self._condition()
        values = {
            "state": state,
            "incompatible_qos": self._statistics.counters.get("incompatible_qos", 0),
        }
        statuses = [status_message(level, name, text, "", values)]
        if self._commanding is not None and state == "active":
            statuses.append(self._commanding.status())
        return statuses
