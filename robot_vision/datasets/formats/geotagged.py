"""Photographs with GPS in their EXIF, in any folders: positions in metres on a plane.

The map is a plane that touches the earth (WGS 84) in the middle of the images, x east, y north, z up from
the sea, its origin a round point south-west of all. It holds across the date line and near the poles, and is
exact to a few centimetres within 20 km. Images further apart are of several towns, each of which has a square
of its own on the map (`geo.towns`).

With a datum the plane touches the earth there, which is the map's origin, and all images lie on it. For the
datum `earth` there is no plane: positions are from the middle of the earth, for cells over more than a town.

Layouts: `{train,val,test}/...`, any of them; or one folder, divided into blocks. Sequences are the folders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.geo import GeoOptions, Place, Placed, geo_splits, side_by_side
from robot_vision.datasets.image_files import unused_notes
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.geometry.earth import (
    EARTH,
    FARTHEST_M,
    apart_m,
    east_north,
    east_north_up,
    normals,
    on_earth,
    parsed_datum,
    towns,
)
from robot_vision.images.gps import GpsTag, gps_of
from robot_vision.recordings.files import find_images, image_notes
from robot_vision.recordings.image_formats import file_bytes
from robot_vision.settings.declared import option
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import Skipped

_PARTS = ("train", "val", "test")
_NO_GPS = "have no GPS in EXIF"
_WIDE_M = 20_000.0


@dataclass(frozen=True)
class Options(GeoOptions):
    """Options of the format."""

    datum: str = option(
        "",
        "latitude,longitude of the map's origin in degrees, x east, y north; or earth, for positions from "
        "the middle of the earth, of images of several towns; empty: a plane for each town",
    )


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    around = parsed_datum(options.datum) if options.datum not in ("", EARTH) else None
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give the folder of the photographs")
    parts = {name: root / name for name in _PARTS if (root / name).is_dir()} or {"": root}
    notes = unused_notes(root, list(parts)) if "" not in parts else []
    skipped, found = Skipped(), list[tuple[str, Path, GpsTag]]()
    for part, folder in parts.items():
        images = find_images(folder)
        notes += images.notes()
        for file in images.files:
            name = file.relative_to(root).as_posix()
            try:
                tag = gps_of(file_bytes(file))
            except (OSError, ValueError) as error:
                skipped.add(str(error), name)
                continue
            if tag is None:
                skipped.add(_NO_GPS, name)
            elif around is not None and _far(tag, around):
                skipped.add(f"more than {FARTHEST_M / 1000:g} km from datum {options.datum}", name)
            else:
                found.append((part, file, tag))
    if not found:
        raise SourceError(
            f"{root} has no image with GPS in its EXIF ({'; '.join(skipped.notes()) or 'no image'})"
        )
    lat = np.array([tag.lat_deg for _, _, tag in found])
    lon = np.array([tag.lon_deg for _, _, tag in found])
    places = (
        _on_towns(lat, lon, notes) if not options.datum else _from_datum(lat, lon, options, notes)
    )
    flat = sum(tag.altitude_m is None for _, _, tag in found)
    if flat:
        notes.append(f"{counted(flat, 'image')} without altitude: z is 0")
    placed = [
        Placed(
            file.relative_to(root).as_posix(),
            file,
            file.parent.relative_to(root).as_posix(),
            Place(float(xy[0]), float(xy[1]), tag.altitude_m or 0.0, tag.heading_deg),
            part,
        )
        for (part, file, tag), xy in zip(found, places, strict=True)
    ]
    notes = [*skipped.notes(), *image_notes(p.file for p in placed), *notes]
    splits = geo_splits(placed, options, notes, np.zeros(2))
    if options.datum == EARTH:
        up = dict(zip((p.name for p in placed), normals(lat, lon), strict=True))

        def moved(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
            return tuple(_around(s, up[s.name]) for s in samples)

        splits = replace(
            splits,
            train=moved(splits.train),
            validation=moved(splits.validation),
            test=moved(splits.test),
            map_frame=EARTH,
        )
    return replace(splits, datum=options.datum)


def _far(tag: GpsTag, around: tuple[float, float]) -> bool:
    place = normals(*np.array([tag.lat_deg, tag.lon_deg]))
    return bool(apart_m(place, normals(*np.array(around))) > FARTHEST_M)


def _around(sample: Sample, up: NDArray[np.float64]) -> Sample:
    """Returns a sample whose pose is not on a plane, x east, y north, z up, but from the middle of the earth.

    Args:
        sample: at the plane's origin, but for its height.
        up: normal (3,) of its place.
    """
    assert sample.T_map_camera is not None
    T_earth_plane = np.eye(4)
    T_earth_plane[:3, :3] = east_north_up(up).T
    T_earth_plane[:3, 3] = on_earth(up)
    return replace(sample, T_map_camera=T_earth_plane @ sample.T_map_camera)


def _from_datum(
    lat: NDArray[np.float64], lon: NDArray[np.float64], options: Options, notes: list[str]
) -> NDArray[np.float64]:
    """Returns positions (N, 2) on the plane of the datum; for `earth` each is the origin of its own."""
    if options.datum == EARTH:
        notes.append(
            "positions are from the middle of the earth, in the frame earth; float32, as which they are "
            "learnt, has a step of half a metre there"
        )
        return np.zeros((len(lat), 2))
    xy = east_north(lat, lon, parsed_datum(options.datum))
    far_m = float(np.abs(xy).max())
    notes.append(f"x is east and y is north of datum {options.datum}")
    if far_m > _WIDE_M:
        notes.append(f"they reach {far_m / 1000:.0f} km: a plane is exact within 20 km")
    return xy


def _on_towns(
    lat: NDArray[np.float64], lon: NDArray[np.float64], notes: list[str]
) -> NDArray[np.float64]:
    """Returns positions (N, 2) of all towns next to each other."""
    town = towns(lat, lon)
    rows = {f"town {n}": np.flatnonzero(town == n) for n in range(town.max() + 1)}
    places = np.zeros((len(lat), 2))
    metres = {name: east_north(lat[own], lon[own]) for name, own in rows.items()}
    for name, xy in side_by_side(metres, notes).items():
        places[rows[name]] = xy
        first, wide_m = int(rows[name][0]), float(np.ptp(xy, axis=0).max())
        notes.append(
            f"{name}: {counted(len(xy), 'image')}; x is east, y is north, and latitude {lat[first]:.7f}, "
            f"longitude {lon[first]:.7f} is x = {xy[0, 0]:.2f} m, y = {xy[0, 1]:.2f} m"
        )
        if wide_m > _WIDE_M:
            notes.append(f"{name} is {wide_m / 1000:.0f} km wide: its plane is exact within 20 km")
    return places
