"""Folders of images and label images, `images/NAME.jpg` and `labels/NAME.png`; layouts: `datasets.pairs`.

A label image has an id of a class in each pixel: as one number (8 bits, or the numbers of a palette), or as
a colour of the table of classes. `datasets.pixel_truth` says how that table is written; 255 is no truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robot_vision.datasets.pairs import PairOptions, Pairs, open_pairs
from robot_vision.datasets.pixel_truth import PixelFile, read_classes
from robot_vision.datasets.sample import Splits
from robot_vision.errors import SourceError
from robot_vision.settings.declared import option

_TABLES = ("classes.csv", "classes.txt", "class_dict.csv", "label_colors.txt", "labels.txt")
_FOLDERS = ("labels", "masks", "annotations", "SegmentationClass", "mask", "label")


@dataclass(frozen=True)
class Options(PairOptions):
    """Options of the format."""

    masks: str = option("", f"folder of the label images; empty: {', '.join(_FOLDERS)}")
    classes: str = option(
        "",
        "table of the classes, or their names separated by commas, with the ids 0, 1, ...; empty: "
        f"{', '.join(_TABLES)}",
    )
    ignore: str = option(
        "",
        "names or ids of pixels without truth, separated by commas; 255 and void always are among them",
    )
    word: str = option("segmentation", "name of the head that the classes are for")


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    notes: list[str] = []
    text = options.classes or next((name for name in _TABLES if (root / name).is_file()), "")
    if not text:
        raise SourceError(
            f"{root} has no table of classes ({', '.join(_TABLES)}): write one, or set the option classes"
        )
    table = read_classes(text, root, options.ignore, notes)
    pairs = Pairs(
        (options.masks,) if options.masks else _FOLDERS,
        f"image:{options.word}",
        lambda file: PixelFile(str(file), table=table),
        "label images",
        table.classes,
    )
    return open_pairs(root, options, pairs, notes)
