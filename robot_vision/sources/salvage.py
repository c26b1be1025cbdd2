"""Reads bags that were cut off: a full disk, a pulled plug, a copy that stopped.

The ordinary readers begin at the index at a bag's end. These go through the file from its start and stop
where it does. A message that is not whole is left out.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from robot_vision.sources.unpacking import unpack

MCAP_MAGIC = b"\x89MCAP0\r\n"
ROS1_MAGIC = b"#ROSBAG V2.0\n"
SQLITE_MAGIC = b"SQLite format 3\0"
_MAX_RECORD = 1 << 31  # a length beyond it is damage, and must not be allocated


@dataclass(frozen=True)
class Record:
    """A message as it lies in a bag.

    Attributes:
        topic: as recorded.
        kind: such as `sensor_msgs/msg/Image`.
        log_ns: when it was recorded.
        data: serialised, by ROS 1 or as CDR.
        ros1: which of the two.
    """

    topic: str
    kind: str
    log_ns: int
    data: bytes | memoryview
    ros1: bool


def salvage(path: Path) -> Iterator[Record]:
    """Yields the whole messages of a damaged bag file; nothing if it is no bag at all."""
    with path.open("rb") as file:
        magic = file.read(16)
        if magic.startswith(MCAP_MAGIC):
            file.seek(len(MCAP_MAGIC))
            yield from _mcap(file)
        elif magic.startswith(ROS1_MAGIC):
            file.seek(len(ROS1_MAGIC))
            yield from _ros1(file)
        elif magic == SQLITE_MAGIC:
            yield from _sqlite(path)


def _exactly(file: BinaryIO, size: int) -> bytes | None:
    data = file.read(min(size, _MAX_RECORD))
    return data if len(data) == size else None


def _mcap_records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at + 9 <= len(data):
        op, size = struct.unpack_from("<BQ", data, at)
        if at + 9 + size > len(data):
            return
        yield op, data[at + 9 : at + 9 + size]
        at += 9 + size


def _mcap(file: BinaryIO) -> Iterator[Record]:
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}

    def text(record: memoryview, at: int) -> tuple[str, int]:
        (size,) = struct.unpack_from("<I", record, at)
        return bytes(record[at + 4 : at + 4 + size]).decode("utf-8", "replace"), at + 4 + size

    def handle(op: int, record: memoryview) -> Iterator[Record]:
        if op == 0x03:
            schemas[struct.unpack_from("<H", record)[0]] = text(record, 2)[0]
        elif op == 0x04:
            channel, schema = struct.unpack_from("<HH", record)
            topic, at = text(record, 4)
            if text(record, at)[0] == "cdr":
                channels[channel] = topic, schemas.get(schema, "")
        elif op == 0x05:
            channel, _, log_ns, _ = struct.unpack_from("<HIQQ", record)
            if channel in channels:
                yield Record(*channels[channel], log_ns, bytes(record[22:]), ros1=False)
        elif op == 0x06:
            compression, at = text(record, 28)
            (size,) = struct.unpack_from("<Q", record, at)
            content = unpack(compression, bytes(record[at + 8 : at + 8 + size]))
            for inner in _mcap_records(memoryview(content)):
                yield from handle(*inner)

    while True:
        head = _exactly(file, 9)
        if head is None:
            return
        op, size = struct.unpack("<BQ", head)
        data = file.read(min(size, _MAX_RECORD))
        if (
            len(data) < size and op != 0x06
        ):  # of a chunk that was not compressed, the start is of use
            return
        try:
            yield from handle(op, memoryview(data))
        except (struct.error, KeyError, ValueError):
            return  # what follows cannot be trusted


def _ros1(file: BinaryIO) -> Iterator[Record]:
    connections: dict[int, tuple[str, str]] = {}

    def fields(header: bytes) -> dict[bytes, bytes]:
        found, at = {}, 0
        while at + 4 <= len(header):
            (size,) = struct.unpack_from("<I", header, at)
            key, _, value = header[at + 4 : at + 4 + size].partition(b"=")
            found[key] = value
            at += 4 + size
        return found

    def handle(header: dict[bytes, bytes], data: bytes) -> Iterator[Record]:
        op = header[b"op"]
        if op == b"\x07":
            (number,) = struct.unpack("<I", header[b"conn"])
            kind = fields(data)[b"type"].decode().replace("/", "/msg/")
            connections[number] = header[b"topic"].decode("utf-8", "replace"), kind
        elif op == b"\x02":
            (number,) = struct.unpack("<I", header[b"conn"])
            sec, nanosec = struct.unpack("<II", header[b"time"])
            if number in connections:
                yield Record(*connections[number], sec * 10**9 + nanosec, data, ros1=True)
        elif op == b"\x05":
            content = unpack(header[b"compression"].decode("utf-8", "replace"), data)
            at = 0
            while at + 4 <= len(content):
                (size,) = struct.unpack_from("<I", content, at)
                inner = fields(content[at + 4 : at + 4 + size])
                at += 4 + size
                (size,) = struct.unpack_from("<I", content, at)
                if at + 4 + size > len(content):
                    return
                yield from handle(inner, content[at + 4 : at + 4 + size])
                at += 4 + size

    while True:
        size = _exactly(file, 4)
        header = None if size is None else _exactly(file, struct.unpack("<I", size)[0])
        size = _exactly(file, 4)
        if header is None or size is None:
            return
        try:
            about = fields(header)
            (length,) = struct.unpack("<I", size)
            data = file.read(min(length, _MAX_RECORD))
            if len(data) < length and about[b"op"] != b"\x05":
                return
            yield from handle(about, data)
        except (struct.error, KeyError, ValueError):
            return


def _sqlite(path: Path) -> Iterator[Record]:
    database = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
    try:
        # Without it SQLite refuses a file that is shorter than its header says.
        database.execute("pragma writable_schema = on")
        topics = {
            number: (name, kind)
            for number, name, kind, form in database.execute(
                "select id, name, type, serialization_format from topics"
            )
            if form == "cdr"
        }
        # In the order of the file and not by the index on time, which lies anywhere.
        for number, log_ns, data in database.execute(
            "select topic_id, timestamp, data from messages not indexed order by id"
        ):
            if number in topics:
                yield Record(*topics[number], log_ns, data, ros1=False)
    except sqlite3.DatabaseError:
        return
    finally:
        database.close()
