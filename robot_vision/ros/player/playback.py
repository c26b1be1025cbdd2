"""What a camera player publishes and when; nothing here starts a node.

A source becomes serialised messages on output topics. Bytes of a bag go through as they are wherever nothing
in them has to change.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
from rosbags.typesys import Stores, get_typestore

from robot_vision.errors import ImageError
from robot_vision.images.decode import to_rgb
from robot_vision.messages import cdr
from robot_vision.messages.types import CAMERA_INFO, IMAGE
from robot_vision.recordings import RawImage, Source
from robot_vision.recordings.bag import COMPRESSED_IMAGE, BagSource
from robot_vision.recordings.bag_reader import Record
from robot_vision.recordings.base import CompressedImage
from robot_vision.recordings.files import upright_message
from robot_vision.ros.player.topics import player_topics, published_kind

_JPEG_QUALITY = 90
_JUMP_NS = 3600 * 10**9  # a longer pause of the log is not waited for
_AFTER_JUMP_NS = 10**8


@dataclass(frozen=True)
class Item:
    """A message to be published.

    Attributes:
        topic: output topic.
        kind: type, such as `sensor_msgs/msg/Image`.
        log_ns: when it was recorded.
        data: CDR.
    """

    topic: str
    kind: str
    log_ns: int
    data: bytes | memoryview

    @property
    def is_image(self) -> bool:
        """Whether it is an image and not a camera_info."""
        return self.kind != CAMERA_INFO


class Playback:
    """The messages of a source, again for each pass.

    Args:
        source: what is played.
        output_topics: see `topics.player_topics`.
        transport: `as_recorded`, `raw` or `compressed`.
        frame_id: replaces the recorded frame unless empty.
        namespace: of the node; see `topics.player_topics`.

    Attributes:
        topics: under which names everything is published.
        bad_frames: images that could not be converted to the transport.

    Raises:
        ConfigError: as many output topics as cameras are needed, and two would be published on one.
    """

    def __init__(
        self,
        source: Source,
        output_topics: Sequence[str] = (),
        transport: str = "as_recorded",
        frame_id: str = "",
        namespace: str = "/",
    ) -> None:
        self.source = source
        self.bad_frames = 0
        self._transport = transport
        self._frame_id = frame_id
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self.topics = player_topics(source, output_topics, transport, namespace)

    def __iter__(self) -> Iterator[Item]:
        if isinstance(self.source, BagSource):
            return self._bag(self.source)
        return self._frames()

    def _bag(self, source: BagSource) -> Iterator[Item]:
        images = {topic for topic, _ in self.topics.images}
        for record in source.records({*images, *self.topics.infos}):
            try:
                items = list(self._recorded(record))
            except Exception:  # damaged bytes make rosbags raise almost anything
                self.bad_frames += 1
                continue
            yield from items

    def _recorded(self, record: Record) -> Iterator[Item]:
        """Yields a message of a bag as it is to be played; nothing if its image cannot be decoded."""
        data = record.data
        stamp_ns = cdr.stamp_of(data)  # raises for a message without a header, too
        if record.kind == CAMERA_INFO:
            if self._frame_id:  # has 8-byte fields, whose padding depends on the frame's length
                message: Any = self._types.deserialize_cdr(data, CAMERA_INFO)
                message.header.frame_id = self._frame_id
                data = self._types.serialize_cdr(message, CAMERA_INFO)
            for output in self.topics.infos[record.topic]:
                yield Item(output, CAMERA_INFO, record.log_ns, data)
            return
        if published_kind(self._transport, record.kind) == record.kind:
            if self._frame_id:
                data = cdr.with_frame_id(data, self._frame_id)
            output = self.topics.images[record.topic, record.kind]
            yield Item(output, record.kind, record.log_ns, data)
            return
        message = self._types.deserialize_cdr(data, record.kind)
        frame_id = self._frame_id or message.header.frame_id
        yield from self._item(record.topic, record.log_ns, stamp_ns, frame_id, message)

    def _frames(self) -> Iterator[Item]:
        for frame in self.source:
            frame_id = self._frame_id or frame.frame_id
            yield from self._item(
                frame.topic, frame.log_ns, frame.stamp_ns, frame_id, frame.message
            )

    def _item(
        self, topic: str, log_ns: int, stamp_ns: int, frame_id: str, message: Any
    ) -> Iterator[Item]:
        try:
            message = self._converted(message)
        except ImageError:
            self.bad_frames += 1
            return
        if hasattr(message, "encoding"):
            kind, data = IMAGE, cdr.image(stamp_ns, frame_id, message)
        else:
            kind, data = COMPRESSED_IMAGE, cdr.compressed_image(stamp_ns, frame_id, message)
        yield Item(self.topics.images[topic, kind], kind, log_ns, data)

    def _converted(self, message: Any) -> Any:
        compressed = not hasattr(message, "encoding")
        if self._transport == "raw" and compressed:
            return RawImage.of(to_rgb(message), "rgb8")
        if self._transport == "compressed" and not compressed:
            bgr = cv2.cvtColor(to_rgb(message), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            return CompressedImage("bgr8; jpeg compressed bgr8", data.tobytes())
        return upright_message(message)


class Pacer:
    """When each message is due, in seconds from the start of the pass.

    Every message is due at a time from the start and not some time after the one before it, so delays do
    not add up. Where the log jumps ahead by more than an hour, as when a clock is set, nobody waits.

    Args:
        rate_hz: images per second of the topic that has the most; 0 for the recorded pace.
        speed: factor on the recorded pace.

    Attributes:
        jumps: number of the message, from 0, and nanoseconds, of each jump of the log that was left out.
    """

    def __init__(self, rate_hz: float, speed: float) -> None:
        self._rate_hz = rate_hz
        self._speed = speed
        self.jumps: list[tuple[int, int]] = []
        self._first_ns: int | None = None
        self._last_ns = 0
        self._count = 0
        self._numbers: dict[str, int] = {}
        self._last = 0.0

    def due(self, item: Item) -> float:
        """Returns the time of the next message."""
        if self._rate_hz > 0:
            if item.is_image:
                number = self._numbers.get(item.topic, 0)
                self._numbers[item.topic] = number + 1
                # Never before the message that was recorded before it: a slower topic keeps its place.
                self._last = max(self._last, number / self._rate_hz)
            return self._last
        if self._first_ns is None:
            self._first_ns = item.log_ns
        elif (jump_ns := item.log_ns - self._last_ns) > _JUMP_NS:
            self.jumps.append((self._count, jump_ns))
            self._first_ns += jump_ns - _AFTER_JUMP_NS
        self._last_ns = item.log_ns
        self._count += 1
        return (item.log_ns - self._first_ns) / 1e9 / self._speed


def ahead(items: Iterator[Item], depth: int, stopped: Callable[[], bool]) -> Iterator[Item]:
    """Reads and decodes in another thread, at most `depth` messages ahead; its errors are raised here."""
    waiting: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    abandoned = threading.Event()

    def put(entry: Item | BaseException | None) -> bool:
        while not (stopped() or abandoned.is_set()):
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # handed over, and raised where it is seen
            put(error)

    reader = threading.Thread(target=read, name="read", daemon=True)
    reader.start()
    try:
        while not stopped():
            try:
                entry = waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield entry
    finally:
        abandoned.set()
        reader.join(timeout=5.0)
