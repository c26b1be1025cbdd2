"""Which frames of transforms.json are in which split, and in which order they were taken."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robot_vision.datasets.image_files import listed_path
from robot_vision.datasets.sample import Sample
from robot_vision.errors import SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.files import some
from robot_vision.text.counts import agreeing, counted
from robot_vision.truth.pose_checks import Skipped

PARTS = ("train", "val", "test")


# How a list may spell the file_path of a frame, the closest first.
_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda path: posixpath.splitext(path)[0],
    posixpath.basename,
    lambda path: posixpath.splitext(posixpath.basename(path))[0],
)


def _only_frames(frames: list[str], spell: Callable[[str], str]) -> Callable[[str], str]:
    """Returns what finds the only frame that is spelled as a name is; an empty text where there is none."""
    found: dict[str, str] = {}
    for frame in frames:
        key = spell(frame)
        found[key] = "" if key in found else frame
    return lambda name: found.get(spell(name), "")


def listed_parts(
    file: Path, data: Mapping[str, Any], samples: list[Sample], notes: list[str]
) -> dict[str, list[Sample]]:
    """Returns the samples of each list of a file; empty where it has none.

    Args:
        file: it.
        data: what it holds.
        samples: of its frames that can be used, in any order.
        notes: for names without a frame, and frames without a list.

    Raises:
        SourceError: a list has something that is no name.
    """
    lists = {part: data[f"{part}_filenames"] for part in PARTS if data.get(f"{part}_filenames")}
    if not lists:
        return {}
    frames = [listed_path(frame["file_path"]) for frame in data["frames"]]
    spelled = [_only_frames(frames, spell) for spell in _SPELLINGS]
    prefix = "" if file.stem == "transforms" else f"{file.stem}/"
    sample_of = {s.name.removeprefix(prefix): s for s in samples}
    parts: dict[str, list[Sample]] = {part: [] for part in PARTS}
    listed: set[str] = set()
    lost, respelled = Skipped(), 0
    for part, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SourceError(f"{file}: {part}_filenames must be a list of names")
        mine: set[str] = set()
        for name in names:
            key = next(filter(None, (known(listed_path(name)) for known in spelled)), "")
            if not key:
                lost.add(f"as {part}_filenames names them and no frame does", name)
                continue
            respelled += key != name
            if key in mine:
                lost.add(f"as {part}_filenames names them again", name)
            elif key in sample_of:
                parts[part].append(sample_of[key])
            mine.add(key)
        listed |= mine
    notes += lost.notes()
    if respelled:
        notes.append(
            f"{counted(respelled, 'name')} in lists of {file.name} "
            f"{agreeing(respelled, 'are')} spelled "
            "otherwise than in file_path"
        )
    rest = [key for key in sample_of if key not in listed]
    if "train" not in lists:
        parts["train"] = [sample_of[key] for key in rest]
        notes.append(
            f"{file.name} has no train_filenames: the "
            f"{counted(len(rest), 'frame of no list is', 'frames of no list are')} train"
        )
    elif rest:
        notes.append(
            f"{counted(len(rest), 'frame is', 'frames are')} in no list of {file.name} and left out: "
            f"{some(rest)}"
        )
    return parts


def once(samples: list[Sample], notes: list[str]) -> list[Sample]:
    """Returns each image once, in the order of capture, as far as names tell it."""
    by_image = {_image_of(sample): sample for sample in reversed(samples)}
    if len(by_image) < len(samples):
        notes.append(
            counted(
                len(samples) - len(by_image),
                "frame has an image of another one, and is",
                "frames have an image of another one, and are",
            )
            + " left out"
        )
    return sorted(by_image.values(), key=in_order)


def in_order(sample: Sample) -> list[Any]:
    """Returns a sort key: the name's parts, with numbers as numbers."""
    return [natural_key(part) for part in sample.name.split("/")]


def _image_of(sample: Sample) -> str:
    return os.path.normpath(str(sample.source))


def separate(parts: dict[str, list[Sample]], notes: list[str]) -> None:
    """Sorts each part, and sees to it that no image is in two.

    Raises:
        SourceError: images are in train and in another part.
    """
    for samples in parts.values():
        samples.sort(key=in_order)
    images = {part: {_image_of(sample) for sample in samples} for part, samples in parts.items()}
    for part in ("test", "val"):
        both = sorted(images["train"] & images.get(part, set()))
        if both:
            raise SourceError(
                f"{counted(len(both), 'image is in train', 'images are in train')} and in {part}: "
                f"{some(both)}; take them out of one, or set "
                "split to blocks"
            )
    both = sorted(images.get("val", set()) & images.get("test", set()))
    if both:
        parts["val"] = [s for s in parts["val"] if _image_of(s) not in both]
        how = "the others" if parts["val"] else "drawn from train"
        notes.append(
            counted(
                len(both),
                "image is in val and in test: it is",
                "images are in val and in test: they are",
            )
            + " test, and validation is "
            f"{how}"
        )
