"""sensor_msgs/Image from a hostile publisher, all encodings."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import strategies as st

from fuzz.scratch import Bytes
from robot_vision.errors import ImageError
from robot_vision.images.decode import to_rgb
from robot_vision.images.raw import row_bytes, supported_encodings
from robot_vision.recordings.base import RawImage

MAX_LEN = 1 << 12
ALLOWED_S = 5.0
_ENCODINGS = (*supported_encodings(), "8UC2", "")
_MOST = 1 << 16  # bytes that a short input is repeated to


def one_input(data: bytes) -> None:
    """Byte 0: encoding; 1: flags; then height and width (16 bits), step (32 bits), pixels."""
    take = Bytes(data)
    encoding, flags = _ENCODINGS[take.number(1) % len(_ENCODINGS)], take.number(1)
    height, width, step = take.number(2), take.number(2), take.number(4)
    pixels = take.rest()
    if flags & 2 and encoding in supported_encodings():  # fits, so that pixels are looked at
        height, width = height % 64, width % 64
        step = row_bytes(encoding, width) + step % 8
        rows = height * 3 // 2 if encoding in ("nv12", "nv21") else height
        rows = height * 3 if encoding == "nv24" else rows
        pixels = (pixels or b"\0") * (step * rows // max(len(pixels), 1) + 1)
        pixels = pixels[: min(step * rows, _MOST)]
    try:
        image = to_rgb(RawImage(height, width, encoding, step, pixels, flags & 1))
    except ImageError:
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    int(image.sum())  # every pixel of the view can be read


def seeds() -> list[bytes]:
    """Returns one image of each encoding, and sizes at the limits."""
    fits = [struct.pack("<BBHHI", i, 2, 6, 8, 3) + bytes(range(97)) for i in range(len(_ENCODINGS))]
    edges = [struct.pack("<BBHHI", 0, 0, h, w, 0xFFFFFFFF) for h in (0, 65535) for w in (0, 65535)]
    return fits + edges


def strategy() -> st.SearchStrategy[bytes]:
    """Returns messages whose fields fit together, more or less."""
    head = st.builds(
        lambda e, f, h, w, s: struct.pack("<BBHHI", e, f, h, w, s),
        st.integers(0, len(_ENCODINGS) - 1),
        st.integers(0, 3),
        st.integers(0, 70) | st.integers(0, 65535),
        st.integers(0, 70) | st.integers(0, 65535),
        st.integers(0, 400) | st.integers(0, 2**32 - 1),
    )
    return st.builds(bytes.__add__, head, st.binary(max_size=600))
