"""Reads image messages straight from their serialised bytes (CDR), without copying the pixels.

The node subscribes to bytes: a frame that is replaced by a newer one is then never deserialised, and one that
is used is read through a view. The bytes are whatever a publisher sent: every length is checked against what
is there before it is believed, and nothing is handed to a parser in C++.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from robot_vision.errors import ImageError

_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}  # plain CDR, the form that ROS 2 sends
_MAX_TEXT = 4096  # bytes of a frame or an encoding: each result carries the frame on
_HEADER = 4  # bytes of encapsulation; CDR aligns relative to what follows them


@dataclass(frozen=True)
class Stamp:
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


@dataclass(frozen=True)
class Header:
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True)
class ImageView:
    """The fields of sensor_msgs/Image; `data` is a view of the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedImageView:
    """The fields of sensor_msgs/CompressedImage; `data` is a view of the serialised message."""

    header: Header
    format: str
    data: memoryview


class _Reader:
    def __init__(self, buffer: bytes) -> None:
        order = _ORDERS.get(bytes(buffer[:2]))
        if order is None:
            raise ImageError(
                "encoding",
                f"The message begins with {bytes(buffer[:4]).hex(' ') or 'nothing'}: only plain CDR, which "
                "begins with 00 00 or 00 01, is read",
            )
        self._buffer = memoryview(buffer)
        self._at = _HEADER
        self._uint32 = struct.Struct(f"{order}I")

    def uint32(self) -> int:
        self._at += -(self._at - _HEADER) % 4
        (value,) = self._uint32.unpack_from(self._buffer, self._at)
        self._at += 4
        return int(value)

    def octet(self) -> int:
        self._at += 1
        return self._buffer[self._at - 1]

    def octets(self) -> memoryview:
        size = self.uint32()
        view = self._buffer[self._at : self._at + size]
        if len(view) != size:
            raise IndexError(f"it ends within a field of {size} bytes")
        self._at += size
        return view

    def string(self) -> str:
        text = self.octets()
        if len(text) > _MAX_TEXT:
            raise IndexError(f"a text of {len(text)} bytes is no name")
        return bytes(text).rstrip(b"\0").decode("utf-8", "replace")

    def header(self) -> Header:
        sec = self.uint32()
        signed = sec - (1 << 32) if sec >= 1 << 31 else sec
        return Header(Stamp(signed, self.uint32()), self.string())


def read_image(serialized: bytes) -> ImageView:
    """Reads `sensor_msgs/Image`.

    Raises:
        ImageError: the message is cut off, a length in it lies, or it is in another form.
    """
    r = _Reader(serialized)
    try:
        return ImageView(
            r.header(), r.uint32(), r.uint32(), r.string(), r.octet(), r.uint32(), r.octets()
        )
    except (struct.error, IndexError) as error:
        raise _cut_off(serialized, error) from error


def read_compressed_image(serialized: bytes) -> CompressedImageView:
    """Reads `sensor_msgs/CompressedImage`; see `read_image`."""
    r = _Reader(serialized)
    try:
        return CompressedImageView(r.header(), r.string(), r.octets())
    except (struct.error, IndexError) as error:
        raise _cut_off(serialized, error) from error


def _cut_off(serialized: bytes, error: Exception) -> ImageError:
    return ImageError(
        "corrupt", f"The message of {len(serialized)} bytes is damaged or cut off: {error}"
    )
