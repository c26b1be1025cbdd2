"""ROS 1 bags of version 2.0, from record to record (the format: wiki.ros.org/Bags/Format/2.0)."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

import numpy as np

from robot_vision.messages.stamps import SECOND_NS
from robot_vision.recordings.storage import Channel, ros_kind, slashed
from robot_vision.recordings.storage_blocks import BlockStorage, Inner, StorageBlock
from robot_vision.recordings.unpacking import MAX_BYTES
from robot_vision.text.counts import counted

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_HEAD = 4096
_MAX_HEADER = 1 << 20
_ENTRY = np.dtype([("sec", "<u4"), ("nanosec", "<u4"), ("offset", "<u4")])


class Ros1File(BlockStorage):
    """A ROS 1 bag; see `Storage`."""

    def _walk(self) -> None:
        self._promises: dict[int, dict[int, int]] = {}
        self._index_at = self._chunk_count = 0
        head = self._record(self.read(len(MAGIC), _HEAD), len(MAGIC))
        if head is not None and head[0][b"op"][0] == _BAG:
            self._take_in(head[0], len(MAGIC), *head[1:])
        if self._index_at:  # it says where chunks are to be found behind damage
            self._walk_from(self._index_at)
            self._end_loose()
            self.blocks.clear()
        stopped_at = self._walk_from(len(MAGIC))
        if stopped_at < self.size:
            self._tell_cut(stopped_at)
        elif self._index_at == 0:
            self.notes.append(
                f"{self.name} has no index, because its recorder did not finish it: all its records are read "
                "(rosbag reindex writes an index)"
            )
        elif len(self._promises) < self._chunk_count:
            self.problems.append(
                f"{self.name} says that it has {counted(self._chunk_count, 'chunk')}, and its index has "
                f"{len(self._promises)}"
            )
        self._promise()

    def _walk_from(self, at: int) -> int:
        """Goes on from a record to the last one that is whole; returns where that ends."""
        while at < self.size:
            found = self._record(self.read(at, _HEAD), at)
            if found is None or found[1] + found[2] > self.size:
                if found is not None:
                    self._cut_chunk(at, *found[:2])
                later = [place for place in self._promises if at < place < self.size]
                if not later:
                    return at
                self.problems.append(
                    f"{self.name} is damaged at byte {at}: read on from byte {min(later)}"
                )
                at = min(later)
                continue
            self._take_in(found[0], at, *found[1:])
            at = found[1] + found[2]
        return at

    def _take_in(self, fields: dict[bytes, bytes], at: int, data_at: int, size: int) -> None:
        try:
            self._take(fields, at, data_at, size)
        except (struct.error, KeyError, ValueError) as error:
            self.problems.append(f"the record at byte {at} of {self.name} is damaged: {error}")

    def _promise(self) -> None:
        if not self._promises:
            return
        counts: Counter[int] = Counter()
        for said in self._promises.values():
            counts.update(said)
        self.promised = Counter()
        for block in self.blocks:
            said = self._promises.get(block.at, {})
            if {n: len(t) for n, t in block.times.items() if len(t)} != said:
                block.doubtful = True
            if not said.keys() <= self.channels.keys():
                self._look(block)
        for number, count in counts.items():
            if number in self.channels and count:
                self.promised[self.channels[number].topic] += count

    def _take(self, fields: dict[bytes, bytes], at: int, data_at: int, size: int) -> None:
        op = fields[b"op"][0]
        if op == _MESSAGE:
            (number,) = struct.unpack("<I", fields[b"conn"])
            self._loose(number, _time(fields[b"time"]), at, data_at + size)
            return
        self._end_loose()
        if op == _CHUNK:
            self.blocks.append(self._chunk(at, fields, data_at, size))
        elif op == _CONNECTION:
            self._declare(fields, memoryview(self.read(data_at, size)))
        elif op == _INDEX and self.blocks:
            (number,) = struct.unpack("<I", fields[b"conn"])
            entries = np.frombuffer(self.read(data_at, size), _ENTRY, size // _ENTRY.itemsize)
            times = entries["sec"].astype(np.int64) * SECOND_NS + entries["nanosec"]
            self.blocks[-1].times[number] = times
        elif op == _BAG:
            (self._index_at,) = struct.unpack("<Q", fields[b"index_pos"])
            (self._chunk_count,) = struct.unpack("<I", fields[b"chunk_count"])
        elif op == _CHUNK_INFO:
            (place,) = struct.unpack("<Q", fields[b"chunk_pos"])
            rows = np.frombuffer(self.read(data_at, size), "<u4", size // 8 * 2).reshape(-1, 2)
            self._promises[place] = {int(n): int(count) for n, count in rows}

    def _chunk(self, at: int, fields: dict[bytes, bytes], data_at: int, size: int) -> StorageBlock:
        packing = fields[b"compression"].decode("utf-8", "replace")
        (unpacked,) = struct.unpack("<I", fields[b"size"])
        if unpacked > MAX_BYTES:
            raise ValueError(f"it says that it has {unpacked} bytes unpacked")
        return StorageBlock(at, data_at, size, packing, unpacked)

    def _cut_chunk(self, at: int, fields: dict[bytes, bytes], data_at: int) -> None:
        """Takes in a chunk that is cut off: if it was not compressed, its start is of use."""
        if fields.get(b"op") == bytes([_CHUNK]) and fields.get(b"compression") == b"none":
            self._end_loose()
            if self.size > data_at:
                self.blocks.append(StorageBlock(at, data_at, self.size - data_at))

    def _record(self, head: bytes, at: int) -> tuple[dict[bytes, bytes], int, int] | None:
        """Returns a record's fields, where its data begin and their size; None if its head is not whole."""
        if len(head) < 4:
            return None
        (length,) = struct.unpack_from("<I", head)
        if length > _MAX_HEADER:
            return None
        if len(head) < length + 8:
            head = self.read(at, length + 8)
        if len(head) < length + 8:
            return None
        try:
            fields = _fields(memoryview(head)[4 : 4 + length])
        except struct.error:
            return None
        if len(fields.get(b"op", b"")) != 1:
            return None
        return fields, at + length + 8, int(struct.unpack_from("<I", head, 4 + length)[0])

    def _block_at(self, at: int) -> StorageBlock | None:
        found = self._record(self.read(at, _HEAD), at)
        if found is None or found[0][b"op"][0] != _CHUNK:
            return None
        try:
            return self._chunk(at, *found)
        except (struct.error, KeyError) as error:
            raise ValueError("the chunk is damaged") from error

    def _record_size(self, at: int) -> int:
        found = self._record(self.read(at, _HEAD), at)
        return found[1] + found[2] - at if found else 0

    def _messages(self, content: memoryview) -> Iterator[Inner]:
        at = 0
        while at < len(content):
            fields, data, end = _inner(content, at)
            op = fields[b"op"]
            if op == bytes([_CONNECTION]):
                self._declare(fields, data)
            elif op == bytes([_MESSAGE]):
                (number,) = struct.unpack("<I", fields[b"conn"])
                yield number, _time(fields[b"time"]), at, data
            at = end

    def _message_at(self, content: memoryview, at: int) -> memoryview:
        try:
            fields, data, _ = _inner(content, at)
        except struct.error as error:
            raise ValueError("there is no message at that place") from error
        if fields.get(b"op") != bytes([_MESSAGE]):
            raise ValueError("there is no message at that place")
        return data

    def _declare(self, fields: dict[bytes, bytes], data: memoryview) -> None:
        (number,) = struct.unpack("<I", fields[b"conn"])
        topic = "/".join(
            part for part in fields[b"topic"].decode("utf-8", "replace").split("/") if part
        )
        about = _fields(data)
        kind = ros_kind(about[b"type"].decode("utf-8", "replace"))
        text = about.get(b"message_definition", b"").decode("utf-8", "replace")
        self.channels[number] = Channel(slashed(topic), kind, "ros1", text, "ros1msg")


def _fields(header: memoryview) -> dict[bytes, bytes]:
    found, at = {}, 0
    while at + 4 <= len(header):
        (size,) = struct.unpack_from("<I", header, at)
        key, _, value = bytes(header[at + 4 : at + 4 + size]).partition(b"=")
        found[key] = value
        at += 4 + size
    return found


def _inner(content: memoryview, at: int) -> tuple[dict[bytes, bytes], memoryview, int]:
    """Returns the fields, the data and the end of a record in a chunk.

    Raises:
        ValueError: it is not whole.
    """
    if at + 4 > len(content):
        raise ValueError("a record is not whole")
    (size,) = struct.unpack_from("<I", content, at)
    data_at = at + 4 + size + 4
    if data_at > len(content):
        raise ValueError("a record is not whole")
    fields = _fields(content[at + 4 : at + 4 + size])
    (size,) = struct.unpack_from("<I", content, data_at - 4)
    if data_at + size > len(content):
        raise ValueError("a record is not whole")
    return fields, content[data_at : data_at + size], data_at + size


def _time(field: bytes) -> int:
    sec, nanosec = struct.unpack("<II", field)
    return int(sec) * SECOND_NS + int(nanosec)
