"""Images of what is true of a recording's frames, such as distances or class ids: a topic of its bag.

They are asked for as NAME=TOPIC, or NAME=TOPIC*FACTOR where the numbers are to be multiplied (0.0002 for
depth in fifths of a millimetre). Each frame takes the image of the nearest stamp, if it is near enough.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.messages.types import IMAGE, LABEL_INFO
from robot_vision.recordings.bag import COMPRESSED_IMAGE, names_topic
from robot_vision.recordings.bag_file import BagImage
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.storage import slashed
from robot_vision.text.counts import counted
from robot_vision.truth.pixel_classes import (
    ForeignClasses,
    Renumbered,
    left_out,
    none_shared,
    renumbering,
)

IMAGES = (
    "NAME=TOPIC of the true images, such as depth=/camera/depth; NAME=TOPIC*FACTOR multiplies their "
    "numbers"
)
IMAGE_KINDS = (IMAGE, COMPRESSED_IMAGE)
REP118_UNIT = 0.001  # metres, of 16UC1
_SOURCE = re.compile(r"([\w.]+)=(.+?)(?:\*([-+.\deE]+))?")


class TrueImage(Protocol):
    """What is true of each pixel of an image."""

    @property
    def none(self) -> tuple[float, ...]:
        """Stored values that say nothing; NaN and infinity never do."""

    @property
    def unit(self) -> float:
        """What a stored value is multiplied by: metres for distances, 1 for ids of classes."""

    def load(self) -> NDArray[Any]:
        """Returns uint8, uint16 or float32 (H, W), as large as the image.

        Raises:
            ImageError: it cannot be read or decoded; the message names it.
        """


@dataclass(frozen=True, eq=False)
class ImageTrack:
    """Images over time; none of their pixels is kept.

    Attributes:
        stamps_ns: int64 (L,), increasing.
        images: (L,), what is true then.
        within_ns: how far a frame's stamp may be from an image's.
        text: where they come from, for people.
    """

    stamps_ns: NDArray[np.int64]
    images: Sequence[TrueImage]
    within_ns: int = 0
    text: str = ""

    def at(self, times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the number of the image of each time, the nearest one; -1 where none is near enough."""
        return nearest_stamps(self.stamps_ns, times_ns, self.within_ns)


@dataclass(frozen=True)
class ImagesFrom:
    """Where true images come from.

    Attributes:
        name: of what they are, such as `depth`.
        where: a topic.
        factor: that numbers are multiplied by; 0 for what their encoding says.
    """

    name: str
    where: str
    factor: float = 0.0


def nearest_stamps(
    stamps_ns: NDArray[np.int64], times_ns: NDArray[np.int64], within_ns: int
) -> NDArray[np.int64]:
    """Returns for each time the number of the nearest of increasing stamps (L,), -1 where it is too far."""
    if len(stamps_ns) == 0:
        return np.full(len(times_ns), -1, np.int64)
    after = np.searchsorted(stamps_ns, times_ns)
    sides = np.clip(np.stack([after - 1, after]), 0, len(stamps_ns) - 1)
    left, right = np.abs(stamps_ns[sides] - times_ns)
    near = np.where(left <= right, *sides)
    return np.where(np.minimum(left, right) <= within_ns, near, -1)


def parse_images(texts: Iterable[str]) -> tuple[ImagesFrom, ...]:
    """Reads what the module's text shows.

    Raises:
        ConfigError: it is something else, or a name is given twice.
    """
    found: dict[str, ImagesFrom] = {}
    for text in texts:
        match = _SOURCE.fullmatch(text.strip())
        try:
            factor = float(match[3] or 0) if match else math.nan
        except ValueError:
            factor = math.nan
        if not match or not math.isfinite(factor):
            raise ConfigError(f"{text!r} is no source of true images: give {IMAGES}")
        if match[1] in found:
            raise ConfigError(f"True images of {match[1]} are given twice")
        found[match[1]] = ImagesFrom(match[1], match[2].strip(), factor)
    return tuple(found.values())


def images_of_topic(
    bag: BagFile, source: ImagesFrom, within_ns: int, classes: Sequence[str] = ()
) -> ImageTrack:
    """Notes where the messages of a topic are; they are read when they are asked for.

    Args:
        bag: see `messages_of_topic`.
        source: see there.
        within_ns: see `ImageTrack`.
        classes: of the model, where the images are ids: where the bag names its own, they become those of
            these.

    Raises:
        ConfigError: there is no such topic.
        ForeignClasses: the bag names classes, and none of the model's.
    """
    stamps_ns, messages, first = messages_of_topic(bag, source)
    none, unit = ((), 1.0) if first is None else meaning(first)
    unit = source.factor or unit
    images: list[TrueImage] = [_Message(message, none, unit) for message in messages]
    times = f" times {unit:g}" if unit != 1 else ""
    text = f"topic {slashed(source.where)}{times}, within {within_ns / 1e9:g} s"
    theirs = class_names(bag, source.where) if classes else {}
    if theirs and theirs != dict(enumerate(classes)):
        found = renumbering(theirs, classes)
        if found is None:
            names = list(theirs.values())
            raise ForeignClasses(none_shared(bag.path.name, source.name, names, classes))
        table, lost = found
        images = [Renumbered(_Message(message), table) for message in messages]
        text = "; ".join([f"{text}, ids by {names_topic(source.where)}", *left_out(lost)])
    return ImageTrack(stamps_ns, images, within_ns, text)


def class_names(bag: BagFile, topic: str) -> dict[int, str]:
    """Returns the names of a topic's ids of classes, by their ids; empty where the bag does not name them.

    Raises:
        SourceError: the message that names them cannot be read.
    """
    there = names_topic(topic)
    if bag.kinds.get(there) != LABEL_INFO:
        return {}
    named: dict[int, str] = {}
    for record in bag.raw([there]):  # of several the last counts
        named = {int(c.class_id): str(c.class_name) for c in bag.message(record).class_map}
    return dict(sorted(named.items()))


def messages_of_topic(
    bag: BagFile, source: ImagesFrom
) -> tuple[NDArray[np.int64], list[BagImage], Any]:
    """Returns stamps (L,), increasing, and where their messages are; and the first message, None without one.

    Args:
        bag: the bag, whose notes get how many messages are damaged or have the stamp of another.
        source: of a topic.

    Raises:
        ConfigError: there is no such topic.
    """
    topic = slashed(source.where)
    there = [t for t, kind in bag.kinds.items() if kind in IMAGE_KINDS]
    if topic not in there:
        what = f"topic of true images of {source.name}"
        raise ConfigError(f"{unknown(what, topic, sorted(there) or ['none'])} (in {bag.path})")
    found: dict[int, BagImage] = {}
    first = None
    damaged = number = 0
    for number, record in enumerate(bag.raw([topic]), 1):
        try:
            stamp_ns, _ = bag.header(record)
            if first is None:
                first = bag.message(record)
        except SourceError:
            damaged += 1
            continue
        found.setdefault(stamp_ns or record.log_ns, BagImage.of(bag, record, number - 1))
    if damaged:
        bag.notes.append(f"{counted(damaged, 'message')} on {topic} left out: damaged")
    if again := number - damaged - len(found):
        bag.notes.append(f"{counted(again, 'message')} on {topic} left out: another has the stamp")
    stamps = sorted(found)
    return np.array(stamps, np.int64), [found[stamp] for stamp in stamps], first


@dataclass(frozen=True, slots=True)
class _Message:
    source: BagImage
    none: tuple[float, ...] = ()
    unit: float = 1.0

    def __str__(self) -> str:
        return str(self.source)

    def load(self) -> NDArray[Any]:
        return self.source.plane()

    def encoded(self) -> bytes:
        return self.source.encoded()


def meaning(message: Any) -> tuple[tuple[float, ...], float]:
    """Returns what says nothing in a topic's images, besides NaN and infinity, and the unit of their numbers.

    By REP 118 16UC1 holds millimetres, and 0 is none; 32FC1 holds metres. Numbers of another encoding, such
    as mono16, are what they are.
    """
    return ((0.0,), REP118_UNIT) if _encoding(message) == "16UC1" else ((), 1.0)


def _encoding(message: Any) -> str:
    return getattr(message, "encoding", "") or str(message.format).partition(";")[0].strip()
