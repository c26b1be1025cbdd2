"""A place map in one SQLite file: the default on a robot.

The write-ahead log is synced at every commit, so what `add` acknowledged survives `kill -9` and a power cut.
The log is then emptied into the file, so that a copy of the file alone has all of it. Each row has a
checksum, since SQLite has none of its own. Readers in other processes go on while one writes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, refuse_fork
from robot_vision.places.map import packing
from robot_vision.places.map.base import (
    Added,
    Changes,
    Ids,
    KeyframeThereError,
    MapError,
    MapFullError,
    MapInfo,
    MapReadOnlyError,
    MapReplacedError,
    Mode,
    NewMap,
    taken,
)
from robot_vision.places.map.keyframe import Keyframe, check
from robot_vision.places.map.sqlite_file import (
    CREATE_EVIDENCE,
    EVIDENCE,
    check_pages,
    damaged,
    empty_log,
    identity,
    is_at_rest,
    make_file,
    open_file,
    translated,
)
from robot_vision.places.map.table_map import POSE, Row, TableMap
from robot_vision.text.counts import counted

_REVISION = "SELECT revision, map_id FROM map"
_TABLES = ("keyframe", "descriptor", "thumbnail", "structure")


class SqliteMap(TableMap):
    """A map in a file."""

    chunk = 500  # below the 999 variables that old SQLite takes in one statement

    def __init__(
        self, path: Path, db: sqlite3.Connection, mode: Mode, frozen: bool = False
    ) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = db
        self._mode = mode
        self._identity = identity(path)
        self._frozen = os.stat(path).st_mtime_ns if frozen else None
        self._lock = threading.RLock()
        self._process = os.getpid()
        try:
            self.info = self._read_info()
        except BaseException:
            db.close()
            raise

    @classmethod
    def create(cls, path: Path, new: NewMap) -> SqliteMap:
        """Makes a map; see `opening.create_map`."""
        make_file(path, (uuid.uuid4().hex, *new, time.time_ns()))
        return cls.open(path, "write")

    @classmethod
    def open(cls, path: Path, mode: Mode, quick: bool = False) -> SqliteMap:
        """Opens a map; see `opening.open_map`. `quick` leaves out the check of every page."""
        frozen = False
        try:
            db = open_file(path, mode, quick)
        except MapFullError:
            # Where there is no room for the files next to it nobody writes: it can be read all the same.
            if mode == "write" or not is_at_rest(path):
                raise
            frozen = True
            db = open_file(path, mode, quick, frozen)
        try:
            return cls(path, db, mode, frozen)
        except BaseException:
            db.close()
            raise

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM keyframe")[0])

    @property
    def revision(self) -> int:
        with self._using() as db:
            return self._now(db)

    def remove(self, ids: Ids) -> int:
        with self._transaction() as (db, revision):
            return self._remove(db, ids, revision)

    def _remove(self, db: sqlite3.Connection, ids: Ids, revision: int) -> int:
        wanted = sorted({int(i) for i in ids})
        tables = [*([EVIDENCE] if _has_evidence(db) else []), *reversed(_TABLES)]
        removed = 0
        for start in range(0, len(wanted), self.chunk):
            chunk = wanted[start : start + self.chunk]
            db.execute(
                f"INSERT INTO removal SELECT id, ? FROM keyframe WHERE id IN {_marks(chunk)}",
                [revision, *chunk],
            )
            for table in tables:
                gone = db.execute(f"DELETE FROM {table} WHERE id IN {_marks(chunk)}", chunk)
            removed += gone.rowcount
        return removed

    def evidence(self) -> dict[int, bytes]:
        with self._reading() as db:
            if not _has_evidence(db):
                return {}
            ids = self._numbers(self._all(f"SELECT id FROM {EVIDENCE} ORDER BY id")).tolist()
            found: dict[int, bytes] = {}
            for start in range(0, len(ids), self.chunk):
                found |= self._blobs(EVIDENCE, ids[start : start + self.chunk])
            return found

    def revise(
        self, remove: Ids, add: Sequence[Added], evidence: Mapping[int, bytes] | None = None
    ) -> list[int]:
        for new in add:
            check(new.keyframe, self.info.dimension)
        with self._transaction() as (db, revision):
            db.execute(CREATE_EVIDENCE)
            self._remove(db, remove, revision)
            ids = [self._insert(db, new.keyframe, revision) for new in add]
            kept = {**(evidence or {}), **{i: n.evidence for i, n in zip(ids, add, strict=True)}}
            made = {i: n.structure for i, n in zip(ids, add, strict=True)}
            for table, blobs in ((EVIDENCE, kept), ("structure", made)):
                db.executemany(
                    f"INSERT OR REPLACE INTO {table} SELECT id, ?, ? FROM keyframe WHERE id = ?",
                    [(zlib.crc32(data), data, i) for i, data in blobs.items() if data is not None],
                )
        return ids

    def checksums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._sums(self._all("SELECT id, crc FROM descriptor ORDER BY id"))

    def changes(self, since: int) -> Changes:
        with self._reading() as db:
            revision = self._now(db)
            added, removed = (
                self._numbers(
                    db.execute(
                        f"SELECT id FROM {table} WHERE revision > ? ORDER BY id", [since]
                    ).fetchall()
                )
                for table in ("keyframe", "removal")
            )
            return Changes(revision, added, removed)

    def set_structures(self, structures: Mapping[int, bytes]) -> None:
        if not structures:
            return
        with self._transaction(changes_places=False) as (db, _):
            for number, given in structures.items():
                if not db.execute("SELECT 1 FROM keyframe WHERE id = ?", [number]).fetchone():
                    raise self._no_keyframe(number)
                data = bytes(given)
                db.execute(
                    "INSERT OR REPLACE INTO structure VALUES (?, ?, ?)",
                    [number, zlib.crc32(data), data],
                )

    def structure(self, keyframe_id: int) -> bytes | None:
        return self._blobs("structure", [int(keyframe_id)]).get(int(keyframe_id))

    def structure_ids(self) -> NDArray[np.int64]:
        return self._numbers(self._all("SELECT id FROM structure ORDER BY id"))

    def check(self) -> None:
        with self._using() as db:
            check_pages(db, self.path)
        keyframes = self._one("SELECT count(*) FROM keyframe")[0]
        matched = self._one("SELECT count(*) FROM keyframe JOIN descriptor USING (id)")[0]
        descriptors = self._one("SELECT count(*) FROM descriptor")[0]
        if not keyframes == matched == descriptors:
            raise MapError(
                damaged(
                    self.path,
                    f"{counted(keyframes, 'keyframe')}, {counted(descriptors, 'descriptor')}",
                )
            )
        for keyframe in self.keyframes():
            assert keyframe.keyframe_id is not None
            try:
                check(keyframe, self.info.dimension)
            except ConfigError as error:
                raise MapError(damaged(self.path, str(error))) from error
            self.structure(keyframe.keyframe_id)
        self.evidence()

    def compact(self) -> None:
        """Gives the room of removed keyframes back to the disk; needs as much free room as the map has."""
        with self._using() as db:
            db.execute("VACUUM")
            empty_log(db)

    def close(self) -> None:
        if self._process != os.getpid():
            return  # SQLite's locks are those of the process that opened the file
        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                with translated(self.path):
                    # SQLite itself does so only for the last one to close, and not for a file that was moved
                    # away: the log would stay, and be taken for that of the file that has the name now.
                    if self._mode == "write":
                        empty_log(db)
                    db.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        refuse_fork(self._process, f"{self.path} that was opened", MapError)
        with self._lock, translated(self.path):
            if self._db is None:
                raise MapError(f"{self.path} was closed: open it again")
            yield self._db

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One view of the map for several statements."""
        with self._using() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self, changes_places: bool = True) -> Iterator[tuple[sqlite3.Connection, int]]:
        """All or nothing; on disk at the end. Yields the revision that it makes."""
        if self._mode == "read":
            raise MapReadOnlyError(f"{self.path} was opened for reading: open it for writing")
        if identity(self.path) != self._identity:
            raise MapError(
                f"{self.path} was removed, or replaced by another file, since it was opened: open it again"
            )
        with self._using() as db:
            self._now(db)
            db.execute("BEGIN IMMEDIATE")
            try:
                if changes_places:
                    db.execute("UPDATE map SET revision = revision + 1")
                yield db, self._revision_of(db.execute(_REVISION).fetchall())
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk ends some transactions by itself
                    db.execute("ROLLBACK")
                raise
            empty_log(db)

    def _now(self, db: sqlite3.Connection) -> int:
        """Returns the revision; pages that SQLite remembers would hide a file copied over this one."""
        if self._frozen is not None and os.stat(self.path).st_mtime_ns != self._frozen:
            raise MapReplacedError(f"{self.path} has changed since it was opened: open it again")
        db.execute("PRAGMA shrink_memory")
        return self._revision_of(db.execute(_REVISION).fetchall())

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._using() as db:
            return db.execute(statement, values).fetchall()

    def _one(self, statement: str) -> Row:
        row: Row = self._all(statement)[0]
        return row

    @property
    def _where(self) -> str:
        return str(self.path)

    def _damaged(self, why: str) -> MapError:
        return MapError(damaged(self.path, why))

    def _ids(self) -> list[int]:
        return [int(i) for i in self._numbers(self._all("SELECT id FROM keyframe ORDER BY id"))]

    def _insert_all(self, keyframes: list[Keyframe]) -> list[int]:
        with self._transaction() as (db, revision):
            return [self._insert(db, keyframe, revision) for keyframe in keyframes]

    def _insert(self, db: sqlite3.Connection, keyframe: Keyframe, revision: int) -> int:
        pose = packing.pose_numbers(keyframe)
        covariance = packing.covariance_bytes(keyframe.covariance)
        crc = packing.row_sum(keyframe.stamp_ns, pose, keyframe.camera, keyframe.source, covariance)
        number = keyframe.keyframe_id
        if number is not None:
            gone = db.execute("SELECT 1 FROM removal WHERE id = ?", [number]).fetchone()
            if gone:
                raise KeyframeThereError(f"{self.path}: keyframe {number} was removed before")
        row = [number, revision, keyframe.stamp_ns, keyframe.camera, keyframe.source]
        try:
            cursor = db.execute(
                f"INSERT INTO keyframe VALUES {_marks(range(14))}", [*row, *pose, covariance, crc]
            )
        except sqlite3.IntegrityError as error:
            raise KeyframeThereError(taken(str(self.path), keyframe)) from error
        number = int(cursor.lastrowid or 0)
        data = packing.descriptor_bytes(keyframe.descriptor, self.info.descriptor_dtype)
        db.execute("INSERT INTO descriptor VALUES (?, ?, ?)", [number, zlib.crc32(data), data])
        if keyframe.thumbnail is not None:
            picture = keyframe.thumbnail
            db.execute(
                "INSERT INTO thumbnail VALUES (?, ?, ?)", [number, zlib.crc32(picture), picture]
            )
        return number

    def _rows(self, ids: list[int]) -> dict[int, Row]:
        with self._reading():
            rows = self._all(f"SELECT {POSE}, crc FROM keyframe WHERE id IN {_marks(ids)}", ids)
            descriptors = self._blobs("descriptor", ids)
            pictures = self._blobs("thumbnail", ids)
        return {row[0]: (*row, descriptors.get(row[0]), pictures.get(row[0])) for row in rows}

    def _keyframe(self, row: Row) -> Keyframe:
        *_, blob, picture = row
        self._verify(row)
        if blob is None:
            raise MapError(damaged(self.path, f"keyframe {row[0]} has no descriptor"))
        return packing.keyframe_from(row, self._unpacked([blob])[0], picture)

    def _pose_rows(self) -> list[Row]:
        rows = self._all(f"SELECT {POSE}, crc FROM keyframe ORDER BY id")
        for row in rows:
            self._verify(row)
        return rows

    def _refuse_count(self, count: int) -> None:
        stored = packing.descriptor_size(self.info.dimension, self.info.descriptor_dtype)
        if count * stored > _bytes_of(self.path):
            raise MapError(damaged(self.path, "it has more keyframes than descriptors"))

    def _descriptors(self, ids: list[int]) -> tuple[list[int], NDArray[np.float32]]:
        blobs = self._blobs("descriptor", ids)
        return list(blobs), self._unpacked(list(blobs.values()))

    def _verify(self, row: Row) -> None:
        self._sound(row)
        if packing.row_sum(row[1], row[4:11], row[2], row[3], row[11]) != row[12]:
            raise MapError(damaged(self.path, f"keyframe {row[0]} is not as it was written"))

    def _blobs(self, table: str, ids: Sequence[int]) -> dict[int, bytes]:
        """Returns id to data, ascending, of those ids that are there."""
        rows = self._all(
            f"SELECT id, crc, data FROM {table} WHERE id IN {_marks(ids)} ORDER BY id", ids
        )
        for number, crc, data in rows:
            if not isinstance(data, bytes) or zlib.crc32(data) != crc:
                raise MapError(
                    damaged(self.path, f"{table} of keyframe {number} is not as it was written")
                )
        return {number: data for number, _, data in rows}

    def _unpacked(self, blobs: list[bytes]) -> NDArray[np.float32]:
        wanted = packing.descriptor_size(self.info.dimension, self.info.descriptor_dtype)
        if any(len(blob) != wanted for blob in blobs):
            raise MapError(damaged(self.path, "a descriptor has the wrong length"))
        return packing.descriptors_from(blobs, self.info.dimension, self.info.descriptor_dtype)

    def _read_info(self) -> MapInfo:
        rows = self._all(
            "SELECT map_id, bundle_name, bundle_sha256, dimension, descriptor_dtype, frame_id, "
            "created_ns FROM map"
        )
        if len(rows) != 1:
            raise MapError(damaged(self.path, "its description is gone"))
        (version,) = self._one("PRAGMA user_version")
        return self._described(version, rows[0])


def _bytes_of(path: Path) -> int:
    """Returns the size of a map with what is still in its log."""
    log = Path(f"{path}-wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)


def _marks(values: Sized) -> str:
    return "(" + ",".join("?" * len(values)) + ")"


def _has_evidence(db: sqlite3.Connection) -> bool:
    statement = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return db.execute(statement, [EVIDENCE]).fetchone() is not None
