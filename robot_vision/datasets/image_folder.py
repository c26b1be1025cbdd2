"""Image folders: the folder's name is the class.

Layouts:
- `<root>/train/<class>/...`, with `val` (or `valid`, `validation`) and `test` beside it where there are
  any. What is there is honoured: a test folder is only ever tested on. Where there is no validation folder,
  a part of train is drawn for it; where there are train and validation only, test stays empty.
- `<root>/<class>/...`: validation and test are drawn from all.

Classes' images may lie in folders below theirs. The draw takes the same fraction of each class and is
reproducible. Frames of one video are nearly alike: `group` keeps them on one side, `split=blocks` divides
each class's files, in natural order, into blocks of time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from robot_vision.datasets.image_files import FileImage, unreadable_note
from robot_vision.datasets.options import option
from robot_vision.datasets.sample import Sample, Splits, labels_of
from robot_vision.datasets.splitting import BlockOptions, divide, draw_stratified
from robot_vision.errors import ConfigError, SourceError
from robot_vision.sources.files import IMAGE_SUFFIXES, is_image
from robot_vision.sources.natural import natural_key

_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation")
_TEST = ("test", "testing")


@dataclass(frozen=True)
class Options:
    """Options of the format."""

    split: str = option(
        "stratified",
        "how to draw what has no folder: stratified at random, or blocks of consecutive files of a class",
        choices=("stratified", "blocks"),
    )
    validation: float = option(0.15, "part of the training images", low=0, high=0.9)
    test: float = option(0.15, "part of all images, where there is no test folder", low=0, high=0.9)
    seed: int = option(0, "of the draw", low=0)
    group: str = option(
        "",
        "regular expression on the file's name: images whose first group (or match) agrees stay together",
    )
    block_frames: int = option(50, "with split=blocks: consecutive files in a block", low=1)


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give the folder above those of the classes")
    folders = {p.name.lower(): p for p in root.iterdir() if p.is_dir()}
    notes: list[str] = []
    parts = []
    for names in (_TRAIN, _VALIDATION, _TEST):
        found = [folders[name] for name in names if name in folders]
        parts.append(_classes_under(found[0], root, notes) if found else None)
    train, validation, test = parts
    if train is None and (validation is not None or test is not None):
        raise SourceError(
            f"{root} has no train folder beside its val or test folder: name it train"
        )
    if train is None:
        train = _classes_under(root, root, notes)
    return completed(train, validation, test, options, notes)


def completed(
    train: list[Sample],
    validation: list[Sample] | None,
    test: list[Sample] | None,
    options: Options,
    notes: list[str],
) -> Splits:
    """Draws the parts that a data set does not bring (None), and notes it."""
    if test is None and validation is None:
        train, test = _drawn(train, options, options.test, options.seed)
        notes.append(_drawn_note("test", test, options))
    elif test is None:
        notes.append("there is no test set: nothing is left to report on but validation")
    if validation is None:
        train, validation = _drawn(train, options, options.validation, options.seed + 1)
        notes.append(_drawn_note("validation", validation, options))
    labels = labels_of(train)
    if len(labels) == 1:
        notes.append(f"there is one class only ({labels[0]}): a classifier needs two or more")
    for name, part in (("validation", validation), ("test", test or [])):
        strange = sorted(set(labels_of(part)) - set(labels))
        if strange:
            notes.append(f"{name} has classes that train lacks: {', '.join(strange)}")
    return Splits(
        tuple(train), tuple(validation), tuple(test or ()), labels=labels, notes=tuple(notes)
    )


def _classes_under(folder: Path, root: Path, notes: list[str]) -> list[Sample]:
    """Returns the images of a folder of classes; what is left out goes to the notes."""
    below = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=_natural)
    loose = [p for p in below if p.is_file() and is_image(p)]
    if loose:
        notes.append(
            f"{len(loose)} images lie in {folder} itself, in no class, and are left out: {loose[0].name}"
        )
    samples: list[Sample] = []
    files: list[Path] = []
    others = 0
    for category in (p for p in below if p.is_dir()):
        images, strange = _images_and_others(category)
        others += strange
        if not images:
            notes.append(f"class folder {category} has no image and is left out")
        prefix = category.relative_to(root).as_posix()
        for image in images:
            name = f"{prefix}/{image}"
            path = os.path.join(category, image)
            sequence = name.rpartition("/")[0]
            samples.append(Sample(name, category.name, None, None, sequence, FileImage(path)))
            files.append(Path(path))
    if others:
        notes.append(f"{others} files under {folder} are no images and are left out")
    notes += unreadable_note(files)
    if not samples:
        raise SourceError(f"{folder} has no class folder with an image in it")
    return samples


def _images_and_others(category: Path) -> tuple[list[str], int]:
    """Returns the images below a class folder, relative to it and in order, and how many others there are.

    Strings and one walk: with paths as objects 100,000 files took twice as long.
    """
    images: list[str] = []
    others = 0
    for folder, below, names in os.walk(category):
        below[:] = [name for name in below if not name.startswith(".")]
        inside = os.path.relpath(folder, category).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                images.append(prefix + name)
            elif not name.startswith("."):
                others += 1
    return sorted(
        images, key=lambda image: [natural_key(part) for part in image.split("/")]
    ), others


def _natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    return natural_key(path.name)


def _drawn(
    samples: list[Sample], options: Options, fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    if options.split == "blocks":
        blocks = BlockOptions(
            split="blocks",
            block_frames=options.block_frames,
            test_remainder=-1,
            seed=seed,
        )
        kept: list[Sample] = []
        drawn: list[Sample] = []
        for label in labels_of(samples):
            mine = [s for s in samples if s.label == label]
            # At least one block of a class that has two, as with the draw of single images.
            # Blocks end where a folder below the class does.
            folders = Counter(s.sequence for s in mine).values()
            least = 1 / sum(-(-n // options.block_frames) for n in folders) if fraction else 0.0
            train, part, _ = divide(mine, replace(blocks, validation=max(fraction, least)))
            kept, drawn = kept + train, drawn + part
        return kept, drawn
    return draw_stratified(samples, fraction, seed, _unit(options.group))


def _unit(pattern: str) -> Callable[[Sample], str]:
    """Returns what keeps samples together: their own name, or what the pattern finds in it."""
    if not pattern:
        return lambda sample: sample.name
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"Option group is {pattern!r}: not a regular expression ({error})"
        ) from error

    def unit(sample: Sample) -> str:
        found = compiled.search(Path(sample.name).name)
        if not found:
            raise ConfigError(
                f"Option group {pattern!r} does not match the file name {sample.name}"
            )
        return str(found.group(1) if compiled.groups else found.group(0))

    return unit


def _drawn_note(name: str, part: list[Sample], options: Options) -> str:
    how = (
        "in blocks of consecutive files" if options.split == "blocks" else "at random in each class"
    )
    return f"{name}: {len(part)} images drawn {how}, seed {options.seed}"
