"""JPEG and PNG images: checked by their headers before a byte is decoded.

OpenCV hides damage: a JPEG that was cut off decodes to a picture that is gray below the cut. So the end
marker has to be there, and sizes are read from the header, before memory is taken for the pixels.
"""

from __future__ import annotations

import re
import struct
import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError, unknown
from robot_vision.images.limits import MAX_COMPRESSED_PIXELS, check_size
from robot_vision.images.raw import decode_raw, is_planar, supported_encodings

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
# Start-of-frame markers hold the size: C0 to CF without the Huffman, arithmetic and reserved ones.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Of compressed_image_transport: `ENCODING; CODEC compressed TARGET`
_FORMAT = re.compile(r"\s*(\w+)\s*;")


def decode_compressed(
    data: NDArray[np.uint8], format_text: str, min_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Decodes JPEG or PNG bytes, distinguished by their first bytes.

    Args:
        data: uint8 (N,).
        format_text: the message's `format`. It is used in errors; where it ends in `compressed rgb8`, since
            such images were compressed with red and blue exchanged; and where it begins with a Bayer
            pattern, as of `bayer_rggb8; jpeg compressed `, since the data may be the mosaic itself.
        min_size: see `images.to_rgb`.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ImageError: another format, an absurd size, damaged data, or a layout of samples that is no picture.
    """
    height, width = compressed_size(data, format_text)
    found = _FORMAT.match(format_text)
    encoding = found[1] if found else ""
    if "bayer" in encoding.lower() or is_planar(encoding):
        return _from_samples(
            decoded(data, format_text, cv2.IMREAD_UNCHANGED), encoding, format_text
        )
    flag = cv2.IMREAD_COLOR
    if min_size is not None and data[:3].tobytes() == JPEG:
        for factor in (8, 4, 2):
            if -(-height // factor) >= min_size[0] and -(-width // factor) >= min_size[1]:
                flag = _REDUCED[factor]
                break
    return _from_bgr(decoded(data, format_text, flag | cv2.IMREAD_IGNORE_ORIENTATION), format_text)


def decoded(data: NDArray[np.uint8], format_text: str, flag: int) -> NDArray[Any]:
    """Returns what OpenCV makes of an image (N,) with a flag of `imread`; ImageError where it cannot."""
    try:
        image = cv2.imdecode(data, flag)
    except cv2.error as error:
        raise ImageError(
            "corrupt", f"OpenCV cannot decode the {format_text!r} image: {error.err}"
        ) from error
    if image is None:
        raise ImageError("corrupt", f"The {format_text!r} image of {len(data)} bytes is damaged")
    return np.asarray(image)


def _from_bgr(image: NDArray[Any], format_text: str) -> NDArray[np.uint8]:
    if "compressed rgb" in format_text:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))


def _from_samples(image: NDArray[Any], encoding: str, format_text: str) -> NDArray[np.uint8]:
    """Returns RGB of an image of the samples of a raw encoding, which compressed_image_transport sends.

    It compresses what it does not know as colours, unchanged: a mosaic, or planes of luma and chroma.
    """
    if image.ndim == 3:
        image = image[..., :3]  # without alpha
        if (image != image[..., :1]).any():  # somebody made colours of them before
            if image.dtype == np.uint16:
                image = cv2.convertScaleAbs(image, alpha=1 / 257)
            return _from_bgr(np.ascontiguousarray(image), format_text)
        image = image[..., 0]
    # A 16-bit mosaic becomes 8 bits in a JPEG: only the pattern is as the format says.
    bits = 8 * image.dtype.itemsize
    raw = re.sub(r"^(bayer_[a-z]{4})\d+$", rf"\g<1>{bits}", encoding)
    if raw not in supported_encodings() or is_planar(raw):
        known = [name for name in supported_encodings() if not is_planar(name)]
        raise ImageError(
            "encoding",
            f"{unknown('compressed encoding', encoding, known)} (format {format_text!r})",
        )
    image = np.ascontiguousarray(image)
    height, width = image.shape
    octets = image.reshape(-1).view(np.uint8)
    return decode_raw(octets, height, width, image.strides[0], raw, sys.byteorder == "big")


def compressed_size(data: NDArray[np.uint8], format_text: str) -> tuple[int, int]:
    """Returns (height, width) from the header of a JPEG or PNG that has its end.

    Raises:
        ImageError: another format, an absurd size, or cut off.
    """
    head = data[:8].tobytes()
    if head[:3] == JPEG:
        height, width, scan = _jpeg_size(data.data)
        check_size(height, width, MAX_COMPRESSED_PIXELS)
        _check_end(data, scan)
    elif head == PNG:
        height, width = _png_size(data)
        check_size(height, width, MAX_COMPRESSED_PIXELS)
        _check_chunks(data)
    elif head:
        depth = "; it holds distances and no picture" if "compressedDepth" in format_text else ""
        raise ImageError(
            "encoding",
            f"Unknown compressed format {format_text!r} (data begins with {head.hex(' ')}): "
            f"use one of jpeg, png{depth}",
        )
    else:
        raise ImageError("data_length", f"The {format_text!r} image has no data")
    return height, width


def _jpeg_size(data: memoryview) -> tuple[int, int, int]:
    """Returns height, width and where the compressed data may begin."""
    at, end = 2, len(data)
    while at + 9 <= end:
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width, at
        if marker in (0xD9, 0xDA):  # the end or the pixels, before any size
            break
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ImageError("corrupt", f"The JPEG image of {end} bytes has no frame header: it is damaged")


def _png_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    header = data[8:24].tobytes()
    if len(header) < 16 or header[4:8] != b"IHDR":
        raise ImageError(
            "corrupt", f"The PNG image of {len(data)} bytes has no header: it is damaged"
        )
    width, height = struct.unpack(">II", header[8:16])
    return height, width


def _check_chunks(data: NDArray[np.uint8]) -> None:
    """Checks that every chunk of a PNG is there: OpenCV takes the memory that a chunk claims, up to 4 GB."""
    view, at = data.data, 8
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", view, at)
        if kind == b"IHDR" and at > 8:
            break
        at += 12 + size
        if kind == b"IEND" and at <= len(data):
            return  # some cameras pad after the end
    raise ImageError(
        "corrupt", f"The PNG image of {len(data)} bytes lacks its end chunk: it was cut off"
    )


def _check_end(data: NDArray[np.uint8], start: int) -> None:
    # Some cameras pad after the end, so the mark is looked for near the end first, then everywhere.
    mark = b"\xff\xd9"
    tail = max(start, len(data) - 64)
    if data[tail:].tobytes().rfind(mark) >= 0 or data[start:].tobytes().rfind(mark) >= 0:
        return
    raise ImageError(
        "corrupt", f"The JPEG image of {len(data)} bytes lacks its end marker: it was cut off"
    )
