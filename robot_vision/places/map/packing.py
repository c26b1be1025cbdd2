"""Keyframes as the bytes and numbers that a map keeps. Little-endian everywhere, no pickle."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.places.map.keyframe import MAX_ID, MAX_TEXT, Keyframe

_POSE = struct.Struct("<q7d")
_COVARIANCE_BYTES = 36 * 8
_UNIT = 1e-5  # how far a quaternion's length may be from 1
_STORED: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def descriptor_bytes(descriptor: NDArray[Any], dtype: str) -> bytes:
    """Returns a descriptor (D,) as it is stored; float16 rounds it to 11 bits."""
    return np.asarray(descriptor).astype(_STORED[dtype]).tobytes()


def descriptors_from(blobs: Sequence[bytes], dimension: int, dtype: str) -> NDArray[np.float32]:
    """Returns stored descriptors as float32 (N, D)."""
    flat = np.frombuffer(b"".join(blobs), _STORED[dtype])
    return flat.astype(np.float32).reshape(len(blobs), dimension)


def descriptor_size(dimension: int, dtype: str) -> int:
    """Returns the bytes of a stored descriptor."""
    return dimension * _STORED[dtype].itemsize


def covariance_bytes(covariance: NDArray[np.float64] | None) -> bytes | None:
    """Returns a covariance (6, 6) as 36 doubles, row by row."""
    return None if covariance is None else np.ascontiguousarray(covariance, "<f8").tobytes()


def covariance_from(blob: bytes | None) -> NDArray[np.float64] | None:
    """Returns the covariance (6, 6) of `covariance_bytes`."""
    return None if blob is None else np.frombuffer(blob, "<f8").reshape(6, 6).astype(np.float64)


def pose_numbers(keyframe: Keyframe) -> tuple[float, ...]:
    """Returns x, y, z, qx, qy, qz, qw; a negative zero becomes zero, which SQLite would make of it."""
    numbers = (*keyframe.position.tolist(), *keyframe.quaternion_xyzw.tolist())
    return tuple(float(number) + 0.0 for number in numbers)


def row_sum(
    stamp_ns: int, pose: Sequence[float], camera: str, source: str, covariance: bytes | None
) -> int:
    """Returns the CRC-32 that tells whether a row is as it was written."""
    total = zlib.crc32(_POSE.pack(stamp_ns, *pose))
    total = zlib.crc32(camera.encode() + b"\0" + source.encode() + b"\0", total)
    return zlib.crc32(covariance or b"", total)


def is_sound(row: tuple[Any, ...]) -> bool:
    """Returns whether a row, as `keyframe_from` takes it, has the types and ranges of one that was written.

    A checksum shows damage, not malice: the author of the file made the checksums too.
    """
    number, stamp_ns, camera, source, *pose = row[:11]
    covariance = row[11]
    return (
        isinstance(number, int)
        and 1 <= number < MAX_ID
        and isinstance(stamp_ns, int)
        and -(1 << 63) <= stamp_ns < 1 << 63
        and all(isinstance(text, str) and len(text) <= MAX_TEXT for text in (camera, source))
        and all(isinstance(value, float) and math.isfinite(value) for value in pose)
        and abs(math.hypot(*pose[3:]) - 1) < _UNIT
        and (covariance is None or _is_covariance(covariance))
    )


def _is_covariance(blob: object) -> bool:
    if not isinstance(blob, bytes) or len(blob) != _COVARIANCE_BYTES:
        return False
    return bool(np.all(np.isfinite(np.frombuffer(blob, "<f8"))))


def keyframe_from(
    row: tuple[Any, ...], descriptor: NDArray[np.float32], thumbnail: bytes | None
) -> Keyframe:
    """Returns a keyframe of (id, stamp_ns, camera, source, 7 numbers of the pose, covariance)."""
    pose = np.array(row[4:11], np.float64)
    return Keyframe(
        row[0],
        row[1],
        row[2],
        row[3],
        pose[:3],
        pose[3:],
        covariance_from(row[11]),
        descriptor,
        thumbnail,
    )
