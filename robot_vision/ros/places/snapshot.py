"""A copy of the place map while the node goes on with it."""

from __future__ import annotations

import time
from pathlib import Path

from robot_vision.address import is_server, name_in
from robot_vision.errors import ConfigError
from robot_vision.places.map.base import MapError
from robot_vision.places.map.opening import open_map
from robot_vision.words import counted


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
