"""What a message may say of poses, checked once for all that hear it: finite numbers that a robot can have.

A driver that does not know a variance may send the largest double, and a wheel encoder that overflowed any
position. Neither is an error of the node that hears it, and squares of such numbers are infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import MeasurementError
from robot_vision.geometry.frames import plain_frame
from robot_vision.geometry.published_covariance import MAX_COVARIANCE
from robot_vision.messages.stamps import checked_ns, measured_ns, stamp_to_ns

Array = NDArray[np.float64]

MAX_POSITION_M = 1e8  # map projections and earth-centred coordinates stay below 1e7 to 2e7
_UNIT = 0.01  # by how much a quaternion's length may be off; tf2 allows as much


def checked_stamp_ns(header: Any) -> int:
    """Returns a header's stamp in nanoseconds; see `checked_ns`."""
    return checked_ns(stamp_to_ns(header.stamp))


def measured_stamp_ns(header: Any) -> int:
    """Returns a header's stamp in nanoseconds; see `measured_ns`."""
    return measured_ns(stamp_to_ns(header.stamp))


def checked_pose(pose: Any) -> tuple[Array, Array]:
    """Returns position (3,) in metres and unit quaternion xyzw (4,) of a `Pose` or a `Transform`.

    Raises:
        MeasurementError: a number is not finite or out of range, or the quaternion is not of length 1.
    """
    p = getattr(pose, "position", None) or pose.translation
    q = getattr(pose, "orientation", None) or pose.rotation
    position, xyzw = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    if not (np.all(np.isfinite(position)) and np.all(np.isfinite(xyzw))):
        raise MeasurementError(
            "non_finite", f"position {_shown(position)}, quaternion {_shown(xyzw)}: not finite"
        )
    if np.max(np.abs(position)) > MAX_POSITION_M:
        raise MeasurementError(
            "out_of_range",
            f"its position, {_shown(position)} m, is beyond {MAX_POSITION_M:g} m",
        )
    largest = float(np.max(np.abs(xyzw)))
    length = largest * float(np.linalg.norm(xyzw / largest)) if largest > 0 else 0.0
    if abs(length - 1) > _UNIT:
        raise MeasurementError(
            "quaternion", f"its quaternion has the length {length:.3g} and not 1"
        )
    return position, xyzw / length


def checked_covariance(numbers: Any) -> Array:
    """Returns the covariance (6, 6) of a message.

    Raises:
        MeasurementError: a number is not finite, or larger than `MAX_COVARIANCE`, which stands for unknown.
    """
    covariance = np.asarray(numbers, np.float64).reshape(6, 6)
    if not np.all(np.abs(covariance) <= MAX_COVARIANCE):  # NaN compares false
        worst = covariance.flat[int(np.argmax(np.nan_to_num(np.abs(covariance), nan=np.inf)))]
        raise MeasurementError(
            "covariance",
            f"its covariance has {worst:g}: send at most {MAX_COVARIANCE:g}, which says unknown",
        )
    return covariance


@dataclass(frozen=True)
class CheckedTransform:
    """A transform of a `tf2_msgs/TFMessage`: frames without a leading slash, `T_parent_child`."""

    parent: str
    child: str
    stamp_ns: int
    position: Array
    xyzw: Array


def checked_transforms(message: Any, refuse: Callable[[str], None]) -> Iterator[CheckedTransform]:
    """Yields the transforms of a `tf2_msgs/TFMessage`; says of each that is none why."""
    for stamped in message.transforms:
        parent, child = plain_frame(stamped.header.frame_id), plain_frame(stamped.child_frame_id)
        try:
            if not parent or not child or parent == child:
                raise MeasurementError("frame", "a transform joins two frames that have names")
            stamp_ns = checked_stamp_ns(stamped.header)
            yield CheckedTransform(parent, child, stamp_ns, *checked_pose(stamped.transform))
        except MeasurementError as error:
            refuse(f"from {parent!r} to {child!r}: {error}")


def _shown(values: Array) -> str:
    return f"[{', '.join(f'{v:g}' for v in values)}]"
