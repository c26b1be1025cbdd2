"""Rows of a place map on a PostgreSQL server that somebody else can write to, or that is somebody else's."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from hypothesis import strategies as st

from fuzz.scratch import Bytes
from robot_vision.errors import ConfigError
from robot_vision.places.map.base import MapError
from robot_vision.places.map.postgres_map import PostgresMap
from robot_vision.places.map.postgres_server import Address
from robot_vision.places.map.table_map import Row

MAX_LEN = 1 << 9
ALLOWED_S = 5.0
_DESCRIBED: Row = (1, "ab" * 16, "tiny", "ab" * 32, 2, "float32", "map", 1)
_WIRE = b"\0\2\0\0" + bytes.fromhex("3f800000") + bytes(4)
_KEYFRAME: Row = (1, 5, "front", "drive", *[0.0] * 6, 1.0, bytes(288), _WIRE, b"picture")
_STRUCTURE: Row = (1, b"structure")
_TABLES = (_DESCRIBED, _KEYFRAME, _STRUCTURE)
_SPECIAL: tuple[object, ...] = (
    None, "", "float16", "x" * 300, -1, 0, 1 << 62, 1 << 70, 1e308, float("nan"), b"", b"\0" * 16, True,
    [1], {"a": 1}, 1 << 31,
)  # fmt: skip


class _Server(PostgresMap):
    """The map's own code, with the rows of the input in place of a server's."""

    def __init__(self, described: list[Row], keyframes: list[Row], structures: list[Row]) -> None:
        self.address = Address("postgresql://nowhere", "a", "postgresql://nowhere?map=a")
        self._mode = "read"
        self._lock = threading.RLock()
        self._closed = False
        self._tables = described, keyframes, structures
        self.info = self._read_info()

    @contextlib.contextmanager
    def _using(self) -> Iterator[Any]:
        yield self

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    def execute(self, statement: str) -> None:
        """Takes what sets a transaction up."""

    def _fetch(
        self, connection: psycopg.Connection[Row] | None, statement: str, values: Sequence[Any] = ()
    ) -> list[Row]:
        described, keyframes, structures = self._tables
        if "SELECT revision" in statement:
            return [(row[0], row[1]) for row in described[:1]]
        if ".map" in statement:
            return described
        if ".structure" in statement:
            return [row[1:] if "SELECT data" in statement else row[:1] for row in structures]
        if "SELECT id, descriptor" in statement:
            return [(row[0], row[12]) for row in keyframes]
        return [row[:1] for row in keyframes] if "SELECT id FROM" in statement else keyframes

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._fetch(None, statement, values)


def one_input(data: bytes) -> None:
    """Edits of a value: table and column, kind, and what a kind takes."""
    take = Bytes(data)
    tables = [[list(row)] for row in _TABLES]
    while take.at < len(data):
        table, column = _columns()[take.number(1) % len(_columns())]
        if column < 0:
            tables[table].append(list(_TABLES[table]))
        else:
            tables[table][-1][column] = _value(take)
    try:
        _walk(_Server(*([tuple(row) for row in rows] for rows in tables)))
    except (MapError, ConfigError) as error:
        assert len(str(error)) < 20_000, "the message repeats the input many times"


@functools.cache
def _columns() -> list[tuple[int, int]]:
    return [(t, c) for t, row in enumerate(_TABLES) for c in range(-1, len(row))]


def _value(take: Bytes) -> object:
    kind = take.number(1)
    if kind < 128:
        return _SPECIAL[kind % len(_SPECIAL)]
    size = take.number(1)
    content = take.data[take.at : take.at + size]
    take.at += size
    return content if kind < 192 else content.decode("utf-8", "replace")


def _walk(places: PostgresMap) -> None:
    ids, descriptors = places.descriptors()
    assert descriptors.shape == (len(ids), places.info.dimension)
    assert places.poses().positions.shape[1] == 3
    for keyframe in places.keyframes():
        assert isinstance(keyframe.camera, str) and isinstance(keyframe.stamp_ns, int)
        assert keyframe.thumbnail is None or isinstance(keyframe.thumbnail, bytes)
        places.structure(int(keyframe.keyframe_id or 0))
    assert isinstance(places.revision, int)
    places.changes(0)
    places.structure_ids()
    places.check()


def seeds() -> list[bytes]:
    """Returns every column with every special value."""
    columns = range(len(_columns()))
    return [b"", *(bytes([c, s]) for c in columns for s in range(len(_SPECIAL)))]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns a few edits."""
    column = st.integers(0, 40)
    special = st.builds(lambda c, s: bytes([c, s]), column, st.integers(0, len(_SPECIAL) - 1))
    blob = st.builds(
        lambda c, kind, content: bytes([c, kind, len(content)]) + content,
        column, st.sampled_from((128, 192)), st.binary(max_size=40),
    )  # fmt: skip
    return st.lists(special | blob, max_size=5).map(b"".join)
