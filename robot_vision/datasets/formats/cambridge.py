"""Cambridge Landmarks: dataset_train.txt and dataset_test.txt with `file X Y Z W P Q R` a line.

Conventions: three lines of header; then the image's file, the camera's centre in the map (metres) and
the quaternion **w x y z of the rotation from the map to the camera** (as VisualSFM writes it), optical
axes (x right, y down, z forward). So `R_map_camera` is that quaternion's inverse, and the position is
not `-R t`.

The split is official. Focal lengths come from reconstruction.nvm where it is there (one for each image,
principal point in the middle of 1920 x 1080), scaled to images of another size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage, first_file, listed_path, unlisted_note
from robot_vision.datasets.posed import PosedOptions, checked, matrix_for_image, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.files import image_notes
from robot_vision.recordings.image_formats import IMAGE_SUFFIXES
from robot_vision.truth.pose_checks import (
    MISSING_IMAGE,
    Skipped,
    numbers,
    rotation_from_quaternion,
    where,
)
from robot_vision.truth.tables import read_lines

_LISTS = ("dataset_train.txt", "dataset_test.txt")
_IMAGE = re.compile(r".*\.(png|jpe?g)\b", re.IGNORECASE)
_HEADER_LINES = 3
_ORDER = "XYZWPQR"  # P, Q and R are x, y and z of the quaternion
_SIZE = (1080, 1920)  # of the images that reconstruction.nvm is of


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    lists = [root / name for name in _LISTS]
    missing = [file.name for file in lists if not file.is_file()]
    if missing:
        raise SourceError(f"{root} has no {' and no '.join(missing)}: give one landmark's folder")
    notes: list[str] = []
    focal = _focal_lengths(root / "reconstruction.nvm")
    skipped = Skipped()
    parts: list[list[Sample]] = []
    seen: dict[str, str] = {}
    files: list[Path] = []
    scaled: set[str] = set()
    for file in lists:
        part = []
        order = _order(file)
        for number, line in _lines(file):
            place = where(file, number)
            name, *words = line.split()
            name = listed_path(name)
            if name in seen:
                raise SourceError(f"{place}: {name} is also in {seen[name]}: take one out")
            seen[name] = place
            image = _found(root / name)
            if image is None:
                skipped.add(MISSING_IMAGE, name)
                continue
            files.append(image)
            T = checked(options, skipped, name, _pose, words, order, place)
            if T is None:
                continue
            stem = os.path.splitext(name)[0]
            sequence = Path(name).parent.as_posix()
            K = _matrix(focal.get(stem), image, options, scaled)
            part.append(Sample(name, None, T, None, sequence, FileImage(str(image), turn=False), K))
        parts.append(sorted(part, key=lambda s: [natural_key(p) for p in Path(s.name).parts]))
    notes += skipped.notes() + image_notes(files, turn=False) + unlisted_note(files)
    if focal:
        notes.append("focal lengths are those of reconstruction.nvm, for images of 1920 x 1080")
        notes += sorted(scaled)
    test = {sample.name for sample in parts[1]}
    samples = sorted(
        parts[0] + parts[1], key=lambda s: [natural_key(p) for p in Path(s.name).parts]
    )
    return splits_of(samples, options, notes, is_test=lambda sample: sample.name in test)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields the numbered lines after the header."""
    for number, line in enumerate(read_lines(file), 1):
        if number <= _HEADER_LINES and not _IMAGE.match(line):
            continue
        if line.strip():
            yield number, line


def _found(image: Path) -> Path | None:
    """Returns the image; frames that were converted to another format are found by their stem."""
    stem = os.path.splitext(image)[0]
    return first_file([image, *(stem + suffix for suffix in IMAGE_SUFFIXES)])


def _order(file: Path) -> str:
    """Returns the letters of a list's columns: as its header says, or as published."""
    for line in read_lines(file)[:_HEADER_LINES]:
        match = re.search(r"\[\s*((?:[XYZWPQR]\s*){7})\]", line)
        letters = "".join(match.group(1).split()) if match else ""
        if sorted(letters) == sorted(_ORDER):
            return letters
    return _ORDER


def _pose(words: list[str], order: str, place: str) -> NDArray[np.float64]:
    values = numbers(words, 7, place, f"a pose {' '.join(order)}")
    x, y, z, w, p, q, r = (values[order.index(letter)] for letter in _ORDER)
    T = np.eye(4)
    T[:3, :3] = rotation_from_quaternion(np.array([p, q, r, w]), place).T
    T[:3, 3] = x, y, z
    return T


def _matrix(
    K: NDArray[np.float64] | None, image: Path, options: Options, notes: set[str]
) -> NDArray[np.float64] | None:
    """Returns K in pixels of an image; images are often published smaller than they were."""
    if K is None or options.camera_matrix:
        return None
    said: list[str] = []
    K = matrix_for_image(K, _SIZE, image, "the camera of reconstruction.nvm", said)
    notes.update(said)
    return K


def _focal_lengths(file: Path) -> dict[str, NDArray[np.float64]]:
    """Returns K of each image, by its name without suffix; empty where there is no such file."""
    if not file.is_file():
        return {}
    found: dict[str, NDArray[np.float64]] = {}
    with file.open(errors="replace") as stream:
        lines = enumerate(stream, 1)
        header = [line for _, line in zip(range(3), (text for _, text in lines), strict=False)]
        try:
            count = int(header[2])
        except (IndexError, ValueError):
            raise SourceError(
                f"{where(file, 3)}: not the number of images of an NVM file"
            ) from None
        for number, line in lines:
            if len(found) == count:
                break
            words = line.split()
            if len(words) < 2:
                raise SourceError(f"{where(file, number)}: no image and focal length")
            f = float(numbers(words[1:2], 1, where(file, number), "a focal length")[0])
            K = np.array([[f, 0.0, 960.0], [0.0, f, 540.0], [0.0, 0.0, 1.0]])
            found[os.path.splitext(listed_path(words[0]))[0]] = K
    return found
