"""Image files: one, a folder of them, or what a pattern matches."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.sources.base import (
    DEFAULT_FRAME,
    DEFAULT_TOPIC,
    CompressedImage,
    Frame,
    RawImage,
    Source,
    nanoseconds,
)
from robot_vision.sources.natural import natural_key

# JPEG and PNG go on as they are, so that they are decoded as a camera's compressed images are.
_AS_THEY_ARE = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jif"), "jpeg"),
    ".png": "png",
}
_THROUGH_OPENCV = (".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm", ".avif")
_HEIC = (".heic", ".heif")
IMAGE_SUFFIXES = (*_AS_THEY_ARE, *_THROUGH_OPENCV, *_HEIC)


def is_image(path: Path) -> bool:
    """Whether a file's name ends as an image's does."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def images_under(folder: Path) -> list[Path]:
    """Returns the image files of a folder and of those below it, in natural order; hidden ones left out."""
    found = [
        path
        for path in folder.rglob("*")
        if is_image(path)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda p: [natural_key(part) for part in p.relative_to(folder).parts])


class FileSource(Source):
    """Image files as a camera's frames.

    Args:
        name: what was opened.
        files: in their order.
        rate: frames per second; files bear no stamps, so the first is 0.
        start_s: seconds from which frames are given.
        duration_s: for so many seconds; None until the end.
        root: names are relative to it.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        rate: float = 30.0,
        start_s: float = 0.0,
        duration_s: float | None = None,
        root: Path | None = None,
    ) -> None:
        if not files:
            ends = ", ".join(IMAGE_SUFFIXES)
            raise SourceError(f"{name} has no image: files must end in one of {ends}")
        stamps = [nanoseconds(i / rate) for i in range(len(files))]
        first = nanoseconds(start_s)
        last = None if duration_s is None else first + nanoseconds(duration_s)
        self._chosen = [
            (stamp, file)
            for stamp, file in zip(stamps, files, strict=True)
            if stamp >= first and (last is None or stamp < last)
        ]
        self._root = root
        super().__init__(name, (DEFAULT_TOPIC,), len(self._chosen))
        passed_on = {file.suffix.lower() in _AS_THEY_ARE for file in files}
        self.forms = tuple(
            form for form, there in (("raw", False), ("compressed", True)) if there in passed_on
        )

    @property
    def files(self) -> dict[str, Path]:
        """The file of each frame's name, in their order."""
        return {self._name(file): file for _, file in self._chosen}

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self._root) if self._root else file)

    def __iter__(self) -> Iterator[Frame]:
        for stamp_ns, file in self._chosen:
            try:
                message = read_image(file)
            except (OSError, ValueError) as error:
                self.problems.append(f"{file} cannot be read: {error}")
                continue
            yield Frame(stamp_ns, DEFAULT_TOPIC, DEFAULT_FRAME, message, self._name(file), stamp_ns)


def missing_decoder(suffix: str) -> str:
    """Returns what to do about images of a suffix that nothing here can decode; empty where something can."""
    suffix = suffix.lower()
    if suffix in _HEIC and importlib.util.find_spec("pillow_heif") is None:
        return "HEIC needs a decoder: pip install pillow-heif, or convert the images to JPEG"
    if suffix == ".avif" and not re.search(r"AVIF: +(?!NO)\S", cv2.getBuildInformation()):
        return "this OpenCV has no decoder of AVIF: install another, or convert the images to JPEG"
    return ""


def read_image(file: Path) -> Any:
    """Returns an image file as a message for `images.to_rgb`.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be decoded.
    """
    kind = _AS_THEY_ARE.get(file.suffix.lower())
    if kind:
        return CompressedImage(kind, file.read_bytes())
    if remedy := missing_decoder(file.suffix):
        raise ValueError(remedy)
    if file.suffix.lower() in _HEIC:
        return RawImage.of(_read_heic(file), "bgr8")
    with file.open("rb"):  # a reason from the system, where OpenCV would give none
        image = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("OpenCV cannot decode it")
    return RawImage.of(np.asarray(image, np.uint8), "bgr8")


def _read_heic(file: Path) -> NDArray[np.uint8]:
    """Returns BGR (H, W, 3), upright: the format's own turns are part of decoding it."""
    data = file.read_bytes()
    try:
        heif: Any = importlib.import_module("pillow_heif")
        image = heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
        pixels = np.asarray(image, np.uint8)
    except Exception as error:  # of libheif, which has many
        raise ValueError(f"HEIC cannot be decoded: {error}") from error
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])
