"""Two folders of images, and which of one show the places of the other: how place recognition is measured.

What tells it, the first that is there:

- `tolerance`: both folders are one route, image by image, as Nordland's seasons are: the image of the same
  number in their natural order, and as many before and behind it;
- `ground_truth_new.npy` above the folders, as VPR-Bench has it (`ref/`, `query/`): images of each query;
- positions, within `within_m`: in file names, `@easting@northing@...` (Pitts30k, Tokyo 24/7, MSLS, Nordland
  and others as VPR-methods-evaluation takes them) or GSV-Cities' with latitude and longitude; or in
  `postprocessed.csv`, as Mapillary Street-level Sequences have it (`<city>/database`, `<city>/query`).
  Headings are not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.formats.place_folder import parse_name
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.object_arrays import load_object_array
from robot_vision.recordings.files import find_images
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import numbers
from robot_vision.truth.tables import read_table

WITHIN_M = 25.0
VPR_BENCH = "ground_truth_new.npy"
_CHUNK_PAIRS = 1_000_000  # of positions that are compared at once: 24 MB
_EARTH_M = 6371008.8  # mean radius
_GSV = re.compile(
    r".*_\d{7}_\d{4}_\d\d_-?\d+_(-?\d+(?:\.\d+)?)_(-?\d+(?:\.\d+)?)_.+\.jpe?g", re.IGNORECASE
)
_TABLE = {name: (re.compile(name),) for name in ("key", "easting", "northing")}


@dataclass(frozen=True, eq=False)
class PlacePairs:
    """What is looked up in what, and what is right.

    Attributes:
        database: images that are known.
        queries: images that are looked up.
        right: of each query the numbers of the database's images that show its place, rising; int64.
        rule: what makes an image right, for people.
        notes: what was left out or assumed, one line each.
    """

    database: tuple[Path, ...]
    queries: tuple[Path, ...]
    right: tuple[NDArray[np.int64], ...]
    rule: str
    notes: tuple[str, ...]


def open_pairs(
    database: Path, queries: Path, within_m: float | None = None, tolerance: int | None = None
) -> PlacePairs:
    """Finds the images of two folders, and what is right.

    Args:
        database: folder of known images, with those below it.
        queries: folder of images that are looked up.
        within_m: largest distance of a right image, metres; None for 25, as benchmarks have it.
        tolerance: images of a route before and behind the right one that are right too; None for no route.

    Raises:
        SourceError: a folder has no images, or what tells the places is damaged.
        ConfigError: nothing tells them, or `within_m` and `tolerance` are both given.
    """
    if within_m is not None and not 0 < within_m < np.inf:
        raise ConfigError(f"--within is {within_m}: it must be above 0 m")
    if within_m is not None and tolerance is not None:
        raise ConfigError("--within and --tolerance exclude each other: give one")
    notes: list[str] = []
    known, asked = (_images(folder, notes) for folder in (database, queries))
    listed = database.parent / VPR_BENCH
    if tolerance is not None:
        right, rule = _of_route(known, asked, tolerance, notes)
    elif listed.is_file() and database.parent == queries.parent:
        right, rule = _listed(listed, len(known), len(asked)), f"listed in {VPR_BENCH}"
        if within_m is not None:
            notes.append(f"--within is not used: {listed} says which images are right")
    else:
        within_m = WITHIN_M if within_m is None else within_m
        known, asked, right = _by_position(database, queries, known, asked, within_m, notes)
        rule = f"taken at most {within_m:g} m away"
    return PlacePairs(tuple(known), tuple(asked), tuple(right), rule, tuple(notes))


def _images(folder: Path, notes: list[str]) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder: give one of images")
    found = find_images(folder)
    notes += found.notes()
    if not found.files:
        raise SourceError(f"{folder} has no images")
    return found.files


def _of_route(
    known: Sequence[Path], asked: Sequence[Path], tolerance: int, notes: list[str]
) -> tuple[list[NDArray[np.int64]], str]:
    if tolerance < 0:
        raise ConfigError(f"--tolerance is {tolerance}: it must be 0 or more")
    if len(known) != len(asked):
        raise SourceError(
            f"the database has {counted(len(known), 'image')} and the queries {len(asked)}: on a route that "
            "is compared image by image both have as many; leave out --tolerance, or give folders that do"
        )
    last = len(known) - 1
    right = [
        np.arange(max(0, i - tolerance), min(last, i + tolerance) + 1, dtype=np.int64)
        for i in range(len(asked))
    ]
    return (
        right,
        f"of the same number, or at most {counted(tolerance, 'image')} before or behind it",
    )


def _listed(file: Path, known: int, asked: int) -> list[NDArray[np.int64]]:
    """Reads VPR-Bench's list: rows of a query's number and the numbers of its right images."""
    try:
        rows = load_object_array(file)
        found: dict[int, NDArray[np.int64]] = {}
        for query, images in rows:
            right = np.unique(np.asarray(images, np.int64).reshape(-1))
            number = int(np.asarray(query).reshape(()))
            if number in found:
                raise ValueError(f"query {number} is there twice")
            found[number] = right
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    if sorted(found) != list(range(asked)):
        raise SourceError(
            f"{file} lists {counted(len(found), 'query', 'queries')}, and there are {asked} images of "
            "queries (numbered from 0 in their natural order): each needs one row"
        )
    for query, right in found.items():
        if len(wrong := right[(right < 0) | (right >= known)]):
            raise SourceError(
                f"{file}: query {query} has image {wrong[0]}, and the database {known} (from 0)"
            )
    return [found[query] for query in range(asked)]


def _by_position(
    database: Path,
    queries: Path,
    known: list[Path],
    asked: list[Path],
    within_m: float,
    notes: list[str],
) -> tuple[list[Path], list[Path], list[NDArray[np.int64]]]:
    both = [*known, *asked]
    if all(file.name.startswith("@") for file in both):
        where = _utm(both)
    elif all(_GSV.fullmatch(file.name) for file in both):
        said = [match.groups() for file in both if (match := _GSV.fullmatch(file.name))]
        degrees = np.array([[float(word) for word in words] for words in said])
        where = _on_earth(*np.radians(degrees).T)
    elif all((folder / "postprocessed.csv").is_file() for folder in (database, queries)):
        known, at_known = _mapillary(database, known, notes)
        asked, at_asked = _mapillary(queries, asked, notes)
        where = np.concatenate([at_known, at_asked])
    else:
        odd = next(file for file in both if not file.name.startswith("@"))
        raise ConfigError(
            f"nothing tells the places of {odd}: names must begin with @easting@northing@ in both folders, "
            f"postprocessed.csv (MSLS) lie in both, or {VPR_BENCH} above them; for two runs of one route, "
            "image by image, give --tolerance"
        )
    here, there = where[: len(known)], where[len(known) :]
    right: list[NDArray[np.int64]] = []
    chunk = max(1, _CHUNK_PAIRS // len(here))
    for start in range(0, len(there), chunk):
        gap = there[start : start + chunk, None] - here[None]
        near = (gap**2).sum(axis=2) <= within_m**2 * (1 + 1e-9)
        right += [np.flatnonzero(row).astype(np.int64) for row in near]
    return known, asked, right


def _on_earth(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns metres (N, 3) on a sphere, whose distances are right to 0.6 percent, whatever the cities."""
    level = np.cos(lat)
    return _EARTH_M * np.stack([level * np.cos(lon), level * np.sin(lon), np.sin(lat)], axis=1)


def _utm(files: Sequence[Path]) -> NDArray[np.float64]:
    said = [parse_name(file) for file in files]
    zones = {(zone.number, zone.south) for _, zone in said if zone.number}
    if len({number for number, _ in zones}) > 1 or {True, False} <= {south for _, south in zones}:
        raise SourceError(
            f"the images are of {len(zones)} UTM zones or halves of the earth, whose metres cannot be "
            "compared: evaluate those of each zone apart"
        )
    return np.array([[place.east_m, place.north_m] for place, _ in said])


def _mapillary(
    folder: Path, files: Sequence[Path], notes: list[str]
) -> tuple[list[Path], NDArray[np.float64]]:
    """Returns the images that the table has, and where they are."""
    file = folder / "postprocessed.csv"
    table = read_table(file, _TABLE, least=3)
    if set(_TABLE) - set(table.columns):
        raise SourceError(f"{file} must have the columns {', '.join(_TABLE)}")
    if any(len(row.words) <= max(table.columns.values()) for row in table.rows):
        raise SourceError(f"{file} has a line that is cut off")
    at = {row.words[table.columns["key"]]: row.words for row in table.rows}
    there = [image for image in files if image.stem in at]
    if len(there) < len(files):
        lost = len(files) - len(there)
        notes.append(
            f"{counted(lost, 'image')} under {folder} without a row in {file.name}: left out"
        )
    if not there:
        raise SourceError(f"{file} names none of the images under {folder}")
    columns = [table.columns[name] for name in ("easting", "northing")]
    rows = [[at[image.stem][column] for column in columns] for image in there]
    return there, np.array([numbers(row, 2, str(file), "easting and northing") for row in rows])
