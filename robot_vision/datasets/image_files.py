"""Images that are files of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError
from robot_vision.images import to_rgb
from robot_vision.sources.files import is_image, missing_decoder, read_image


@dataclass(frozen=True, slots=True)
class FileImage:
    """A `sample.ImageSource` over one image file."""

    path: str

    def __str__(self) -> str:
        return self.path

    def load(self, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Returns RGB uint8 (H, W, 3); see `sample.ImageSource`."""
        try:
            message = read_image(Path(self.path))
            return np.require(to_rgb(message, min_size), requirements=["C", "W"])
        except ImageError as error:
            raise ImageError(error.reason, f"{self.path}: {error}") from error
        except (OSError, ValueError) as error:
            raise ImageError("corrupt", f"{self.path}: {error}") from error

    def encoded(self) -> bytes:
        """Returns the file's bytes."""
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise ImageError("corrupt", f"{self.path}: {error}") from error


def first_file(paths: Iterable[str | Path]) -> Path | None:
    """Returns the first of several names that is a file; names in lists may be such as no system takes."""
    for path in paths:
        if os.path.isfile(path):  # False for a name that is too long, where Path raises
            return Path(path)
    return None


def unlisted_note(files: Sequence[Path]) -> list[str]:
    """Returns a note that counts the images beside those of a list which the list does not name."""
    folders = {file.parent for file in files}
    there = {p for folder in folders for p in folder.iterdir() if is_image(p)}
    others = sorted(there - set(files))
    if not others:
        return []
    verb = "image is" if len(others) == 1 else "images are"
    return [f"{len(others)} {verb} beside those listed but in no list, and left out: {others[0]}"]


def unreadable_note(files: Iterable[Path]) -> list[str]:
    """Returns notes that name files without a byte, and those of a format that nothing here decodes.

    They stay in the set, where loading counts them.
    """
    by_reason: dict[str, list[str]] = {}
    remedies: dict[str, str] = {}
    for file in files:
        suffix = file.suffix.lower()
        if suffix not in remedies:
            remedies[suffix] = missing_decoder(suffix)
        if os.path.getsize(file) == 0:
            by_reason.setdefault("are empty and cannot be read", []).append(str(file))
        elif remedies[suffix]:
            by_reason.setdefault(f"cannot be read ({remedies[suffix]})", []).append(str(file))
    notes = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notes.append(f"{len(names)} image files {reason}: {', '.join(names[:3])}{more}")
    return notes
