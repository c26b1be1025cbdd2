"""The parameters of the gate node; its rules stand in a file of their own."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.ros.node.managed_parameters import ManagedParameters
from robot_vision.settings.parameters import parameter


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
class GateParameters(CommandParameters):
    """Settings of the gate node; each field's text is its documentation."""

    rules: str = parameter("", "YAML file with the rules; the node does not run without.")

    def rules_file(self) -> str:
        """Returns the file of the rules.

        Raises:
            ConfigError: none is given.
        """
        if not self.rules:
            raise ConfigError("rules is empty: set it to a YAML file with rules, see docs/gate.md")
        return self.rules


if __name__ == "__main__":
    from robot_vision.ros.node.parameters import yaml_text

    print(yaml_text(GateParameters, "gate", "gate"), end="")
