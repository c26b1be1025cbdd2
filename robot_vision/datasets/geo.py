"""What the benchmarks of place recognition have in common: positions on the earth, and a heading at most.

The map's axes are x east, y north, z up, metres. A camera with a heading looks along it, level: optical z =
(sin h, cos h, 0), y = down. Where an image has none, no image has an orientation (`Splits.has_orientation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.posed import PosedOptions, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.datasets.splitting import divide, missing_note
from robot_vision.settings.declared import option

ORIGIN_STEP_M = 1000.0
_CITY_STEP_M = 100_000.0


@dataclass(frozen=True)
class GeoOptions(PosedOptions):
    """Options of every format with places."""

    use_heading: bool = option(True, "take the direction of the camera from its heading")


@dataclass(frozen=True)
class Place:
    """Where an image was taken, in metres, and the heading in degrees clockwise from north."""

    east_m: float
    north_m: float
    height_m: float
    heading_deg: float | None


@dataclass(frozen=True)
class Placed:
    """An image with its place.

    Attributes:
        name: of the sample.
        file: the image.
        sequence: that it belongs to.
        place: where it is.
        part: train, val or test; empty where no split is official.
        group: images of one group stay on one side where they are divided; empty: each by itself.
    """

    name: str
    file: Path
    sequence: str
    place: Place
    part: str = ""
    group: str = ""


def geo_splits(
    placed: Sequence[Placed], options: GeoOptions, notes: list[str], origin: NDArray[np.float64]
) -> Splits:
    """Returns the images as samples, divided as their parts say or else into blocks (of groups).

    Args:
        placed: in their order.
        options: of the data set.
        notes: for `Splits.notes`.
        origin: (2,), east and north of the map's.
    """
    oriented = options.use_heading and all(p.place.heading_deg is not None for p in placed)
    if not oriented:
        why = "not every image has a heading" if options.use_heading else "headings are not used"
        notes.append(f"{why}: positions only, no orientation")
    samples = [
        Sample(
            p.name, None, _pose(p.place, origin, oriented), None, p.sequence, FileImage(str(p.file))
        )
        for p in placed
    ]
    groups: dict[str, list[Sample]] = {}
    for item, sample in zip(placed, samples, strict=True):
        groups.setdefault(item.group or item.name, []).append(sample)
    official = all(p.part for p in placed) and options.split in ("auto", "official")
    if official:
        roles: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
        for item, sample in zip(placed, samples, strict=True):
            roles[item.part].append(sample)
        parts = roles["train"], roles["val"], roles["test"]
    else:
        firsts = {id(group[0]): group for group in groups.values()}
        divided = divide([group[0] for group in groups.values()], options)
        if note := missing_note(options, divided[1], divided[2]):
            notes.append(note)
        train, validation, test = ([s for f in part for s in firsts[id(f)]] for part in divided)
        parts = train, validation, test
    return splits_of([], options, notes, has_orientation=oriented, parts=parts)


def round_origin(places: Sequence[Place]) -> NDArray[np.float64]:
    """Returns a round point (2,) south-west of all: coordinates counted from it are small."""
    low = np.array([[p.east_m, p.north_m] for p in places]).min(axis=0)
    return np.asarray(np.floor(low / ORIGIN_STEP_M) * ORIGIN_STEP_M)


def side_by_side(
    cities: Mapping[str, NDArray[np.float64]], notes: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Moves each city's positions (N, 2) into a square of its own, so that no two cities are near.

    Coordinates of two cities (of two UTM zones, or from two origins) cannot be compared: without this,
    places of two countries could lie on one another.
    """
    widest = max(float(np.ptp(xy, axis=0).max()) for xy in cities.values())
    step = _CITY_STEP_M * (1 + math.floor(widest / _CITY_STEP_M))
    moved = {}
    for i, (city, xy) in enumerate(cities.items()):
        low = np.floor(xy.min(axis=0) / ORIGIN_STEP_M) * ORIGIN_STEP_M
        moved[city] = xy - low + (i * step, 0.0)
    if len(moved) > 1:
        names = ", ".join(f"{city} from x = {i * step / 1000:g} km" for i, city in enumerate(moved))
        notes.append(f"each town has its own square on the map: {names}")
    return moved


def _pose(place: Place, origin: NDArray[np.float64], oriented: bool) -> NDArray[np.float64]:
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
