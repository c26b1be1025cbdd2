"""The largest image that is believed: beyond it a header is damaged or hostile, and memory would go."""

from __future__ import annotations

from robot_vision.errors import ImageError

MAX_SIDE = 16384
MAX_PIXELS = 1 << 28


def check_size(height: int, width: int) -> None:
    """Raises ImageError unless both sides are in 1..MAX_SIDE and the area is at most MAX_PIXELS."""
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE) or height * width > MAX_PIXELS:
        raise ImageError(
            "size",
            f"The image is {width} x {height}: each side must be from 1 to {MAX_SIDE} pixels, "
            f"and both together at most {MAX_PIXELS} pixels",
        )
