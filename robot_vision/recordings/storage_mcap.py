"""MCAP files, from record to record (the format: mcap.dev/spec)."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from robot_vision.recordings.storage import LATEST_NS, Channel, log_time, ros_kind, slashed
from robot_vision.recordings.storage_blocks import MAX_RECORD, BlockStorage, Inner, StorageBlock
from robot_vision.recordings.unpacking import MAX_BYTES
from robot_vision.text.counts import counted

MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_CHUNK_INDEX, _STATISTICS, _DATA_END = 0x08, 0x0B, 0x0F
_CHUNK_OP = bytes([_CHUNK])
_HEAD = 128  # bytes that hold the start of a record: of a chunk all but its data


class McapFile(BlockStorage):
    """An MCAP file; see `Storage`."""

    def _walk(self) -> None:
        indexed, counts, summary = self._summary()
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._seen: set[int] = set()  # where chunks begin
        ended = self._walk_from(len(MAGIC), indexed)
        stopped_at = self._stopped_at
        for at in sorted(indexed.keys() - self._seen):
            # A record before it may have a wrong length, and hide it.
            if at not in self._seen and 0 <= at < self.size and self.read(at, 1) == _CHUNK_OP:
                self._walk_from(at, indexed)
        if not ended:
            self._tell_cut(stopped_at)
        else:
            self._check_end(stopped_at)
        self.blocks.sort(key=lambda b: b.at)
        for block in self.blocks:
            if block.at in indexed and block.span != indexed[block.at]:
                block.doubtful = True
        self._take_over(summary)
        if counts is not None:
            self.promised = Counter()
            for number, count in counts.items():
                known = self.channels.get(number)
                self.promised[known.topic if known else f"channel {number}"] += count
            self.promised += Counter()  # without those of which there are none

    def _walk_from(self, at: int, indexed: dict[int, tuple[int, int]]) -> bool:
        """Goes on from a record; returns whether the end of the data was found."""
        while at not in self._seen:
            head = self.read(at, _HEAD)
            self._stopped_at = at
            if head[:1] == _CHUNK_OP:
                self._seen.add(at)
            if len(head) < 9:
                return False
            op, size = struct.unpack_from("<BQ", head)
            if op in (_DATA_END, _FOOTER) and at + 9 + size <= self.size:
                return True
            if at + 9 + size > self.size or op == 0:
                if op == _CHUNK:
                    self._end_loose()
                    self._cut_chunk(at, head)
                later = [start for start in indexed if start > at]
                if not later:
                    return False
                self.problems.append(
                    f"{self.name} is damaged at byte {at}: read on from byte {min(later)}"
                )
                at = min(later)
                continue
            try:
                self._take(op, at, size, head)
            except (struct.error, ValueError, UnicodeDecodeError) as error:
                self.problems.append(f"the record at byte {at} of {self.name} is damaged: {error}")
            at += 9 + size
        return True

    def _check_end(self, at: int) -> None:
        """Looks at what follows the data from a byte on: summary, footer, and the magic again."""
        while True:
            head = self.read(at, 9)
            if len(head) < 9:
                self._tell_cut(at)
                return
            op, size = struct.unpack("<BQ", head)
            at = min(at + 9 + size, self.size + 1)
            if op == _FOOTER:
                break
        end = at + len(MAGIC)
        if end > self.size:
            self._tell_cut(at)
        elif end < self.size:
            self.problems.append(
                f"{self.name} has {counted(self.size - end, 'byte')} after its end, at byte {end}, "
                "that are not read: "
                "were files joined? Give each by itself"
            )

    def _take(self, op: int, at: int, size: int, head: bytes) -> None:
        if op == _MESSAGE:
            number, _, log_ns = struct.unpack_from("<HIQ", head, 9)
            self._loose(number, log_time(log_ns), at, at + 9 + size)
            return
        self._end_loose()
        if op == _CHUNK:
            self.blocks.append(self._chunk(at, size, head))
        elif op in (_SCHEMA, _CHANNEL):
            self._declare(op, memoryview(self.read(at + 9, size)))
        elif op == _INDEX and self.blocks:
            data = self.read(at + 9, size)
            number, length = struct.unpack_from("<HI", data)
            entries = np.frombuffer(data, "<u8", min(length, size - 6) // 16 * 2, 6).reshape(-1, 2)
            block = self.blocks[-1]
            times = np.minimum(entries[:, 0], np.uint64(LATEST_NS)).astype(np.int64)
            if number in block.times or (
                block.unpacked is not None and np.any(entries[:, 1] >= block.unpacked)
            ):
                block.doubtful = True
            block.times[number] = times

    def _chunk(self, at: int, size: int, head: bytes) -> StorageBlock:
        start, end, unpacked, crc, length = struct.unpack_from("<QQQII", head, 9)
        if length > 32:
            raise ValueError("its compression has no name")
        packing = head[41 : 41 + length].decode()
        (packed,) = struct.unpack_from("<Q", head, 41 + length)
        if packed > size - 40 - length or unpacked > MAX_BYTES:
            raise ValueError(f"it says that it has {packed} bytes packed and {unpacked} unpacked")
        span = log_time(start), log_time(end)
        return StorageBlock(at, at + 49 + length, packed, packing, unpacked, crc, span)

    def _cut_chunk(self, at: int, head: bytes) -> None:
        """Takes in a chunk that is cut off: if it was not compressed, its start is of use."""
        try:
            block = self._chunk(at, MAX_RECORD, head)
        except (struct.error, ValueError, UnicodeDecodeError):
            return
        if block.data_at + block.size <= self.size:  # only the length of its record is wrong
            self.blocks.append(block)
        elif block.data_at < self.size and block.packing in ("", "none"):
            block.size, block.unpacked, block.crc = self.size - block.data_at, None, 0
            self.blocks.append(block)

    def _block_at(self, at: int) -> StorageBlock | None:
        head = self.read(at, _HEAD)
        if len(head) < 9 or head[0] != _CHUNK:
            return None
        try:
            return self._chunk(at, struct.unpack_from("<Q", head, 1)[0], head)
        except struct.error as error:
            raise ValueError("the chunk is damaged") from error

    def _record_size(self, at: int) -> int:
        head = self.read(at, 9)
        return 9 + int(struct.unpack_from("<Q", head, 1)[0]) if len(head) == 9 else 0

    def _messages(self, content: memoryview) -> Iterator[Inner]:
        at = 0
        while at < len(content):
            if at + 9 > len(content):
                raise ValueError("a record is not whole")
            op, size = struct.unpack_from("<BQ", content, at)
            if at + 9 + size > len(content):
                raise ValueError("a record is not whole")
            if op == _MESSAGE:
                number, _, log_ns, _ = struct.unpack_from("<HIQQ", content, at + 9)
                yield number, log_time(log_ns), at, content[at + 31 : at + 9 + size]
            elif op in (_SCHEMA, _CHANNEL):
                self._declare(op, content[at + 9 : at + 9 + size])
            at += 9 + size

    def _message_at(self, content: memoryview, at: int) -> memoryview:
        if at + 31 > len(content):
            raise ValueError("there is no message at that place")
        op, size = struct.unpack_from("<BQ", content, at)
        if op != _MESSAGE or at + 9 + size > len(content):
            raise ValueError("there is no message at that place")
        return content[at + 31 : at + 9 + size]

    def _checked(self, block: StorageBlock, content: memoryview) -> str:
        if block.crc and zlib.crc32(content) != block.crc:
            return "its checksum does not match"
        return super()._checked(block, content)

    def _declare(self, op: int, record: memoryview) -> None:
        declared = _declaration(op, record, self._schemas)
        if declared is not None:
            number, channel = declared
            self.channels[number] = channel

    def _take_over(self, summary: dict[int, Channel]) -> None:
        """Takes channels of the summary that the data do not declare."""
        for block in self.blocks:  # the data declare a channel before its first message
            if not block.sure and not block.times.keys() <= self.channels.keys():
                self._look(block)
        for number, channel in summary.items():
            own = self.channels.setdefault(number, channel)
            if own[:3] != channel[:3]:
                self.notes.append(
                    f"{self.name}: its summary calls a topic {channel.topic} ({channel.said}) that is "
                    f"{own.topic} ({own.said}) in the data: the data are used"
                )

    def _summary(
        self,
    ) -> tuple[dict[int, tuple[int, int]], dict[int, int] | None, dict[int, Channel]]:
        """Returns of the summary each chunk's span by its place, counts by channel, and channels."""
        chunks: dict[int, tuple[int, int]] = {}
        counts: dict[int, int] | None = None
        channels: dict[int, Channel] = {}
        schemas: dict[int, tuple[str, str, str]] = {}
        footer = self.read(max(0, self.size - 37), 37)
        if len(footer) < 37 or footer[0] != _FOOTER or footer[-8:] != MAGIC:
            return chunks, counts, channels
        (at,) = struct.unpack_from("<Q", footer, 9)
        if not 0 < at < self.size - 37:
            return chunks, counts, channels
        data = memoryview(self.read(at, self.size - 37 - at))
        at = 0
        while at + 9 <= len(data):
            op, size = struct.unpack_from("<BQ", data, at)
            record = data[at + 9 : at + 9 + size]
            at += 9 + size
            try:
                if op == _CHUNK_INDEX:
                    start, end, place = struct.unpack_from("<QQQ", record)
                    chunks[place] = log_time(start), log_time(end)
                elif op == _STATISTICS:
                    (self.promised_total,) = struct.unpack_from("<Q", record)
                    (length,) = struct.unpack_from("<I", record, 42)
                    rows = np.frombuffer(record, [("n", "<u2"), ("c", "<u8")], length // 10, 46)
                    if len(rows) or not self.promised_total:  # the format leaves it to the writer
                        counts = {int(r["n"]): int(r["c"]) for r in rows}
                elif op in (_SCHEMA, _CHANNEL):
                    declared = _declaration(op, record, schemas)
                    if declared is not None:
                        channels[declared[0]] = declared[1]
            except (struct.error, ValueError):
                self.notes.append(
                    f"{self.name}: its summary is damaged: the data are read without it"
                )
                return {}, None, channels
        return chunks, counts, channels


def _text(record: memoryview, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", record, at)
    return bytes(record[at + 4 : at + 4 + size]).decode("utf-8", "replace"), at + 4 + size


def _declaration(
    op: int, record: memoryview, schemas: dict[int, tuple[str, str, str]]
) -> tuple[int, Channel] | None:
    """Takes in a schema, or returns the number and content of a channel."""
    (number,) = struct.unpack_from("<H", record)
    if op == _SCHEMA:
        name, at = _text(record, 2)
        language, at = _text(record, at)
        schemas[number] = name, language, _text(record, at)[0]
        return None
    (schema,) = struct.unpack_from("<H", record, 2)
    topic, at = _text(record, 4)
    form, _ = _text(record, at)
    kind, language, definition = schemas.get(schema, ("", "", ""))
    return number, Channel(slashed(topic), ros_kind(kind), form, definition, language)
