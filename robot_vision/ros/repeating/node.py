"""The repeat node: follows a taught route by where the robot says it is.

A lifecycle node. The route and the law are in `robot_vision.driving`; what is heard is judged as by the gate.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("repeat_node"))

from collections.abc import Sequence
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.driving.answers import answers_on_route
from robot_vision.driving.following import BACKWARDS_M_S
from robot_vision.driving.route import read_route
from robot_vision.errors import ConfigError
from robot_vision.gate.rules import Rules
from robot_vision.ros.gate.commanding import OUT
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.node.graph import check_topics
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.transitions import SUCCESS, reported
from robot_vision.ros.repeating.parameters import RepeatParameters
from robot_vision.ros.repeating.repeating import Repeating

NODE_NAME = "repeat"


class RepeatNode(CommandingNode[RepeatParameters]):
    """Follows a route.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(NODE_NAME, RepeatParameters, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reads the route, and makes the publishers."""
        p = self.parameters
        if not p.route:
            raise ConfigError("route is empty: set it to a folder that robot-vision teach made")
        route = read_route(p.route)
        rules = answers_on_route(
            p.pose_topic,
            p.belief_topic,
            p.camera_topic,
            "" if p.backwards else p.collision_topic,
            route.frame_id,
            p.max_age_s,
        )
        topics = [(rule.name, rule.topic) for rule in rules]
        check_topics(self, "the topics of the parameters", [*topics, ("commands", OUT)])
        self._commanding = Repeating(
            self, route, Rules(rules), self._warn, self._statistics, self._on_incompatible_qos
        )
        self.get_logger().info(f"Route {p.route}: {route.length_m:.1f} m in {route.frame_id}")
        if p.backwards:
            self.get_logger().warning(
                f"Backwards: nothing sees what is behind the robot, which drives at {BACKWARDS_M_S:g} m/s at "
                "most. Keep the way free"
            )
        elif p.collision_topic and route.risk is None:
            self.get_logger().warning(
                f"Route {p.route} does not say how near it passes things: the robot may stop where it is "
                "narrow. Teach it with --reflex"
            )
        return SUCCESS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status."""
    return run_node(RepeatNode, args)
