"""What the driver reads, as rules of the gate: each must be there and of now, and some stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robot_vision.driving.law import Seen
from robot_vision.errors import MeasurementError
from robot_vision.gate.answers import Heard
from robot_vision.gate.rule import (
    FREE,
    CollisionRule,
    KnownRule,
    LocalisedRule,
    ObstacleRule,
    Rule,
)

STEERING, COLLISION, DISTANCE, KNOWN, BELIEF = (
    "steering",
    "collision",
    "distance",
    "known",
    "belief",
)
_BEYOND = 1e-3  # by which steering may leave [-1, 1]


@dataclass(frozen=True)
class SteeringAnswer(Rule):
    """The steering, which must be there."""

    MESSAGE = "geometry_msgs/msg/TwistStamped"

    def read(self, message: Any) -> Any:
        steering = float(message.twist.angular.z)
        if not math.isfinite(steering):
            raise MeasurementError("non_finite", "its steering is not finite")
        if abs(steering) > 1 + _BEYOND:
            raise MeasurementError("out_of_range", f"its steering is {steering:g}, not in [-1, 1]")
        return steering

    def judge(self, value: Any) -> tuple[float, str]:
        return FREE, ""


@dataclass(frozen=True)
class CollisionAnswer(CollisionRule):
    """The probability of a collision, which must be there; the law looks at it."""

    def judge(self, value: float) -> tuple[float, str]:
        return FREE, ""


@dataclass(frozen=True)
class DistanceAnswer(ObstacleRule):
    """The free distance, which must be there; the law looks at it."""

    def judge(self, value: float) -> tuple[float, str]:
        return FREE, ""


@dataclass(frozen=True)
class BeliefAnswer(LocalisedRule):
    """The belief, which must be there; a robot that explores need not know where it is, but not be wrong."""

    def judge(self, value: str) -> tuple[float, str]:
        return (0.0, "measured poses contradict it") if value == "contradicted" else (FREE, "")


def answers_of(
    steering: str, collision: str, distance: str, classes: str, belief: str, max_age_s: float
) -> tuple[Rule, ...]:
    """Returns what the driver reads, by the topics that are given; empty ones are not read.

    Args:
        steering: topic of the steering.
        collision: topic of the probability of a collision.
        distance: topic of the free distance; empty for none.
        classes: topic of classes whose `unknown` stops; empty for none.
        belief: topic of a belief whose contradiction stops; empty for none.
        max_age_s: age from which each is stale.
    """
    found: list[Rule] = [
        SteeringAnswer(STEERING, steering, max_age_s),
        CollisionAnswer(COLLISION, collision, max_age_s),
    ]
    if distance:
        found.append(DistanceAnswer(DISTANCE, distance, max_age_s))
    if classes:
        found.append(KnownRule(KNOWN, classes, max_age_s, probability=0.0))
    if belief:
        found.append(BeliefAnswer(BELIEF, belief, max(max_age_s, 1.5)))
    return tuple(found)


def seen(answers: Mapping[str, Heard], with_distance: bool) -> tuple[Seen, bool] | None:
    """Returns what is said of one image, and whether the distance is of that image or later.

    It is so soon where the same camera gives both; another sensor may lag.

    Args:
        answers: name to what was last heard.
        with_distance: whether the free distance is needed.

    Returns:
        None until steering and collision of one image have come, and a distance if it is needed.
    """
    steering, collision, distance = (answers.get(n) for n in (STEERING, COLLISION, DISTANCE))
    if steering is None or collision is None or steering.problem or collision.problem:
        return None
    stamp_ns = steering.stamp_ns
    if stamp_ns is None or collision.stamp_ns != stamp_ns:
        return None
    if not with_distance:
        return Seen(stamp_ns, steering.value, collision.value), True
    if distance is None or distance.problem or distance.stamp_ns is None:
        return None
    found = Seen(stamp_ns, steering.value, collision.value, distance.value)
    return found, distance.stamp_ns >= stamp_ns
