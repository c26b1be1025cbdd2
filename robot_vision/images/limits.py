"""The largest image that is believed: beyond it a header is damaged or hostile, and memory would go."""

from __future__ import annotations

from robot_vision.errors import ImageError

MAX_SIDE = 16384
MAX_PIXELS = 1 << 28
# A raw image is as large as its message. A compressed one of a few kB may stand for any size, and takes its
# memory and the time of a core: 67 megapixels are 200 MB and about a second.
MAX_COMPRESSED_PIXELS = 1 << 26


def check_size(height: int, width: int, most: int = MAX_PIXELS) -> None:
    """Raises ImageError unless both sides are in 1..MAX_SIDE and the area is at most `most` pixels."""
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE) or height * width > most:
        raise ImageError(
            "size",
            f"The image is {width} x {height}: each side must be from 1 to {MAX_SIDE} pixels, "
            f"and both together at most {most} pixels",
        )
