"""The driver node: a steering head's answers in, commands out.

A lifecycle node. The laws are in `robot_vision.driving`; what it hears is judged as the gate does.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("driver_node"))

from collections.abc import Sequence
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.driving.answers import COLLISION, STEERING, answers_of
from robot_vision.gate.rules import Rules
from robot_vision.ros.driving.driving import Driving
from robot_vision.ros.driving.parameters import DriverParameters
from robot_vision.ros.gate.commanding import OUT
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.transitions import SUCCESS, reported

NODE_NAME = "driver"


class DriverNode(CommandingNode[DriverParameters]):
    """Drives by what a camera's steering head says.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, DriverParameters, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Makes the publishers."""
        p = self.parameters
        rules = answers_of(
            p.answer_topic(STEERING),
            p.answer_topic(COLLISION),
            p.distance_topic,
            p.classification_topic,
            p.belief_topic,
            p.max_age_s,
        )
        topics = [(rule.name, rule.topic) for rule in rules]
        check_topics(self, "the topics of the parameters", [*topics, ("commands", OUT)])
        self._commanding = Driving(
            self,
            Rules(rules),
            self._warn,
            self._statistics,
            self._on_incompatible_qos,
        )
        return SUCCESS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(DriverNode, args)
