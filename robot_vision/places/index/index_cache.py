"""Keeps the index of a large map next to the map, and an index in memory in step with its map.

A cache is only a shortcut: one that is missing, damaged, of another map or older than the map's removals is
brought up to date or rebuilt, and one that cannot be written is gone without. Whether it is of the map is
found by the checksums of all descriptors: files of one id and revision may hold different keyframes.

FAISS trusts the files that it reads: a changed size makes it take all memory. So a cache is signed with a key
that this user's account made for itself, and one that came with a map from elsewhere is rebuilt.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from robot_vision.files.cache_folder import user_cache
from robot_vision.files.whole import draft_of
from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.index.options import IndexOptions
from robot_vision.places.map.base import Changes, MapInfo, MapReplacedError, PlaceMap
from robot_vision.text.address import is_server

faiss: Any = _faiss  # its stubs lack the callbacks
_MAGIC = b"robot_vision place index 3\n"
_STALE = 0.01  # share of places by which a cache may lag behind before it is rewritten
_BATCH = 100_000
_KEY_BYTES = 32


def open_index(
    places: PlaceMap, options: IndexOptions | None = None, cache: bool = True
) -> PlaceIndex:
    """Returns an index of all places of a map, from its cache where there is one.

    Args:
        places: the map.
        options: how to build and search.
        cache: read and write the cache; small maps, whose index is exact, have none.

    Raises:
        MapError: the map cannot be read.
    """
    path = cache_path(places.info)
    index = _load(path, places, options) if cache else None
    lag = 0
    if index is None:
        index = PlaceIndex(places.info.dimension, options)
        lag = -1
    changes = refresh(index, places)
    lag = lag or len(changes.added) + len(changes.removed)
    if cache and index.kind == "inverted" and (lag < 0 or lag > _STALE * len(index)):
        save(index, places.info, *places.checksums())
    return index


def refresh(index: PlaceIndex, places: PlaceMap) -> Changes:
    """Brings an index up to date with its map, no matter who changed it; returns what was new.

    Raises:
        MapError: the map cannot be read, or another stands in its place (`MapReplacedError`).
    """
    changes = places.changes(index.revision)
    if changes.revision < index.revision:
        raise MapReplacedError(f"{places.info.uri} was replaced by an older one: open it again")
    index.remove(changes.removed)
    new = [int(i) for i in changes.added if int(i) not in index]
    if len(new) > _BATCH and not len(index):
        index.add(*places.descriptors())  # at once, so that cells are made for all of them
    else:
        for start in range(0, len(new), _BATCH):
            index.add(*places.descriptors(new[start : start + _BATCH]))
    index.revision = changes.revision
    return changes


def cache_path(info: MapInfo) -> Path:
    """Returns where the cache of a map lies: next to its file, or for a server in the user's cache."""
    if not is_server(info.uri):
        return Path(f"{info.uri}.index")
    return user_cache() / f"{info.map_id}.index"


@dataclass(frozen=True, eq=False)
class _Cached:
    """An index as it was written, with the ids in it (N,), ascending, and their `PlaceMap.checksums` (N,)."""

    index: PlaceIndex
    ids: NDArray[np.int64]
    sums: NDArray[np.int64]


def save(index: PlaceIndex, info: MapInfo, ids: NDArray[np.int64], sums: NDArray[np.int64]) -> bool:
    """Writes the cache of an inverted index; returns whether it could be written.

    Args:
        index: of the map.
        info: of the map.
        ids: of the map's keyframes (N,), ascending; some may be newer than the index.
        sums: their `PlaceMap.checksums` (N,).
    """
    state, built_for = index.state()
    assert built_for, "an exact index is not worth a cache"
    inside = np.array([int(i) in index for i in ids], bool)
    # Another process has just removed some: the next opening writes it
    if inside.sum() != len(index):
        return False
    header = {
        "count": len(index),
        "map_id": info.map_id,
        "revision": index.revision,
        "dimension": index.dimension,
        "built_for": built_for,
        "probes": index.probes,
    }
    path = cache_path(info)
    key = _key()
    if key is None:
        return False
    try:
        with draft_of(path, sync=True) as part, part.open("wb") as file:
            body = _Signed(file.write, key)
            body.write(_MAGIC + json.dumps(header).encode() + b"\n")
            body.write(np.stack([ids[inside], sums[inside]]).astype("<i8").tobytes())
            faiss.write_index(state, faiss.PyCallbackIOWriter(body.write))
            file.write(body.signature.digest())
    except (OSError, RuntimeError):  # FAISS makes a RuntimeError of a full disk
        return False
    return True


def read_cache(path: str | Path) -> PlaceIndex | None:
    """Returns the index of a cache, as it was when it was written; None where there is no whole one."""
    cached = _read(Path(path), None)
    return cached.index if cached else None


def _load(path: Path, places: PlaceMap, options: IndexOptions | None) -> PlaceIndex | None:
    """Returns the cached index, or None where there is none that fits the map."""
    cached = _read(path, options, places.info)
    if cached is None or cached.index.revision > places.revision:
        return None
    return cached.index if _agrees(cached, places) else None


def _read(path: Path, options: IndexOptions | None, info: MapInfo | None = None) -> _Cached | None:
    try:
        with path.open("rb") as file:
            header = _header(file)
            if header is None or (info and header["map_id"] != info.map_id):
                return None
            if not _whole(path, file):
                return None
            count = int(header["count"])
            numbers = np.frombuffer(file.read(16 * count), "<i8").reshape(2, count)
            state = faiss.read_index(faiss.PyCallbackIOReader(file.read))
        dimension = int(header["dimension"])
        if state.d != dimension or (info and info.dimension != dimension):
            return None
        index = PlaceIndex(dimension, options)
        state.nprobe = int(header["probes"])
        index.restore(state, int(header["built_for"]))
        index.revision = int(header["revision"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None
    return _Cached(index, *numbers.astype(np.int64))


def _header(file: BinaryIO) -> dict[str, Any] | None:
    if file.readline(len(_MAGIC)) != _MAGIC:
        return None
    header = json.loads(file.readline(4096))
    return header if isinstance(header, dict) else None


def _whole(path: Path, file: BinaryIO) -> bool:
    """Returns whether the file has this account's signature; leaves the position as it is."""
    key = _key()
    if key is None:
        return False
    start = file.tell()
    signature = hmac.new(key, digestmod=hashlib.sha256)
    left = path.stat().st_size - signature.digest_size
    file.seek(0)
    while left > 0 and (data := file.read(min(left, 1 << 20))):
        signature.update(data)
        left -= len(data)
    whole = left == 0 and hmac.compare_digest(file.read(64), signature.digest())
    file.seek(start)
    return whole


def _key() -> bytes | None:
    """Returns the key of this account, made when it is first asked for; None where none can be kept."""
    try:
        file = user_cache() / "index.key"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".index.key.", dir=file.parent)  # mode 600
            try:
                with os.fdopen(handle, "wb") as draft:
                    draft.write(secrets.token_bytes(_KEY_BYTES))
                with contextlib.suppress(FileExistsError):  # another process was first
                    os.link(name, file)
            finally:
                os.unlink(name)
        key = file.read_bytes()
    except (OSError, RuntimeError):  # no folder that can be written, no home
        return None
    return key if len(key) == _KEY_BYTES else None


def _agrees(cached: _Cached, places: PlaceMap) -> bool:
    """Returns whether an index holds what its map held then: a file may have been put in place of another."""
    changes = places.changes(cached.index.revision)
    ids, sums = places.checksums()
    old = ~np.isin(ids, changes.added)
    kept = ~np.isin(cached.ids, changes.removed)
    return np.array_equal(ids[old], cached.ids[kept]) and np.array_equal(
        sums[old], cached.sums[kept]
    )


class _Signed:
    """Passes bytes on and signs them."""

    def __init__(self, write: Callable[[bytes], object], key: bytes) -> None:
        self._write = write
        self.signature = hmac.new(key, digestmod=hashlib.sha256)

    def write(self, data: bytes) -> None:
        self.signature.update(data)
        self._write(data)
