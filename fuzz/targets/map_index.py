"""The index cache next to a place map from the internet."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from fuzz import scratch
from robot_vision.places.index import index_cache
from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.index.options import IndexOptions
from robot_vision.places.map.sqlite_map import SqliteMap

MAX_LEN = 1 << 18
ALLOWED_S = 10.0


@functools.cache
def _map() -> tuple[Path, bytes, SqliteMap]:
    """Returns a map's file, its cache, and the map."""
    from robot_vision.places.map.base import NewMap
    from robot_vision.places.map.keyframe import Keyframe

    path = scratch.folder() / "indexed.map"
    options = IndexOptions(exact_numbers=4)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8000, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = SqliteMap.create(path, NewMap("tiny", "ab" * 32, 4, "float32", "map"))
    turn = np.array([0.0, 0.0, 0.0, 1.0])
    places.add_many(
        Keyframe(None, i, "a", "b", np.zeros(3), turn, None, v.astype(np.float32))
        for i, v in enumerate(vectors)
    )
    index = PlaceIndex(4, options)
    index.add(*places.descriptors())
    index.wait()
    index.revision = places.revision
    assert index_cache.save(index, places.info, *places.checksums())
    return path, index_cache.cache_path(places.info).read_bytes(), places


def one_input(data: bytes) -> None:
    """What FAISS would read, behind a good header and before a signature that is not its own."""
    _, good, places = _map()
    start = _body(good)
    index_cache.cache_path(places.info).write_bytes(good[:start] + data + good[-32:])
    # Not `open_index`, which rebuilds what is refused here, and takes its time.
    path = index_cache.cache_path(places.info)
    index = index_cache._load(path, places, IndexOptions(exact_numbers=4))
    assert (index is not None) == (data == good[start:-32])
    if index is not None:
        ids, _ = index.search(np.eye(4, dtype=np.float32), 2)
        assert ids.shape == (4, 2)


def seeds() -> list[bytes]:
    """Returns a cache as it is written."""
    good = _map()[1]
    return [good[_body(good) : -32]]


def _body(content: bytes) -> int:
    """Returns where FAISS's part begins."""
    return content.index(b"\n", content.index(b"\n") + 1) + 1
