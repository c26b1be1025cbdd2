"""What the localiser hears, as rules of the gate: each must be there and of now, or the robot stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.driving.answers import COLLISION, STEERING, CollisionAnswer, SteeringAnswer
from robot_vision.errors import MeasurementError
from robot_vision.gate.rule import Rule
from robot_vision.geometry.frames import plain_frame
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.messages.incoming import checked_covariance, checked_pose

Array = NDArray[np.float64]

PLACES, ODOMETRY = "places", "odometry"


@dataclass(frozen=True, eq=False)
class NamedPlaces:
    """What the place node says of an image.

    Attributes:
        frame: of the map.
        ids: keyframes (n,), most probable first.
        poses: (4, 4) each, of the camera in the map.
        probabilities: (n,).
        accepted: the pose's covariance (6, 6), where the first place is accepted; None where none is.
    """

    frame: str
    ids: tuple[int, ...]
    poses: tuple[Array, ...]
    probabilities: tuple[float, ...]
    accepted: Array | None


@dataclass(frozen=True)
class PlacesAnswer(Rule):
    """The place node's places."""

    MESSAGE = "vision_msgs/msg/Detection3D"

    def read(self, message: Any) -> NamedPlaces:
        """See `Rule`."""
        named = [r for r in message.results if _is_keyframe(r.hypothesis.class_id)]
        poses = tuple(pose_matrix(*checked_pose(r.pose.pose)) for r in named)
        probabilities = tuple(float(r.hypothesis.score) for r in named)
        if not all(0 <= p <= 1 + 1e-6 for p in probabilities):
            raise MeasurementError("out_of_range", "its scores are no probabilities")
        accepted = None
        if message.id:
            if not named or message.id != named[0].hypothesis.class_id:
                raise MeasurementError(
                    "shape", f"the accepted place {message.id!r} is not its first"
                )
            accepted = checked_covariance(named[0].pose.covariance)
        ids = tuple(int(r.hypothesis.class_id) for r in named)
        return NamedPlaces(str(message.header.frame_id), ids, poses, probabilities, accepted)


@dataclass(frozen=True)
class OdometryAnswer(Rule):
    """Which frame of the robot the odometry moves, and its pose (4, 4)."""

    MESSAGE = "nav_msgs/msg/Odometry"

    def read(self, message: Any) -> tuple[str, Array]:
        """See `Rule`."""
        return plain_frame(message.child_frame_id), pose_matrix(*checked_pose(message.pose.pose))


def answers_of(
    places: str, odometry: str, reflex: tuple[str, str] | None, max_age_s: float
) -> tuple[Rule, ...]:
    """Returns what the localiser reads.

    Args:
        places: topic of the place node's places.
        odometry: topic.
        reflex: topics of steering and of the probability of a collision; None for a robot that only turns.
        max_age_s: age from which each is stale.
    """
    found: list[Rule] = [
        PlacesAnswer(PLACES, places, max_age_s),
        OdometryAnswer(ODOMETRY, odometry, max_age_s),
    ]
    if reflex is not None:
        found.append(SteeringAnswer(STEERING, reflex[0], max_age_s))
        found.append(CollisionAnswer(COLLISION, reflex[1], max_age_s))
    return tuple(found)


def _is_keyframe(name: str) -> bool:
    """Whether a class is a keyframe's id, which a map stores in 64 bits, and no other word."""
    return name.isascii() and name.isdecimal() and len(name) < 19
