"""A place map on a PostgreSQL server with pgvector, for robots that share one.

Robots keep an index of their own in memory and follow the map's revisions (`index_cache.refresh`), so they
recognise places at their usual speed, and also while the network is away. `nearest` asks the server instead.
Writers of one map take turns: they hold its row from their first statement to their commit, so that
revisions are committed in their order and no follower misses one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, refuse_fork
from robot_vision.places.map import packing
from robot_vision.places.map import postgres_server as server
from robot_vision.places.map.base import (
    SCHEMA_VERSION,
    Added,
    Changes,
    Ids,
    KeyframeThereError,
    MapError,
    MapInfo,
    Mode,
    NewMap,
    taken,
)
from robot_vision.places.map.keyframe import Keyframe, check, check_descriptors
from robot_vision.places.map.postgres_server import Address, translated
from robot_vision.places.map.table_map import POSE, Row, TableMap

_REVISION = "SELECT revision, map_id FROM {s}.map"


class PostgresMap(TableMap):
    """A map on a server.

    Where the connection breaks during the commit of `add` or `add_many`, nobody knows whether the keyframes
    are there: add them again, and `KeyframeThereError` says that they are.
    """

    chunk = 1000

    def __init__(self, address: Address, mode: Mode) -> None:
        self.address = address
        self._mode: Mode = mode
        self._lock = threading.RLock()
        self._closed = False
        self._process = os.getpid()
        self._connection = server.connect(address, mode)
        try:
            self.info = self._read_info()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def create(cls, uri: str, new: NewMap) -> PostgresMap:
        """Makes a map; see `opening.create_map`."""
        return cls._create(Address.parse(uri), new)

    @classmethod
    def _create(cls, address: Address, new: NewMap) -> PostgresMap:
        if new.dimension > server.MAX_DIMENSION:
            raise ConfigError(
                f"Descriptors have {new.dimension} numbers and pgvector keeps up to "
                f"{server.MAX_DIMENSION}: use a model with whitened descriptors, or a file"
            )
        vector = f"{server.vector_type(new.descriptor_dtype)}({new.dimension})"
        with contextlib.closing(server.connect(address, "write")) as connection:
            server.add_vectors(connection, address)
            with translated(address), connection.transaction():
                connection.execute(server.TABLES.format(schema=address.schema, vector=vector))
                connection.execute(
                    f"INSERT INTO {address.schema}.map VALUES "
                    "(true, %s, %s, %s, %s, %s, %s, %s, %s, 0, 1)",
                    [uuid.uuid4().hex, SCHEMA_VERSION, *new, time.time_ns()],
                )
        return cls(address, "write")

    @classmethod
    def open(cls, uri: str, mode: Mode) -> PostgresMap:
        """Opens a map; see `opening.open_map`."""
        return cls(Address.parse(uri), mode)

    @classmethod
    @contextlib.contextmanager
    def draft(cls, uri: str, new: NewMap) -> Iterator[PostgresMap]:
        """Yields an empty map that gets its name when the block ends; see `opening.create_map`.

        What a process that was killed left is taken away by the next one, or by `drop`.
        """
        address = Address.parse(uri)
        draft = address.draft
        with contextlib.closing(server.connect(address, "write")) as holder:
            with translated(address):
                if server.has_schema(holder, address):
                    raise MapError(f"{address.shown} exists already: {server.DROP}")
                if not server.lock(holder, draft):
                    raise MapError(
                        f"{address.shown} is being made by another copy: wait for it, or choose another name"
                    )
                server.drop_schema(holder, draft)
            try:
                with cls._create(draft, new) as target:
                    yield target
                with translated(address):
                    holder.execute(f"ALTER SCHEMA {draft.schema} RENAME TO {address.schema}")
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    server.drop_schema(holder, draft)
                raise

    @classmethod
    def drop(cls, uri: str) -> bool:
        """Removes a map from its server, with all that is in it; returns whether there was one."""
        address = Address.parse(uri)
        with contextlib.closing(server.connect(address, "write")) as connection:
            with translated(address):
                there = server.has_schema(connection, address)
                server.drop_schema(connection, address)
                if server.lock(connection, address.draft):  # or a copy is being made
                    there = server.has_schema(connection, address.draft) or there
                    server.drop_schema(connection, address.draft)
                return there

    def __len__(self) -> int:
        return int(self._all("SELECT count(*) FROM {s}.keyframe")[0][0])

    @property
    def revision(self) -> int:
        return self._revision_of(self._all(_REVISION))

    def remove(self, ids: Ids) -> int:
        with self._transaction() as connection:
            return self._remove(connection, ids)

    def _remove(self, connection: psycopg.Connection[Row], ids: Ids) -> int:
        revision = self._next_revision(connection)
        gone = self._fetch(
            connection,
            "DELETE FROM {s}.keyframe WHERE id = ANY(%s) RETURNING id",
            [sorted({int(i) for i in ids})],
        )
        connection.cursor().executemany(
            f"INSERT INTO {self.address.schema}.removal VALUES (%s, %s)",
            [(row[0], revision) for row in gone],
        )
        return len(gone)

    def evidence(self) -> dict[int, bytes]:
        with self._using() as connection:
            there = self._fetch(
                connection, "SELECT to_regclass(%s)::text", [f"{self.address.schema}.evidence"]
            )
            if there[0][0] is None:
                return {}
            rows = self._fetch(connection, "SELECT id, data FROM {s}.evidence ORDER BY id")
        return {
            int(i): self._bytes(row[1]) for i, row in zip(self._numbers(rows), rows, strict=True)
        }

    def revise(
        self, remove: Ids, add: Sequence[Added], evidence: Mapping[int, bytes] | None = None
    ) -> list[int]:
        for new in add:
            check(new.keyframe, self.info.dimension)
        with self._transaction() as connection:
            connection.execute(server.CREATE_EVIDENCE.format(schema=self.address.schema))
            self._remove(connection, remove)
            ids = self._insert_in(connection, [new.keyframe for new in add])
            kept = {**(evidence or {}), **{i: n.evidence for i, n in zip(ids, add, strict=True)}}
            made = {i: n.structure for i, n in zip(ids, add, strict=True)}
            for table, blobs in (("evidence", kept), ("structure", made)):
                connection.cursor().executemany(
                    f"INSERT INTO {self.address.schema}.{table} SELECT id, %s FROM "
                    f"{self.address.schema}.keyframe WHERE id = %s "
                    "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
                    [(data, i) for i, data in blobs.items() if data is not None],
                )
        return ids

    def checksums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kind = server.vector_type(self.info.descriptor_dtype)
        return self._sums(
            self._all(
                f"SELECT id, ('x' || left(md5({kind}_send(descriptor)), 15))::bit(60)::bigint "
                "FROM {s}.keyframe ORDER BY id"
            )
        )

    def changes(self, since: int) -> Changes:
        with self._using() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            revision = self._revision_of(self._fetch(connection, _REVISION))
            added, removed = (
                self._numbers(
                    self._fetch(
                        connection,
                        f"SELECT id FROM {{s}}.{table} WHERE revision > %s ORDER BY id",
                        [since],
                    )
                )
                for table in ("keyframe", "removal")
            )
        return Changes(revision, added, removed)

    def set_structures(self, structures: Mapping[int, bytes]) -> None:
        with self._transaction() as connection:
            for number, data in structures.items():
                done = self._fetch(
                    connection,
                    "INSERT INTO {s}.structure SELECT id, %s FROM {s}.keyframe WHERE id = %s "
                    "ON CONFLICT (id) DO UPDATE SET data = excluded.data RETURNING id",
                    [bytes(data), int(number)],
                )
                if not done:
                    raise self._no_keyframe(number)

    def structure(self, keyframe_id: int) -> bytes | None:
        rows = self._all("SELECT data FROM {s}.structure WHERE id = %s", [int(keyframe_id)])
        return self._bytes(rows[0][0]) if rows else None

    def structure_ids(self) -> NDArray[np.int64]:
        return self._numbers(self._all("SELECT id FROM {s}.structure ORDER BY id"))

    def check(self) -> None:
        """See `base.PlaceMap`. What the server's disks do is the server's to check (data checksums)."""
        for keyframe in self.keyframes():
            try:
                check(keyframe, self.info.dimension)
            except ConfigError as error:
                raise self._damaged(str(error)) from error

    def make_server_index(self) -> None:
        """Makes pgvector's HNSW index, which `nearest` uses from then on; adding takes longer with it.

        Raises:
            ConfigError: descriptors are longer than what it can index.
        """
        limit = server.INDEXED_DIMENSION[self.info.descriptor_dtype]
        if self.info.dimension > limit:
            raise ConfigError(
                f"Descriptors have {self.info.dimension} numbers and pgvector indexes up to {limit} "
                f"of {self.info.descriptor_dtype}: search without an index on the server"
            )
        with self._transaction() as connection:
            operators = f"{server.vector_type(self.info.descriptor_dtype)}_ip_ops"
            schema = self.address.schema
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS keyframe_by_descriptor ON {schema}.keyframe "
                f"USING hnsw (descriptor {operators})"
            )

    def nearest(
        self, queries: NDArray[Any], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Searches on the server; returns what `index.PlaceIndex.search` returns."""
        vectors = check_descriptors(np.atleast_2d(queries), self.info.dimension, "Query")
        ids = np.full((len(vectors), k), -1, np.int64)
        similarities = np.full((len(vectors), k), -np.inf, np.float32)
        for row, vector in enumerate(vectors):
            wire = server.to_wire(vector, self.info.descriptor_dtype)
            with self._using() as connection, connection.transaction():
                # pgvector looks at 40 candidates by default, which is no guarantee for ten.
                connection.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(100, 4 * k))}")
                found = self._fetch(
                    connection,
                    "SELECT id, -(descriptor <#> %s) FROM {s}.keyframe "
                    "ORDER BY descriptor <#> %s LIMIT %s",
                    [wire, wire, k],
                )
            for column, (number, similarity) in enumerate(found):
                ids[row, column], similarities[row, column] = number, min(similarity, 1.0)
        return ids, similarities

    def close(self) -> None:
        if self._process != os.getpid():
            return  # a fork's farewell would end the connection of the process that has it
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[psycopg.Connection[Row]]:
        refuse_fork(self._process, f"{self._where} that was opened", MapError)
        with self._lock:
            if self._closed:
                raise MapError(f"{self.info.uri} was closed: open it again")
            if self._connection.closed:  # lost, as in a robot's radio shadow
                self._connection = server.connect(self.address, self._mode)
            with translated(self.address):
                yield self._connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Row]]:
        with self._using() as connection, connection.transaction():
            yield connection

    def _fetch(
        self,
        connection: psycopg.Connection[Row],
        statement: str,
        values: Sequence[Any] = (),
    ) -> list[Row]:
        with connection.cursor(binary=True) as cursor:
            text: Any = statement.replace("{s}", self.address.schema)
            return cursor.execute(text, values).fetchall()

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._using() as connection:
            return self._fetch(connection, statement, values)

    def _ids(self) -> list[int]:
        return [int(i) for i in self._numbers(self._all("SELECT id FROM {s}.keyframe ORDER BY id"))]

    def _rows(self, ids: list[int]) -> dict[int, Row]:
        rows = self._all(
            f"SELECT {POSE}, descriptor, thumbnail FROM {{s}}.keyframe WHERE id = ANY(%s)", [ids]
        )
        return {row[0]: row for row in rows}

    def _keyframe(self, row: Row) -> Keyframe:
        self._sound(row)
        picture = None if row[13] is None else self._bytes(row[13])
        return packing.keyframe_from(row, self._unpacked([row[12]])[0], picture)

    def _pose_rows(self) -> list[Row]:
        rows = self._all(f"SELECT {POSE} FROM {{s}}.keyframe ORDER BY id")
        return [self._sound(row) for row in rows]

    def _descriptors(self, ids: list[int]) -> tuple[list[int], NDArray[np.float32]]:
        rows = self._all(
            "SELECT id, descriptor FROM {s}.keyframe WHERE id = ANY(%s) ORDER BY id", [ids]
        )
        return [row[0] for row in rows], self._unpacked([row[1] for row in rows])

    def _unpacked(self, wire: list[bytes]) -> NDArray[np.float32]:
        size = server.wire_size(self.info.dimension, self.info.descriptor_dtype)
        if any(len(self._bytes(blob)) != size for blob in wire):
            raise self._damaged("a descriptor has the wrong length")
        return server.from_wire(wire, self.info.dimension, self.info.descriptor_dtype)

    def _bytes(self, value: object) -> bytes:
        """Returns bytes of the server, whose tables may have been made by somebody else."""
        if not isinstance(value, bytes):
            raise self._damaged(f"{str(value)[:50]!r} stands where bytes should")
        return value

    @property
    def _where(self) -> str:
        return self.address.shown

    def _damaged(self, why: str) -> MapError:
        return MapError(
            f"{self.address.shown} is damaged ({why}): restore the server's backup, or remove those rows"
        )

    def _insert_all(self, keyframes: list[Keyframe]) -> list[int]:
        with self._transaction() as connection:
            return self._insert_in(connection, keyframes)

    def _insert_in(
        self, connection: psycopg.Connection[Row], keyframes: list[Keyframe]
    ) -> list[int]:
        own = [k.keyframe_id for k in keyframes if k.keyframe_id is not None]
        revision, first, map_id = self._fetch(
            connection,
            "UPDATE {s}.map SET revision = revision + 1, next_id = greatest(next_id, %s) + %s "
            "RETURNING revision, next_id, map_id",
            [max(own, default=0) + 1, len(keyframes) - len(own)],
        )[0]
        self._revision_of([(revision, map_id)])
        if own:
            self._refuse_removed(connection, own)
        free = iter(range(first - (len(keyframes) - len(own)), first))
        numbers = [next(free) if k.keyframe_id is None else k.keyframe_id for k in keyframes]
        for number, keyframe in zip(numbers, keyframes, strict=True):
            self._insert(connection, number, keyframe, revision)
        return numbers

    def _next_revision(self, connection: psycopg.Connection[Row]) -> int:
        statement = "UPDATE {s}.map SET revision = revision + 1 RETURNING revision, map_id"
        return self._revision_of(self._fetch(connection, statement))

    def _refuse_removed(self, connection: psycopg.Connection[Row], ids: list[int]) -> None:
        gone = self._fetch(connection, "SELECT id FROM {s}.removal WHERE id = ANY(%s)", [ids])
        if gone:
            raise KeyframeThereError(f"{self.info.uri}: keyframe {gone[0][0]} was removed before")

    def _insert(
        self,
        connection: psycopg.Connection[Row],
        number: int,
        keyframe: Keyframe,
        revision: int,
    ) -> None:
        values = [
            number,
            revision,
            keyframe.stamp_ns,
            keyframe.camera,
            keyframe.source,
            *packing.pose_numbers(keyframe),
            packing.covariance_bytes(keyframe.covariance),
            server.to_wire(keyframe.descriptor, self.info.descriptor_dtype),
            keyframe.thumbnail,
        ]
        marks = ",".join(["%s"] * len(values))
        try:
            connection.execute(
                f"INSERT INTO {self.address.schema}.keyframe VALUES ({marks})", values
            )
        except psycopg.errors.UniqueViolation as error:
            raise KeyframeThereError(taken(self.info.uri, keyframe)) from error

    def _read_info(self) -> MapInfo:
        rows = self._all(
            "SELECT schema_version, map_id, bundle_name, bundle_sha256, dimension, "
            "descriptor_dtype, frame_id, created_ns FROM {s}.map"
        )
        if len(rows) != 1:
            raise self._damaged("its description is gone")
        version, *described = rows[0]
        if type(version) is not int:  # True is an int, too
            raise self._damaged(f"its version is {str(version)[:50]!r}")
        if version > SCHEMA_VERSION:
            raise MapError(
                f"{self.address.shown} is a map of version {version}, and this robot_vision reads "
                f"up to {SCHEMA_VERSION}: install a newer one"
            )
        return self._described(version, tuple(described))
