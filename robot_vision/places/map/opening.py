"""Place maps: one interface over a SQLite file on the robot and a PostgreSQL server for a fleet.

    with open_map("home.map") as places:                       # or postgresql://user@host/database?map=home
        keyframe_id = places.add(keyframe)                     # on disk when the call returns
        ids, descriptors = places.descriptors()

An implementation is imported when its kind of map is opened.
"""

from __future__ import annotations

from pathlib import Path

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.errors import ConfigError, unknown
from robot_vision.places.map.base import (
    DTYPES,
    MAX_DIMENSION,
    MODES,
    MapError,
    Mode,
    NewMap,
    PlaceMap,
    refuse_other_model,
)
from robot_vision.text.address import ENCODE, is_mistyped, is_server, shown


def refuse_mistyped(uri: str | Path) -> None:
    """Raises `ConfigError` for what is meant for a server and not written as `address` reads it."""
    if is_mistyped(uri):
        raise ConfigError(f"{shown(uri)} is no address of a map on a server: {ENCODE}")


def open_map(
    uri: str | Path, mode: Mode = "write", *, bundle: ModelBundle | None = None
) -> PlaceMap:
    """Opens a map that is there.

    Args:
        uri: a file, or postgresql://user@host/database?map=NAME.
        mode: `read`, which changes no file and can share a read-only disk, or `write`.
        bundle: the model whose descriptors will be compared with the map's.

    Raises:
        MapMissingError: it does not exist.
        MapError: it is damaged, of a newer version, or made by another model than `bundle`.
        ConfigError: an unknown mode.
    """
    if mode not in MODES:
        raise ConfigError(unknown("mode", mode, MODES))
    refuse_mistyped(uri)
    places: PlaceMap
    if is_server(uri):
        from robot_vision.places.map.postgres_map import PostgresMap

        places = PostgresMap.open(str(uri), mode)
    else:
        from robot_vision.places.map.sqlite_map import SqliteMap

        places = SqliteMap.open(Path(uri).expanduser(), mode)
    try:
        if bundle is not None:
            refuse_other_model(places.info, bundle)
    except MapError:
        places.close()
        raise
    return places


def create_map(
    uri: str | Path,
    *,
    bundle_name: str,
    bundle_sha256: str,
    dimension: int,
    frame_id: str = "map",
    descriptor_dtype: str = "float32",
) -> PlaceMap:
    """Makes an empty map and opens it for writing. `MapInfo` says what the arguments mean.

    Raises:
        MapError: something exists already, or it cannot be written.
        ConfigError: an argument that is not allowed.
    """
    if descriptor_dtype not in DTYPES:
        raise ConfigError(unknown("descriptor_dtype", descriptor_dtype, DTYPES))
    if not 1 <= dimension <= MAX_DIMENSION:
        raise ConfigError(f"dimension is {dimension}: use 1 to {MAX_DIMENSION}")
    if not frame_id or not bundle_name:
        raise ConfigError("frame_id and bundle_name may not be empty")
    refuse_mistyped(uri)
    new = NewMap(bundle_name, bundle_sha256, dimension, descriptor_dtype, frame_id)
    if is_server(uri):
        from robot_vision.places.map.postgres_map import PostgresMap

        return PostgresMap.create(str(uri), new)
    from robot_vision.places.map.sqlite_map import SqliteMap

    return SqliteMap.create(Path(uri).expanduser(), new)


def descriptor_size(bundle: ModelBundle) -> int:
    """Returns how many numbers the descriptors of a bundle have.

    Raises:
        ConfigError: the bundle has no place head.
    """
    if "place" not in bundle.spec.heads:
        raise ConfigError(
            f"Bundle {bundle.name} has no place head: a map needs a model trained with one"
        )
    size: int = bundle.spec.heads["place"].descriptor_size
    return size


def create_map_for(
    uri: str | Path,
    bundle: ModelBundle,
    frame_id: str = "map",
    descriptor_dtype: str = "float32",
) -> PlaceMap:
    """Makes an empty map for the descriptors of a bundle; see `create_map`.

    Raises:
        ConfigError: the bundle has no place head.
    """
    return create_map(
        uri,
        bundle_name=bundle.name,
        bundle_sha256=bundle.sha256,
        dimension=descriptor_size(bundle),
        frame_id=frame_id,
        descriptor_dtype=descriptor_dtype,
    )
