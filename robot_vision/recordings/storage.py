"""A file of a recording, whatever its format: its data say what is in it, and its index is only checked.

An index, a summary or a journal may disagree with what lies in the file: a recorder was killed, a tool
rewrote half of it, a disk failed.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LATEST_NS = 2**63 - 1

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


class StoragePart(NamedTuple):
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
        promised_total: how many messages it speaks of in all; None where it does not.
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
        self.promised_total: int | None = None
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.folder: TemporaryDirectory[str] | None = None  # of an unpacked copy

    @abstractmethod
    def times(self) -> dict[str, Times]:
        """Returns the log times of each topic's messages."""

    @abstractmethod
    def parts(
        self, topics: Collection[str], from_ns: int | None, until_ns: int | None
    ) -> list[StoragePart]:
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


def merged(parts: Iterable[tuple[int, StoragePart]]) -> Iterator[tuple[int, Message]]:
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


def ros_kind(kind: str) -> str:
    """Returns a type's name as ROS 2 writes it: ROS 1 and some tools leave out `/msg`."""
    return kind.replace("/", "/msg/") if kind.count("/") == 1 else kind


def log_time(log_ns: int) -> int:
    """Returns a log time that fits into 64 bits with a sign, as all stamps do."""
    return min(log_ns, LATEST_NS)


def slashed(topic: str) -> str:
    """Returns a topic with its leading slash, which ROS 1 bags may lack."""
    return topic if topic.startswith("/") else f"/{topic}"
