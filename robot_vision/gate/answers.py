"""What was last heard for each rule, and of the commands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from robot_vision.errors import MeasurementError
from robot_vision.gate.moment import Moment
from robot_vision.gate.rule import Rule
from robot_vision.messages.stamps import measured_ns, stamp_to_ns


@dataclass(frozen=True)
class Heard:
    """The last message of a topic, as one rule reads it.

    Attributes:
        at: when it came.
        stamp_ns: when what it says was seen; None for a type without a header.
        value: what the rule's `read` returned.
        problem: why it says nothing that can be used; empty if it does.
    """

    at: Moment
    stamp_ns: int | None
    value: Any
    problem: str = ""


def heard(rule: Rule, message: Any, at: Moment) -> Heard:
    """Returns a message as a rule reads it; one that cannot be used replaces the one before."""
    try:
        return Heard(at, rule.stamp_ns(message), rule.read(message))
    except MeasurementError as error:
        return Heard(at, None, None, str(error))


@dataclass(frozen=True)
class Velocity:
    """A twist: linear in m/s and angular in rad/s, x y z of the robot's frame."""

    linear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angular: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def speed(self) -> float:
        """Length of the linear part in m/s."""
        return math.hypot(*self.linear)


STANDING = Velocity()


@dataclass(frozen=True)
class Command:
    """The last command; see `Heard`.

    Attributes:
        at: when it came.
        stamp_ns: of its header; None for a Twist, which has none.
        velocity: commanded; standing for one that cannot be used.
        problem: why it cannot be used; empty if it can.
    """

    at: Moment
    stamp_ns: int | None
    velocity: Velocity
    problem: str = ""


def command(message: Any, stamped: bool, at: Moment) -> Command:
    """Returns a command of a TwistStamped, or of a Twist."""
    twist = message.twist if stamped else message
    velocity = Velocity(_xyz(twist.linear), _xyz(twist.angular))
    try:
        stamp_ns = measured_ns(stamp_to_ns(message.header.stamp)) if stamped else None
    except MeasurementError as error:
        return Command(at, None, STANDING, str(error))
    if not all(map(math.isfinite, (*velocity.linear, *velocity.angular))):
        return Command(at, stamp_ns, STANDING, "a number is not finite")
    return Command(at, stamp_ns, velocity)


def _xyz(vector: Any) -> tuple[float, float, float]:
    return float(vector.x), float(vector.y), float(vector.z)
