"""The place node's map: whose descriptors it holds, opening, making and copying it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from robot_vision.errors import ConfigError
from robot_vision.places.map.base import (
    MapError,
    MapInfo,
    MapMissingError,
    PlaceMap,
    refuse_other_model,
)
from robot_vision.places.map.opening import create_map, open_map
from robot_vision.places.map.sqlite_file import identity
from robot_vision.text.address import is_server, name_in, shown
from robot_vision.text.counts import counted


@dataclass(frozen=True)
class Model:
    """Who makes the descriptors.

    Attributes:
        name: of the bundle.
        sha256: of the bundle.
    """

    name: str
    sha256: str


def model_of(method: str) -> Model | None:
    """Returns the model that a `vision_msgs/VisionInfo` of the perception node names in `method`."""
    found = re.fullmatch(r"(?P<name>.+) \S+ \S+ sha256:(?P<sha>[0-9a-f]{64})", method)
    return Model(found["name"], found["sha"]) if found else None


def open_or_make(uri: str, model: Model | None, dimension: int, frame_id: str) -> PlaceMap:
    """Opens a map for writing; makes it if it does not exist.

    Args:
        uri: of the map.
        model: that makes the descriptors, where that is known.
        dimension: numbers of a descriptor; 0 where that is not known.
        frame_id: of a new map.

    Raises:
        MapError: it cannot be written or is of another model, or cannot be made.
    """
    if not uri:
        raise MapError("map is empty: set it to a map's file or address")
    try:
        places = open_map(uri, "write")
    except MapMissingError:
        places = _make(uri, model, dimension, frame_id)
    try:
        refuse_model(places.info, model)
    except MapError:
        places.close()
        raise
    return places


def _make(uri: str, model: Model | None, dimension: int, frame_id: str) -> PlaceMap:
    if model is None or not dimension:
        lacks = "its model" if model is None else "the length of its descriptors"
        raise MapError(
            f"{shown(uri)} does not exist, and a new map needs to know {lacks}: start the perception "
            "node and its camera first, or set model"
        )
    try:
        return create_map(
            uri,
            bundle_name=model.name,
            bundle_sha256=model.sha256,
            dimension=dimension,
            frame_id=frame_id,
        )
    except MapError as error:
        try:
            return open_map(uri, "write")  # another robot was first
        except MapMissingError:
            raise error from None


def file_identity(uri: str) -> tuple[int, int] | None:
    """Returns what tells a file from another of the same name."""
    if is_server(uri):
        return None
    return identity(Path(uri).expanduser())


def refuse_model(info: MapInfo, model: Model | None) -> None:
    """Raises `MapError` if a map is of another model than the one that is known."""
    if model is not None:
        refuse_other_model(info, model)


def save_snapshot(uri: str, snapshot_folder: str) -> str:
    """Copies a map to a file named after it and the time; returns what to tell the operator.

    Args:
        uri: of the map.
        snapshot_folder: where to; empty is next to the map.

    Raises:
        ConfigError: there is no map, or nowhere to copy it to.
        MapError: the map cannot be read or the copy not be written.
    """
    from robot_vision.places.map.copying import copy_map

    if not uri:
        raise ConfigError("map is empty: there is nothing to save")
    folder = Path(snapshot_folder).expanduser() if snapshot_folder else None
    if is_server(uri):
        if folder is None:
            raise ConfigError("The map is on a server: set snapshot_folder to a folder here")
        stem = name_in(uri) or "map"
    else:
        path = Path(uri).expanduser()
        folder, stem = folder or path.absolute().parent, path.stem
    target = folder / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.map"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MapError(f"{folder} cannot be made: {error}") from error
    places = open_map(uri, "read")
    try:
        count = copy_map(places, target)
    finally:
        places.close()
    return f"Saved {counted(count, 'keyframe')} to {target}"
