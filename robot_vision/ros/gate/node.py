"""The gate node: a driver's commands in; what perception allows of them out.

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

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.gate.rules import read_rules
from robot_vision.ros.gate.commanding import OUT
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.gate.gating import IN, Gating
from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.transitions import SUCCESS, reported

NODE_NAME = "gate"


class GateNode(CommandingNode[GateParameters]):
    """Lets commands through, slows or stops them.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, GateParameters, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the rules, and makes the publishers."""
        rules = read_rules(self.parameters.rules_file())
        topics = [(f"rule {found[0].name!r}", topic) for topic, found in rules.topics().items()]
        labels = [("labels", rules.labels)] if rules.labels else []
        commands = ("commands", IN), ("commands that go out", OUT)
        check_topics(self, "rules", [*topics, *labels, *commands])
        self._commanding = Gating(
            self, rules, self._warn, self._statistics, self._on_incompatible_qos
        )
        return SUCCESS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(GateNode, args)
