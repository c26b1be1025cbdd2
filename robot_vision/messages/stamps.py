"""Between stamps of messages, which count seconds and nanoseconds, and nanoseconds."""

from __future__ import annotations

from typing import Any

SECOND_NS = 1_000_000_000


def stamp_to_ns(stamp: Any) -> int:
    """Returns a `builtin_interfaces/Time` in nanoseconds."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def set_stamp(stamp: Any, time_ns: int) -> None:
    """Sets a `builtin_interfaces/Time` to nanoseconds."""
    stamp.sec, stamp.nanosec = divmod(int(time_ns), SECOND_NS)


def nanoseconds(seconds: float) -> int:
    """Returns whole nanoseconds."""
    return round(seconds * SECOND_NS)
