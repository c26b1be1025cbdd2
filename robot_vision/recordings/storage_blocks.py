"""Files of chunks (MCAP and ROS 1 bags): their records are gone through, and their chunks unpacked when read.

Until a chunk is unpacked, its index is believed where all that the file says of the chunk agrees; otherwise
the chunk is unpacked at once.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from robot_vision.recordings.storage import Message, Storage, StoragePart, Times
from robot_vision.recordings.unpacking import unpack
from robot_vision.text.counts import counted

MAX_RECORD = 1 << 31  # a length beyond it is damage, and must not be allocated
_HELD = 2  # chunks that stay unpacked for random access
_LOOSE = 1 << 20  # bytes of messages outside chunks that are read at once


@dataclass
class StorageBlock:
    """A chunk, or messages outside chunks that follow each other.

    Attributes:
        at: where it begins in the file, in bytes.
        data_at: where its data begin.
        size: bytes of the data in the file.
        packing: compression; empty or `none` without.
        unpacked: bytes of the data when unpacked; None where they are as they are.
        crc: of the unpacked data; 0 where there is none.
        span: earliest and latest log time, as it says itself; None where it does not say.
        times: log times by the number of the channel, by its index until it was looked at.
        sure: whether its messages were looked at.
        doubtful: whether what is said of it disagrees.
    """

    at: int
    data_at: int
    size: int
    packing: str = ""
    unpacked: int | None = None
    crc: int = 0
    span: tuple[int, int] | None = None
    times: dict[int, Times] = field(default_factory=dict)
    sure: bool = False
    doubtful: bool = False

    def agrees(self) -> bool:
        """Whether its index is there and says what the block itself says."""
        stamps = [t for t in self.times.values() if len(t)]
        if self.doubtful or not stamps:
            return False
        span = min(int(t.min()) for t in stamps), max(int(t.max()) for t in stamps)
        return self.span is None or self.span == span


# A message in an unpacked chunk: number of the channel, log time, place in the chunk, data.
Inner = tuple[int, int, int, memoryview]


class BlockStorage(Storage):
    """A file of chunks: MCAP and ROS 1 bags."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self.blocks: list[StorageBlock] = []
        self.size = path.stat().st_size
        self._held: OrderedDict[int, memoryview] = OrderedDict()
        self._file: BinaryIO | None = None
        self._loose_times: dict[int, list[int]] = {}
        self._reported: dict[str, tuple[int, Counter[str], str]] = {}

    @abstractmethod
    def _walk(self) -> None:
        """Finds blocks and channels, and what the index promises."""

    @abstractmethod
    def _messages(self, content: memoryview) -> Iterator[Inner]:
        """Yields the messages of an unpacked block, and takes in the channels that it declares.

        Raises:
            ValueError: a record is not whole.
        """

    @abstractmethod
    def _block_at(self, at: int) -> StorageBlock | None:
        """Returns the chunk that begins at a byte; None where there is none.

        Raises:
            ValueError: it is damaged.
        """

    @abstractmethod
    def _message_at(self, content: memoryview, at: int) -> memoryview:
        """Returns the data of the message at a place.

        Raises:
            ValueError: there is none.
        """

    def survey(self) -> None:
        """Goes through the file from record to record."""
        with self.path.open("rb") as self._file:
            try:
                self._walk()
                self._end_loose()
                for block in self.blocks:
                    if not block.sure and (
                        not block.agrees() or not block.times.keys() <= self.channels.keys()
                    ):
                        self._look(block)
                counts = self.counts()
                total = sum(counts.values())
                if self.promised not in (None, counts) or self.promised_total not in (None, total):
                    self.verify()
            finally:
                self._file = None

    def verify(self) -> None:
        """Unpacks what was not."""
        for block in self.blocks:
            if not block.sure:
                self._look(block)

    def times(self) -> dict[str, Times]:
        found: dict[str, list[Times]] = {channel.topic: [] for channel in self.channels.values()}
        for block in self.blocks:
            for number, times in block.times.items():
                if number in self.channels:
                    found[self.channels[number].topic].append(times)
        return {t: np.concatenate(v) if v else np.zeros(0, np.int64) for t, v in found.items()}

    def parts(
        self, topics: Collection[str], from_ns: int | None, until_ns: int | None
    ) -> list[StoragePart]:
        numbers = {n for n, channel in self.channels.items() if channel.topic in topics}
        # Without promises, which would show that a chunk's index leaves something out, all chunks are read.
        believed = self.promised is not None
        found = []
        for block in self.blocks:
            if block.sure or believed:
                stamps = [t for n, t in block.times.items() if n in numbers and len(t)]
                if not stamps:
                    continue
                first, last = min(int(t.min()) for t in stamps), max(int(t.max()) for t in stamps)
                if (until_ns is not None and first >= until_ns) or (
                    from_ns is not None and last < from_ns
                ):
                    continue
            else:
                stamps = [t for t in block.times.values() if len(t)]
                first = min((int(t.min()) for t in stamps), default=0)

            def messages(block: StorageBlock = block) -> Iterator[Message]:
                return iter(self._sorted(block, topics, from_ns, until_ns))

            found.append(StoragePart(first, messages))
        return found

    def fetch(self, block: int, inner: int) -> memoryview:
        chunk = self._block_at(block)
        if chunk is None:  # outside chunks; a message has its length before it
            return self._message_at(memoryview(self.read(block + inner, None)), 0)
        if block not in self._held:
            self._held[block] = self._content(chunk)
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        return self._message_at(self._held[block], inner)

    def read(self, at: int, size: int | None) -> bytes:
        """Returns bytes of the file, fewer where it ends; None reads the record that begins there."""
        if size is None:
            size = self._record_size(at)
        if self._file is None:
            with self.path.open("rb") as file:
                file.seek(at)
                return file.read(min(size, MAX_RECORD))
        self._file.seek(at)
        return self._file.read(min(size, MAX_RECORD))

    @abstractmethod
    def _record_size(self, at: int) -> int:
        """Returns how long the record is that begins at a byte."""

    def _loose(self, number: int, log_ns: int, at: int, end: int) -> None:
        """Takes in a message outside chunks."""
        last = self.blocks[-1] if self._loose_times else None
        if last is None or last.data_at + last.size != at or last.size > _LOOSE:
            self._end_loose()
            last = StorageBlock(at, at, 0, sure=True)
            self.blocks.append(last)
        last.size = end - at + last.size
        self._loose_times.setdefault(number, []).append(log_ns)

    def _end_loose(self) -> None:
        if self._loose_times:
            times = self._loose_times.items()
            self.blocks[-1].times = {n: np.array(t, np.int64) for n, t in times}
            self._loose_times = {}

    def _content(self, block: StorageBlock) -> memoryview:
        data = self.read(block.data_at, block.size)
        if block.unpacked is None:
            return memoryview(data)
        return memoryview(unpack(block.packing, data, block.unpacked))

    def _look(self, block: StorageBlock) -> list[tuple[int, Inner]]:
        """Unpacks a block and compares it with what was said of it; returns its messages."""
        before, sure = block.times, block.sure
        found: list[tuple[int, Inner]] = []
        problem = ""
        try:
            content = self._content(block)
            problem = self._checked(block, content)
            for inner in self._messages(content):
                found.append((inner[1], inner))
        except (ValueError, struct.error, KeyError, OSError) as error:
            problem = problem or str(error) or type(error).__name__
        block.sure = True
        times: dict[int, list[int]] = {}
        for _, (number, log_ns, _, _) in found:
            times.setdefault(number, []).append(log_ns)
        block.times = {n: np.array(t, np.int64) for n, t in times.items()}
        said = sum(len(t) for t in before.values())
        if sure:
            if len(found) != said:
                self.problems.append(
                    f"{self.name} has changed while it was read: the chunk at byte {block.at} has "
                    f"{counted(len(found), 'message')} and had {said}"
                )
        elif problem:
            self._tell(
                self.problems, block.at, len(found), said, f"is damaged ({problem})", "are read"
            )
        elif before and not _same(before, block.times):
            self._tell(
                self.notes,
                block.at,
                len(found),
                said,
                "has a wrong index",
                "are there: all are read",
            )
        return found

    def _tell(
        self, lines: list[str], at: int, found: int, said: int, what: str, becomes: str
    ) -> None:
        """Adds a chunk to the one line about all chunks of its kind."""
        chunks, had, old = self._reported.get(becomes, (0, Counter[str](), ""))
        had.update(found=found, said=max(said, found), unknown=not said)
        more = f" and {chunks} before it" if chunks else ""
        of = "" if had["unknown"] else f" of {had['said']}"
        text = f"the chunk at byte {at}{more} of {self.name} {what}: {had['found']}{of} messages {becomes}"
        if old in lines:
            lines.remove(old)
        lines.append(text)
        self._reported[becomes] = chunks + 1, had, text

    def _tell_cut(self, at: int) -> None:
        self.problems.append(
            f"{self.name} was cut off or is damaged at byte {at}: of the "
            f"{counted(self.size - at, 'byte')} from there "
            "on, what is whole is read"
        )

    def _checked(self, block: StorageBlock, content: memoryview) -> str:
        """Returns what is wrong with an unpacked chunk, or nothing."""
        if block.unpacked is not None and len(content) != block.unpacked:
            return f"it has {len(content)} bytes and should have {block.unpacked}"
        return ""

    def _sorted(
        self,
        block: StorageBlock,
        topics: Collection[str],
        from_ns: int | None,
        until_ns: int | None,
    ) -> list[Message]:
        chosen = []
        for log_ns, (number, _, inner, data) in self._look(block):
            channel = self.channels.get(number)
            if (
                channel is not None
                and channel.topic in topics
                and (from_ns is None or log_ns >= from_ns)
                and (until_ns is None or log_ns < until_ns)
            ):
                chosen.append(Message(log_ns, block.at, inner, channel, data))
        chosen.sort(key=lambda m: m[:3])
        return chosen


def _same(a: dict[int, Times], b: dict[int, Times]) -> bool:
    a = {n: t for n, t in a.items() if len(t)}
    return a.keys() == b.keys() and all(
        np.array_equal(np.sort(t), np.sort(b[n])) for n, t in a.items()
    )
