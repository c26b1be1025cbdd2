"""The image topics of a rosbag as frames."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from robot_vision.errors import SourceError, unknown
from robot_vision.messages.stamps import nanoseconds, stamp_to_ns
from robot_vision.messages.types import IMAGE
from robot_vision.recordings.bag_reader import BagFile, Record
from robot_vision.recordings.bag_stamps import StampNotes
from robot_vision.recordings.base import Frame, Source
from robot_vision.recordings.storage import slashed
from robot_vision.text.counts import counted

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
_TRUTH = ("truth", "ground_truth", "groundtruth", "gt")


def calls_itself_truth(topic: str) -> bool:
    """Whether a topic is in a namespace that is called truth."""
    return any(part in _TRUTH for part in topic.split("/"))


def has_distances(bag: BagFile, topic: str) -> bool:
    """Whether the first message of an image topic holds distances by REP 118."""
    record = next(iter(bag.raw([topic])), None)
    try:
        message = None if record is None else bag.message(record)
    except SourceError:  # is said where the topic is read
        return False
    if message is None:
        return False
    encoding = getattr(message, "encoding", "") or str(message.format).partition(";")[0].strip()
    return encoding in ("16UC1", "32FC1")


def image_topics(bag: BagFile) -> tuple[str, ...]:
    """Returns the topics of images.

    Raises:
        SourceError: there is none; the message lists the topics that are there.
    """
    images = tuple(t for t, k in bag.kinds.items() if k in (IMAGE, COMPRESSED_IMAGE))
    if not images:
        others = ", ".join(f"{t} ({k})" for t, k in sorted(bag.kinds.items())) or "no topic at all"
        raise SourceError(f"{bag.path} has no image topic: it has {others}")
    return images


def camera_topics(
    bag: BagFile, distances: bool = False
) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """Returns the image topics that are a camera's pictures, and the others by why they are none.

    Truth is known by its namespace, and distances by their first message. Where no other topic is there, all
    of them are pictures: a thermal camera has the encoding of distances.

    Args:
        bag: the recording.
        distances: count as pictures, too.

    Raises:
        SourceError: see `image_topics`.
    """
    images = image_topics(bag)
    pictures = [topic for topic in images if not calls_itself_truth(topic)] or list(images)
    left = {"truth": [topic for topic in images if topic not in pictures]}
    if not distances and len(pictures) > 1:
        far = [topic for topic in pictures if has_distances(bag, topic)]
        if len(far) < len(pictures):
            left["distances"] = far
            pictures = [topic for topic in pictures if topic not in far]
    return tuple(pictures), {why: topics for why, topics in left.items() if topics}


def names_topic(topic: str) -> str:
    """Returns the topic of the LabelInfo that names the classes of a topic's ids."""
    return f"{slashed(topic).removesuffix('/compressed')}_label_info"


class BagSource(Source):
    """Image topics of a bag.

    Args:
        path: a `.bag`, `.db3` or `.mcap` file, or a rosbag2's folder.
        topics: image topics, with or without their leading slash; None for those of `camera_topics`; the
            notes name the others.
        distances: None means topics of distances, too.
        start_s: seconds after the bag's start from which frames are given.
        duration_s: seconds to read; None until the end.

    Attributes:
        kinds: every topic and its message type.
        start_ns: log time from which seconds count.

    Raises:
        SourceError: no bag, nothing in it can be read, no image topic, or an unknown topic.
    """

    def __init__(
        self,
        path: Path,
        topics: Collection[str] | None = None,
        start_s: float = 0.0,
        duration_s: float | None = None,
        distances: bool = False,
    ) -> None:
        super().__init__(str(path), (), None)
        self._path = path
        self._bag = BagFile(path)
        self.problems, self.notes = self._bag.problems, self._bag.notes
        self.kinds, self.start_ns = self._bag.kinds, self._bag.start_ns
        images = image_topics(self._bag)
        if topics is not None:
            wanted = tuple(dict.fromkeys(slashed(t) for t in topics))
        else:
            wanted, left = camera_topics(self._bag, distances)
            self.notes += [
                f"{counted(len(names), 'image topic')} left out as {why}, not a camera's: {', '.join(names)} "
                "(name one to read it)"
                for why, names in left.items()
            ]
        for topic in wanted:
            if topic not in images:
                raise SourceError(f"{unknown('image topic', topic, images)} (in {path})")
        self.topics = wanted
        whole = start_s == 0 and duration_s is None
        self._from_ns = None if whole else self.start_ns + nanoseconds(start_s)
        self._until_ns = None
        self._check_start(start_s, (self._bag.end_ns - self.start_ns) / 1e9)
        if self._from_ns is not None and duration_s is not None:
            self._until_ns = self._from_ns + nanoseconds(duration_s)
        if whole:
            self.count = sum(self._bag.counts[topic] for topic in wanted)

    def __iter__(self) -> Iterator[Frame]:
        numbers = dict.fromkeys(self.topics, 0)
        stamps = StampNotes(self._bag)
        for record in self._bag.raw(self.topics, self._from_ns, self._until_ns):
            number = numbers[record.topic]
            numbers[record.topic] += 1
            name = f"{self._path.name}:{record.topic}#{number}"
            try:
                message = self._bag.message(record)
            except SourceError as error:
                self.problems.append(f"{name} cannot be deserialised: {error}")
                continue
            header = message.header
            stamp = stamps.add(
                record.topic, (stamp_to_ns(header.stamp), header.frame_id), record.log_ns
            )
            yield Frame(stamp, record.topic, header.frame_id, message, name, record.log_ns)
        stamps.finish()

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        """Yields messages of any topics as CDR, in the order of the log, within the time asked for."""
        stamps = StampNotes(self._bag)
        for record in self._bag.raw(topics, self._from_ns, self._until_ns):
            if record.topic in self.topics:
                # What has no header is counted by who plays it
                with contextlib.suppress(SourceError):
                    stamps.add(record.topic, self._bag.header(record), record.log_ns)
            try:
                data = self._bag.cdr(record)
            except SourceError as error:
                self.problems.append(f"a message of {record.topic} is damaged: {error}")
                continue
            yield record._replace(data=data, ros1=False)
        stamps.finish()

    def close(self) -> None:
        """Closes the bag."""
        self._bag.close()
