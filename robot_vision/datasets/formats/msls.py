"""Mapillary Street-level Sequences: cities with database and query, positions in tables.

Layout: `{train_val,test}/<city>/{database,query}/` with images/<key>.jpg, postprocessed.csv (key, easting,
northing) and raw.csv (key, lon, lat, ca, pano): the root, train_val or one city. UTM eastings and northings
are metres; `ca` is the compass angle in degrees clockwise from north. Cities lie in different UTM zones, and
each is given a square of its own on the map (`geo`); a city across the border of two zones is placed by its
latitudes and longitudes. Panoramas look everywhere and are left out, as by the benchmark's own reader.

The split is official: cph and sf are validation, the other cities of train_val train. Positions of the test
cities are not published, so that nothing is test. Without cities of both kinds the images are divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.geo import GeoOptions, Place, Placed, geo_splits, side_by_side
from robot_vision.datasets.image_files import first_file, unlisted_note
from robot_vision.datasets.sample import Splits
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.geometry.earth import east_north
from robot_vision.recordings.files import image_notes
from robot_vision.settings.declared import names_in, option
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped, numbers, where
from robot_vision.truth.tables import Table, read_table

_VALIDATION = ("cph", "sf")
_SIDES = ("database", "query")
_POSITIONS = {name: (re.compile(name),) for name in ("key", "easting", "northing")}
_RAW = {name: (re.compile(name),) for name in ("key", "lon", "lat", "ca", "pano")}


@dataclass(frozen=True)
class Options(GeoOptions):
    """Options of the format."""

    cities: str = option("", "names of the cities to read, separated by commas; empty: all")


@dataclass(frozen=True)
class _Row:
    """An image of a city."""

    side: str
    key: str
    file: Path
    utm: tuple[float, float]
    lat_lon: tuple[float, float] | None
    heading: float | None


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    folders = _cities(root)
    if not folders:
        raise SourceError(
            f"{root} has no city with database/postprocessed.csv: give the folder above train_val, or a city"
        )
    for name in names_in(options.cities):
        if name not in folders:
            raise ConfigError(unknown("city in cities", name, folders))
    chosen = names_in(options.cities) or tuple(folders)
    skipped, notes = Skipped(), list[str]()
    files: list[Path] = []
    rows = {city: list(_rows(city, folders[city], skipped, files, notes)) for city in chosen}
    rows = {city: found for city, found in rows.items() if found}
    if not rows:
        raise SourceError(
            f"{root} has no image with a position ({'; '.join(skipped.notes() + notes)})"
        )
    positions = side_by_side(
        {city: _metres(city, found, notes) for city, found in rows.items()}, notes
    )
    official = bool(set(rows) & set(_VALIDATION)) and bool(set(rows) - set(_VALIDATION))
    placed = [
        Placed(
            f"{city}/{row.side}/{row.key}",
            row.file,
            f"{city}/{row.side}",
            Place(float(xy[0]), float(xy[1]), 0.0, row.heading),
            ("val" if city in _VALIDATION else "train") if official else "",
        )
        for city, found in rows.items()
        for row, xy in zip(found, positions[city], strict=True)
    ]
    if official:
        there = ", ".join(sorted(set(rows) & set(_VALIDATION)))
        notes.append(
            f"validation is {there}, as published: no training image shows its places, and nothing is test; "
            "split=blocks divides every city"
        )
    notes.append("seq_info.csv and subtask_index.csv are not used")
    notes = [*skipped.notes(), *image_notes(files), *unlisted_note(files), *notes]
    return geo_splits(placed, options, notes, np.zeros(2))


def _cities(root: Path) -> dict[str, Path]:
    if any((root / side).is_dir() for side in _SIDES):
        return {root.resolve().name: root}
    places = [
        p
        for folder in (root, root / "train_val", root / "test")
        if folder.is_dir()
        for p in folder.iterdir()
    ]
    return {
        p.name: p for p in sorted(places) if any((p / side / "images").is_dir() for side in _SIDES)
    }


def _rows(
    city: str, folder: Path, skipped: Skipped, files: list[Path], notes: list[str]
) -> Iterator[_Row]:
    for side in _SIDES:
        table_file, images = folder / side / "postprocessed.csv", folder / side / "images"
        if not table_file.is_file():
            count = sum(1 for _ in images.iterdir()) if images.is_dir() else 0
            notes.append(
                f"{city}/{side} has no positions (postprocessed.csv): {counted(count, 'image')} left out"
            )
            continue
        table = _table(table_file, _POSITIONS)
        raw_file = folder / side / "raw.csv"
        raw = _table(raw_file, _RAW) if raw_file.is_file() else None
        said = {r.words[raw.columns["key"]]: r for r in raw.rows} if raw else {}
        for row in table.rows:
            place = where(table_file, row.number)
            key = row.words[table.columns["key"]]
            words = [row.words[table.columns[name]] for name in ("easting", "northing")]
            east, north = numbers(words, 2, place, "easting and northing")
            name = f"{city}/{side}/{key}"
            file = first_file([images / f"{key}.jpg"])
            files += [file] if file else []
            lat_lon, heading = None, None
            if raw and key in said:
                one = said[key]
                what, at = raw.columns, where(raw_file, one.number)
                lat, lon = numbers(
                    [one.words[what["lat"]], one.words[what["lon"]]], 2, at, "lat and lon"
                )
                lat_lon = float(lat), float(lon)
                if one.words[what["ca"]]:
                    angle = float(numbers([one.words[what["ca"]]], 1, at, "ca")[0])
                    heading = angle if 0 <= angle <= 360 else None  # -1 and the like: not known
                if one.words[what["pano"]].lower() in ("true", "1"):
                    skipped.add("which are panoramas", name)
                    continue
            if file is None:
                skipped.add(MISSING_IMAGE, name)
                continue
            yield _Row(side, key, file, (float(east), float(north)), lat_lon, heading)


def _table(file: Path, columns: Mapping[str, tuple[re.Pattern[str], ...]]) -> Table:
    table = read_table(file, columns)
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise SourceError(f"{file} lacks the columns {', '.join(lacking)}")
    needed = max(table.columns.values()) + 1
    for row in table.rows:
        if len(row.words) < needed:
            raise SourceError(
                f"{where(file, row.number)}: {counted(len(row.words), 'word')} in a row of {needed}"
            )
    return table


def _metres(city: str, rows: list[_Row], notes: list[str]) -> NDArray[np.float64]:
    """Returns positions (N, 2): UTM's, or of a plane at the city where it lies in two zones."""
    known = [row.lat_lon for row in rows if row.lat_lon is not None]
    zones = {int((lon + 180) // 6) + 1 for _, lon in known}
    if len(zones) < 2 and len({lat < 0 for lat, _ in known}) < 2:
        return np.array([row.utm for row in rows])
    if len(known) < len(rows):
        raise SourceError(
            f"{city} lies in UTM zones {', '.join(map(str, sorted(zones)))}, and raw.csv lacks "
            f"{len(rows) - len(known)} of its images: their eastings cannot be compared"
        )
    notes.append(
        f"{city} lies in UTM zones {' and '.join(map(str, sorted(zones)))} or on the equator: its "
        "positions are those of lat and lon"
    )
    lat, lon = np.array(known).T
    return east_north(lat, lon)
