"""Drivers that see: one by what a model says of the camera's image, and a gate in front of any driver.

Both are made of the nodes' own parts (`robot_vision.driving`, `robot_vision.gate`), without ROS and in
lock-step: what is said of an image is there at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from robot_vision.driving.answers import answers_of, seen
from robot_vision.driving.law import FREE_DISTANCE, Law
from robot_vision.errors import ConfigError
from robot_vision.gate.answers import Command, Heard, Velocity, heard
from robot_vision.gate.decision import decide, stopping
from robot_vision.gate.moment import Moment
from robot_vision.gate.rule import Rule
from robot_vision.gate.rules import Rules
from robot_vision.simulation.drivers import Driver
from robot_vision.simulation.nodes import COLLISION, NEAR, STEERING
from robot_vision.simulation.referee import reason_of
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.sight import Sight
from robot_vision.simulation.simulator import Simulator

_MAX_AGE_S, _MAX_AHEAD_S = 0.5, 0.1  # as the driver node's defaults


class _Listener:
    """What rules have heard."""

    def __init__(self, sight: Sight, rules: Sequence[Rule], reader: str) -> None:
        self._sight, self._rules = sight, rules
        sight.read((f"{reader} {rule.name!r}", rule.topic) for rule in rules)
        self.answers: dict[str, Heard] = {}

    def listen(self, simulator: Simulator) -> Moment:
        """Hears what is said of the present image; returns the time."""
        now = Moment(simulator.now_ns, simulator.now_ns, simulated=True)
        said = self._sight(simulator)
        for rule in self._rules:
            message = said.get(rule.topic.removeprefix("/"))
            if message is not None:
                self.answers[rule.name] = heard(rule, message, now)
        return now


class ModelDriver:
    """Drives as the driver node does.

    Args:
        sight: of a model that says steering and the probability of a collision.
        robot: that it drives; its limits are the law's.
        law: `dronet` or `free_distance`.
        by_distance: whether it keeps to the braking distance before the nearest obstacle, whose lower end the
            model then has to say; `free_distance` always does.

    Attributes:
        reason: what stops the robot, or lets it turn on the spot; empty while the way is free.

    Raises:
        ConfigError: the model does not say what is needed.
    """

    def __init__(self, sight: Sight, robot: Robot, law: str, by_distance: bool = False) -> None:
        if missing := {STEERING, COLLISION} - set(sight.topics):
            raise ConfigError(
                f"the model {sight.model} has no steering head, so nothing is on "
                f"{', '.join(sorted(missing))}: train one on what `robot-vision drive record` writes"
            )
        self._by_distance = by_distance or law == FREE_DISTANCE
        near = NEAR if self._by_distance else ""
        self._rules = answers_of(STEERING, COLLISION, near, "", "", _MAX_AGE_S)
        self._heard = _Listener(sight, self._rules, "the driver's answer")
        self._law = Law(robot.law(law))
        self.reset()

    def reset(self) -> None:
        """Begins again from standing."""
        self._law.reset()
        self._heard.answers = {}
        self.reason = ""

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns speed and turn rate."""
        now = self._heard.listen(simulator)
        answers = self._heard.answers
        stops = stopping(self._rules, answers, _MAX_AHEAD_S, "", now)
        found = seen(answers, self._by_distance)
        if stops or found is None:
            self._law.reset()
            self.reason = stops[0].rule if stops else ""
            return 0.0, 0.0
        driven = self._law.drive(found[0])
        self.reason = driven.blocked
        return driven.velocity.linear[0], driven.velocity.angular[2]


class Gated:
    """A driver behind a gate, as the gate node is one.

    Args:
        driver: any.
        sight: of the model whose answers the rules read.
        rules: of the gate.

    Attributes:
        reason: the rule that slows or stops the robot, else the driver's reason.

    Raises:
        ConfigError: a rule reads what the model does not say.
    """

    def __init__(self, driver: Driver, sight: Sight, rules: Rules) -> None:
        self._driver, self._rules = driver, rules
        self._heard = _Listener(sight, rules.rules, "the gate's rule")
        self._labels = sight.labels(rules.labels)
        self.reason = ""

    def reset(self) -> None:
        """Begins again."""
        self._driver.reset()
        self._heard.answers = {}
        self.reason = ""

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns the driver's speed and turn rate as the rules allow them."""
        speed, turn_rate = self._driver(simulator)
        now = self._heard.listen(simulator)
        wanted = Velocity((speed, 0.0, 0.0), (0.0, 0.0, turn_rate))
        command = Command(now, simulator.now_ns, wanted)
        decision = decide(self._rules, self._heard.answers, self._labels, command, 1, "", now)
        holding = decision.holding(wanted)
        self.reason = holding[0].rule if holding else reason_of(self._driver)
        sent = decision.applied(wanted)
        return sent.linear[0], sent.angular[2]
