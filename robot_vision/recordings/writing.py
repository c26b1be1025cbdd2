"""Writes rosbag2 recordings of camera frames, without ROS.

What is written plays with `ros2 bag play` from Humble on, and opens in Foxglove: message definitions and
type hashes are in the bag, and every topic offers reliable QoS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.messages.types import LABEL_INFO, message_types

STORAGES = ("sqlite3", "mcap")
# Version 8 of the metadata is read by every distribution from Humble on; 9 only by Jazzy and newer.
_METADATA_VERSION: Final = 8
_FOREVER = QosTime(2147483647, 4294967295)
_OFFERED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=_FOREVER,
    lifespan=_FOREVER,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_FOREVER,
    avoid_ros_namespace_conventions=False,
)
_LATCHED = _OFFERED._replace(durability=QosDurability.TRANSIENT_LOCAL)


def _abandon(writer: Writer) -> None:
    """Closes an unfinished bag's file."""
    if hasattr(writer, "abort"):
        writer.abort()
        return
    with contextlib.suppress(Exception):  # rosbags before 0.11.1: finish it, it is removed anyway
        writer.close()


class RecordingWriter:
    """A rosbag2 that gets its name when it is whole; an interrupted one leaves nothing.

    Use it as a context manager. Topics come into being with their first message. Every message is logged
    at its own stamp.

    Args:
        path: the bag's directory; its parent folders are made.
        storage: `sqlite3` or `mcap`.

    Raises:
        ConfigError: an unknown storage.
        SourceError: `path` exists already, or cannot be written.
    """

    def __init__(self, path: str | Path, storage: str = "sqlite3") -> None:
        if storage not in STORAGES:
            raise ConfigError(unknown("storage", storage, STORAGES))
        self.path = Path(path).absolute()
        self.storage = storage
        self.message_count = 0
        self._types = message_types()
        self._connections: dict[str, Connection] = {}
        self._writer: Writer | None = None
        self._folder: Path | None = None

    def __enter__(self) -> RecordingWriter:
        if self.path.exists():
            raise SourceError(f"{self.path} exists already: remove it or choose another name")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Next to the target, so that the last step is a rename; its files bear the bag's final name.
            folder = tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        except OSError as error:
            raise SourceError(f"{self.path} cannot be written: {error}") from error
        self._folder = Path(folder)
        plugin = StoragePlugin.MCAP if self.storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(
            self._folder / self.path.name, version=_METADATA_VERSION, storage_plugin=plugin
        )
        try:
            with self._saying():
                self._writer.open()
        except SourceError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._writer is not None and self._folder is not None
        try:
            if kind is None:
                with self._saying():
                    self._writer.close()
                    os.rename(self._folder / self.path.name, self.path)
            else:
                _abandon(self._writer)
        finally:
            self._writer = None
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def _saying(self) -> Iterator[None]:
        """Says which bag cannot be written where SQLite or the system says why, such as of a full disk."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise SourceError(
                f"{self.path} cannot be written: {error}; make room, or name another disk"
            ) from error

    def image(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        image: NDArray[Any],
        encoding: str = "rgb8",
    ) -> None:
        """Writes (H, W, 3) or (H, W), in the numbers of its encoding, as `sensor_msgs/Image`."""
        pixels = np.ascontiguousarray(image)
        assert pixels.ndim in (2, 3), pixels.shape
        make = self._types.types["sensor_msgs/msg/Image"]
        message = make(
            header=self.header(stamp_ns, frame_id),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.strides[0],
            data=pixels.reshape(-1).view(np.uint8),
        )
        self.write(topic, stamp_ns, message)

    def compressed_image(
        self, topic: str, stamp_ns: int, frame_id: str, data: bytes, format_text: str
    ) -> None:
        """Writes JPEG or PNG bytes as they are, as `sensor_msgs/CompressedImage`."""
        make = self._types.types["sensor_msgs/msg/CompressedImage"]
        pixels = np.frombuffer(data, np.uint8)
        self.write(topic, stamp_ns, make(self.header(stamp_ns, frame_id), format_text, pixels))

    def camera_info(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        size: tuple[int, int],
        K: ArrayLike,
        distortion: ArrayLike = (),
        model: str = "plumb_bob",
    ) -> None:
        """Writes `sensor_msgs/CameraInfo`, by default of a camera without distortion.

        Args:
            topic: the topic.
            stamp_ns: the image's stamp.
            frame_id: the camera's optical frame.
            size: (height, width) in pixels.
            K: (3, 3), pixels.
            distortion: (n,), coefficients of the model.
            model: of the lens, such as `equidistant`.
        """
        matrix = np.asarray(K, np.float64).reshape(3, 3)
        d = np.asarray(distortion, np.float64).reshape(-1)
        region = self._types.types["sensor_msgs/msg/RegionOfInterest"]
        make = self._types.types["sensor_msgs/msg/CameraInfo"]
        message = make(
            header=self.header(stamp_ns, frame_id),
            height=size[0],
            width=size[1],
            distortion_model=model,
            d=d if len(d) else np.zeros(5),
            k=matrix.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=np.hstack((matrix, np.zeros((3, 1)))).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
        )
        self.write(topic, stamp_ns, message)

    def camera_pose(
        self,
        topic: str,
        stamp_ns: int,
        position: ArrayLike,
        orientation_xyzw: ArrayLike,
        frame_id: str = "map",
    ) -> None:
        """Writes `T_map_camera` as `geometry_msgs/PoseStamped`.

        Args:
            topic: the topic.
            stamp_ns: the image's stamp.
            position: (3,), metres, in the map.
            orientation_xyzw: (4,), unit quaternion.
            frame_id: the map's frame.
        """
        types = self._types.types
        place = types["geometry_msgs/msg/Point"](*(float(v) for v in np.asarray(position)))
        turn = types["geometry_msgs/msg/Quaternion"](
            *(float(v) for v in np.asarray(orientation_xyzw))
        )
        pose = types["geometry_msgs/msg/Pose"](place, turn)
        header = self.header(stamp_ns, frame_id)
        self.write(topic, stamp_ns, types["geometry_msgs/msg/PoseStamped"](header, pose))

    def label(self, topic: str, stamp_ns: int, text: str) -> None:
        """Writes `std_msgs/String`; it has no header, so the log's time is its stamp."""
        self.write(topic, stamp_ns, self._types.types["std_msgs/msg/String"](text))

    def number(self, topic: str, stamp_ns: int, value: float) -> None:
        """Writes `std_msgs/Float64`; it has no header, so the log's time is its stamp."""
        self.write(topic, stamp_ns, self._types.types["std_msgs/msg/Float64"](value))

    def label_info(self, topic: str, stamp_ns: int, frame_id: str, names: Sequence[str]) -> None:
        """Writes the names of ids from 0 as `vision_msgs/LabelInfo`."""
        types = self._types.types
        entry = types["vision_msgs/msg/VisionClass"]
        classes = [entry(class_id=i, class_name=name) for i, name in enumerate(names)]
        header = self.header(stamp_ns, frame_id)
        self.write(topic, stamp_ns, types[LABEL_INFO](header, classes, 0.0))

    @property
    def store(self) -> Typestore:
        """The types of messages: the common interfaces of ROS 2 and vision_msgs."""
        return self._types

    @property
    def types(self) -> Any:
        """Constructors of messages by name: the common interfaces of ROS 2 and vision_msgs."""
        return self._types.types

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Writes any message made from `rosbags`' ROS 2 types."""
        kind: str = message.__msgtype__
        self.write_cdr(topic, stamp_ns, kind, self._types.serialize_cdr(message, kind))

    def write_cdr(self, topic: str, stamp_ns: int, kind: str, data: bytes | memoryview) -> None:
        """Writes a serialised message of a type such as `sensor_msgs/msg/Image`."""
        assert self._writer is not None, "use RecordingWriter in a with statement"
        connection = self._connections.get(topic)
        if connection is None:
            offered = _LATCHED if topic == "/tf_static" else _OFFERED  # as tf2 wants it
            connection = self._writer.add_connection(
                topic, kind, typestore=self._types, offered_qos_profiles=[offered]
            )
            self._connections[topic] = connection
        if connection.msgtype != kind:
            raise ConfigError(
                f"Topic {topic} holds {connection.msgtype}: {kind} needs another topic"
            )
        with self._saying():
            self._writer.write(connection, stamp_ns, data)
        self.message_count += 1

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Returns a `std_msgs/Header`."""
        types = self._types.types
        stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND_NS))
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)
