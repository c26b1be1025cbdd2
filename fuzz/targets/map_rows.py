"""A place map from the internet: a sound SQLite file whose rows, types and tables are hostile."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from pathlib import Path

from hypothesis import strategies as st

from fuzz import scratch
from fuzz.scratch import Bytes
from fuzz.targets import map_file
from robot_vision.places.map import packing

MAX_LEN = 1 << 9
ALLOWED_S = 10.0
_COLUMNS = (
    *(("map", name) for name in ("map_id", "bundle_name", "bundle_sha256", "dimension")),
    *(("map", name) for name in ("descriptor_dtype", "frame_id", "created_ns", "revision")),
    *(("keyframe", name) for name in ("id", "revision", "stamp_ns", "camera", "source")),
    *(("keyframe", name) for name in ("x", "qx", "qw", "covariance", "crc")),
    *((table, "data") for table in ("descriptor", "thumbnail", "structure")),
    *((table, "crc") for table in ("descriptor", "thumbnail", "structure")),
    ("removal", "id"),
    ("removal", "revision"),
)
_SPECIAL: tuple[object, ...] = (
    None, "", "float16", "x" * 300, -1, 0, 1 << 62, -(1 << 63), 1e308, float("inf"), b"", b"\0" * 16,
)  # fmt: skip
_SCHEMA = (
    "DROP TABLE descriptor",
    "ALTER TABLE descriptor RENAME TO d; CREATE VIEW descriptor AS SELECT id, crc, data FROM d",
    "CREATE TRIGGER t AFTER INSERT ON keyframe BEGIN DELETE FROM keyframe; END",
    "INSERT INTO removal VALUES (1, 1)",
    "DELETE FROM map",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
    "CREATE TABLE other (a)",
)


def one_input(data: bytes) -> None:
    """Edits of a column (number, kind, length, value), 255 for one of the tables; checksums are set right."""
    take = Bytes(data)
    path = scratch.file("rows.map", map_file.small_map())
    for end in ("-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        while take.at < len(data) and take.at < 64:
            choice = take.number(1)
            with contextlib.suppress(sqlite3.Error, OverflowError):
                if choice >= 248:
                    db.executescript(_SCHEMA[choice - 248])
                else:
                    table, column = _COLUMNS[choice % len(_COLUMNS)]
                    value = _value(take)
                    db.execute(f"UPDATE OR REPLACE {table} SET {column} = ?", [value])
        with contextlib.suppress(Exception):
            _sums(db)
    map_file.read(path)


def _value(take: Bytes) -> object:
    kind = take.number(1)
    if kind < 64:
        return _SPECIAL[kind % len(_SPECIAL)]
    if kind < 128:
        return take.number(8) - (1 << 63)
    size = take.number(1)
    content = take.data[take.at : take.at + size]
    take.at += size
    return content if kind < 192 else content.decode("utf-8", "replace")


def _sums(db: sqlite3.Connection) -> None:
    """Makes the checksums right, as the author of the map would."""
    for table in ("descriptor", "thumbnail", "structure"):
        for number, content in db.execute(f"SELECT id, data FROM {table}").fetchall():
            if isinstance(content, bytes):
                db.execute(
                    f"UPDATE {table} SET crc = ? WHERE id = ?", [zlib.crc32(content), number]
                )
    names = "id, stamp_ns, camera, source, x, y, z, qx, qy, qz, qw, covariance"
    for row in db.execute(f"SELECT {names} FROM keyframe").fetchall():
        total = packing.row_sum(row[1], row[4:11], row[2], row[3], row[11])
        db.execute("UPDATE keyframe SET crc = ? WHERE id = ?", [total, row[0]])


def seeds() -> list[bytes]:
    """Returns every column with every special value, and every table that was tampered with."""
    columns = [bytes([c, s]) for c in range(len(_COLUMNS)) for s in range(len(_SPECIAL))]
    return columns + [bytes([248 + i]) for i in range(len(_SCHEMA))] + [b""]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns a few edits."""
    special = st.builds(
        lambda c, s: bytes([c, s]),
        st.integers(0, len(_COLUMNS) - 1),
        st.integers(0, len(_SPECIAL) - 1),
    )
    blob = st.builds(
        lambda c, kind, content: bytes([c, kind, len(content)]) + content,
        st.integers(0, len(_COLUMNS) - 1),
        st.sampled_from((128, 192)),
        st.binary(max_size=40) | st.sampled_from((16, 288)).map(lambda n: bytes(min(n, 255))),
    )
    return st.lists(special | blob, max_size=4).map(b"".join)
