"""Which way up a picture is: the orientation that phones and cameras of people store with the pixels.

They store the pixels as the sensor has them, and a number from 1 to 8 (EXIF's tag 0x0112) that says how they
are to be turned. A robot's camera has no such number, and its calibration is of the pixels as they are.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TAG = 0x0112
_TIFF = (b"II*\0", b"MM\0*")
_FAR = 1 << 16  # of a PNG's end, where programs put EXIF that they added later
# AVIF: quarter turns anticlockwise and the mirrored axis (None, left-right 1, top-bottom 0) to EXIF's number.
_FROM_BOXES = {
    (0, None): 1,
    (0, 1): 2,
    (2, None): 3,
    (0, 0): 4,
    (1, 0): 5,
    (3, None): 6,
    (3, 0): 7,
    (1, None): 8,
    (2, 1): 4,
    (2, 0): 2,
    (1, 1): 7,
    (3, 1): 5,
}


def orientation_of(data: Any) -> int:
    """Returns the orientation, 1 to 8, that a file says; 1 where it says none, or nothing that makes sense.

    Args:
        data: bytes of a JPEG, PNG, WebP, TIFF or AVIF file, or an `mmap` of it, of which little is read.
    """
    head = data[:32]
    if head[4:8] == b"ftyp":
        return _of_boxes(data)
    try:
        at = exif_at(data)
        value = 0 if at is None else _value_at(data, at)[0]
    except (struct.error, IndexError):  # cut off
        return 1
    return value if 1 <= value <= 8 else 1


def without_orientation(data: bytes) -> bytes:
    """Returns a TIFF whose pixels OpenCV decodes as they are stored: no flag keeps it from turning them."""
    try:
        value, at, form = _value_at(data, 0)
    except (struct.error, IndexError):
        return data
    if value in (0, 1):
        return data
    changed = bytearray(data)
    struct.pack_into(form, changed, at, 1)
    return bytes(changed)


def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Returns (H, W, 3), or (W, H, 3) for 5 to 8, turned and mirrored as EXIF's number says; contiguous."""
    if orientation == 1:
        return image
    if orientation in (2, 4, 5, 7):  # mirrored
        image = image[:, ::-1]
    turns = {2: 0, 3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}[orientation]
    return np.ascontiguousarray(np.rot90(image, turns))


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Returns (height, width) after `upright`; the same swap leads back."""
    return size[::-1] if orientation >= 5 else size


def exif_at(data: Any) -> int | None:
    """Returns where the TIFF structure of EXIF begins; None where a file has none.

    Raises:
        struct.error, IndexError: the file is cut off.
    """
    head = data[:32]
    if head[:4] in _TIFF:
        return 0
    if head[:3] == b"\xff\xd8\xff":
        return _in_jpeg(data)
    if head[:4] == b"\x89PNG":
        return _in_png(data)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _in_webp(data)
    return None


def _in_jpeg(data: Any) -> int | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            return None
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return at + 10
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return None


def _in_png(data: Any) -> int | None:
    at = 8
    while True:
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            return int(at + 8)
        if kind in (b"IDAT", b"IEND"):
            break
        at += 12 + size
    at = data.rfind(b"eXIf", max(at, len(data) - _FAR))
    return at + 4 if at >= 0 else None


def _in_webp(data: Any) -> int | None:
    if data[12:16] != b"VP8X" or not data[20] & 0x08:
        return None
    at = 12
    while True:
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            at += 8
            return int(at + 6 if data[at : at + 6] == b"Exif\0\0" else at)
        at += 8 + size + size % 2


def _value_at(data: Any, start: int) -> tuple[int, int, str]:
    """Returns the orientation in a TIFF structure (0: none), where it is, and its form for `struct`."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[start : start + 4])
    if order is None:
        return 0, 0, ""
    at = start + struct.unpack_from(order + "I", data, start + 4)[0]
    for _ in range(struct.unpack_from(order + "H", data, at)[0]):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at + 2)
        if tag == _TAG and kind in (3, 4) and count == 1:
            form = order + ("H" if kind == 3 else "I")
            return int(struct.unpack_from(form, data, at + 10)[0]), at + 10, form
        at += 12
    return 0, 0, ""


def _of_boxes(data: Any) -> int:
    """Returns the orientation of an AVIF: its boxes irot and imir count, and what EXIF says does not."""
    properties = data.find(b"ipco", 0, _FAR)
    if properties < 4:
        return 1
    end = properties - 4 + int.from_bytes(data[properties - 4 : properties], "big")
    turn = data.find(b"irot", properties, end)
    mirror = data.find(b"imir", properties, end)
    turns = data[turn + 4] & 3 if 0 <= turn < len(data) - 4 else 0
    axis = data[mirror + 4] & 1 if 0 <= mirror < len(data) - 4 else None
    return _FROM_BOXES[turns, axis]
