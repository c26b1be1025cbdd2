"""A file of a recording, whatever its format: its data say what is in it, and its index is only checked.

An index, a summary or a journal may disagree with what lies in the file: a recorder was killed, a tool
rewrote half of it, a disk failed. So the file is gone through from record to record. Chunks of messages are
unpacked when they are read; until then the index of a chunk is believed where all that the file says of the
chunk agrees, and otherwise the chunk is unpacked at once.
"""

from __future__ import annotations

import heapq
import struct
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_vision.sources.unpacking import unpack

MAX_RECORD = 1 << 31  # a length beyond it is damage, and must not be allocated
LATEST_NS = 2**63 - 1
_HELD = 2  # chunks that stay unpacked for random access
_LOOSE = 1 << 20  # bytes of messages outside chunks that are read at once

Times = NDArray[np.int64]


class Channel(NamedTuple):
    """A topic as a file declares it.

    Attributes:
        topic: with a leading slash.
        kind: such as `sensor_msgs/msg/Image`.
        form: how messages are serialised: `cdr`, `ros1`, or what cannot be read.
        definition: of the message type; empty where the file has none.
        language: of the definition: `ros1msg`, `ros2msg` or `ros2idl`.
    """

    topic: str
    kind: str
    form: str
    definition: str = ""
    language: str = ""

    @property
    def readable(self) -> bool:
        """Whether its messages can be deserialised."""
        return self.form in ("cdr", "ros1")

    @property
    def said(self) -> str:
        """Its type for people, with the serialisation where that is not one of ROS."""
        return self.kind if self.readable else f"{self.kind} in {self.form or 'no known form'}"


class Message(NamedTuple):
    """A message in a file; the first three order messages.

    Attributes:
        log_ns: when it was recorded.
        block: where its chunk begins, in bytes; where there are no chunks, its own place.
        inner: where it begins in the unpacked chunk, or its row.
        channel: its topic.
        data: serialised.
    """

    log_ns: int
    block: int
    inner: int
    channel: Channel
    data: bytes | memoryview


class Part(NamedTuple):
    """Messages that are read together, in the order of time, once their time has come."""

    start_ns: int
    messages: Callable[[], Iterator[Message]]


class Storage(ABC):
    """One file.

    Args:
        path: the file.
        name: for people: its name in the recording.

    Attributes:
        source: the file, where `path` is an unpacked copy of it.
        channels: by the file's own numbers.
        promised: how many messages of each topic its index speaks of; None where it has no such index.
        problems: what of it cannot be read, a line each.
        notes: what in it disagrees though all is read, a line each.

    Raises:
        ValueError: it cannot be read at all.
        OSError: of the system.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.source = path
        self.name = name
        self.channels: dict[int, Channel] = {}
        self.promised: Counter[str] | None = None
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.folder: TemporaryDirectory[str] | None = None  # of an unpacked copy

    @abstractmethod
    def times(self) -> dict[str, Times]:
        """Returns the log times of each topic's messages."""

    @abstractmethod
    def parts(
        self, topics: Collection[str], from_ns: int | None, until_ns: int | None
    ) -> list[Part]:
        """Returns what holds messages of some topics from a time until before another."""

    @abstractmethod
    def fetch(self, block: int, inner: int) -> bytes | memoryview:
        """Returns the data of one message by its place; needs no `survey`.

        Raises:
            ValueError: there is none.
        """

    @abstractmethod
    def survey(self) -> None:
        """Goes through the file."""

    def verify(self) -> None:
        """Looks at every message, where `survey` believed an index."""
        return None

    def counts(self) -> Counter[str]:
        """Returns how many messages each topic has."""
        return Counter({topic: len(times) for topic, times in self.times().items()})

    def close(self) -> None:
        """Closes what is open, and removes an unpacked copy."""
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None


@dataclass
class Block:
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
        self.blocks: list[Block] = []
        self.size = path.stat().st_size
        self._held: OrderedDict[int, memoryview] = OrderedDict()
        self._file: BinaryIO | None = None
        self._loose_times: dict[int, list[int]] = {}
        self._told: dict[str, tuple[int, Counter[str], str]] = {}

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
    def _block_at(self, at: int) -> Block | None:
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
                if self.promised is not None and self.promised != self.counts():
                    self.verify()
            finally:
                self._file = None

    def verify(self) -> None:
        """Unpacks what was not."""
        for block in self.blocks:
            if not block.sure:
                self._look(block)

    def times(self) -> dict[str, Times]:
        """See `Storage`."""
        found: dict[str, list[Times]] = {channel.topic: [] for channel in self.channels.values()}
        for block in self.blocks:
            for number, times in block.times.items():
                if number in self.channels:
                    found[self.channels[number].topic].append(times)
        return {t: np.concatenate(v) if v else np.zeros(0, np.int64) for t, v in found.items()}

    def parts(
        self, topics: Collection[str], from_ns: int | None, until_ns: int | None
    ) -> list[Part]:
        """See `Storage`."""
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

            def messages(block: Block = block) -> Iterator[Message]:
                return iter(self._sorted(block, topics, from_ns, until_ns))

            found.append(Part(first, messages))
        return found

    def fetch(self, block: int, inner: int) -> memoryview:
        """See `Storage`."""
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
            last = Block(at, at, 0, sure=True)
            self.blocks.append(last)
        last.size = end - at + last.size
        self._loose_times.setdefault(number, []).append(log_ns)

    def _end_loose(self) -> None:
        if self._loose_times:
            times = self._loose_times.items()
            self.blocks[-1].times = {n: np.array(t, np.int64) for n, t in times}
            self._loose_times = {}

    def _content(self, block: Block) -> memoryview:
        data = self.read(block.data_at, block.size)
        if block.unpacked is None:
            return memoryview(data)
        return memoryview(unpack(block.packing, data, block.unpacked))

    def _look(self, block: Block) -> list[tuple[int, Inner]]:
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
                    f"{len(found)} messages and had {said}"
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
        chunks, had, old = self._told.get(becomes, (0, Counter[str](), ""))
        had.update(found=found, said=max(said, found))
        more = f" and {chunks} before it" if chunks else ""
        text = (
            f"the chunk at byte {at}{more} of {self.name} {what}: {had['found']} of {had['said']} "
            f"messages {becomes}"
        )
        if old in lines:
            lines.remove(old)
        lines.append(text)
        self._told[becomes] = chunks + 1, had, text

    def _checked(self, block: Block, content: memoryview) -> str:
        """Returns what is wrong with an unpacked chunk, or nothing."""
        if block.unpacked is not None and len(content) != block.unpacked:
            return f"it has {len(content)} bytes and should have {block.unpacked}"
        return ""

    def _sorted(
        self, block: Block, topics: Collection[str], from_ns: int | None, until_ns: int | None
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


def merged(parts: Iterable[tuple[int, Part]]) -> Iterator[tuple[int, Message]]:
    """Yields the messages of the parts of several files in the order of time, each with its file's number.

    A part is opened when what was opened before has come to its start, so few are open at once.
    """
    waiting = sorted(parts, key=lambda p: p[1].start_ns, reverse=True)
    heap: list[tuple[int, int, int, int, int, Message, Iterator[Message]]] = []
    opened = 0
    while waiting or heap:
        while waiting and (not heap or waiting[-1][1].start_ns <= heap[0][0]):
            number, part = waiting.pop()
            messages = part.messages()
            first = next(messages, None)
            if first is not None:
                opened += 1
                entry = (first.log_ns, number, first.block, first.inner, opened, first, messages)
                heapq.heappush(heap, entry)
        if not heap:
            continue
        _, number, _, _, order, message, messages = heap[0]
        yield number, message
        following = next(messages, None)
        if following is None:
            heapq.heappop(heap)
        else:
            entry = (
                following.log_ns,
                number,
                following.block,
                following.inner,
                order,
                following,
                messages,
            )
            heapq.heapreplace(heap, entry)


def log_time(log_ns: int) -> int:
    """Returns a log time that fits into 64 bits with a sign, as all stamps do."""
    return min(log_ns, LATEST_NS)


def slashed(topic: str) -> str:
    """Returns a topic with its leading slash, which ROS 1 bags may lack."""
    return topic if topic.startswith("/") else f"/{topic}"
