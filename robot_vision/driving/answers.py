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
    LOCALISED,
    CollisionRule,
    FreshRule,
    KnownRule,
    LocalisedRule,
    ObstacleRule,
    Rule,
)
from robot_vision.geometry.frames import plain_frame
from robot_vision.messages.incoming import checked_pose
from robot_vision.messages.types import POSE_WITH_COVARIANCE_STAMPED

POSE, LOST, CAMERA = "pose", "lost", "camera"
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


@dataclass(frozen=True)
class CollisionAnswer(CollisionRule):
    """The probability of a collision, which must be there; the law looks at it."""

    judge = Rule.judge


@dataclass(frozen=True)
class DistanceAnswer(ObstacleRule):
    """The free distance, which must be there; the law looks at it."""

    judge = Rule.judge


@dataclass(frozen=True)
class BeliefAnswer(LocalisedRule):
    """The belief, which must be there; a robot that explores need not know where it is, but not be wrong."""

    def judge(self, value: str) -> tuple[float, str]:
        return (0.0, "measured poses contradict it") if value == "contradicted" else (FREE, "")


@dataclass(frozen=True)
class RobotPoseAnswer(Rule):
    """The robot's pose in a map's frame, which must be there."""

    frame_id: str = "map"

    MESSAGE = POSE_WITH_COVARIANCE_STAMPED

    def read(self, message: Any) -> Any:
        frame = plain_frame(message.header.frame_id)
        if frame != self.frame_id:
            raise MeasurementError(
                "frame", f"its frame is {frame!r}, the route's {self.frame_id!r}"
            )
        (x, y, _), (qx, qy, qz, qw) = checked_pose(message.pose.pose)
        return x, y, math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy**2 + qz**2))


@dataclass(frozen=True)
class KnowsWhereAnswer(LocalisedRule):
    """The belief, which must be there; a robot that is localised without its odometry may follow a route."""

    def judge(self, value: str) -> tuple[float, str]:
        known = value in (LOCALISED, "odometry distrusted")
        return (FREE, "") if known else (0.0, f"it does not know where it is: {value}")


def answers_on_route(
    pose: str, belief: str, camera: str, collision: str, frame_id: str, max_age_s: float
) -> tuple[Rule, ...]:
    """Returns what is read to follow a route, by topics; see `answers_of`.

    Args:
        pose: topic of where the robot is.
        belief: topic of whether that is known.
        camera: topic of descriptors, of which only the age counts: odometry alone goes on for metres.
        collision: topic of the probability of a collision; empty for none.
        frame_id: of the route.
        max_age_s: age from which each is stale.
    """
    found: list[Rule] = [
        KnowsWhereAnswer(LOST, belief, max(max_age_s, 1.5)),
        FreshRule(CAMERA, camera, max_age_s, type="sensor_msgs/msg/Image"),
        RobotPoseAnswer(POSE, pose, max_age_s, frame_id=frame_id),
    ]
    if collision:
        found.append(CollisionAnswer(COLLISION, collision, max_age_s))
    return tuple(found)


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
