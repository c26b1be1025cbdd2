"""The gate node: commands of whoever drives in; what perception allows of them out.

A lifecycle node, in front of the robot's base. The rules and what they decide are in `robot_vision.gate`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("gate_node"))

from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.gate.rules import read_rules
from robot_vision.ros.gate.commanding import OUT
from robot_vision.ros.gate.gating import IN, Gating
from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.status import status_message
from robot_vision.ros.node.transitions import SUCCESS, reported

NODE_NAME = "gate"


class GateNode(ManagedNode[GateParameters]):
    """Lets commands through, slows or stops them.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._gating: Gating | None = None
        super().__init__(NODE_NAME, GateParameters, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the rules, and makes the publishers."""
        rules = read_rules(self.parameters.rules_file())
        topics = [(f"rule {found[0].name!r}", topic) for topic, found in rules.topics().items()]
        labels = [("labels", rules.labels)] if rules.labels else []
        commands = ("commands", IN), ("commands that go out", OUT)
        check_topics(self, "rules", [*topics, *labels, *commands])
        self._gating = Gating(self, rules, self._warn, self._statistics, self._on_incompatible_qos)
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes; the robot stands until a command and all answers are there."""
        super().on_activate(state)
        assert self._gating is not None
        self._gating.activate()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the robot."""
        if self._gating is not None:
            self._gating.deactivate()
        super().on_deactivate(state)
        return SUCCESS

    def _free(self) -> None:
        gating, self._gating = self._gating, None
        if gating is not None:
            gating.destroy()

    def _on_change(self, before: GateParameters, after: GateParameters) -> None:
        pass  # what can change while it runs is read where it is used

    def _statuses(self) -> list[DiagnosticStatus]:
        name, state = self.get_fully_qualified_name(), self.state_label
        level = (1 if state != "unconfigured" else 2) if self.problem else 0
        values = {
            "state": state,
            "incompatible_qos": self._statistics.counters.get("incompatible_qos", 0),
        }
        statuses = [status_message(level, name, self.problem or state, "", values)]
        if self._gating is not None and state == "active":
            statuses.append(self._gating.status())
        return statuses


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(GateNode, args)
