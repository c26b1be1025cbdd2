"""Images of one number a pixel: raw, PNG, compressedDepth (png, rvl), and label images with palettes."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from fuzz.scratch import Bytes
from robot_vision.errors import ImageError
from robot_vision.images.planes import as_stored, palette_of, to_plane
from robot_vision.recordings.base import CompressedImage, RawImage

MAX_LEN = 1 << 12
ALLOWED_S = 10.0
_RAW = ("mono8", "8UC1", "mono16", "16UC1", "32FC1", "rgb8")
_FORMATS = (
    "png", "16UC1; compressedDepth", "16UC1; compressedDepth png", "16UC1; compressedDepth rvl",
    "32FC1; compressedDepth rvl", "32FC1; compressedDepth", "mono8; png compressed ",
)  # fmt: skip


def one_input(data: bytes) -> None:
    """Byte 0: the form; of a raw one then height and width (8 bits), step (16 bits); then the rest."""
    take = Bytes(data)
    form = take.number(1) % (len(_RAW) + len(_FORMATS) + 1)
    message: RawImage | CompressedImage
    try:
        if form < len(_RAW):
            height, width, step = take.number(1), take.number(1), take.number(2)
            message = RawImage(height, width, _RAW[form], step, take.rest(), step & 1)
        elif form < len(_RAW) + len(_FORMATS):
            message = CompressedImage(_FORMATS[form - len(_RAW)], take.rest())
        else:
            octets = np.frombuffer(take.rest(), np.uint8)
            palette = palette_of(octets)
            assert palette is None or palette.shape[1:] == (3,)
            if octets[:1].tobytes() == b"\x89":
                as_stored(octets, "a.png")
            return
        plane = to_plane(message)
    except ImageError:
        return
    assert plane.ndim == 2 and 0 not in plane.shape
    assert plane.dtype in (np.uint8, np.uint16, np.float32)


def seeds() -> list[bytes]:
    """Returns small images of every form."""
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 9000, (6, 9)).astype(np.uint16)
    plane[plane < 3000] = 0
    png = cv2.imencode(".png", plane)[1].tobytes()
    inputs = [bytes([i, 4, 5]) + struct.pack("<H", 20) + bytes(range(80)) for i in range(len(_RAW))]
    words = bytes.fromhex("0f000010 21436587 a9cbed0f 10325476 98badcfe 01000000")
    rvl = struct.pack("<II", 4, 3) + words
    for i, name in enumerate(_FORMATS, len(_RAW)):
        header = struct.pack("<iff", 0, 1000.0, 0.5) if "Depth" in name else b""
        inputs.append(bytes([i]) + header + (rvl if "rvl" in name else png))
    chunk = struct.pack(">I", 7) + b"PLTE" + bytes(11)
    colours = png[:25] + b"\3" + png[26:33] + chunk + png[33:]
    return [*inputs, bytes([len(_RAW) + len(_FORMATS)]) + colours]
