"""What a map that is kept in tables does alike, whatever database has the tables."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.places import packing
from robot_vision.places.keyframe import Keyframe, check
from robot_vision.places.store import Ids, MapError, MapInfo, MapPoses, PlaceMap

T = TypeVar("T", bound="TableMap")
Row = tuple[Any, ...]
POSE = "id, stamp_ns, camera, source, x, y, z, qx, qy, qz, qw, covariance"


class TableMap(PlaceMap):
    """A `store.PlaceMap` without its statements. Calls from several threads wait for one another."""

    info: MapInfo
    chunk: int  # keyframes that one statement asks for

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, keyframe: Keyframe) -> int:
        """See `store.PlaceMap`."""
        return self.add_many([keyframe])[0]

    def add_many(self, keyframes: Iterable[Keyframe]) -> list[int]:
        """See `store.PlaceMap`."""
        given = list(keyframes)
        for keyframe in given:
            check(keyframe, self.info.dimension)
        return self._insert_all(given) if given else []

    def get(self, keyframe_id: int) -> Keyframe:
        """See `store.PlaceMap`."""
        return next(self.keyframes([keyframe_id]))

    def keyframes(self, ids: Ids | None = None) -> Iterator[Keyframe]:
        """See `store.PlaceMap`."""
        wanted = iter(self._ids() if ids is None else [int(i) for i in ids])
        while chunk := list(islice(wanted, self.chunk)):
            rows = self._rows(chunk)
            for number in chunk:
                if number in rows:
                    yield self._keyframe(rows[number])
                elif ids is not None:
                    raise self._no_keyframe(number)

    def poses(self) -> MapPoses:
        """See `store.PlaceMap`."""
        rows = self._pose_rows()
        numbers = np.array([row[4:11] for row in rows], np.float64).reshape(-1, 7)
        return MapPoses(
            packing.first_column(rows),
            np.array([row[1] for row in rows], np.int64),
            numbers[:, :3],
            numbers[:, 3:],
            tuple(row[2] for row in rows),
            tuple(row[3] for row in rows),
        )

    def descriptors(self, ids: Ids | None = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """See `store.PlaceMap`."""
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
        """See `store.PlaceMap`."""
        self.set_structures({keyframe_id: structure})

    def _no_keyframe(self, number: int) -> MapError:
        return MapError(f"{self.info.uri} has no keyframe {number}")

    def _refuse_count(self, count: int) -> None:
        """Raises `MapError` where the map cannot have so many keyframes, before room is made for them."""

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
