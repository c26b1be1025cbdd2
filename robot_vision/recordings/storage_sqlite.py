"""SQLite files of rosbag2, read without changing them or their folder."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from robot_vision.recordings.sqlite_log import committed_pages
from robot_vision.recordings.storage import (
    Channel,
    Message,
    Storage,
    StoragePart,
    Times,
    ros_kind,
    slashed,
)
from robot_vision.text.counts import agreeing, counted

MAGIC = b"SQLite format 3\0"
_ROWS = 100_000  # that are taken in at once


class SqliteFile(Storage):
    """A `.db3` file; see `Storage`. Rows that only its write-ahead log holds are read, too."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self._rows = np.zeros((0, 3), np.int64)  # row, topic, log time
        self._open: sqlite3.Connection | None = None

    def survey(self) -> None:
        """Finds topics and rows."""
        journal = self.path.with_name(self.path.name + "-journal")
        if journal.is_file() and journal.stat().st_size:
            self.problems.append(
                f"{journal.name} exists: its recorder was stopped within a transaction, whose rows may be "
                f"read in part (open {self.name} in a copy of the folder with sqlite3, which undoes them)"
            )
        whole, pages = self._log_pages
        if whole < pages:
            self.problems.append(
                f"{self.name}-wal ends within a transaction or is damaged: {pages - whole} of its {pages} "
                "pages are not read, with the rows that they hold"
            )
        with closing(self._connect()) as database:
            try:
                self._channels(database)
            except sqlite3.DatabaseError as error:
                raise ValueError(str(error)) from error
            self._find_rows(database)

    def times(self) -> dict[str, Times]:
        found: dict[str, Times] = {c.topic: np.zeros(0, np.int64) for c in self.channels.values()}
        for number, channel in self.channels.items():
            rows = self._rows[self._rows[:, 1] == number]
            found[channel.topic] = np.concatenate((found[channel.topic], rows[:, 2]))
        return found

    def parts(
        self, topics: Collection[str], from_ns: int | None, until_ns: int | None
    ) -> list[StoragePart]:
        numbers = [n for n, channel in self.channels.items() if channel.topic in topics]
        rows = self._rows[np.isin(self._rows[:, 1], numbers)]
        if from_ns is not None:
            rows = rows[rows[:, 2] >= from_ns]
        if until_ns is not None:
            rows = rows[rows[:, 2] < until_ns]
        if not len(rows):
            return []
        rows = rows[np.lexsort((rows[:, 0], rows[:, 2]))]
        return [StoragePart(int(rows[0, 2]), lambda: self._messages(rows))]

    def fetch(self, block: int, inner: int) -> bytes:
        if self._open is None:
            self._open = self._connect()
        try:
            return _data(self._open, inner)
        except sqlite3.DatabaseError as error:
            raise ValueError(str(error)) from error

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        super().close()

    def _messages(self, rows: Times) -> Iterator[Message]:
        unread = 0
        why = ""
        with closing(self._connect()) as database:
            for row, number, log_ns in rows.tolist():
                try:
                    data = _data(database, row)
                except (sqlite3.DatabaseError, ValueError) as error:
                    unread, why = unread + 1, str(error)
                    continue
                yield Message(log_ns, 0, row, self.channels[number], data)
        if unread:
            self.problems.append(f"{counted(unread, 'row')} of {self.name} cannot be read: {why}")

    @functools.cached_property
    def _log_pages(self) -> tuple[int, int]:
        """How many pages of the write-ahead log are of whole transactions, and how many there are."""
        log = self.path.with_name(self.path.name + "-wal")
        return committed_pages(log) if log.is_file() and log.stat().st_size else (0, 0)

    def _connect(self) -> sqlite3.Connection:
        place = self.path.resolve().as_uri()
        # With the log, SQLite would lock the file and write an index next to it. Without locks, and
        # with that index in memory, it reads what another program may not even be allowed to write.
        options = "mode=ro&vfs=unix-none" if self._log_pages[0] else "immutable=1"
        # A reader that was left off may be closed by another thread.
        database = sqlite3.connect(f"{place}?{options}", uri=True, check_same_thread=False)
        try:
            database.execute("pragma locking_mode = exclusive")
            # Without it SQLite refuses a file that is shorter than its header says.
            database.execute("pragma writable_schema = on")
        except sqlite3.DatabaseError as error:
            database.close()
            raise ValueError(str(error)) from error
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        return database

    def _channels(self, database: sqlite3.Connection) -> None:
        definitions: dict[str, tuple[str, str]] = {}
        tables = {name for (name,) in database.execute("select name from sqlite_master")}
        if not {"topics", "messages"} <= tables:
            raise ValueError("it is an SQLite file without the tables of a bag")
        if "message_definitions" in tables:
            for name, language, text in database.execute(
                "select topic_type, encoding, encoded_message_definition from message_definitions"
            ):
                definitions[name] = str(text), str(language)
        for number, topic, kind, form in database.execute(
            "select id, name, type, serialization_format from topics order by id"
        ):
            about = definitions.get(kind, ("", ""))
            self.channels[number] = Channel(
                slashed(str(topic)), ros_kind(str(kind)), str(form), *about
            )

    def _find_rows(self, database: sqlite3.Connection) -> None:
        """Finds each row's topic and time in the order of the file: an index may lack some."""
        select = "select rowid, topic_id, timestamp from messages not indexed"
        strange: Counter[str] = Counter()
        found = [np.zeros((0, 3), np.int64)]

        def take(query: str) -> None:
            cursor = database.execute(query)
            more = True
            while more:
                rows: list[Any] = []
                try:
                    rows.extend(itertools.islice(cursor, _ROWS))
                finally:  # with those before the damage
                    more = bool(rows)
                    if not all(type(n) is int and type(t) is int for _, n, t in rows):
                        timed = [row for row in rows if type(row[1]) is int and type(row[2]) is int]
                        strange["without a topic or a time"] += len(rows) - len(timed)
                        rows = timed
                    found.append(np.array(rows, np.int64).reshape(-1, 3))

        try:
            take(f"{select} order by rowid")
        except sqlite3.DatabaseError as error:
            self.problems.append(f"{self.name} is damaged within: {error}")
            last = max((int(part[-1, 0]) for part in found if len(part)), default=-1)
            with contextlib.suppress(sqlite3.DatabaseError):  # from its end to where it is damaged
                take(f"{select} where rowid > {last} order by rowid desc")
        rows = np.concatenate(found)
        for number, count in zip(*np.unique(rows[:, 1], return_counts=True), strict=True):
            if int(number) not in self.channels:
                strange[f"of topic number {number}, which it does not list"] = int(count)
        for what, count in strange.items():
            self.problems.append(
                f"{counted(count, 'message')} of {self.name} "
                f"{agreeing(count, 'are left out: they are')} {what}"
            )
        rows = rows[np.isin(rows[:, 1], list(self.channels))]
        self._rows = rows[np.argsort(rows[:, 0], kind="stable")]


def _data(database: sqlite3.Connection, row: int) -> bytes:
    for (data,) in database.execute("select data from messages where rowid = ?", (row,)):
        if data is None:
            return b""
        return data if isinstance(data, bytes) else str(data).encode()
    raise ValueError("the row does not exist")
