"""The photographs that an exported graph is verified on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, ImageError
from robot_vision.recordings.files import find_images
from robot_vision.recordings.image_formats import IMAGE_SUFFIXES

MAX_IMAGES = 32


def verification_images(folder: str | None) -> tuple[list[NDArray[np.uint8]], str]:
    """Returns real photographs, RGB uint8 (H, W, 3), and in words where they are from.

    Raises:
        ConfigError: the folder has no images, or none is named and no samples are installed.
    """
    if folder is not None:
        paths = _image_files(Path(folder).expanduser())
        return _read_all(paths), f"{len(paths)} from {folder}"
    paths = _sample_photographs()
    if not paths:
        raise ConfigError(
            "No photographs to verify the graph on: give a folder of camera images with --images"
        )
    return _read_all(paths), "samples of scikit-learn and scikit-image (give yours with --images)"


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"--images {str(folder)!r} is no folder")
    found = find_images(folder).files
    if not found:
        raise ConfigError(f"--images {str(folder)!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    step = max(1, len(found) // MAX_IMAGES)  # spread over a sequence, not its beginning
    return found[::step][:MAX_IMAGES]


def _sample_photographs() -> list[Path]:
    """Photographs that come with packages: china and flower, coffee, cat, rocket, astronaut."""
    import importlib.util

    paths = []
    for package, names in (
        ("sklearn.datasets", ("images/china.jpg", "images/flower.jpg")),
        ("skimage.data", ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")),
    ):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        if spec and spec.origin:
            paths += [Path(spec.origin).parent / name for name in names]
    return [path for path in paths if path.is_file()]


def _read_all(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    from robot_vision.datasets.image_files import FileImage

    try:
        return [FileImage(str(path)).load() for path in paths]
    except ImageError as error:
        raise ConfigError(f"{error}: remove it, or name other images") from error
