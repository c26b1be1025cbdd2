"""The kinds of rules: which message each reads, and how fast the robot may be by what it says."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robot_vision.errors import MeasurementError
from robot_vision.geometry.braking import braking_speed
from robot_vision.geometry.published_covariance import MAX_COVARIANCE
from robot_vision.messages.stamps import measured_ns, stamp_to_ns
from robot_vision.messages.types import CLASSIFICATION, POSE_WITH_COVARIANCE_STAMPED, RANGE
from robot_vision.settings.declared import option

FREE = math.inf  # what a rule returns that limits nothing
UNKNOWN = "unknown"  # the class of an image that shows none of the model's
LOCALISED = "localised"
# Words of the filter node's belief. A rule may slow the robot for some, of which the better is first.
STOPS, MAY_SLOW = ("unknown", "stale", "contradicted"), ("odometry distrusted", "uncertain")
ALL, FORWARD = "all", "forward"
_EPSILON = 1e-3  # by which probabilities may be off


@dataclass(frozen=True)
class Rule(ABC):
    """A rule of whatever kind; each kind adds what it needs.

    Attributes:
        name: by which a stop is explained.
        topic: that it reads.
    """

    name: str
    topic: str
    max_age_s: float = option(
        0.5, "Age from which the topic's last message is stale, in seconds.", low=0.01, high=60
    )
    speed: float = option(
        0.0, "Largest speed while the rule applies, in m/s; 0 stops.", low=0, high=100
    )

    KIND: ClassVar[str] = ""
    MESSAGE: ClassVar[str] = ""  # type of the topic; empty for any

    @abstractmethod
    def read(self, message: Any) -> Any:
        """Returns what the rule needs of a message.

        Raises:
            MeasurementError: it says nothing that can be used.
        """

    def stamp_ns(self, message: Any) -> int | None:
        """Returns when what the message says was seen, in nanoseconds; None where that does not matter.

        Raises:
            MeasurementError: it does not say.
        """
        return measured_ns(stamp_to_ns(message.header.stamp))

    def judge(self, value: Any) -> tuple[float, str]:
        """Returns the largest speed in m/s for what `read` returned, `FREE` for any, and why."""
        return FREE, ""


Scores = Mapping[str, float]  # by label, the most probable first


def read_scores(message: Any) -> dict[str, float]:
    """Returns the probabilities of a `vision_msgs/Classification`, in its order.

    Raises:
        MeasurementError: there are none, they are no probabilities, or a label is there twice.
    """
    scores = {str(h.class_id): float(h.score) for h in message.results}
    if not scores or len(scores) != len(message.results):
        raise MeasurementError("shape", "it has no classes, or one twice")
    if not all(math.isfinite(score) for score in scores.values()):
        raise MeasurementError("non_finite", "a probability is not finite")
    if min(scores.values()) < 0 or sum(scores.values()) > 1 + _EPSILON:
        raise MeasurementError("out_of_range", "its scores are no probabilities")
    return scores


def best(scores: Scores) -> tuple[str, float]:
    """Returns the most probable label; of equal ones, `unknown` first."""
    return max(scores.items(), key=lambda item: (item[1], item[0] == UNKNOWN))


def at_most(scores: Scores, label: str) -> float:
    """Returns how probable a label is at most: one that is not listed shares what the others leave."""
    left = max(0.0, 1.0 - sum(scores.values()))
    return scores.get(label, min(left, min(scores.values())))


@dataclass(frozen=True)
class ClassRule(Rule):
    """Applies while the robot may be where a class says: `label` has at least the probability."""

    label: str = option("", "Class of the model.")
    probability: float = option(0.5, "From which the rule applies.", low=0, high=1)

    KIND = "class"
    MESSAGE = CLASSIFICATION

    def read(self, message: Any) -> Any:
        return read_scores(message)

    def judge(self, value: Scores) -> tuple[float, str]:
        if best(value)[0] == UNKNOWN:
            return 0.0, "the image shows none of the classes"
        p = at_most(value, self.label)
        if p >= self.probability:
            return self.speed, f"{self.label} with probability {p:.2f}"
        return FREE, ""


@dataclass(frozen=True)
class KnownRule(Rule):
    """Applies while no class is as probable as it must be; an unknown image always stops."""

    probability: float = option(0.5, "That the most probable class must have.", low=0, high=1)

    KIND = "known"
    MESSAGE = CLASSIFICATION

    def read(self, message: Any) -> Any:
        return read_scores(message)

    def judge(self, value: Scores) -> tuple[float, str]:
        label, p = best(value)
        if label == UNKNOWN:
            return 0.0, "the image shows none of the classes"
        if p < self.probability:
            return self.speed, f"the best class, {label}, has probability {p:.2f}"
        return FREE, ""


@dataclass(frozen=True)
class CollisionRule(Rule):
    """Applies while a collision has at least the probability."""

    probability: float = option(0.5, "From which the rule applies.", low=0, high=1)
    limits: str = option(ALL, "What is limited.", choices=(ALL, FORWARD))

    KIND = "collision"
    MESSAGE = CLASSIFICATION

    def read(self, message: Any) -> Any:
        scores = read_scores(message)
        if set(scores) != {"collision", "free"}:
            raise MeasurementError("shape", "its classes are not collision and free")
        return scores["collision"]

    def judge(self, value: float) -> tuple[float, str]:
        if value >= self.probability:
            return self.speed, f"a collision with probability {value:.2f}"
        return FREE, ""


@dataclass(frozen=True)
class ObstacleRule(Rule):
    """Applies while an obstacle is nearer than the distance; with a deceleration, also on the way there."""

    distance_m: float = option(0.5, "From which the rule applies.", low=0, high=1000)
    deceleration: float | None = option(
        None,
        "With which the robot brakes, in m/s2: it may be as fast as lets it reach `speed` at the distance.",
        low=0.01,
        high=100,
    )
    limits: str = option(ALL, "What is limited.", choices=(ALL, FORWARD))

    KIND = "obstacle"
    MESSAGE = RANGE

    def read(self, message: Any) -> Any:
        low, high, value = message.min_range, message.max_range, message.range
        if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(value)):
            raise MeasurementError("non_finite", f"its range is {value:g} of {low:g} to {high:g} m")
        if not 0 <= low < high or not 0 <= value <= high:
            raise MeasurementError(
                "out_of_range", f"its range is {value:g} of {low:g} to {high:g} m"
            )
        return 0.0 if value < low else float(value)

    def judge(self, value: float) -> tuple[float, str]:
        why = f"an obstacle at {value:.2f} m"
        left = value - self.distance_m
        if left <= 0:
            return self.speed, why
        if self.deceleration is None:
            return FREE, ""
        # Until the next message is due the robot goes on as it does.
        return braking_speed(left, self.deceleration, self.max_age_s, self.speed), why


@dataclass(frozen=True)
class UncertaintyRule(Rule):
    """Applies while a pose is less certain than it must be, along its worst axis."""

    sigma_m: float | None = option(
        None, "Largest standard deviation of the position, in m.", low=1e-3, high=1e6
    )
    sigma_deg: float | None = option(
        None, "Largest standard deviation of the rotation, in degrees.", low=1e-3, high=360
    )

    KIND = "uncertainty"
    MESSAGE = POSE_WITH_COVARIANCE_STAMPED

    def read(self, message: Any) -> Any:
        covariance = np.asarray(message.pose.covariance, np.float64).reshape(6, 6)
        if not np.all(np.isfinite(covariance)):
            raise MeasurementError("non_finite", "its covariance is not finite")
        if np.max(np.abs(covariance)) >= MAX_COVARIANCE:
            raise MeasurementError("covariance", "its covariance says unknown")
        # A driver that does not fill it in sends zeros, which would be perfect knowledge. Those that
        # live on a plane, such as AMCL, do so for the other three alone.
        variances = np.diagonal(covariance)
        if np.min(variances) < 0 or np.min(variances[[0, 1, 5]]) == 0:
            raise MeasurementError("covariance", "a variance of x, y or yaw is not above 0")
        return _sigma(covariance[:3, :3]), math.degrees(_sigma(covariance[3:, 3:]))

    def judge(self, value: tuple[float, float]) -> tuple[float, str]:
        metres, degrees = value
        if self.sigma_m is not None and not metres <= self.sigma_m:
            return self.speed, f"the position's standard deviation is {metres:.2f} m"
        if self.sigma_deg is not None and not degrees <= self.sigma_deg:
            return self.speed, f"the rotation's standard deviation is {degrees:.1f} degrees"
        return FREE, ""


def _sigma(covariance: Any) -> float:
    return float(np.sqrt(max(np.linalg.eigvalsh((covariance + covariance.T) / 2)[-1], 0.0)))


@dataclass(frozen=True)
class LocalisedRule(Rule):
    """Stops a robot that does not know where it is, by the filter node's belief; some words only slow it."""

    max_age_s: float = option(
        1.5, "Age from which the belief is stale, in seconds.", low=0.01, high=60
    )
    slow_for: tuple[str, ...] = option(
        (), "Reasons for which the robot is held to `speed` instead.", choices=MAY_SLOW
    )

    KIND = "localised"
    MESSAGE = "diagnostic_msgs/msg/DiagnosticStatus"

    def read(self, message: Any) -> Any:
        word = str(message.message)
        if word not in (LOCALISED, *STOPS, *MAY_SLOW):
            raise MeasurementError("shape", f"its message is {word!r}, no word of a belief")
        level = int.from_bytes(message.level, "little")
        if (level == 0) != (word == LOCALISED):
            raise MeasurementError("shape", f"its level is {level} and its message {word!r}")
        return word

    def stamp_ns(self, message: Any) -> int | None:
        if (
            message.message in STOPS
        ):  # there may be no estimate, and the belief is bad whatever its age
            return None
        # That of the estimate, so that a belief which is repeated without being judged again grows old.
        found = [v.value for v in message.values if v.key == "stamp_ns"]
        if len(found) != 1 or not found[0].isdecimal():
            raise MeasurementError("stamp", "it has no stamp_ns")
        return measured_ns(int(found[0]))

    def judge(self, value: str) -> tuple[float, str]:
        if value == LOCALISED:
            return FREE, ""
        # Who slows for a worse word does not stop for a better one.
        allowed = MAY_SLOW[: max((MAY_SLOW.index(word) + 1 for word in self.slow_for), default=0)]
        return (self.speed if value in allowed else 0.0), f"the belief is {value}"


@dataclass(frozen=True)
class FreshRule(Rule):
    """Stops while a topic is silent, whatever it carries: a camera, odometry, a laser."""

    type: str = option("", "Type of the topic, such as sensor_msgs/msg/Image.")

    KIND = "fresh"

    def read(self, message: Any) -> Any:
        return None


KINDS: dict[str, type[Rule]] = {
    rule.KIND: rule
    for rule in (
        ClassRule,
        KnownRule,
        CollisionRule,
        ObstacleRule,
        UncertaintyRule,
        LocalisedRule,
        FreshRule,
    )
}
