"""GSV-Cities: Dataframes/<city>.csv with places and their images, Images/<city>/*.jpg.

A row is an image: place_id, year, month, northdeg (degrees clockwise from north), city_id, lat, lon and
panoid, and its file is `<city>_<place_id>_<year>_<month>_<northdeg>_<lat>_<lon>_<panoid>.jpg`. Positions are
metres on a plane at each city, which has a square of its own on the map (`geo`). Images of one place stay on
one side of the split; `block_frames` and `gap_frames` count places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_vision.datasets.geo import GeoOptions, Place, Placed, geo_splits, side_by_side
from robot_vision.datasets.image_files import unlisted_note
from robot_vision.datasets.sample import Splits
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.geometry.earth import east_north
from robot_vision.recordings.files import image_notes
from robot_vision.settings.declared import names_in, option
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped, numbers, where
from robot_vision.truth.tables import read_table

_NUMBERS = ("place_id", "year", "month", "northdeg", "lat", "lon")
_COLUMNS = {name: (re.compile(name),) for name in (*_NUMBERS, "city_id", "panoid")}
_NAME = re.compile(r".*?_(\d{7})_\d+_\d+_-?\d+_[^_]+_[^_]+_(.+)\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True)
class Options(GeoOptions):
    """Options of the format."""

    cities: str = option("", "names of the cities to read, separated by commas; empty: all")


@dataclass(frozen=True)
class _Row:
    """An image of a city."""

    place: int
    date: tuple[int, int]
    file: Path
    lat: float
    lon: float
    heading: float


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    tables = {p.stem: p for p in sorted((root / "Dataframes").glob("*.csv"))}
    if not tables:
        raise SourceError(
            f"{root} has no Dataframes/<city>.csv: give the folder above Dataframes and Images"
        )
    for name in names_in(options.cities):
        if name not in tables:
            raise ConfigError(unknown("city in cities", name, tables))
    skipped, notes = Skipped(), list[str]()
    rows: dict[str, list[_Row]] = {}
    for city in names_in(options.cities) or tables:
        found = sorted(
            _rows(root, city, tables[city], skipped), key=lambda r: (r.place, r.date, r.file)
        )
        if found:
            rows[city] = found
    if not rows:
        raise SourceError(f"{root} has no image of its tables ({'; '.join(skipped.notes())})")
    metres = {
        city: east_north(np.array([r.lat for r in found]), np.array([r.lon for r in found]))
        for city, found in rows.items()
    }
    positions = side_by_side(metres, notes)
    placed = [
        Placed(
            f"{city}/{row.file.name}",
            row.file,
            city,
            Place(float(xy[0]), float(xy[1]), 0.0, row.heading),
            group=f"{city}/{row.place}",
        )
        for city, found in rows.items()
        for row, xy in zip(found, positions[city], strict=True)
    ]
    files = [p.file for p in placed]
    notes = [*skipped.notes(), *image_notes(files), *unlisted_note(files), *notes]
    notes.append(
        f"{counted(len({p.group for p in placed}), 'place')}: images of one stay on one side of the split"
    )
    return geo_splits(placed, options, notes, np.zeros(2))


def _rows(root: Path, city: str, file: Path, skipped: Skipped) -> Iterator[_Row]:
    table = read_table(file, _COLUMNS)
    lacking = [name for name in _COLUMNS if name not in table.columns]
    if lacking:
        raise SourceError(f"{file} lacks the columns {', '.join(lacking)}")
    images: dict[str, dict[tuple[int, str], Path]] = {}
    for row in table.rows:
        place = where(file, row.number)
        if len(row.words) <= max(table.columns.values()):
            raise SourceError(
                f"{place}: {counted(len(row.words), 'word')} in a row of {len(table.names)}"
            )
        said = {name: row.words[i] for name, i in table.columns.items()}
        place_id, year, month, heading, lat, lon = numbers(
            [said[name] for name in _NUMBERS], len(_NUMBERS), place, " ".join(_NUMBERS)
        )
        if abs(lat) > 90 or abs(lon) > 360 or abs(heading) > 360:
            raise SourceError(
                f"{place}: no degrees: lat {lat:g}, lon {lon:g}, northdeg {heading:g}"
            )
        folder = said["city_id"]
        if folder not in images:
            images[folder] = _images(root / "Images" / folder)
        image = images[folder].get((int(place_id), said["panoid"]))
        if image is None:
            skipped.add(MISSING_IMAGE, f"{city} {place_id:.0f} {said['panoid']}")
            continue
        date = int(year), int(month)
        yield _Row(int(place_id), date, image, float(lat), float(lon), float(heading))


def _images(folder: Path) -> dict[tuple[int, str], Path]:
    """Returns the images of a folder by place and panorama, however lat and lon are rounded."""
    found = {}
    for name in os.listdir(folder) if folder.is_dir() else []:
        if match := _NAME.fullmatch(name):
            found[int(match.group(1)), match.group(2)] = folder / name
    return found
