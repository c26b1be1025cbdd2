"""What the gate decides: the speed that all rules allow, and which rule says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robot_vision.errors import unknown
from robot_vision.gate.answers import STANDING, Command, Heard, Velocity
from robot_vision.gate.moment import Moment
from robot_vision.gate.rule import FORWARD, FREE, ClassRule, Rule
from robot_vision.gate.rules import CLOCK, COMMAND, DRIVERS, Rules


@dataclass(frozen=True)
class Limit:
    """What one rule asks for.

    Attributes:
        rule: its name.
        speed: the largest, in m/s.
        why: in words.
        forward: whether it is of driving forward alone, and leaves turning and backing up free.
    """

    rule: str
    speed: float
    why: str
    forward: bool = False

    def holds(self, velocity: Velocity) -> bool:
        """Says whether a velocity is more than this allows."""
        if self.forward:
            return velocity.linear[0] > self.speed
        return velocity.speed > self.speed or (self.speed <= 0 and velocity != STANDING)


@dataclass(frozen=True)
class Decision:
    """The limits of all rules that have something to say, the lowest first, in the order of the rules.

    Attributes:
        limits: of the rules.
    """

    limits: tuple[Limit, ...] = ()

    @property
    def speed(self) -> float:
        """Largest speed in whatever direction, in m/s."""
        return min((limit.speed for limit in self.limits if not limit.forward), default=FREE)

    @property
    def forward(self) -> float:
        """Largest speed forward, in m/s."""
        return min((limit.speed for limit in self.limits), default=FREE)

    def applied(self, velocity: Velocity) -> Velocity:
        """Returns a velocity as the limits allow it.

        A limit in all directions scales the whole twist, so that the robot stays on its path; one of driving
        forward scales its linear part.
        """
        if self.speed <= 0:
            return STANDING
        linear, angular = velocity.linear, velocity.angular
        if velocity.speed > self.speed:
            scale = self.speed / velocity.speed
            linear, angular = _scaled(linear, scale), _scaled(angular, scale)
        if linear[0] > self.forward:
            linear = _scaled(linear, self.forward / linear[0])
        return Velocity(linear, angular)

    def holding(self, velocity: Velocity) -> tuple[Limit, ...]:
        """Returns the limits that change a velocity, and those that stop whatever was commanded."""
        return tuple(each for each in self.limits if each.speed <= 0 or each.holds(velocity))


def decide(
    rules: Rules,
    answers: Mapping[str, Heard],
    labels: Sequence[str] | None,
    last: Command | None,
    drivers: int,
    clock: str,
    now: Moment,
) -> Decision:
    """Returns what all rules allow now; whatever is missing, stale or cannot be used stops.

    Args:
        rules: of the file.
        answers: name of a rule to what it last heard.
        labels: the model's classes; None while they are not known.
        last: the last command.
        drivers: how many nodes have sent commands of late.
        clock: why the clock cannot be used; empty if it can.
        now: the time of the decision.
    """
    limits = []
    if clock:
        limits.append(Limit(CLOCK, 0.0, clock))
    if drivers > 1:
        limits.append(Limit(DRIVERS, 0.0, f"{drivers} nodes send commands: let one drive"))
    if why := _command(last, rules, now):
        limits.append(Limit(COMMAND, 0.0, why))
    for rule in rules.rules:
        limit = _limit(rule, answers.get(rule.name), labels if rules.labels else (), rules, now)
        if limit is not None:
            limits.append(limit)
    return Decision(tuple(sorted(limits, key=lambda limit: limit.speed)))


def stopping(
    rules: Sequence[Rule], answers: Mapping[str, Heard], max_ahead_s: float, clock: str, now: Moment
) -> tuple[Limit, ...]:
    """Returns what stops a driver that reads its own answers; see `decide`."""
    limits = [Limit(CLOCK, 0.0, clock)] if clock else []
    unchecked = Rules(max_ahead_s=max_ahead_s, labels="")
    for rule in rules:
        limit = _limit(rule, answers.get(rule.name), (), unchecked, now)
        if limit is not None and limit.speed <= 0:
            limits.append(limit)
    return tuple(limits)


def _limit(
    rule: Rule, last: Heard | None, labels: Sequence[str] | None, rules: Rules, now: Moment
) -> Limit | None:
    why = _missing(last, rule.max_age_s, rules.max_ahead_s, now)
    if not why and isinstance(rule, ClassRule) and rules.labels:
        if labels is None:
            why = f"the model's classes are not known: nothing came on {rules.labels}"
        elif rule.label not in labels:
            why = unknown("class", rule.label, labels)
    if why or last is None:
        return Limit(rule.name, 0.0, why)
    speed, why = rule.judge(last.value)
    if math.isnan(speed):
        return Limit(rule.name, 0.0, "its speed is not a number")
    if speed == FREE:
        return None
    return Limit(rule.name, max(speed, 0.0), why, getattr(rule, "limits", "") == FORWARD)


def _missing(last: Heard | Command | None, max_age_s: float, ahead_s: float, now: Moment) -> str:
    """Returns why what was last heard is not of now; empty if it is."""
    if last is None:
        return "nothing has come"
    if last.problem:
        return f"what came cannot be used: {last.problem}"
    silent_s = now.since_s(last.at)
    if not 0 <= silent_s <= max_age_s:
        return f"nothing for {silent_s:.2f} s" if silent_s > 0 else "it came after now"
    if last.stamp_ns is None:
        return ""
    age_s = now.age_s(last.stamp_ns)
    if age_s > max_age_s:
        return f"its stamp is {age_s:.2f} s old"
    if age_s < -ahead_s:
        return f"its stamp is {-age_s:.2f} s ahead of the clock"
    return ""


def _command(last: Command | None, rules: Rules, now: Moment) -> str:
    return _missing(last, rules.command_max_age_s, rules.max_ahead_s, now)


def _scaled(vector: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    return vector[0] * by, vector[1] * by, vector[2] * by
