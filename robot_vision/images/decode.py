"""Hop 1 of a frame's path: an image message becomes an RGB array.

`to_rgb` reads the fields of `sensor_msgs/Image` and `sensor_msgs/CompressedImage` and nothing else of a
message, so messages of rclpy, of `rosbags` and of this package's own sources take the same road.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError
from robot_vision.images.compressed import compressed_size, decode_compressed
from robot_vision.images.limits import check_size
from robot_vision.images.orientation import upright, upright_size
from robot_vision.images.raw import decode_raw, row_bytes, supported_encodings


def to_rgb(msg: Any, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decodes an image message.

    Rules that a message leaves open: `8UC1/3/4` are gray, BGR and BGRA as in OpenCV; `16UC1` is gray;
    16-bit values are divided by 257; float images hold intensities in [0, 1] and are clipped to it;
    alpha is dropped; the EXIF orientation in a message's JPEG is ignored, as the camera's calibration
    ignores it, and that of a file (`recordings.files`) is applied.
    `data` must have height x step bytes (planar encodings: with their chroma rows); only the padding
    of the last row may be missing.

    Args:
        msg: has height, width, encoding, is_bigendian, step and data, or else format and data.
        min_size: (height, width) that the caller needs at least. A JPEG may then come back at a half,
            quarter or eighth of its size, decoded in a fraction of the time.

    Returns:
        RGB uint8 (H, W, 3). For `rgb8` a view of the message's data, and for `bgr8` one with its
        channels reversed; both may be read-only and have padded rows.

    Raises:
        ImageError: the message cannot be decoded; its `reason` says why in a word.
    """
    if not hasattr(msg, "encoding"):
        data, text = bytes_of(msg.data), str(msg.format)
        orientation = getattr(msg, "orientation", 1)  # of a file; messages of ROS have none
        if orientation == 1:
            return decode_compressed(data, text, min_size)
        least = None if min_size is None else upright_size(min_size, orientation)
        return upright(decode_compressed(data, text, least), orientation)
    encoding = str(msg.encoding)
    if encoding not in supported_encodings():
        from robot_vision.images.foreign import decode_foreign  # which few cameras need

        return decode_foreign(msg, encoding)
    return decode_raw(*raw_parts(msg))


def raw_parts(msg: Any) -> tuple[NDArray[np.uint8], int, int, int, str, bool]:
    """Returns what `images.raw` decodes: data, height, width, step, encoding, whether big-endian.

    Raises:
        ImageError: an absurd size, or a step of less than a row.
    """
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    encoding = str(msg.encoding)
    check_size(height, width)
    needed = row_bytes(encoding, width)
    if step < needed:
        raise ImageError(
            "size", f"step is {step}: a row of {width} pixels in {encoding} has {needed} bytes"
        )
    return bytes_of(msg.data), height, width, step, encoding, bool(msg.is_bigendian)


def image_size(msg: Any) -> tuple[int, int]:
    """Returns an image message's (height, width) without decoding its pixels.

    Raises:
        ImageError: a compressed image whose header cannot be read.
    """
    if hasattr(msg, "encoding"):
        return int(msg.height), int(msg.width)
    size = compressed_size(bytes_of(msg.data), str(msg.format))
    return upright_size(size, getattr(msg, "orientation", 1))


def bytes_of(data: Any) -> NDArray[np.uint8]:
    """Returns uint8 (N,) over bytes, array.array, memoryview or NumPy data, without a copy."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    view = memoryview(data)
    if view.nbytes == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(view, np.uint8)
