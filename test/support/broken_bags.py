"""Recordings whose folder, metadata, summary, index or journal disagrees with what they hold."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
FRONT, REAR = "/front/image_raw", "/rear/image_raw"
IMAGE = "sensor_msgs/msg/Image"
MCAP_MAGIC = b"\x89MCAP0\r\n"

TYPES = get_typestore(Stores.ROS2_HUMBLE)
TYPES1 = get_typestore(Stores.ROS1_NOETIC)


def picture(number: int, size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), number, np.uint8)


def image(types: Any, stamp_ns: int, number: int, size: int = 8) -> Any:
    make = types.types
    stamp = make["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    seq = [number] if types is TYPES1 else []
    header = make["std_msgs/msg/Header"](*seq, stamp, "camera")
    pixels = picture(number, size).reshape(-1)
    return make[IMAGE](header, size, size, "rgb8", 0, 3 * size, pixels)


def write(
    path: Path,
    storage: str = "mcap",
    numbers: range = range(30),
    topics: tuple[str, ...] = (FRONT,),
    log: Callable[[int], int] = lambda i: START + i * PERIOD,
    mode: CompressionMode | None = None,
    size: int = 8,
) -> Path:
    """Writes images of the grey of their number, stamped in order, as a rosbag2."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer2(path, version=8, storage_plugin=plugin)
    if mode is not None:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = [writer.add_connection(t, IMAGE, typestore=TYPES) for t in topics]
        for i in numbers:
            for connection in connections:
                message = image(TYPES, START + i * PERIOD, i, size)
                writer.write(connection, log(i), TYPES.serialize_cdr(message, IMAGE))
    return path


def write_ros1(
    path: Path, numbers: range = range(30), size: int = 8, compression: str = ""
) -> Path:
    writer = Writer1(path)
    if compression:
        writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    with writer:
        connection = writer.add_connection(FRONT, IMAGE, typestore=TYPES1)
        for i in numbers:
            message = image(TYPES1, START + i * PERIOD, i, size)
            writer.write(connection, START + i * PERIOD, TYPES1.serialize_ros1(message, IMAGE))
    return path


def write_splits(
    path: Path, storage: str = "mcap", order: tuple[int, ...] = (0, 1, 2), **options: Any
) -> Path:
    """Writes thirty images as three files of one recording; file `k` holds the tens of `order[k]`."""
    path.mkdir(parents=True)
    about: dict[str, Any] = {}
    names = []
    for k, tens in enumerate(order):
        part = write(path / "part", storage, range(10 * tens, 10 * tens + 10), **options)
        metadata = read_metadata(part)
        (file,) = (p for p in part.iterdir() if p.name != "metadata.yaml")
        name = file.name.replace("part", f"rec_{k}")
        shutil.move(file, path / name)
        shutil.rmtree(part)
        names.append(name)
        if k == 0:
            about = metadata
            continue
        about["message_count"] += metadata["message_count"]
        for mine, theirs in zip(
            about["topics_with_message_count"], metadata["topics_with_message_count"], strict=True
        ):
            mine["message_count"] += theirs["message_count"]
    about["relative_file_paths"] = names
    about["starting_time"]["nanoseconds_since_epoch"] = START
    about["duration"]["nanoseconds"] = 29 * PERIOD
    about["files"] = [
        {
            "path": name,
            "starting_time": {"nanoseconds_since_epoch": START + 10 * tens * PERIOD},
            "duration": {"nanoseconds": 9 * PERIOD},
            "message_count": 10,
        }
        for name, tens in zip(names, order, strict=True)
    ]
    write_metadata(path, about)
    return path


def read_metadata(bag: Path) -> dict[str, Any]:
    found = yaml.safe_load((bag / "metadata.yaml").read_text())
    return dict(found["rosbag2_bagfile_information"])


def write_metadata(bag: Path, about: dict[str, Any]) -> None:
    text = yaml.safe_dump({"rosbag2_bagfile_information": about})
    (bag / "metadata.yaml").write_text(text)


def edit_metadata(bag: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    about = read_metadata(bag)
    change(about)
    write_metadata(bag, about)


def pack(file: Path) -> Path:
    """Packs a file as rosbag2 does with whole files."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    packed = file.with_name(file.name + ".zstd")
    packed.write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    return packed


def mcap_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the records of an MCAP file: what they are, and their content."""
    at = len(MCAP_MAGIC)
    while at + 9 <= len(data) - len(MCAP_MAGIC):
        op, size = struct.unpack_from("<BQ", data, at)
        yield op, data[at + 9 : at + 9 + size]
        at += 9 + size


def rewrite_mcap(file: Path, change: Callable[[int, bytes], list[tuple[int, bytes]]]) -> None:
    """Replaces each record by some others; the summary stays where its footer says.

    Only records of the summary may change their length.
    """
    parts = [MCAP_MAGIC]
    for op, content in mcap_records(file.read_bytes()):
        for new_op, new in change(op, content):
            parts.append(struct.pack("<BQ", new_op, len(new)) + new)
    file.write_bytes(b"".join(parts) + MCAP_MAGIC)


def write_plain_mcap(file: Path, channels: list[tuple[str, str, str, list[bytes]]]) -> None:
    """Writes an MCAP without chunks and summary: topic, type, serialisation and messages of each channel."""

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode()

    records = [(1, bytes(8))]
    for number, (topic, kind, form, messages) in enumerate(channels, 1):
        records.append((3, struct.pack("<H", number) + text(kind) + text("") + text("")))
        records.append(
            (4, struct.pack("<HH", number, number) + text(topic) + text(form) + bytes(4))
        )
        for i, data in enumerate(messages):
            time = START + i * PERIOD
            records.append((5, struct.pack("<HIQQ", number, i, time, time) + data))
    records += [(0x0F, bytes(4)), (2, bytes(20))]
    parts = [struct.pack("<BQ", op, len(content)) + content for op, content in records]
    file.write_bytes(MCAP_MAGIC + b"".join(parts) + MCAP_MAGIC)


def without_summary(file: Path) -> None:
    """Removes an MCAP's summary, as a recorder that writes none leaves it."""
    data = file.read_bytes()
    (start,) = struct.unpack_from("<Q", data, len(data) - 28)
    footer = struct.pack("<BQQQI", 2, 20, 0, 0, 0)
    file.write_bytes(data[:start] + footer + MCAP_MAGIC)


def leave_journal(file: Path, folder: Path) -> Path:
    """Copies an SQLite bag as a recorder with a write-ahead log leaves it that was killed."""
    folder.mkdir()
    target = folder / file.name
    database = sqlite3.connect(file)
    rows = database.execute(
        "select topic_id, timestamp, data from messages where id > 15"
    ).fetchall()
    database.execute("delete from messages where id > 15")
    database.commit()
    database.execute("pragma journal_mode = wal")
    database.execute("pragma wal_autocheckpoint = 0")
    database.executemany("insert into messages(topic_id, timestamp, data) values (?, ?, ?)", rows)
    database.commit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", f"{target}{suffix}")
    database.close()
    return target


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of a folder's files, to see that nobody writes there."""
    return {p.name: (os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in folder.iterdir()}
