"""Bags from the internet, as a user opens them: MCAP, SQLite and ROS 1 files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import Writer as Writer2
from rosbags.rosbag2.enums import CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from fuzz import scratch
from robot_vision.errors import ImageError, SourceError
from robot_vision.images.decode import to_rgb
from robot_vision.recordings.bag import BagSource

MAX_LEN = 1 << 16
ALLOWED_S = 10.0
_SUFFIXES = (".mcap", ".bag", ".db3")


def one_input(data: bytes) -> None:
    """Byte 0: the file's suffix; then the file."""
    path = scratch.file(f"bag{_SUFFIXES[data[0] % 3] if data else '.mcap'}", data[1:])
    read(path)


def read(path: Path) -> None:
    """Reads a bag as `robot-vision infer` does."""
    try:
        source = BagSource(path)
    except SourceError:
        return
    for number, frame in enumerate(source):
        assert isinstance(frame.stamp_ns, int) and isinstance(frame.frame_id, str)
        try:
            to_rgb(frame.message)
        except ImageError:
            pass
        assert number < 10_000
    source.close()


def seeds() -> list[bytes]:
    """Returns a bag of each kind, with two images each."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        mcap, sqlite = folder / "mcap", folder / "sqlite"
        _write2(mcap, StoragePlugin.MCAP)
        _write2(sqlite, StoragePlugin.SQLITE3)
        inputs = [b"\0" + next(mcap.glob("*.mcap")).read_bytes()]
        inputs.append(b"\2" + next(sqlite.glob("*.db3")).read_bytes())
        for number, kind in enumerate((None, Writer1.CompressionFormat.BZ2)):
            file = folder / f"{number}.bag"
            _write1(file, kind)
            inputs.append(b"\1" + file.read_bytes())
    return inputs


def image(types: Any, number: int) -> Any:
    """Returns a message of 2 x 3 pixels."""
    kinds = types.types
    stamp = kinds["builtin_interfaces/msg/Time"](number + 1, 5)
    header: dict[str, Any] = {"stamp": stamp, "frame_id": "camera"}
    if "seq" in kinds["std_msgs/msg/Header"].__dataclass_fields__:
        header["seq"] = number
    return kinds["sensor_msgs/msg/Image"](
        header=kinds["std_msgs/msg/Header"](**header),
        height=2,
        width=3,
        encoding="rgb8",
        is_bigendian=0,
        step=9,
        data=np.arange(18, dtype=np.uint8),
    )


def _write2(path: Path, plugin: StoragePlugin, mode: CompressionMode | None = None) -> None:
    types = get_typestore(Stores.ROS2_HUMBLE)
    with Writer2(path, version=8, storage_plugin=plugin) as writer:
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection("/camera/image_raw", kind, typestore=types)
        for number in range(2):
            writer.write(connection, number, types.serialize_cdr(image(types, number), kind))


def _write1(path: Path, compression: Any) -> None:
    types = get_typestore(Stores.ROS1_NOETIC)
    writer = Writer1(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection("/camera/image_raw", kind, typestore=types)
        for number in range(2):
            writer.write(connection, number, types.serialize_ros1(image(types, number), kind))
