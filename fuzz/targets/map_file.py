"""A place map from the internet, as the file's bytes."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from fuzz import scratch
from robot_vision.errors import ConfigError
from robot_vision.places.map.base import MapError, NewMap, PlaceMap
from robot_vision.places.map.evidence import Evidence, Session, kept_evidence
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.sqlite_map import SqliteMap

MAX_LEN = 1 << 17
ALLOWED_S = 10.0


def read(path: Path) -> None:
    """Opens a map and reads all that it has, as the place node does."""
    try:
        with SqliteMap.open(path, "read") as places:
            _walk(places)
    except (MapError, ConfigError):
        pass


def _walk(places: PlaceMap) -> None:
    ids, descriptors = places.descriptors()
    assert descriptors.shape == (len(ids), places.info.dimension)
    poses = places.poses()
    assert poses.positions.shape == (len(poses.ids), 3)
    for keyframe in places.keyframes():
        assert isinstance(keyframe.camera, str) and isinstance(keyframe.stamp_ns, int)
        assert keyframe.keyframe_id is not None
        places.structure(keyframe.keyframe_id)
    places.changes(0)
    places.structure_ids()
    kept_evidence(places)
    places.check()


@functools.cache
def small_map() -> bytes:
    """Returns the file of a map of three places."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.map"
        with SqliteMap.create(path, NewMap("tiny", "ab" * 32, 4, "float32", "map")) as places:
            for number in range(3):
                places.add(
                    Keyframe(
                        None,
                        number,
                        "front",
                        "drive",
                        np.array([1.0, 2.0, number]),
                        np.array([0.0, 0.0, 0.0, 1.0]),
                        np.eye(6) if number else None,
                        np.eye(4, dtype=np.float32)[number],
                        b"picture" if number else None,
                    )
                )
            places.set_structure(1, b"structure")
            kept = Evidence((Session("drive", 1, 2, 1, 0.5),))
            places.revise((), (), {1: kept.to_bytes()})
        return path.read_bytes()


def one_input(data: bytes) -> None:
    """The whole file."""
    path = scratch.file("bytes.map", data)
    for end in ("-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    read(path)


def seeds() -> list[bytes]:
    """Returns a map."""
    return [small_map()]
