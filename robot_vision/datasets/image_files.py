"""Images that are files of their own."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError, SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.images.decode import to_rgb
from robot_vision.recordings.files import find_images, readable, some
from robot_vision.recordings.image_formats import file_bytes, is_image, read_image
from robot_vision.text.counts import agreeing, counted
from robot_vision.truth.pose_checks import where

_IMAGE = ("image", "images")
_OTHER = ("file that is no image", "files that are no images")
_HIDDEN = ("hidden folder with images", "hidden folders with images")


@dataclass(frozen=True, slots=True)
class FileImage:
    """A `sample.ImageSource` over one image file.

    Attributes:
        path: of the file.
        turn: turn it upright by its EXIF orientation. Poses and camera matrices are of the pixels as stored.
    """

    path: str
    turn: bool = True

    def __str__(self) -> str:
        return readable(self.path)

    def load(self, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Returns RGB uint8 (H, W, 3); see `sample.ImageSource`."""
        try:
            message = read_image(Path(self.path), self.turn)
            return np.require(to_rgb(message, min_size), requirements=["C", "W"])
        except ImageError as error:
            raise ImageError(error.reason, f"{self}: {error}") from error
        except (OSError, ValueError) as error:
            raise ImageError("corrupt", f"{self}: {error}") from error

    def encoded(self) -> bytes:
        """Returns the file's bytes."""
        try:
            return file_bytes(Path(self.path))
        except OSError as error:
            raise ImageError("corrupt", f"{self}: {error}") from error


def first_file(paths: Iterable[str | Path]) -> Path | None:
    """Returns the first of several names that is a file; names in lists may be such as no system takes."""
    for path in paths:
        if os.path.isfile(path):  # False for a name that is too long, where Path raises
            return Path(path)
    return None


def listed_path(name: str) -> str:
    """Returns the path that a table names, with `/` where Windows wrote backslashes, and without `./`."""
    return posixpath.normpath(name.replace("\\", "/"))


def listed_file(folder: Path, name: str, ends: Iterable[str] = ()) -> Path | None:
    """Returns the file that a table names: as written, by its `listed_path`, or that and an end."""
    path = os.path.join(folder, listed_path(name))
    return first_file([os.path.join(folder, name), path, *(path + end for end in ends)])


def without_repeats(
    file: Path, listed: Iterable[tuple[int, int, str]], say: Callable[[str], None]
) -> list[tuple[int, str]]:
    """Returns stamp (ns) and image of each line of a list, without lines that repeat the one above them.

    Args:
        file: the list.
        listed: number, stamp (ns) and image of each line.
        say: receives how many lines are left out, and the first of them.

    Raises:
        SourceError: a stamp is before that of the line above, or is that of another image.
    """
    kept: list[tuple[int, int, str]] = []
    repeats: list[int] = []
    for number, stamp_ns, image in listed:
        if kept and (stamp_ns, image) == kept[-1][1:]:
            repeats.append(number)
        elif kept and stamp_ns <= kept[-1][1]:
            raise SourceError(
                f"{where(file, number)}: the stamp is not later than that of line {kept[-1][0]}: sort the "
                "lines, with one image a stamp"
            )
        else:
            kept.append((number, stamp_ns, image))
    if repeats:
        what = agreeing(len(repeats), "repeat the line above them: left out")
        say(f"{where(file, repeats[0])}: {counted(len(repeats), 'line')} {what}")
    return [(stamp_ns, image) for _, stamp_ns, image in kept]


def unused_notes(root: Path, used: Collection[str]) -> list[str]:
    """Returns a note for each folder with images that is next to those of a layout, and for loose images.

    Args:
        root: the folder of the layout.
        used: names in it that are read.
    """
    notes = loose_notes(root)
    for entry in sorted(root.iterdir()):
        if entry.name in used or not entry.is_dir() or entry.name.startswith("."):
            continue
        count = len(find_images(entry).images)
        if count:
            notes.append(
                f"{counted(count, 'image is', 'images are')} in the folder {readable(entry.name)}, "
                "which is none of "
                f"{', '.join(used)}, and {agreeing(count, 'are')} left out"
            )
    return notes


def loose_notes(folder: Path) -> list[str]:
    """Returns notes that count what lies in a folder itself where a layout has folders only."""
    names: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if entry.name.startswith("."):
            hidden = entry.is_dir() and find_images(entry)
            if hidden and hidden.images:
                names.setdefault(_HIDDEN, []).append(entry.name)
        elif not entry.is_dir():
            kind = _IMAGE if is_image(entry) else _OTHER
            names.setdefault(kind, []).append(entry.name)
    return [
        f"{counted(len(found), *what)} {agreeing(len(found), 'lie')} in {folder} itself and "
        f"{agreeing(len(found), 'are')} left out: {some(found)}"
        for what, found in names.items()
    ]


def unlisted_note(files: Sequence[Path]) -> list[str]:
    """Returns a note that counts the images next to those of a list which the list does not name."""
    folders = {file.parent for file in files}
    there = {p for folder in folders for p in folder.iterdir() if is_image(p)}
    others = sorted(there - set(files))
    if not others:
        return []
    names = some([str(other) for other in others])
    return [
        f"{counted(len(others), 'image is', 'images are')} in the folders of the listed images but in "
        f"no list, and left out: {names}"
    ]
