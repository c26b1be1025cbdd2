"""Place recognition benchmarks: positions in file names.

Conventions: a name is
`@easting@northing@zone@letter@latitude@longitude@pano@tile@heading@pitch@roll@height@stamp@note@.jpg`;
fields after northing may be empty or left out. Easting and northing are UTM, metres. Heading is in
degrees clockwise from north; pitch and roll are not used (benchmarks fill them in by conventions of
their own). Where every image has a heading the camera looks along it, level: optical z = (sin h, cos h,
0), y = down, in axes east, north, up. Where one has none, no image has an orientation
(`Splits.has_orientation` is False).

UTM numbers are large for float32, so a round origin near the training images is subtracted; the notes
name it.

Layouts: `[images/]{train,val,test}/{database,queries}/...`, any of them; or one folder, divided into
blocks. Samples' sequences are `train/database` and so on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage, empty_files_note
from robot_vision.datasets.options import option
from robot_vision.datasets.pose_checks import Skipped, numbers
from robot_vision.datasets.posed import PosedOptions, checked, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.sources.files import images_under

_ZONE, _LETTER, _HEADING, _HEIGHT = 3, 4, 9, 12
_PARTS = ("train", "val", "test")
_ORIGIN_STEP_M = 1000.0


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    use_heading: bool = option(True, "take the camera's direction from the heading field")


@dataclass(frozen=True)
class _Place:
    """What a file's name says."""

    east_m: float
    north_m: float
    height_m: float
    heading_deg: float | None
    zone: str


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    base = root / "images" if (root / "images").is_dir() else root
    parts = {name: base / name for name in _PARTS if (base / name).is_dir()} or {"": base}
    skipped = Skipped()
    places: list[tuple[str, Path, str, _Place]] = []
    for part, folder in parts.items():
        for file in images_under(folder):
            name = file.relative_to(base).as_posix()
            place = checked(options, skipped, name, parse_name, file)
            if place is not None:
                sequence = file.parent.relative_to(base).as_posix()
                places.append((part, file, sequence, place))
    if not places:
        raise SourceError(
            f"{root} has no image whose name begins with @easting@northing@ "
            "(folders: images/train/database, images/train/queries, ...)"
        )
    zone = _one_zone(places)
    oriented = options.use_heading and all(p.heading_deg is not None for *_, p in places)
    reference = [p for part, _, _, p in places if part in ("train", "")] or [places[0][3]]
    origin = np.array([[p.east_m, p.north_m] for p in reference]).min(axis=0)
    origin = np.floor(origin / _ORIGIN_STEP_M) * _ORIGIN_STEP_M
    notes = [
        *skipped.notes(),
        *empty_files_note(file for _, file, _, _ in places),
        f"UTM zone {zone or 'not given'}; the map's origin is easting {origin[0]:.0f}, "
        f"northing {origin[1]:.0f}; x is east, y is north, z is up",
    ]
    if not oriented:
        notes.append("not every image has a heading: positions only, no orientation")
    roles: dict[str, list[Sample]] = {name: [] for name in ("", *_PARTS)}
    for part, file, sequence, place in places:
        T = _pose(place, origin, oriented)
        name = file.relative_to(base).as_posix()
        roles[part].append(Sample(name, None, T, None, sequence, FileImage(str(file))))
    if "" in parts or options.split not in ("auto", "official"):
        samples = [sample for part in roles.values() for sample in part]
        return splits_of(samples, options, notes, has_orientation=oriented)
    three = roles["train"], roles["val"], roles["test"]
    return splits_of([], options, notes, has_orientation=oriented, parts=three)


def parse_name(file: Path) -> _Place:
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
    zone = extra[_ZONE].strip() + extra[_LETTER].strip()
    return _Place(float(east), float(north), height or 0.0, heading, zone)


def _one_zone(places: list[tuple[str, Path, str, _Place]]) -> str:
    """Returns the UTM zone that all share: coordinates of two zones cannot be compared."""
    first: dict[str, Path] = {}
    for _, file, _, place in places:
        if place.zone:
            # The letter is a band of latitude, and coordinates go on across it.
            first.setdefault(place.zone.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), file)
    if len(first) > 1:
        (a, file_a), (b, file_b) = list(first.items())[:2]
        raise SourceError(
            f"{file_b} is in UTM zone {b} and {file_a} in zone {a}: open the images of one zone at a time"
        )
    return next((p.zone for *_, p in places if p.zone), "")


def _pose(place: _Place, origin: NDArray[np.float64], oriented: bool) -> NDArray[np.float64]:
    T = np.eye(4)
    if oriented:
        assert place.heading_deg is not None
        h = math.radians(place.heading_deg)
        right, down, forward = (
            (math.cos(h), -math.sin(h), 0),
            (0, 0, -1),
            (math.sin(h), math.cos(h), 0),
        )
        T[:3, :3] = np.column_stack((right, down, forward))
    T[:3, 3] = place.east_m - origin[0], place.north_m - origin[1], place.height_m
    return T
