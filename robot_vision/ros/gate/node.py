"""The gate node: a driver's commands in; what perception allows of them out.

A lifecycle node, in front of the robot's base. The rules and what they decide are in `robot_vision.gate`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("gate_node"))

import functools

from robot_vision.errors import ConfigError
from robot_vision.gate.rules import read_rules
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.gate.gating import IN, Gating
from robot_vision.ros.gate.parameters import GateParameters
from robot_vision.ros.node.process import run_node


class GateNode(CommandingNode[GateParameters]):
    """Lets commands through, slows or stops them; see `CommandingNode`."""

    NAME, PARAMETERS = "gate", GateParameters

    def _made(self) -> Gating:
        if not self.parameters.rules:
            raise ConfigError("rules is empty: set it to a YAML file with rules, see docs/gate.md")
        rules = read_rules(self.parameters.rules)
        topics = [(f"rule {found[0].name!r}", topic) for topic, found in rules.topics().items()]
        topics += [("labels", rules.labels)] if rules.labels else []
        return Gating(*self._given(rules, [*topics, ("commands", IN)], "rules"))


main = functools.partial(run_node, GateNode)
