"""The SQLite file of a map: its tables, how it is made, opened and checked, and what its errors mean.

The file is never opened alongside SQLite in the same process: closing any descriptor of it would drop the
locks that SQLite holds ("How to corrupt", section 2.2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from robot_vision.places.map.base import (
    SCHEMA_VERSION,
    MapBusyError,
    MapError,
    MapFullError,
    MapMissingError,
    MapReadOnlyError,
    Mode,
)

APPLICATION_ID = 0x52565031  # "RVP1", in the file's header
BUSY_S = 5.0
_EMPTY_S = 0.2  # for readers that are in the middle of a statement
# Rows of a few kB share a page of this size well; a transaction writes every page that it touches.
_PAGE_BYTES = 8192
_LOG_HEADER = 32  # of a -wal: https://sqlite.org/fileformat2.html#walformat
_LITTLE_ROOM = 4 << 20
MAX_ROW_BYTES = 80 << 20  # the largest that is written is a structure, of at most 64 MiB

# Descriptors, pictures and features lie apart from the poses, so that reading one kind reads little else. Ids
# are never used again (AUTOINCREMENT): an index that holds an id can trust it.
_TABLES = """
CREATE TABLE map (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    map_id TEXT NOT NULL,
    bundle_name TEXT NOT NULL,
    bundle_sha256 TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    descriptor_dtype TEXT NOT NULL,
    frame_id TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
CREATE TABLE keyframe (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    revision INTEGER NOT NULL,
    stamp_ns INTEGER NOT NULL,
    camera TEXT NOT NULL,
    source TEXT NOT NULL,
    x REAL NOT NULL, y REAL NOT NULL, z REAL NOT NULL,
    qx REAL NOT NULL, qy REAL NOT NULL, qz REAL NOT NULL, qw REAL NOT NULL,
    covariance BLOB,
    crc INTEGER NOT NULL,
    UNIQUE (source, camera, stamp_ns)
);
CREATE INDEX keyframe_by_revision ON keyframe (revision);
CREATE TABLE descriptor (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE thumbnail (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE structure (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE removal (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
CREATE INDEX removal_by_revision ON removal (revision);
"""
# Made by the first update of a map: versions that know no evidence read and write such a map, too.
EVIDENCE = "evidence"
CREATE_EVIDENCE = (
    "CREATE TABLE IF NOT EXISTS evidence "
    "(id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL)"
)


def make_file(path: Path, row: tuple[object, ...]) -> None:
    """Makes an empty map; `path` appears only when it is whole.

    Args:
        path: the file.
        row: of the table `map`, without only_row and revision.

    Raises:
        MapError: something is there, or it cannot be written.
    """
    if path.exists():
        raise MapError(f"{path} exists already: remove it or choose another name")
    with translated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            os.fchmod(handle, 0o644)
            os.close(handle)
        except OSError as error:
            raise MapError(f"{path} cannot be written: {error}") from error
        draft = Path(name)
        try:
            with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as db:
                db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                db.executescript("BEGIN;" + _TABLES + "COMMIT;")
                db.execute("INSERT INTO map VALUES (1, ?, ?, ?, ?, ?, ?, ?, 0)", row)
            give_name(draft, path)
        finally:
            for leftover in (draft, Path(f"{name}-wal"), Path(f"{name}-shm")):
                leftover.unlink(missing_ok=True)


def give_name(draft: Path, path: Path) -> None:
    """Renames a closed map without overwriting, and sees to it that the name survives a power cut."""
    _refuse_stray_log(path)
    try:
        try:
            os.link(draft, path)
            os.unlink(draft)
        except FileExistsError as error:
            raise MapError(f"{path} was just made by another process") from error
        except OSError:  # no hard links there, as on FAT
            os.rename(draft, path)
        for target, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
            handle = os.open(target, flags)
            os.fsync(handle)
            os.close(handle)
    except OSError as error:
        raise MapError(f"{path} cannot be written: {error}") from error


def _refuse_stray_log(path: Path) -> None:
    """Sees to it that SQLite does not take the log of a file that is gone for that of a new one.

    Raises:
        MapError: that log holds keyframes.
    """
    log = Path(f"{path}-wal")
    try:
        if log.exists() and log.stat().st_size and not path.exists():
            raise MapError(
                f"{log} exists without its map and holds the last changes of that map: put the map back "
                "into this folder, or remove the log"
            )
        if not path.exists():
            for leftover in (log, Path(f"{path}-shm")):
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise MapError(f"{path} cannot be written: {error}") from error


def open_file(
    path: Path, mode: Mode, quick: bool = False, frozen: bool = False
) -> sqlite3.Connection:
    """Opens and checks a map's file.

    Args:
        path: the file.
        mode: see `opening.open_map`.
        quick: leave out the check of every page.
        frozen: read the file as it is now, without the files that SQLite makes next to it; only where
            nobody writes.

    Raises:
        MapError: it is absent, no map, of another version, damaged, locked or not to be written.
    """
    if path.is_dir():
        raise MapError(f"{path} is a folder and no map: name the map's file")
    if not path.is_file():
        raise MapMissingError(f"{path} does not exist: make a map with robot-vision map build")
    if mode == "write" and not os.access(path, os.W_OK):
        raise MapReadOnlyError(f"{path} cannot be written: open it for reading, or change its mode")
    with translated(path):
        _refuse_foreign_log(path)
        db = _connect(path, mode, frozen)
        try:
            _refuse_code(db, path)
            _check_version(db, path)
            if mode == "write":
                # FULL syncs the log at every commit, so that a commit that returned survives a power cut.
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("BEGIN IMMEDIATE")  # is it writable, before somebody drives for an hour?
                db.execute("ROLLBACK")
                empty_log(db)  # of a writer that was killed
            _check_length(db, path)
            if not quick:
                check_pages(db, path)
        except BaseException:
            db.close()
            raise
    return db


def empty_log(db: sqlite3.Connection) -> None:
    """Moves what is committed from the log into the file, which then is the whole map.

    Nothing is lost where that is not possible now, for a reader that takes long or a full disk: the log
    stays, and the next change or the closing tries again.
    """
    with contextlib.suppress(sqlite3.DatabaseError):
        try:
            db.execute(f"PRAGMA busy_timeout = {int(_EMPTY_S * 1000)}")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")


def identity(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another of the same name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_foreign_log(path: Path) -> None:
    """Refuses a log that a killed writer of another map left: SQLite would put its pages into this one.

    Raises:
        MapError: the row of `map` in the log is of another map than that in the file.
    """
    if is_at_rest(path):
        return
    try:
        with contextlib.closing(_connect(path, "read", frozen=True)) as db:
            (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'map'").fetchone()
            (map_id,) = db.execute("SELECT map_id FROM map").fetchone()
        wanted = str(map_id).encode()
        with open(f"{path}-wal", "rb") as log:  # SQLite's locks are not on this file
            frame = 24 + int.from_bytes(log.read(_LOG_HEADER)[8:12], "big")
            while len(data := log.read(frame)) == frame:
                if int.from_bytes(data[:4], "big") == page and wanted not in data:
                    raise MapError(
                        f"{path}-wal is the log of another map, which was here before: put that map back "
                        "into this folder, or remove the log"
                    )
    except (sqlite3.DatabaseError, OSError, TypeError):  # reported when it is opened
        return


def is_at_rest(path: Path) -> bool:
    """Returns whether a file is the whole map: no log holds more."""
    log = Path(f"{path}-wal")
    return not log.exists() or not log.stat().st_size


def _connect(path: Path, mode: Mode, frozen: bool) -> sqlite3.Connection:
    options = "?mode=ro&immutable=1" if frozen else "?mode=rw"
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    if mode == "read" and not writable and not frozen:
        options = "?mode=ro"
        # A reader shares memory with writers through files next to the map. Where none can be made and
        # none is there, nobody writes.
        if not any(Path(f"{path}{end}").exists() for end in ("-wal", "-shm")):
            options += "&immutable=1"
    db = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}{options}",
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    if mode == "read" and writable and not frozen:
        # Not mode=ro: the last one to close takes the files next to the map away, which only a
        # connection that may write can do.
        db.execute("PRAGMA query_only = ON")
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not db.execute("PRAGMA page_count").fetchone()[0]:
        raise MapError(
            f"{path} is empty and no place map: copy the map again, or delete the file and build one"
        )
    if application != APPLICATION_ID:
        raise MapError(f"{path} is a SQLite file of something else, not a place map")
    if version > SCHEMA_VERSION:
        raise MapError(
            f"{path} is a map of version {version}, and this robot_vision reads up to "
            f"{SCHEMA_VERSION}: install a newer one"
        )
    if version < 1:
        raise MapError(f"{path} is a map of version {version}, which never existed")


def _refuse_code(db: sqlite3.Connection, path: Path) -> None:
    """Refuses what in a database runs when it is read or written: views, triggers, virtual tables.

    https://sqlite.org/security.html, "untrusted SQLite database files".
    """
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    if hasattr(db, "setlimit"):  # Python 3.11
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master"):
        virtual = str(sql).upper().startswith("CREATE VIRTUAL")
        if kind not in ("table", "index") or virtual:
            what = "virtual table" if virtual else kind
            raise MapError(
                f"{path} has a {what} ({str(name)[:50]!r}), which a place map never has: do not use it"
            )


def _check_length(db: sqlite3.Connection, path: Path) -> None:
    """SQLite takes what is missing of the last page for zeros, and sees no damage where those may be."""
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    log = Path(f"{path}-wal")
    size = path.stat().st_size
    if size % page_bytes and not (log.exists() and log.stat().st_size):
        raise MapError(damaged(path, f"its {size} bytes end within a page"))


def check_pages(db: sqlite3.Connection, path: Path) -> None:
    """Reads every page and raises `MapError` where the file's structure is damaged."""
    problems = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        raise MapError(damaged(path, "; ".join(" ".join(str(p).split()) for p in problems)))


def damaged(path: Path, why: str) -> str:
    """Returns the message for a file that cannot be trusted."""
    return (
        f"{path} is damaged ({why}): take a backup, or save what can be read with "
        f"sqlite3 {path} .recover"
    )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into `MapError`s that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translation(path, error) from error
    except (UnicodeDecodeError, OverflowError) as error:  # names and numbers that no map has
        raise MapError(damaged(path, str(error))) from error


def _translation(path: Path, error: sqlite3.DatabaseError) -> MapError:
    text = str(error)
    low = text.lower()
    if "locked" in low or "busy" in low:
        return MapBusyError(
            f"{path} is locked by another process for more than {BUSY_S:g} s: end that process, or "
            "try again"
        )
    # A full disk shows as "full" where pages are written, and as an I/O error where files grow by
    # other means or a quota or limit on file sizes stops them.
    why_not = errno.ENOSPC if "full" in low else _why_not_grown(path) if "i/o" in low else 0
    if why_not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MapFullError(
            f"{path}: no room is left on its disk; all that was added before is safe. Make room "
            f"({path.name}.index is only a cache). Pruning needs room, too: copy the map to another disk "
            "with robot-vision map copy, prune the copy, and put it in its place"
        )
    if why_not == errno.EROFS:
        return MapReadOnlyError(
            f"{path} cannot be written: its disk has become read-only, as after a disk error; "
            "everything added before is safe. Look into the system log, and remount the disk"
        )
    if "readonly" in low or "read-only" in low:
        return MapReadOnlyError(f"{path} cannot be written: it is open for reading only")
    if "unable to open" in low:
        return MapError(
            f"{path} cannot be opened: its files -wal and -shm cannot be made or read; copy "
            "the map with them to a folder that can be written"
        )
    if "malformed" in low or "not a database" in low or "no such" in low or "corrupt" in low:
        return MapError(damaged(path, text))
    return MapError(f"{path} cannot be used: {text}")


def _why_not_grown(path: Path) -> int:
    """Returns why a file next to the map cannot take on what a transaction would write: an errno, or 0."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            if shutil.disk_usage(path.parent).free < _LITTLE_ROOM:
                return errno.ENOSPC
            os.posix_fallocate(probe.fileno(), _size(path), _LITTLE_ROOM)  # the rest is a hole
        return 0
    except OSError as error:
        return error.errno or 0


def _size(path: Path) -> int:
    return sum(
        Path(f"{path}{end}").stat().st_size for end in ("", "-wal") if Path(f"{path}{end}").exists()
    )
