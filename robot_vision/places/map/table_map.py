"""What a map that is kept in tables does alike, whatever database has the tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.places.map import packing
from robot_vision.places.map.base import (
    DTYPES,
    MAX_DIMENSION,
    Ids,
    MapError,
    MapInfo,
    MapPoses,
    MapReplacedError,
    PlaceMap,
)
from robot_vision.places.map.keyframe import Keyframe, check

T = TypeVar("T", bound="TableMap")
Row = tuple[Any, ...]
_MAX_NAME = 1000  # characters
POSE = "id, stamp_ns, camera, source, x, y, z, qx, qy, qz, qw, covariance"


class TableMap(PlaceMap):
    """A `base.PlaceMap` without its statements. Calls from several threads wait for one another."""

    info: MapInfo
    chunk: int  # keyframes that one statement asks for

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, keyframe: Keyframe) -> int:
        return self.add_many([keyframe])[0]

    def add_many(self, keyframes: Iterable[Keyframe]) -> list[int]:
        given = list(keyframes)
        for keyframe in given:
            check(keyframe, self.info.dimension)
        return self._insert_all(given) if given else []

    def get(self, keyframe_id: int) -> Keyframe:
        return next(self.keyframes([keyframe_id]))

    def keyframes(self, ids: Ids | None = None) -> Iterator[Keyframe]:
        wanted = iter(self._ids() if ids is None else [int(i) for i in ids])
        while chunk := list(islice(wanted, self.chunk)):
            rows = self._rows(chunk)
            for number in chunk:
                if number in rows:
                    yield self._keyframe(rows[number])
                elif ids is not None:
                    raise self._no_keyframe(number)

    def poses(self) -> MapPoses:
        rows = self._pose_rows()
        numbers = np.array([row[4:11] for row in rows], np.float64).reshape(-1, 7)
        return MapPoses(
            self._numbers(rows),
            np.array([row[1] for row in rows], np.int64),
            numbers[:, :3],
            numbers[:, 3:],
            tuple(row[2] for row in rows),
            tuple(row[3] for row in rows),
        )

    def descriptors(self, ids: Ids | None = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if ids is None:
            wanted = self._ids()
            self._refuse_count(len(wanted))
        else:
            wanted = sorted({int(i) for i in ids})
        found = np.empty(len(wanted), np.int64)
        result = np.empty((len(wanted), self.info.dimension), np.float32)
        count = 0
        for start in range(0, len(wanted), self.chunk):
            numbers, descriptors = self._descriptors(wanted[start : start + self.chunk])
            end = count + len(numbers)
            found[count:end], result[count:end] = numbers, descriptors
            count = end
        return found[:count], result[:count]

    def set_structure(self, keyframe_id: int, structure: bytes) -> None:
        self.set_structures({keyframe_id: structure})

    def _numbers(self, rows: list[Row]) -> NDArray[np.int64]:
        """Returns the first column, int64 (N,); a table that somebody else made may have anything there."""
        for row in rows:
            if not isinstance(row[0], int) or not -(1 << 63) <= row[0] < 1 << 63:
                raise self._damaged(f"a whole number is {str(row[0])[:50]!r}")
        return np.array([row[0] for row in rows], np.int64)

    def _revision_of(self, rows: list[Row]) -> int:
        """Returns the revision of the only row (revision, map_id).

        Raises:
            MapReplacedError: it is of another map than the one that was opened.
        """
        if len(rows) != 1:
            raise self._damaged("its description is gone")
        if rows[0][1] != self.info.map_id:
            raise MapReplacedError(
                f"{self._where} was replaced by another map since it was opened: open it again"
            )
        return int(self._numbers(rows)[0])

    def _sums(self, rows: list[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns `checksums` of rows (id, checksum)."""
        return self._numbers(rows), self._numbers([row[1:] for row in rows])

    def _sound(self, row: Row) -> Row:
        """Returns a row of `POSE` if it has the types and ranges of one that was written."""
        if not packing.is_sound(row):
            raise self._damaged(f"keyframe {str(row[0])[:50]} is not as it was written")
        return row

    def _described(self, version: int, row: Row) -> MapInfo:
        """Returns what a map says of itself, from the columns after the version in `MapInfo`."""
        map_id, name, sha256, dimension, dtype, frame_id, created_ns = row
        texts = (map_id, name, sha256, dtype, frame_id)
        if not (
            all(isinstance(text, str) and len(text) <= _MAX_NAME for text in texts)
            and type(dimension) is int  # True is an int, too
            and 1 <= dimension <= MAX_DIMENSION
            and dtype in DTYPES
            and isinstance(created_ns, int)
        ):
            raise self._damaged(f"its description is {str(row)[:200]}")
        return MapInfo(
            self._where, map_id, version, name, sha256, dimension, dtype, frame_id, created_ns
        )

    @property
    @abstractmethod
    def _where(self) -> str:
        """The map's URI, without a password."""

    @abstractmethod
    def _damaged(self, why: str) -> MapError:
        """Returns the error for a map that cannot be trusted."""

    def _no_keyframe(self, number: int) -> MapError:
        return MapError(f"{self.info.uri} has no keyframe {number}")

    def _refuse_count(self, count: int) -> None:
        """Raises `MapError` where the map cannot have that many keyframes, before room is made for them."""

    @abstractmethod
    def _insert_all(self, keyframes: list[Keyframe]) -> list[int]:
        """Adds keyframes that were checked: all or none."""

    @abstractmethod
    def _ids(self) -> list[int]:
        """Returns all ids, ascending."""

    @abstractmethod
    def _rows(self, ids: list[int]) -> dict[int, Row]:
        """Returns what `_keyframe` takes for each of the ids that is there."""

    @abstractmethod
    def _keyframe(self, row: Row) -> Keyframe:
        """Returns the keyframe of one of `_rows`."""

    @abstractmethod
    def _pose_rows(self) -> list[Row]:
        """Returns the columns `POSE`, and any others after them, of all keyframes by ascending id."""

    @abstractmethod
    def _descriptors(self, ids: list[int]) -> tuple[list[int], NDArray[np.float32]]:
        """Returns ids (N), ascending, and descriptors (N, D) of those ids that are there."""
