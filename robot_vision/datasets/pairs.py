"""Folders of images, and folders of images of the same names that say what is true of their pixels.

Layouts: `<root>/train/{images,labels}` with `val` and `test` next to train where there are any, or
`<root>/{images,labels}`. What an image's name is without its suffix, the name of its truth begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.sample import PixelClasses, Sample, Splits, TruthImage
from robot_vision.datasets.splitting import BlockOptions, divide, missing_note
from robot_vision.errors import ConfigError, SourceError
from robot_vision.recordings.files import find_images, image_notes, some
from robot_vision.settings.declared import option
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import Skipped

_PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_IMAGES = ("images", "image", "rgb", "img", "JPEGImages", "color")


@dataclass(frozen=True)
class PairOptions(BlockOptions):
    """Options of every format of such folders."""

    images: str = option("", f"folder of the images; empty: {', '.join(_IMAGES)}")
    suffix: str = option(
        "", "what the name of an image's truth has behind that of the image, such as _L"
    )
    val_for: str = option(
        "validation",
        "what the images of a folder val are for; test: to report on, and images to validate with are drawn "
        "from train",
        choices=("validation", "test"),
    )


@dataclass(frozen=True)
class Pairs:
    """What the images of a data set are paired with.

    Attributes:
        folders: names of the folder of truth, the first that exists counts.
        word: of truth.
        truth: returns the truth of a file.
        what: it is, for people.
        classes: of the pixels, if they have some.
    """

    folders: tuple[str, ...]
    word: str
    truth: Callable[[Path], TruthImage]
    what: str
    classes: PixelClasses | None = None


def open_pairs(root: Path, options: PairOptions, pairs: Pairs, notes: list[str]) -> Splits:
    """Opens a data set of such folders.

    Args:
        root: its folder.
        options: of the data set.
        pairs: what is true of pixels.
        notes: what is known already.

    Raises:
        SourceError: there is no folder of images or of truth, or no image has truth.
        ConfigError: a split that it does not have.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give the folder above images and {pairs.what}")
    skipped = Skipped()
    parts = {name: _part(root, names) for name, names in _PARTS.items()}
    if parts["train"] is None:
        if there := [str(path) for path in parts.values() if path]:
            raise SourceError(f"{root} has no train folder, only {some(there)}: name one train")
        samples = pair_up(root, root, options, pairs, skipped, notes)
        return splits_of_pairs(samples, options, pairs, [*skipped.notes(), *notes])
    found = {
        name: pair_up(folder, root, options, pairs, skipped, notes)
        for name, folder in parts.items()
        if folder is not None
    }
    role = {s.name: name for name, samples in found.items() for s in samples}
    paired = [s for samples in found.values() for s in samples]
    return splits_of_pairs(paired, options, pairs, [*skipped.notes(), *notes], role)


def splits_of_pairs(
    samples: list[Sample],
    options: PairOptions,
    pairs: Pairs,
    notes: list[str],
    role: Mapping[str, str] | None = None,
) -> Splits:
    """Divides samples by their official roles, where there are some and options want them, else in blocks."""
    if not samples:
        raise SourceError(f"No image has {pairs.what} ({'; '.join(notes)})")
    if options.val_for == "test":
        there = set(role.values()) if role else set()
        if "test" in there or "validation" not in there:
            why = "images to test on too" if "test" in there else "no images of a folder val"
            raise ConfigError(f"Option val_for is test, but there are {why}: leave it out")
        assert role is not None
        role = {name: "test" if part == "validation" else part for name, part in role.items()}
        notes = [*notes, "the folder val is tested on"]
    if role is None or options.split in ("blocks", "train", "test") or options.test_sequences:
        train, validation, test = divide(samples, options)
        missing = missing_note(options, validation, test)
        notes = [*notes, missing] if missing else notes
    else:
        train = [s for s in samples if role[s.name] == "train"]
        validation = [s for s in samples if role[s.name] == "validation"]
        test = [s for s in samples if role[s.name] == "test"]
        if not validation:
            own = replace(options, split="blocks", test_remainder=-1)
            train, validation, _ = divide(train, own)
            notes = [
                *notes,
                f"validation: {counted(len(validation), 'image')} drawn from train in blocks of "
                f"{options.block_frames} files, seed {options.seed}",
            ]
        if not test:
            notes = [*notes, "there is no test set: only validation is left to report on"]
    classes = {} if pairs.classes is None else {pairs.word: pairs.classes}
    return Splits(
        tuple(train), tuple(validation), tuple(test), notes=tuple(notes), pixel_classes=classes
    )


def _part(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def pair_up(
    folder: Path,
    root: Path,
    options: PairOptions,
    pairs: Pairs,
    skipped: Skipped,
    notes: list[str],
) -> list[Sample]:
    """Returns the images of a folder that have truth; the others are counted.

    Args:
        folder: of the folders of images and of truth.
        root: names of samples are relative to it.
        options: of the data set.
        pairs: what is true of pixels.
        skipped: counts images without truth.
        notes: for what else is left out.

    Raises:
        SourceError: a folder is missing.
    """
    images = _below(folder, (options.images,) if options.images else _IMAGES, "images")
    truths = _below(folder, pairs.folders, pairs.what)
    found, said = find_images(images), find_images(truths)
    notes += [*found.notes(), *said.notes()]
    by_stem = {_stem(name): name for name in said.images}
    samples, files, used = [], [], set()
    for name in found.images:
        unique = (images / name).relative_to(root).as_posix()
        truth = by_stem.get(_stem(name) + options.suffix)
        if truth is None:
            skipped.add(f"which have no {pairs.what}", unique)
            continue
        used.add(truth)
        files.append(images / name)
        sequence = unique.rpartition("/")[0]
        source = FileImage(str(images / name))
        samples.append(
            Sample(
                unique, None, None, None, sequence, source,
                truth={pairs.word: pairs.truth(truths / truth)},
            )
        )  # fmt: skip
    unused = [name for name in said.images if name not in used]
    if unused:
        notes.append(
            f"{counted(len(unused), 'file')} in {truths} {'is' if len(unused) == 1 else 'are'} of no image: "
            f"{some(unused)}"
        )
    notes += image_notes(files)
    return samples


def _below(folder: Path, names: tuple[str, ...], what: str) -> Path:
    place = next((folder / name for name in names if (folder / name).is_dir()), None)
    if place is None:
        raise SourceError(f"{folder} has no folder of {what}: it may be called {', '.join(names)}")
    return place


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
