"""Reads image messages straight from their serialised bytes (CDR), without copying the pixels.

The node subscribes to bytes: a frame that is replaced by a newer one is then never deserialised, and one that
is used is read through a view. Only the plain little-endian form that every ROS 2 middleware sends on
common processors is read here; any other goes to rclpy.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

_CDR_LE = b"\x00\x01"
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
        self._buffer = memoryview(buffer)
        self._at = _HEADER

    def uint32(self) -> int:
        self._at += -(self._at - _HEADER) % 4
        (value,) = struct.unpack_from("<I", self._buffer, self._at)
        self._at += 4
        return int(value)

    def octet(self) -> int:
        self._at += 1
        return self._buffer[self._at - 1]

    def octets(self) -> memoryview:
        size = self.uint32()
        view = self._buffer[self._at : self._at + size]
        if len(view) != size:
            raise ValueError("the message ends within a sequence")
        self._at += size
        return view

    def string(self) -> str:
        return bytes(self.octets()).rstrip(b"\0").decode("utf-8", "replace")

    def header(self) -> Header:
        sec = self.uint32()
        signed = sec - (1 << 32) if sec >= 1 << 31 else sec
        return Header(Stamp(signed, self.uint32()), self.string())


def read_image(serialized: bytes) -> Any:
    """Returns an `ImageView`, or rclpy's message where the bytes are in another form."""
    if serialized[:2] != _CDR_LE:
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import Image

        return deserialize_message(serialized, Image)
    r = _Reader(serialized)
    return ImageView(
        r.header(), r.uint32(), r.uint32(), r.string(), r.octet(), r.uint32(), r.octets()
    )


def read_compressed_image(serialized: bytes) -> Any:
    """Returns a `CompressedImageView`, or rclpy's message where the bytes are in another form."""
    if serialized[:2] != _CDR_LE:
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import CompressedImage

        return deserialize_message(serialized, CompressedImage)
    r = _Reader(serialized)
    return CompressedImageView(r.header(), r.string(), r.octets())
