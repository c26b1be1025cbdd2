"""Between stamps of messages, which count seconds and nanoseconds, and nanoseconds."""

from __future__ import annotations

from typing import Any

from robot_vision.errors import MeasurementError

SECOND_NS = 1_000_000_000
MAX_STAMP_NS = (1 << 31) * SECOND_NS  # beyond it no message can carry it
_LONGEST_NS = 1 << 62


def stamp_to_ns(stamp: Any) -> int:
    """Returns a `builtin_interfaces/Time` in nanoseconds."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def set_stamp(stamp: Any, time_ns: int) -> None:
    """Sets a `builtin_interfaces/Time` to nanoseconds."""
    stamp.sec, stamp.nanosec = divmod(int(time_ns), SECOND_NS)


def checked_ns(stamp_ns: int) -> int:
    """Returns a stamp in nanoseconds.

    Raises:
        MeasurementError: it is negative, or more than a message can carry.
    """
    if not 0 <= stamp_ns < MAX_STAMP_NS:
        raise MeasurementError("stamp", f"its stamp, {stamp_ns} ns, is no time")
    return stamp_ns


def measured_ns(stamp_ns: int) -> int:
    """Returns the stamp in nanoseconds of something measured.

    Raises:
        MeasurementError: it is no time, or 0: the driver does not say when it measured.
    """
    if checked_ns(stamp_ns) == 0:
        raise MeasurementError("stamp", "its stamp is 0: have its driver fill in header.stamp")
    return stamp_ns


def nanoseconds(seconds: float) -> int:
    """Returns whole nanoseconds, at most those of 146 years: more do not fit next to a stamp in 64 bits."""
    return round(min(max(seconds * SECOND_NS, -_LONGEST_NS), _LONGEST_NS))
