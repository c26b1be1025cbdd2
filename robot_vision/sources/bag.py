"""Rosbags: ROS 1, and rosbag2 with SQLite or MCAP, as a folder or as its bare file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import Stores, get_typestore

from robot_vision.errors import SourceError, unknown
from robot_vision.sources.base import Frame, Source, nanoseconds
from robot_vision.sources.natural import natural_key
from robot_vision.sources.salvage import Record, salvage
from robot_vision.sources.unpacking import limit_rosbags

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
BAG_SUFFIXES = (".bag", ".db3", ".mcap")


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: by its suffix, or a folder with a bag's files."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix in BAG_SUFFIXES


def _storage_files(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix in (".db3", ".mcap")]
    return sorted(files, key=lambda p: natural_key(p.name))


def _slashed(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


class BagSource(Source):
    """Image topics of a bag.

    Args:
        path: a `.bag`, `.db3` or `.mcap` file, or a rosbag2's folder.
        topics: image topics, with or without their leading slash; None for all.
        start_s: seconds after the bag's start from which frames are given.
        duration_s: for so many seconds; None until the end.

    Attributes:
        kinds: every topic and its message type.

    Raises:
        SourceError: no bag, nothing in it can be read, no image topic, or an unknown topic.
    """

    def __init__(
        self,
        path: Path,
        topics: Collection[str] | None = None,
        start_s: float = 0.0,
        duration_s: float | None = None,
    ) -> None:
        super().__init__(str(path), (), None)
        limit_rosbags()
        self._path = path
        # Camera messages are the same in every ROS 2; other types in the bag need not be understood.
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self._salvaged = False
        counts, self.start_ns = self._survey()
        self.kinds = {topic: kind for topic, (kind, _) in counts.items()}
        images = tuple(t for t, k in self.kinds.items() if k in (IMAGE, COMPRESSED_IMAGE))
        if not images:
            others = (
                ", ".join(f"{t} ({k})" for t, k in sorted(self.kinds.items())) or "no topic at all"
            )
            raise SourceError(f"{path} has no image topic: it has {others}")
        wanted = images if topics is None else tuple(dict.fromkeys(_slashed(t) for t in topics))
        for topic in wanted:
            if topic not in images:
                raise SourceError(f"{unknown('image topic', topic, images)} (in {path})")
        self.topics = wanted
        self._from_ns = self.start_ns + nanoseconds(start_s)
        self._until_ns = None if duration_s is None else self._from_ns + nanoseconds(duration_s)
        if start_s == 0 and duration_s is None:
            self.count = sum(counts[topic][1] for topic in wanted)

    def __iter__(self) -> Iterator[Frame]:
        numbers = dict.fromkeys(self.topics, 0)
        for record in self.records(self.topics):
            number = numbers[record.topic]
            numbers[record.topic] += 1
            name = f"{self._path.name}:{record.topic}#{number}"
            try:
                message: Any = self._types.deserialize_cdr(record.data, record.kind)
            except Exception as error:  # damaged bytes make rosbags raise almost anything
                self.problems.append(f"{name} cannot be deserialised: {error}")
                continue
            stamp = message.header.stamp
            stamp_ns = stamp.sec * 10**9 + stamp.nanosec or record.log_ns
            frame_id = message.header.frame_id
            yield Frame(stamp_ns, record.topic, frame_id, message, name, record.log_ns)

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        """Yields messages of any topics as CDR, in the order of the log, within the time asked for."""
        for record in self._salvage() if self._salvaged else self._read(topics):
            if record.topic not in topics or record.log_ns < self._from_ns:
                continue
            if self._until_ns is not None and record.log_ns >= self._until_ns:
                if self._salvaged:  # not in the order of time
                    continue
                return
            if record.ros1:
                try:
                    data = self._types.ros1_to_cdr(record.data, record.kind)
                except Exception as error:
                    self.problems.append(f"a message of {record.topic} is damaged: {error}")
                    continue
                record = Record(record.topic, record.kind, record.log_ns, data, ros1=False)
            yield record

    def _readers(self) -> list[Any]:
        if self._path.suffix == ".bag":
            return [Reader1(self._path)]
        if self._path.is_dir() and not (self._path / "metadata.yaml").is_file():
            return [Reader2(file) for file in _storage_files(self._path)]
        return [Reader2(self._path)]

    def _survey(self) -> tuple[dict[str, tuple[str, int]], int]:
        """Returns each topic's type and count, and when the bag starts."""
        counts: dict[str, tuple[str, int]] = {}
        starts = []
        try:
            for reader in self._readers():
                with reader:
                    starts.append(reader.start_time)
                    for c in reader.connections:
                        before = counts.get(_slashed(c.topic), ("", 0))[1]
                        counts[_slashed(c.topic)] = c.msgtype, before + c.msgcount
        except (
            Exception
        ) as error:  # of rosbags, SQLite, YAML, zstd, ...: all say that the bag is damaged
            return self._survey_damaged(error)
        return counts, min(starts, default=0)

    def _survey_damaged(self, error: Exception) -> tuple[dict[str, tuple[str, int]], int]:
        self._salvaged = True
        counts: dict[str, tuple[str, int]] = {}
        start_ns = None
        for record in self._salvage():
            counts[record.topic] = record.kind, counts.get(record.topic, ("", 0))[1] + 1
            start_ns = record.log_ns if start_ns is None else min(start_ns, record.log_ns)
        if start_ns is None:
            raise SourceError(f"{self._path} cannot be read as a bag: {error}") from error
        self.problems.append(f"{self._path} is damaged, what is whole is read: {error}")
        return counts, start_ns

    def _salvage(self) -> Iterator[Record]:
        files = _storage_files(self._path) if self._path.is_dir() else [self._path]
        for file in files:
            for record in salvage(file):
                yield Record(
                    _slashed(record.topic), record.kind, record.log_ns, record.data, record.ros1
                )

    def _read(self, topics: Collection[str]) -> Iterator[Record]:
        ros1 = self._path.suffix == ".bag"
        try:
            for reader in self._readers():
                with reader:
                    wanted = [c for c in reader.connections if _slashed(c.topic) in topics]
                    if not wanted:
                        continue
                    for c, log_ns, data in reader.messages(connections=wanted, start=self._from_ns):
                        yield Record(_slashed(c.topic), c.msgtype, log_ns, data, ros1)
        except Exception as error:
            self.problems.append(f"{self._path} is damaged, reading stopped: {error}")
