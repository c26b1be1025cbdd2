"""The parameters of the gate node; its rules stand in a file of their own."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.ros.node.managed_parameters import ManagedParameters, check_camera_name
from robot_vision.settings.parameters import LIVE, parameter


@dataclass(frozen=True)
class CommandParameters(ManagedParameters):
    """What nodes that command a robot have in common."""

    stamped_cmd_vel: bool = parameter(
        True,
        "Commands are geometry_msgs/TwistStamped; false is for geometry_msgs/Twist, whose age counts "
        "from its arrival.",
    )
    rate_hz: float = parameter(
        20.0,
        "Rate at which the node looks for silence, and repeats a stop, in Hz: a stop for silence "
        "comes one period later at most.",
        low=1,
        high=1000,
    )
    publish_depth: int = parameter(
        1, "QoS history of the commands, in messages; only the newest counts.", low=1, high=1000
    )


@dataclass(frozen=True)
class DrivingParameters(CommandParameters):
    """What nodes have in common that drive a robot by answers which they hear."""

    max_age_s: float = parameter(
        0.5,
        "Age of an answer from which the robot stops, in seconds; of a belief at least 1.5.",
        low=0.01,
        high=60,
    )
    max_ahead_s: float = parameter(
        0.1,
        "By how much a stamp may be ahead of the node's clock, in seconds.",
        low=0,
        high=60,
        change=LIVE,
    )


@dataclass(frozen=True)
class SteeredParameters(DrivingParameters):
    """What those have in common that drive by a camera's steering head."""

    perception_node: str = parameter(
        "perception",
        "Name of the perception node whose steering head says where the robot may drive; a name without a "
        "leading / is in this node's namespace.",
    )
    camera: str = parameter("camera", "Name of the camera that steers, as in the perception node.")

    def check_camera(self) -> None:
        """Refuses a name of a camera that cannot be a part of a topic."""
        check_camera_name("camera is", self.camera)

    def answer_topic(self, name: str) -> str:
        """Returns the topic of one of the camera's answers."""
        return f"{self.perception_node}/{self.camera}/{name}"


@dataclass(frozen=True)
class GateParameters(CommandParameters):
    """Settings of the gate node; each field's text is its documentation."""

    rules: str = parameter("", "YAML file with the rules; the node does not run without.")
