"""The index cache beside a place map from the internet."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path

import numpy as np

from fuzz import scratch
from robot_vision.places import index_cache
from robot_vision.places.index import IndexOptions, PlaceIndex
from robot_vision.places.sqlite_map import SqliteMap

MAX_LEN = 1 << 18
ALLOWED_S = 10.0


@functools.cache
def _map() -> tuple[Path, bytes, SqliteMap]:
    """Returns a map's file, its cache, and the map."""
    from robot_vision.places.keyframe import Keyframe

    path = scratch.folder() / "indexed.map"
    options = IndexOptions(exact_numbers=4)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8000, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = SqliteMap.create(path, "tiny", "ab" * 32, 4, "float32", "map")
    turn = np.array([0.0, 0.0, 0.0, 1.0])
    places.add_many(
        Keyframe(None, i, "a", "b", np.zeros(3), turn, None, v.astype(np.float32))
        for i, v in enumerate(vectors)
    )
    index = PlaceIndex(4, options)
    index.add(*places.descriptors())
    index.wait()
    index.revision = places.revision
    assert index_cache.save(index, places.info)
    return path, index_cache.cache_path(places.info).read_bytes(), places


def one_input(data: bytes) -> None:
    """The whole file, with its checksum set right."""
    _, good, places = _map()
    start = good.index(b"\n", good.index(b"\n") + 1) + 1
    body = data[start:-4] if len(data) > start + 4 else b""
    content = data[:start] + body + zlib.crc32(body).to_bytes(4, "little")
    index_cache.cache_path(places.info).write_bytes(content)
    index = index_cache.open_index(places, IndexOptions(exact_numbers=4))
    ids, _ = index.search(np.eye(4, dtype=np.float32), 2)
    assert ids.shape == (4, 2) and len(index) == 8000


def SEEDS() -> list[bytes]:  # noqa: N802
    """Returns a cache as it is written."""
    return [_map()[1]]
