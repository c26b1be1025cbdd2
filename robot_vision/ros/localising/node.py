"""The localiser node: a lost robot looks round until its pose in the place map is sure.

A lifecycle node. Where it looks next is in `robot_vision.places.localising`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("localiser_node"))

from collections.abc import Sequence
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.errors import ConfigError
from robot_vision.gate.rules import Rules
from robot_vision.places.localising.answers import answers_of
from robot_vision.places.map.opening import open_map
from robot_vision.ros.gate.commanding import OUT
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.localising.localising import Localising
from robot_vision.ros.localising.parameters import LocaliserParameters
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.transitions import SUCCESS, reported

NODE_NAME = "localiser"


class LocaliserNode(CommandingNode[LocaliserParameters]):
    """Turns and drives a lost robot until its pose is sure.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, LocaliserParameters, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the map and makes the publishers."""
        p = self.parameters
        if not p.map or not p.camera_to_base:
            name = "map" if not p.map else "camera_to_base"
            raise ConfigError(f"{name} is empty: set it, see docs/localising.md")
        rules = answers_of(p.places_topic, p.odometry_topic, p.reflex(), p.max_age_s)
        topics = [(rule.name, rule.topic) for rule in rules]
        check_topics(self, "the topics of the parameters", [*topics, ("commands", OUT)])
        places = open_map(p.map, "read")
        try:
            self._commanding = Localising(
                self,
                places,
                Rules(rules),
                self._warn,
                self._statistics,
                self._on_incompatible_qos,
            )
        except BaseException:
            places.close()
            raise
        return SUCCESS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(LocaliserNode, args)
