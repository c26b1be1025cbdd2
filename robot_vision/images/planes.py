"""Images of one number a pixel: ids of classes, distances. Nothing is scaled, unlike in `images.to_rgb`."""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError, unknown
from robot_vision.images.compressed import JPEG, PNG, compressed_size, decoded
from robot_vision.images.decode import bytes_of, raw_parts
from robot_vision.images.limits import MAX_COMPRESSED_PIXELS, check_size
from robot_vision.images.raw import decode_plane, plane_encodings

_DEPTH_HEADER = struct.Struct("<iff")  # compressed_depth_image_transport: codec, and two of 32FC1
_DEPTH = re.compile(r"\s*(\w+)\s*;\s*compressedDepth\s*(\w*)")
_MOST_DIGITS = 10  # of RVL's numbers, from 0, which have three bits each


def to_plane(message: Any) -> NDArray[Any]:
    """Decodes an image message with one number a pixel.

    Args:
        message: `sensor_msgs/Image` in one of mono8, 8UC1, mono16, 16UC1 and 32FC1, or
            `sensor_msgs/CompressedImage` with a grey PNG, or compressedDepth (codec png or rvl).

    Returns:
        uint8, uint16 or float32 (H, W), as they are stored; of a raw image a view of its data, which may be
        read-only. Of a compressedDepth of 32FC1, whose numbers are stored as inverse distances in 16 bits,
        float32 with NaN where there was no distance.

    Raises:
        ImageError: it has several numbers a pixel, cannot be decoded, or has lost what it said.
    """
    if hasattr(message, "encoding"):
        encoding = str(message.encoding)
        if encoding not in plane_encodings():
            known = plane_encodings()
            raise ImageError("encoding", unknown("encoding of one number a pixel", encoding, known))
        return decode_plane(*raw_parts(message))
    data = bytes_of(message.data)
    text = str(message.format)
    found = _DEPTH.match(text)
    if found is None:
        return grey_png(data, text)
    if len(data) <= _DEPTH_HEADER.size:
        raise ImageError("data_length", f"The {text!r} image of {len(data)} bytes has no data")
    _, a, b = _DEPTH_HEADER.unpack(data[: _DEPTH_HEADER.size].tobytes())
    rest = data[_DEPTH_HEADER.size :]
    stored = _rvl(rest) if found[2] == "rvl" else grey_png(rest, text)
    if found[1] != "32FC1":
        return stored
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(a) / (stored.astype(np.float32) - np.float32(b))
    return np.where(stored == 0, np.float32(np.nan), metres)


def grey_png(data: NDArray[np.uint8], name: str) -> NDArray[Any]:
    """Returns uint8 or uint16 (H, W) of a PNG of one number a pixel.

    Raises:
        ImageError: it has colours, or cannot be decoded.
    """
    if bytes(data[:3]) not in (PNG[:3], JPEG):
        raise ImageError(
            "encoding",
            f"The {name!r} image begins with {bytes(data[:8]).hex(' ')}: store it as PNG",
        )
    image = as_stored(data, name)
    if image.ndim != 2:
        raise ImageError(
            "encoding",
            f"The {name!r} image has {image.shape[2]} numbers a pixel, and must have one",
        )
    return image


def as_stored(data: NDArray[np.uint8], name: str) -> NDArray[Any]:
    """Returns the pixels of a PNG, or of another format without losses, with the bits that they have.

    Args:
        data: uint8 (N,).
        name: of the image, for errors.

    Returns:
        uint8, uint16 or float32 (H, W); or (H, W, 3) or (H, W, 4), blue first. A palette's colours come in
        place of its numbers.

    Raises:
        ImageError: a JPEG, whose losses make other numbers of them; damaged, or of no known format.
    """
    if bytes(data[:3]) == JPEG:
        raise ImageError(
            "encoding", f"The {name!r} image is a JPEG, which changes its numbers: store it as PNG"
        )
    if bytes(data[:8]) == PNG:
        compressed_size(data, name)
    image = decoded(data, name, cv2.IMREAD_UNCHANGED)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageError("encoding", f"The {name!r} image has numbers of type {image.dtype}")
    return image


def palette_of(data: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Returns the colours RGB uint8 (N, 3) of a PNG whose pixels are numbers of a palette; else None."""
    octets = data.tobytes()
    if octets[:8] != PNG or len(octets) < 26 or octets[25] != 3:
        return None
    at = 8
    while at + 8 <= len(octets):
        size, kind = struct.unpack_from(">I4s", octets, at)
        if kind == b"PLTE":
            colours = np.frombuffer(octets[at + 8 : at + 8 + size], np.uint8)
            return colours[: len(colours) // 3 * 3].reshape(-1, 3)
        at += 12 + size
    return None


def _rvl(data: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Decodes runs of zeros and of differences, in nibbles of which three bits count.

    Source: Wilson, "Fast Lossless Depth Image Compression" (2017), in front of which the transport writes
    columns and rows.
    """
    if len(data) < 8:
        raise ImageError("corrupt", f"The RVL depth image of {len(data)} bytes has no size")
    columns, rows = (int(n) for n in data[:8].view("<u4"))
    check_size(rows, columns, MAX_COMPRESSED_PIXELS)
    words = data[8 : 8 + (len(data) - 8) // 4 * 4].view("<u4")
    nibbles = (
        ((words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)) & 15).ravel().astype(np.int64)
    )
    last = np.flatnonzero(nibbles < 8)  # of each number
    start = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(last[-1] + 1 if len(last) else 0)
    which = np.searchsorted(last, place)
    digit = place - start[which] if len(last) else place
    if len(digit) and digit.max() > _MOST_DIGITS:
        raise ImageError("corrupt", "The RVL depth image has a number of more than 32 bits")
    numbers = np.zeros(len(last), np.int64)
    np.add.at(numbers, which, (nibbles[place] & 7) << 3 * digit)
    out, at, done = np.zeros(rows * columns, np.uint16), 0, 0
    before = 0
    while done < len(out):
        if at + 1 >= len(numbers) or done + numbers[at] + numbers[at + 1] > len(out):
            raise ImageError(
                "corrupt", "The RVL depth image ends before its last pixel, or goes on after it"
            )
        zeros, count = int(numbers[at]), int(numbers[at + 1])
        steps = numbers[at + 2 : at + 2 + count]
        if len(steps) < count or not zeros + count:
            raise ImageError("corrupt", "The RVL depth image ends before its last pixel")
        values = before + np.cumsum((steps >> 1) ^ -(steps & 1))
        out[done + zeros : done + zeros + count] = values & 0xFFFF
        before = int(values[-1]) if count else before
        at, done = at + 2 + count, done + zeros + count
    return out.reshape(rows, columns)
