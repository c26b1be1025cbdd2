"""Place recognition benchmarks: positions in file names.

Conventions: a name is
`@easting@northing@zone@letter@latitude@longitude@pano@tile@heading@pitch@roll@height@stamp@note@.jpg`;
fields after northing may be empty or left out. Easting and northing are UTM, metres. Heading is in
degrees clockwise from north; pitch and roll are not used (benchmarks fill them in by conventions of
their own). `geo` says what becomes of them.

UTM counts northings of the southern half from 10,000 km south of the equator: where images of both halves
(zone letters M and N meet at the equator) are in one set, these are taken off. UTM numbers are large for
float32, so a round origin near the training images is subtracted; the notes name it. Of several zones (MSLS
has 22 cities) each town has its own square on the map, and one across a border stays whole.

Layouts: `[images/]{train,val,test}/{database,queries}/...`, any of them; or one folder, divided into
blocks. Samples' sequences are `train/database` and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robot_vision.datasets.geo import (
    GeoOptions,
    Place,
    Placed,
    geo_splits,
    round_origin,
    side_by_side,
)
from robot_vision.datasets.image_files import unused_notes
from robot_vision.datasets.posed import checked
from robot_vision.datasets.sample import Splits
from robot_vision.errors import SourceError
from robot_vision.geometry.earth import FALSE_NORTHING_M, degrees_of_utm, east_north, towns
from robot_vision.recordings.files import find_images, image_notes
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import Skipped, numbers

_ZONE, _LETTER, _LATITUDE, _HEADING, _HEIGHT = 3, 4, 5, 9, 12
_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Options(GeoOptions):
    """Options of the format."""


@dataclass(frozen=True)
class _Zone:
    """Of UTM: its number as written, and whether it is the southern half; empty and None where not said."""

    number: str
    south: bool | None


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    base = root / "images" if (root / "images").is_dir() else root
    parts = {name: base / name for name in _PARTS if (base / name).is_dir()} or {"": base}
    skipped = Skipped()
    placed: list[Placed] = []
    zones: list[_Zone] = []
    notes = unused_notes(base, list(parts)) if "" not in parts else []
    for part, folder in parts.items():
        found = find_images(folder)
        notes += found.notes()
        for file in found.files:
            name = file.relative_to(base).as_posix()
            said = checked(options, skipped, name, parse_name, file)
            if said is not None:
                sequence = file.parent.relative_to(base).as_posix()
                placed.append(Placed(name, file, sequence, said[0], part))
                zones.append(said[1])
    if not placed:
        raise SourceError(
            f"{root} has no image whose name begins with @easting@northing@ "
            "(folders: images/train/database, images/train/queries, ...)"
        )
    notes += [*skipped.notes(), *image_notes(p.file for p in placed)]
    numbers_there = {zone.number for zone in zones}
    if len(numbers_there - {""}) > 1:
        return geo_splits(_of_several_zones(placed, zones, notes), options, notes, np.zeros(2))
    placed = _one_half(placed, zones, notes)
    origin = round_origin([p.place for p in placed if p.part in ("train", "")] or [placed[0].place])
    notes.append(
        f"UTM zone {max(numbers_there) or 'not given'}; the map's origin is easting {origin[0]:.0f}, "
        f"northing {origin[1]:.0f}; x is east, y is north, z is up"
    )
    return geo_splits(placed, options, notes, origin)


def parse_name(file: Path) -> tuple[Place, _Zone]:
    """Returns what a file's name says.

    Raises:
        SourceError: no easting and northing, not finite, or a heading that is not in [-360, 360].
    """
    fields = file.name.split("@")
    if len(fields) < 4 or fields[0]:
        raise SourceError(f"{file}: the name must begin with @easting@northing@")
    east, north = numbers(fields[1:3], 2, str(file), "easting and northing")
    extra = fields[:-1] + [""] * 16  # the last field is the suffix

    def optional(index: int, what: str) -> float | None:
        text = extra[index].strip()
        return float(numbers([text], 1, str(file), what)[0]) if text else None

    heading = optional(_HEADING, "the heading")
    if heading is not None and abs(heading) > 360:
        raise SourceError(
            f"{file}: the heading is {heading:g}: degrees clockwise from north, up to 360"
        )
    height = optional(_HEIGHT, "the height")
    # The letter is a band of latitude, C to X from south to north; benchmarks write it behind the number too.
    number = extra[_ZONE].strip().upper()
    letter = extra[_LETTER].strip().upper() or number.lstrip("0123456789")
    latitude = optional(_LATITUDE, "the latitude")
    south = letter[:1] < "N" if letter else None
    if latitude:
        south = latitude < 0
    zone = _Zone(number.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), south)
    return Place(float(east), float(north), height or 0.0, heading), zone


def _of_several_zones(placed: list[Placed], zones: list[_Zone], notes: list[str]) -> list[Placed]:
    """Returns the images on one map: towns by their degrees, each in a square of its own.

    Eastings and northings of two zones cannot be compared: on one map, places of two countries would lie on
    one another, and neighbours on both sides of a zone's border far apart.
    """
    for item, zone in zip(placed, zones, strict=True):
        if not zone.number.isdecimal() or not 1 <= int(zone.number) <= 60 or zone.south is None:
            raise SourceError(
                f"{item.file} does not say its UTM zone (1 to 60) with its letter, and the images are of "
                f"several ({', '.join(sorted({z.number for z in zones} - {''}))}): give all of them both, "
                "or open the images of one zone"
            )
    east_north_m = np.array([[p.place.east_m, p.place.north_m] for p in placed])
    south = np.array([zone.south for zone in zones], bool)
    lat, lon = degrees_of_utm(np.array([int(z.number) for z in zones]), south, *east_north_m.T)
    town = towns(lat, lon)
    names = {}
    for number in dict.fromkeys(town.tolist()):
        mine = town == number
        there = sorted({zones[i].number for i in np.flatnonzero(mine)}, key=int)
        where = f"{lat[mine].mean():.2f}, {lon[mine].mean():.2f}"
        names[f"zone {' and '.join(there)} at {where}"] = mine
    moved = side_by_side({n: east_north(lat[mine], lon[mine]) for n, mine in names.items()}, notes)
    for name, mine in names.items():
        east_north_m[mine] = moved[name]
    return [
        replace(p, place=replace(p.place, east_m=float(x), north_m=float(y)))
        for p, (x, y) in zip(placed, east_north_m, strict=True)
    ]


def _one_half(placed: list[Placed], zones: list[_Zone], notes: list[str]) -> list[Placed]:
    """Returns the images with northings of one count, where they lie on both sides of the equator."""
    south = [zone.south for zone in zones]
    if True not in south or False not in south:
        return placed
    if None in south:
        raise SourceError(
            f"{placed[south.index(None)].file} has neither zone letter nor latitude, and the others are on "
            "both sides of the equator, where UTM's northings begin again: give all of them a letter"
        )
    notes.append(
        f"{counted(south.count(True), 'image is', 'images are')} south of the equator and "
        f"{south.count(False)} north of it: UTM's "
        "10,000,000 m are taken off the southern ones' northings"
    )
    return [
        replace(p, place=replace(p.place, north_m=p.place.north_m - FALSE_NORTHING_M)) if s else p
        for p, s in zip(placed, south, strict=True)
    ]
