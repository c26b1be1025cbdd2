"""Headers of serialised messages in a bag, read and exchanged by the camera player."""

from __future__ import annotations

from fuzz.targets import serialized_image
from robot_vision.errors import ImageError
from robot_vision.messages import cdr
from robot_vision.messages.serialized import read_image

MAX_LEN = 1 << 12
ALLOWED_S = 1.0


def one_input(data: bytes) -> None:
    """Holds what comes out to what went in."""
    try:
        stamp_ns = cdr.stamp_of(data)
        stamped = cdr.with_stamp(data, 123_456_789_012)
        framed = cdr.with_frame_id(data, "frame")
    except ImageError:
        return
    assert isinstance(stamp_ns, int)
    assert cdr.stamp_of(stamped) == 123_456_789_012 and len(stamped) == len(data)
    assert cdr.stamp_of(framed) == stamp_ns
    try:
        before = read_image(data)
    except ImageError:
        return
    if data[:2] == b"\0\1":
        after = read_image(framed)
        assert after.header.frame_id == "frame" and bytes(after.data) == bytes(before.data)


def seeds() -> list[bytes]:
    """Returns whole messages."""
    return [seed[1:] for seed in serialized_image.seeds()]
