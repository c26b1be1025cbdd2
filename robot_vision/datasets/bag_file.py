"""Bags for data sets: one pass over stamps and poses, then single images in any order.

`robot_vision.sources` reads a bag from its beginning to its end; training asks for image 4711, then for 12.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import get_types_from_msg

from robot_vision.errors import ImageError, SourceError
from robot_vision.images import to_rgb
from robot_vision.interfaces import message_types
from robot_vision.sources.bag import BAG_SUFFIXES
from robot_vision.sources.natural import natural_key
from robot_vision.sources.unpacking import limit_rosbags

_OPEN_AT_ONCE = 8


class BagFile:
    """An open bag: ROS 1, or rosbag2 as its folder or its bare file.

    Attributes:
        kinds: every topic (with its leading slash) and its message type.
        start_ns: the log's time of the first message.

    Raises:
        SourceError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SourceError(f"{path} does not exist: give a rosbag (folder, .bag, .db3 or .mcap)")
        limit_rosbags()
        self.path = path
        self._ros1 = path.suffix == ".bag"
        self._types = message_types()
        self._stack = ExitStack()
        try:
            self._readers = [self._stack.enter_context(reader) for reader in _readers(path)]
            self._connections = [c for reader in self._readers for c in reader.connections]
            self.start_ns = min((int(r.start_time) for r in self._readers), default=0)
        except (
            Exception
        ) as error:  # of rosbags, SQLite, YAML, zstd, ...: all say that the bag is damaged
            self._stack.close()
            raise SourceError(
                f"{path} cannot be read as a bag: {error}; repair it (rosbag reindex, ros2 bag reindex, "
                "mcap recover) or record it anew with robot-vision make-bag"
            ) from error
        self.kinds = {slashed(c.topic): c.msgtype for c in self._connections}

    def close(self) -> None:
        """Closes its files."""
        self._stack.close()

    def raw(
        self, topics: Collection[str], at_ns: int | None = None
    ) -> Iterator[tuple[str, str, int, bytes]]:
        """Yields topic, type, log's time and bytes, in the log's order.

        Args:
            topics: those wanted.
            at_ns: only messages logged at that nanosecond.

        Raises:
            SourceError: the bag is damaged.
        """
        stop = None if at_ns is None else at_ns + 1
        try:
            for reader in self._readers:
                wanted = [c for c in reader.connections if slashed(c.topic) in topics]
                if wanted:
                    for c, log_ns, data in reader.messages(wanted, start=at_ns, stop=stop):
                        yield slashed(c.topic), c.msgtype, log_ns, data
        except Exception as error:
            raise SourceError(f"{self.path} is damaged: {error}") from error

    def stamp_and_frame(self, data: bytes) -> tuple[int, str]:
        """Returns a message's header, its first field, without looking at what follows."""
        try:
            if self._ros1:
                sec, nanosec, length = struct.unpack_from("<III", data, 4)
                text = data[16 : 16 + length]
            else:
                order = "<" if data[1] & 1 else ">"
                sec, nanosec, length = struct.unpack_from(order + "iII", data, 4)
                text = data[16 : 16 + max(0, length - 1)]
            return sec * 10**9 + nanosec, bytes(text).decode(errors="replace")
        except (struct.error, IndexError) as error:
            raise SourceError(
                f"{self.path}: a message of {len(data)} bytes has no header"
            ) from error

    def message(self, kind: str, data: bytes) -> Any:
        """Returns a deserialised message.

        Raises:
            SourceError: its definition is not in the bag, or the data do not fit it.
        """
        if kind not in self._types.fielddefs:
            self._learn(kind)
        try:
            if self._ros1:
                data = self._types.ros1_to_cdr(data, kind)  # type: ignore[assignment]
            return self._types.deserialize_cdr(data, kind)
        except Exception as error:  # damaged bytes make rosbags raise almost anything
            raise SourceError(f"{self.path}: a {kind} cannot be deserialised: {error}") from error

    def _learn(self, kind: str) -> None:
        """Registers a type from the definition that the bag holds."""
        connection = next(c for c in self._connections if c.msgtype == kind)
        try:
            found = get_types_from_msg(connection.msgdef.data, kind)
            known = self._types.fielddefs
            self._types.register({k: v for k, v in found.items() if k not in known})
        except Exception as error:
            raise SourceError(
                f"{self.path}: {kind} is not known and the bag does not define it"
            ) from error
        if kind not in self._types.fielddefs:
            raise SourceError(f"{self.path}: {kind} is not known and the bag does not define it")


def slashed(topic: str) -> str:
    """Returns a topic with its leading slash, which ROS 1 bags may lack."""
    return topic if topic.startswith("/") else f"/{topic}"


def _readers(path: Path) -> list[Any]:
    if path.suffix == ".bag":
        return [Reader1(path)]
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        files = [p for p in path.iterdir() if p.suffix in BAG_SUFFIXES]
        return [Reader2(p) for p in sorted(files, key=lambda p: natural_key(p.name))]
    return [Reader2(path)]


class _OpenBags(threading.local):
    """The bags that this thread of this process has open; neither may share a SQLite connection."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.bags: OrderedDict[str, BagFile] = OrderedDict()

    def get(self, path: str) -> BagFile:
        if self.process != os.getpid():  # forked: what the parent opened is the parent's
            self.process, self.bags = os.getpid(), OrderedDict()
        if path in self.bags:
            self.bags.move_to_end(path)
            return self.bags[path]
        bag = BagFile(Path(path))
        self.bags[path] = bag
        if len(self.bags) > _OPEN_AT_ONCE:
            self.bags.popitem(last=False)[1].close()
        return bag


_open_bags = _OpenBags()


@dataclass(frozen=True, slots=True)
class BagImage:
    """A `sample.ImageSource` over one message; the bag is opened when the first image is asked for.

    Attributes:
        path: the bag's.
        topic: the image's, with its slash.
        log_ns: when it was recorded.
        index: among the topic's messages of that nanosecond.
        number: among all messages of the topic, for people.
    """

    path: str
    topic: str
    log_ns: int
    index: int
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.topic}#{self.number}"

    def load(self, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Returns RGB uint8 (H, W, 3); see `sample.ImageSource`."""
        message = self._message()
        try:
            return np.require(to_rgb(message, min_size), requirements=["C", "W"])
        except ImageError as error:
            raise ImageError(error.reason, f"{self}: {error}") from error

    def encoded(self) -> bytes:
        """Returns the compressed bytes, or what describes the raw ones followed by them."""
        message = self._message()
        data = bytes(memoryview(message.data))
        if not hasattr(message, "encoding"):
            return data
        return (
            f"{message.height} {message.width} {message.encoding} {message.step} ".encode() + data
        )

    def _message(self) -> Any:
        try:
            bag = _open_bags.get(self.path)
            for i, (_, kind, _, data) in enumerate(bag.raw([self.topic], self.log_ns)):
                if i == self.index:
                    return bag.message(kind, data)
        except SourceError as error:
            raise ImageError("corrupt", f"{self}: {error}") from error
        raise ImageError("corrupt", f"{self}: it is no longer in the bag")
