"""Formats of image files: recognised by their first bytes, as names may say something else, and decoded."""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.images.compressed import compressed_size
from robot_vision.images.decode import image_size
from robot_vision.images.orientation import orientation_of, upright, without_orientation
from robot_vision.images.several_pictures import holds_several
from robot_vision.recordings.base import CompressedImage, RawImage

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "png": (".png",),
    "bmp": (".bmp", ".dib"),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "pnm": (".ppm", ".pgm", ".pbm", ".pnm"),
    "gif": (".gif",),
    "avif": (".avif",),
    "heic": (".heic", ".heif"),
}
_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes}
IMAGE_SUFFIXES = tuple(_KIND_OF_SUFFIX)
# JPEG and PNG go on as they are, so that they are decoded as a camera's compressed images are.
AS_THEY_ARE = ("jpeg", "png")
_MAGIC = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<gif>GIF8[79]a)|(?P<webp>RIFF....WEBP)"
    rb"|(?P<tiff>II[*+]\0|MM\0[*+])|(?P<bmp>BM)|(?P<pnm>P[1-6]\s)"
    rb"|....ftyp(?:(?P<avif>avi[fs]|.{,20}?avi[fs])|(?P<heic>hei[cxms]|hev[cxms]|mif1|msf1))",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Look:
    """What the beginning of an image file shows, without decoding it.

    Attributes:
        kind: its format by its first bytes; empty for none that is known.
        named: its format by its name.
        orientation: EXIF's, 1 to 8.
        problem: why it cannot be read; empty where nothing is seen.
        several: it holds more than one picture, of which the first is read.
    """

    kind: str
    named: str
    orientation: int = 1
    problem: str = ""
    several: bool = False


def is_image(path: Path) -> bool:
    """Whether a file's name ends as an image's does."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def look_at(file: str | Path) -> Look:
    """Looks at a file's first bytes and at where its orientation would be; takes microseconds."""
    named = _KIND_OF_SUFFIX.get(os.path.splitext(file)[1].lower(), "")
    try:
        state = os.stat(file)
        if not stat.S_ISREG(state.st_mode):
            return Look("", named, 1, "are no regular files")
        if not state.st_size:
            return Look("", named, 1, "are empty and cannot be read")
        with (
            open(file, "rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            kind, orientation = _kind_of(data[:32]), orientation_of(data)
            several = holds_several(kind, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Look("", named, 1, f"cannot be read ({reason})")
    if not kind:
        return Look(kind, named, 1, "hold no image of a known format")
    remedy = missing_decoder(kind)
    return Look(kind, named, orientation, f"cannot be read ({remedy})" if remedy else "", several)


def missing_decoder(kind: str) -> str:
    """Returns what to do about images of a format that nothing here can decode; empty where something can."""
    if kind == "heic" and importlib.util.find_spec("pillow_heif") is None:
        return "HEIC needs a decoder: pip install pillow-heif, or convert the images to JPEG"
    if kind in ("avif", "gif", "webp", "tiff") and not re.search(
        rf"{kind.upper()}: +(?!NO)\S", cv2.getBuildInformation()
    ):
        return f"this OpenCV has no decoder of {kind.upper()}: install another, or convert the images to JPEG"
    return ""


def read_image(file: Path, turn: bool = True) -> Any:
    """Returns an image file as a message for `images.to_rgb`.

    Args:
        file: its format is recognised by its content.
        turn: turn pictures upright whose file says how they lie; else pixels are as stored (HEIC is always
            upright: the format's own turns are part of decoding it).

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be decoded.
    """
    data = file_bytes(file)
    kind = _kind_of(data[:32])
    orientation = orientation_of(data) if turn else 1
    as_named = _KIND_OF_SUFFIX.get(file.suffix.lower(), "")
    if kind in AS_THEY_ARE or (not kind and as_named in AS_THEY_ARE):
        return CompressedImage(kind or as_named, data, orientation)
    if remedy := missing_decoder(kind):
        raise ValueError(remedy)
    if kind == "heic":
        return RawImage.of(_decode_heic(data), "bgr8")
    if kind == "tiff":
        data = without_orientation(data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot decode it: {error.err}") from error
    if image is None:
        raise ValueError(f"OpenCV cannot decode it (data begins with {data[:8].hex(' ')})")
    return RawImage.of(upright(np.asarray(image, np.uint8), orientation), "bgr8")


def file_bytes(file: Path) -> bytes:
    """Returns a regular file's bytes: a pipe would keep its reader forever.

    Raises:
        OSError: it cannot be read.
    """
    if not file.is_file():
        raise OSError("it does not exist, or is no regular file")
    return file.read_bytes()


def stored_size(file: Path) -> tuple[int, int]:
    """Returns (height, width) of an image's pixels as stored, from the head of a JPEG or PNG.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be decoded.
        ImageError: it is damaged.
    """
    if look_at(file).kind not in AS_THEY_ARE:
        return image_size(read_image(file, turn=False))
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return compressed_size(np.frombuffer(mapped, np.uint8), "")


def _kind_of(head: bytes) -> str:
    match = _MAGIC.match(head)
    return (match.lastgroup or "") if match else ""


def _decode_heic(data: bytes) -> NDArray[np.uint8]:
    """Returns BGR (H, W, 3), upright."""
    try:
        heif: Any = importlib.import_module("pillow_heif")
        image = heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
        pixels = np.asarray(image, np.uint8)
    except Exception as error:  # of libheif, which has many
        raise ValueError(f"HEIC cannot be decoded: {error}") from error
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])
