"""Image folders: the folder's name is the class.

Layouts:
- `<root>/train/<class>/...`, with `val` (or `valid`, `validation`) and `test` next to it where there are
  any. What is there is honoured: a test folder is only ever tested on. Where there is no validation folder,
  a part of train is drawn for it; where there are train and validation only, test stays empty.
- `<root>/<class>/...`: validation and test are drawn from all.

A folder train next to folders of other names that hold images, with neither val nor test, is a class like
them. Classes' images may lie in folders below theirs. The draw takes the same fraction of each class and is
reproducible. Frames of one video are nearly alike: `group` keeps them on one side, `split=blocks` divides
each class's files, in natural order, into blocks of time.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from robot_vision.datasets.image_files import FileImage, loose_notes, unused_notes
from robot_vision.datasets.sample import Sample, Splits, labels_of
from robot_vision.datasets.splitting import BlockOptions, divide, draw_stratified
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.files import find_images, image_notes, some
from robot_vision.settings.declared import option
from robot_vision.text.counts import counted

_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation")
_TEST = ("test", "testing")


@dataclass(frozen=True)
class Options:
    """Options of the format."""

    split: str = option(
        "stratified",
        "how to split images that are in no split folder: stratified at random, or blocks of "
        "consecutive files of a class",
        choices=("stratified", "blocks"),
    )
    validation: float = option(
        0.15, "share of the training images that is used for validation", low=0, high=0.9
    )
    test: float = option(
        0.15,
        "share of all images that is used for testing, if there is no test folder",
        low=0,
        high=0.9,
    )
    seed: int = option(0, "random seed of the split", low=0)
    group: str = option(
        "",
        "regular expression on the file name: images with the same first group (or match) stay in "
        "the same split",
    )
    block_frames: int = option(50, "consecutive files in a block, with split=blocks", low=1)


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give the folder above those of the classes")
    notes: list[str] = []
    parts = _split_folders(root, notes)
    train, validation, test = (
        None if folder is None else _classes_under(folder, root, notes) for folder in parts
    )
    if train is None and (validation is not None or test is not None):
        raise SourceError(
            f"{root} has no train folder, only val or test: name the folder to train on train"
        )
    if train is None:
        train = _classes_under(root, root, notes)
    return completed(train, validation, test, options, notes)


def _split_folders(root: Path, notes: list[str]) -> tuple[Path | None, Path | None, Path | None]:
    """Returns the folders of train, validation and test; none where all folders are those of classes."""
    folders = sorted((p for p in root.iterdir() if p.is_dir()), key=_natural)
    found = []
    for names in (_TRAIN, _VALIDATION, _TEST):
        # With its exact name rather than Train, which some systems let stand next to it.
        mine = [p for name in names for p in folders if p.name == name]
        mine += [p for name in names for p in folders if p.name.lower() == name and p not in mine]
        found.append(mine[0] if mine else None)
    train, validation, test = found
    used = [p.name for p in found if p is not None]
    if train is not None and validation is None and test is None:
        others = [p.name for p in folders if p != train and find_images(p).images]
        if others:
            notes.append(
                f"folder {train.name} is treated as a class, since {some(others)} are next to it, but no val "
                "or test: if it is a split, move these into it, or out of the data set"
            )
            return None, None, None
    if used:
        notes += unused_notes(root, used)
    return train, validation, test


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
        notes.append("there is no test set: only validation is left to report on")
    if validation is None:
        train, validation = _drawn(train, options, options.validation, options.seed + 1)
        notes.append(_drawn_note("validation", validation, options))
    labels = labels_of(train)
    if len(labels) == 1:
        notes.append(f"there is one class only ({labels[0]}): a classifier needs two or more")
    for name, part in (("validation", validation), ("test", test or [])):
        counts = Counter(s.label for s in part)
        strange = sorted(set(labels_of(part)) - set(labels))
        if strange:
            images = sum(counts[label] for label in strange)
            notes.append(
                f"{name} has classes that train lacks: {', '.join(strange)} "
                f"({counted(images, 'image')}, whose "
                "class no answer can name)"
            )
        lacking = [label for label in labels if label not in counts] if part else []
        if lacking:
            notes.append(
                f"{name} has no image of {counted(len(lacking), 'class', 'classes')}: "
                f"{some(lacking)}"
            )
    notes += _nearly_alike({*labels, *labels_of(validation), *labels_of(test or [])})
    return Splits(
        tuple(train), tuple(validation), tuple(test or ()), labels=labels, notes=tuple(notes)
    )


def _classes_under(folder: Path, root: Path, notes: list[str]) -> list[Sample]:
    """Returns the images of a folder of classes; what is left out goes to the notes."""
    below = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=_natural)
    notes += loose_notes(folder)
    samples: list[Sample] = []
    files: list[str] = []
    folders: dict[str, list[str]] = {}
    for category in (p for p in below if p.is_dir()):
        found = find_images(category)
        notes += found.notes()
        if not found.images:
            notes.append(f"class folder {category} has no image and is left out")
            continue
        # Two ways to write an accent, as Macs and other systems do, are one name.
        label = unicodedata.normalize("NFC", category.name)
        folders.setdefault(label, []).append(category.name)
        prefix = category.relative_to(root).as_posix()
        inner = {image.partition("/")[0].lower() for image in found.images if "/" in image}
        if len(splits := sorted(inner & {*_TRAIN, *_VALIDATION, *_TEST})) > 1:
            notes.append(
                f"the folders {', '.join(splits)} in class {label} are treated as parts of the class: for a "
                "split, put such folders above those of the classes"
            )
        for image in found.images:
            name = f"{prefix}/{image}"
            path = os.path.join(category, image)
            sequence = name.rpartition("/")[0]
            samples.append(Sample(name, label, None, None, sequence, FileImage(path)))
            files.append(path)
    for label, names in folders.items():
        if len(names) > 1:
            notes.append(f"{len(names)} folders in {folder} are named {label}: they are one class")
    notes += image_notes(files)
    if not samples:
        raise SourceError(f"{folder} has no class folder with an image in it")
    return samples


def _nearly_alike(labels: set[str]) -> list[str]:
    """Returns notes for classes that may be meant as one, and for those made of several."""
    alike: dict[str, list[str]] = {}
    for label in sorted(labels):
        alike.setdefault(_spelled(label), []).append(label)
    made = sorted(label for label in labels if _is_list_of(label, labels))
    notes = [
        f"{' and '.join(map(repr, names))} are classes of their own: rename them if they are one"
        for names in alike.values()
        if len(names) > 1
    ]
    if made:
        what = counted(len(made), "class is", "classes are")
        notes.append(
            f"{what} made of names of others, such as {made[0]!r}: an image has one class, so choose"
        )
    return notes


def _spelled(label: str) -> str:
    """Returns a label without what may be chance: case, spaces, - and _, and how a number is written."""
    with contextlib.suppress(ValueError):  # a column of numbers that lacks one becomes 1.0, 2.0
        return f"{float(label):g}"
    return re.sub(r"[\s_-]+", " ", label.casefold()).strip()


def _is_list_of(label: str, labels: set[str]) -> bool:
    parts = [part.strip() for part in re.split(r"[,;|]", label)]
    return len(parts) > 1 and all(part in labels for part in parts)


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
        for stratum in sorted({s.stratum for s in samples}, key=str):
            mine = [s for s in samples if s.stratum == stratum]
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
    return f"{name}: {counted(len(part), 'image')} drawn {how}, seed {options.seed}"
