"""Whether an image file holds more than one picture: pages, or the frames of an animation.

Smaller copies and masks of the one picture, as pyramids, thumbnails and phones' gain maps are, do not count.
"""

from __future__ import annotations

import re
import struct
from typing import Any

_PAGES = 64  # of a TIFF that are looked at: the others may be smaller copies
_COPY_OR_MASK = 1 | 4  # bits of TIFF's NewSubfileType
_SEQUENCE = re.compile(rb"avis|msf1|hev[cx]")


def holds_several(kind: str, data: Any) -> bool:
    """Returns whether there is a second picture; False where a damaged file does not say.

    Args:
        kind: the file's format, as `image_formats.Look` has it.
        data: its bytes, or an `mmap` of it, of which little is read.
    """
    looks = {
        "avif": _in_boxes,
        "gif": _in_gif,
        "heic": _in_boxes,
        "png": _in_png,
        "tiff": _in_tiff,
        "webp": _in_webp,
    }
    try:
        return kind in looks and looks[kind](data)
    except (struct.error, IndexError):  # cut off
        return False


def _in_gif(data: Any) -> bool:
    at, pictures = 13 + _colours(data[10]), 0
    while data[at] != 0x3B:  # the end
        if data[at] == 0x2C:  # a picture
            pictures += 1
            if pictures > 1:
                return True
            at += 11 + _colours(data[at + 9])
        elif data[at] == 0x21:  # an extension
            at += 2
        else:
            return False
        while data[at]:
            at += data[at] + 1
        at += 1
    return False


def _colours(flags: int) -> int:
    """Returns the bytes of a GIF's table of colours."""
    return int(3 << ((flags & 7) + 1)) if flags & 0x80 else 0


def _in_png(data: Any) -> bool:
    at = 8
    while True:
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"acTL":
            return int(struct.unpack_from(">I", data, at + 8)[0]) > 1
        if name in (b"IDAT", b"IEND"):
            return False
        at += 12 + size


def _in_webp(data: Any) -> bool:
    if data[12:16] != b"VP8X" or not data[20] & 0x02:
        return False
    at, pictures = 12, 0
    while pictures < 2:
        name, size = struct.unpack_from("<4sI", data, at)
        pictures += name == b"ANMF"
        at += 8 + size + size % 2
    return True


def _in_tiff(data: Any) -> bool:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2 if order == "<" else 3] == 43
    offset, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    at = struct.unpack_from(order + offset, data, 8 if big else 4)[0]
    seen: set[int] = set()
    pictures = 0
    while at and at not in seen and len(seen) < _PAGES and pictures < 2:
        seen.add(at)
        entries = struct.unpack_from(order + count, data, at)[0]
        at += struct.calcsize(order + count)
        pictures += not _is_copy(data, at, order, entries, entry)
        at = struct.unpack_from(order + offset, data, at + entries * entry)[0]
    return pictures > 1


def _is_copy(data: Any, at: int, order: str, entries: int, entry: int) -> bool:
    """Returns whether the page of a directory is a smaller copy, or a mask, of another one."""
    for i in range(entries):
        tag, form, _ = struct.unpack_from(order + "HHH", data, at + i * entry)
        if tag == 254 and form == 4:  # NewSubfileType, and tags are in order
            value = struct.unpack_from(
                order + "I", data, at + i * entry + entry - (8 if entry == 20 else 4)
            )
            return bool(value[0] & _COPY_OR_MASK)
        if tag > 254:
            break
    return False


def _in_boxes(data: Any) -> bool:
    """Looks into the movie of an AVIF's or HEIC's sequence."""
    if not _SEQUENCE.search(data[8 : struct.unpack_from(">I", data, 0)[0]]):
        return False
    at = 0
    while True:
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"moov":
            sizes = data.find(b"stsz", at, at + size)  # of the samples of its first track
            return sizes >= 0 and int(struct.unpack_from(">I", data, sizes + 12)[0]) > 1
        if size < 8:
            return False
        at += size
