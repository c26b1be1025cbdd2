"""A PostgreSQL server that keeps maps: addresses, connections, tables, errors, and vectors on the wire.

Every map is a schema of its own (`robot_vision_NAME`), so that its descriptors have a column of their length,
rights are given for a map, and dropping one leaves nothing.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.places.map.base import (
    MapBusyError,
    MapError,
    MapFullError,
    MapMissingError,
    MapReadOnlyError,
    Mode,
)
from robot_vision.text.address import ENCODE, NAME, shown

try:
    import psycopg
    from psycopg import errors as pg
    from psycopg.adapt import Dumper
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.pq import Conninfo, Format
    from psycopg.types import TypeInfo
except ImportError as error:  # pragma: no cover
    raise ConfigError(
        "Maps on a PostgreSQL server need psycopg: pip install 'robot_vision[fleet]'"
    ) from error

WAIT_S = 5
DROP = "remove it with robot-vision map drop, or choose another name"
_ADDING = "robot_vision: CREATE EXTENSION vector"
MAX_DIMENSION = 16000  # pgvector keeps no longer ones
INDEXED_DIMENSION = {"float32": 2000, "float16": 4000}  # nor does it index these
_TYPES = {"float32": ("vector", ">f4"), "float16": ("halfvec", ">f2")}

TABLES = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.map (
    only_row boolean PRIMARY KEY CHECK (only_row),
    map_id text NOT NULL,
    schema_version integer NOT NULL,
    bundle_name text NOT NULL,
    bundle_sha256 text NOT NULL,
    dimension integer NOT NULL,
    descriptor_dtype text NOT NULL,
    frame_id text NOT NULL,
    created_ns bigint NOT NULL,
    revision bigint NOT NULL,
    next_id bigint NOT NULL
);
CREATE TABLE {schema}.keyframe (
    id bigint PRIMARY KEY,
    revision bigint NOT NULL,
    stamp_ns bigint NOT NULL,
    camera text NOT NULL,
    source text NOT NULL,
    x double precision NOT NULL, y double precision NOT NULL, z double precision NOT NULL,
    qx double precision NOT NULL, qy double precision NOT NULL,
    qz double precision NOT NULL, qw double precision NOT NULL,
    covariance bytea,
    descriptor {vector} NOT NULL,
    thumbnail bytea,
    UNIQUE (source, camera, stamp_ns)
);
CREATE INDEX keyframe_by_revision ON {schema}.keyframe (revision);
CREATE TABLE {schema}.structure (
    id bigint PRIMARY KEY REFERENCES {schema}.keyframe ON DELETE CASCADE,
    data bytea NOT NULL
);
CREATE TABLE {schema}.removal (id bigint PRIMARY KEY, revision bigint NOT NULL);
CREATE INDEX removal_by_revision ON {schema}.removal (revision);
"""
CREATE_EVIDENCE = """
CREATE TABLE IF NOT EXISTS {schema}.evidence (
    id bigint PRIMARY KEY REFERENCES {schema}.keyframe ON DELETE CASCADE,
    data bytea NOT NULL
)
"""


@dataclass(frozen=True)
class Address:
    """Where a map is.

    Attributes:
        server: what libpq takes, with whatever password it was given.
        name: of the map.
        shown: the URI as `robot_vision.text.address.shown` writes it, for messages.
    """

    server: str
    name: str
    shown: str

    @property
    def schema(self) -> str:
        """The map's schema; needs no quotes in SQL."""
        return f"robot_vision_{self.name}"

    @property
    def draft(self) -> Address:
        """Where the map is while a copy is made; no name that `parse` takes leads there."""
        return replace(self, name=f"_copying_{self.name}")

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Takes `postgresql://user@host:port/database?map=NAME` apart.

        Raises:
            ConfigError: the map's name is missing or not allowed, or libpq does not read the rest.
        """
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True)
        names = [value for key, value in query if key == "map"]
        rest = urlencode([(k, v) for k, v in query if k != "map"], quote_via=quote)
        if len(names) != 1 or not NAME.fullmatch(names[0]):
            raise ConfigError(
                f"{shown(uri)}: name the map as ?map=NAME, with a NAME of at most 40 small "
                "letters, digits and underscores that begins with a letter, as in "
                "postgresql://robot@server/places?map=warehouse"
            )
        # Not by urlunsplit, which takes the slashes from an address without host: that of a local socket.
        server = f"{parts.scheme}://{parts.netloc}{parts.path}{'?' + rest if rest else ''}"
        try:
            conninfo_to_dict(server)
        except psycopg.Error as error:  # whose text quotes what it does not read
            known = ", ".join(o.keyword.decode() for o in Conninfo.get_defaults())
            raise ConfigError(
                f"{shown(uri)} has a sign or an option that libpq does not know: {ENCODE}. "
                f"Options are {known}"
            ) from error
        return cls(server, names[0], shown(uri))


def connect(address: Address, mode: Mode) -> psycopg.Connection[tuple[Any, ...]]:
    """Connects; a commit is on the server's disk when it returns, whatever the server's default.

    Raises:
        MapError: the server is not reached, refuses, or has no pgvector (for a map that is there).
    """
    try:
        connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(
            address.server,
            autocommit=True,
            connect_timeout=WAIT_S,
            keepalives_idle=WAIT_S,
            keepalives_interval=1,
            keepalives_count=WAIT_S,
            # Or a call in a radio shadow, whose packets nobody answers, ends after a quarter of an hour.
            tcp_user_timeout=WAIT_S * 1000,
            application_name="robot_vision",
        )
    except psycopg.Error as error:
        raise MapError(f"{address.shown}: no connection to the server ({_line(error)})") from error
    with translated(address):
        connection.execute("SET synchronous_commit = on")
        connection.execute(f"SET lock_timeout = '{WAIT_S}s'")
        if mode == "read":
            connection.execute("SET default_transaction_read_only = on")
        register(connection)
    return connection


def add_vectors(connection: psycopg.Connection[Any], address: Address) -> None:
    """Sees to it that the database has pgvector; several may do so at once.

    Raises:
        MapError: the server does not have it, or the user may not add it.
    """
    for attempt in (1, 2):
        try:
            with connection.transaction():
                # IF NOT EXISTS holds no other creator back: all but one would fail.
                connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_ADDING]
                )
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            return
        except (pg.UniqueViolation, pg.DuplicateObject) as error:  # another program was first
            if attempt == 2:
                raise _translation(address.shown, error) from error
        except psycopg.Error as error:
            raise MapError(
                f"{address.shown}: the server has no pgvector, or its user may not add it "
                f"({_line(error)}): install it and run CREATE EXTENSION vector"
            ) from error


def has_schema(connection: psycopg.Connection[Any], address: Address) -> bool:
    """Returns whether there is a map, whole or not."""
    query = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
    return connection.execute(query, [address.schema]).fetchone() is not None


def drop_schema(connection: psycopg.Connection[Any], address: Address) -> None:
    """Removes a map with all that is in it."""
    text: Any = f"DROP SCHEMA IF EXISTS {address.schema} CASCADE"
    connection.execute(text)


def lock(connection: psycopg.Connection[Any], address: Address) -> bool:
    """Returns whether this connection has a map for itself, until it is closed or breaks."""
    query = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
    row = connection.execute(query, [address.schema]).fetchone()
    return bool(row and row[0])


def register(connection: psycopg.Connection[Any]) -> None:
    """Teaches a connection to send vectors in binary; does nothing before pgvector is in the database."""
    for dtype, (name, stored) in _TYPES.items():
        info = TypeInfo.fetch(connection, name)
        if info is None:
            return
        attributes = {"oid": info.oid, "format": Format.BINARY}
        dumper = type(f"{name}Dumper", (_VectorDumper,), attributes)
        connection.adapters.register_dumper(_WIRE[dtype], dumper)
        assert np.dtype(stored).itemsize


class Float32Vector(bytes):
    """A descriptor as pgvector's `vector` has it on the wire."""


class Float16Vector(bytes):
    """A descriptor as pgvector's `halfvec` has it on the wire."""


_WIRE: dict[str, type[bytes]] = {"float32": Float32Vector, "float16": Float16Vector}


class _VectorDumper(Dumper):
    def dump(self, obj: bytes) -> bytes:
        return bytes(obj)


def vector_type(dtype: str) -> str:
    """Returns pgvector's type for stored descriptors."""
    return _TYPES[dtype][0]


def to_wire(descriptor: NDArray[Any], dtype: str) -> bytes:
    """Returns a descriptor (D,) as a parameter: its length, two bytes of nothing, big-endian numbers."""
    numbers = np.asarray(descriptor).astype(_TYPES[dtype][1])
    return _WIRE[dtype](struct.pack(">HH", len(numbers), 0) + numbers.tobytes())


def wire_size(dimension: int, dtype: str) -> int:
    """Returns the bytes of a descriptor that a binary cursor gives."""
    return 4 + dimension * np.dtype(_TYPES[dtype][1]).itemsize


def from_wire(blobs: list[bytes], dimension: int, dtype: str) -> NDArray[np.float32]:
    """Returns descriptors float32 (N, D) of what a binary cursor gives."""
    numbers = b"".join(bytes(blob)[4:] for blob in blobs)
    array = np.frombuffer(numbers, _TYPES[dtype][1]).astype(np.float32)
    return array.reshape(len(blobs), dimension)


@contextlib.contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turns the server's errors into `MapError`s that say what to do."""
    try:
        yield
    except psycopg.Error as error:
        raise _translation(address.shown, error) from error


def _translation(where: str, error: psycopg.Error) -> MapError:
    text = _line(error)
    if isinstance(error, (pg.DiskFull, pg.OutOfMemory, pg.ConfigurationLimitExceeded)):
        return MapFullError(
            f"{where}: no room is left on the server ({text}); all that was added before is safe"
        )
    if isinstance(error, (pg.LockNotAvailable, pg.DeadlockDetected)):
        return MapBusyError(
            f"{where} is locked by another robot or program for more than {WAIT_S} s: try again"
        )
    if isinstance(error, (pg.ReadOnlySqlTransaction, pg.InsufficientPrivilege)):
        return MapReadOnlyError(f"{where} cannot be written: {text}")
    if isinstance(error, (pg.UndefinedTable, pg.InvalidSchemaName)):
        return MapMissingError(
            f"{where} does not exist: make it with robot-vision map build or map copy"
        )
    if isinstance(error, (pg.DuplicateSchema, pg.DuplicateTable, pg.UniqueViolation)):
        return MapError(f"{where} exists already: {DROP}")
    if isinstance(error, psycopg.OperationalError):
        return MapError(f"{where}: the connection was lost ({text}); the next call reconnects")
    return MapError(f"{where} cannot be used: {text}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
