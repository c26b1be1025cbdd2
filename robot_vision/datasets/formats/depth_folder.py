"""Folders of images and depth images, `images/NAME.jpg` and `depth/NAME.png`; layouts: `datasets.pairs`.

A depth image has a distance along the camera's axis in each pixel: whole numbers of a unit (16 bits), or
float32 (TIFF).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robot_vision.datasets.pairs import PairOptions, Pairs, open_pairs
from robot_vision.datasets.pixel_truth import PixelFile
from robot_vision.datasets.sample import Splits
from robot_vision.errors import ConfigError
from robot_vision.settings.declared import names_in, option

_FOLDERS = ("depth", "depths", "depth_images", "distance")


@dataclass(frozen=True)
class Options(PairOptions):
    """Options of the format."""

    depth: str = option("", f"folder of the depth images; empty: {', '.join(_FOLDERS)}")
    unit_m: float = option(0.001, "metres of a stored 1; 0.001 for millimetres", low=0, high=1e6)
    invalid: str = option(
        "0,65535", "stored numbers that mean that nothing was measured, separated by commas"
    )
    word: str = option("depth", "name of the head that the distances are for")


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    if not options.unit_m:
        raise ConfigError("Option unit_m is 0: give the metres of a stored 1")
    try:
        none = tuple(float(word) for word in names_in(options.invalid))
    except ValueError:
        raise ConfigError(
            f"Option invalid is {options.invalid!r}: give numbers separated by commas"
        ) from None
    pairs = Pairs(
        (options.depth,) if options.depth else _FOLDERS,
        f"image:{options.word}",
        lambda file: PixelFile(str(file), none, options.unit_m),
        "depth images",
    )
    return open_pairs(root, options, pairs, [])
