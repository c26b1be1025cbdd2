"""Recordings: read back by rosbags' reader and, message for message, by rclpy's deserialiser."""

from __future__ import annotations

import dataclasses
import resource
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from robot_vision.errors import ConfigError, SourceError
from robot_vision.recordings.writing import STORAGES, RecordingWriter


def plain(message: object) -> object:
    """Turns a message of rclpy or of rosbags into dicts, lists and numbers."""
    names = getattr(message, "get_fields_and_field_types", lambda: None)()
    if names is None and dataclasses.is_dataclass(message):
        names = [f.name for f in dataclasses.fields(message) if f.name != "__msgtype__"]
    if names is not None:
        return {name: plain(getattr(message, name)) for name in names}
    return (
        list(message) if hasattr(message, "__len__") and not isinstance(message, str) else message
    )


STAMP = 1_700_000_000_123_456_789


def write_everything(path: Path, storage: str) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    with RecordingWriter(path, storage) as bag:
        bag.image("/camera/image_raw", STAMP, "camera_optical", image[:, ::-1])
        bag.compressed_image("/camera/image_raw/compressed", STAMP, "cam", b"\xff\xd8\xff", "jpeg")
        K = np.array([[525.0, 0, 320], [0, 526, 240], [0, 0, 1]])
        bag.camera_info("/camera/camera_info", STAMP, "camera_optical", (480, 640), K)
        bag.camera_pose("/pose", STAMP, (1.0, 2.0, 3.0), (0.0, 0.6, 0.0, 0.8))
        bag.label("/label", STAMP + 5, "küche")
    return image[:, ::-1]


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_come_back_from_the_bag(tmp_path: Path, storage: str) -> None:
    image = write_everything(tmp_path / "deep" / "bag", storage)
    assert [p.name for p in tmp_path.joinpath("deep").iterdir()] == ["bag"]
    with AnyReader([tmp_path / "deep" / "bag"]) as reader:
        found = {
            c.topic: (t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()
        }
    stamp, picture = found["/camera/image_raw"]
    assert stamp == STAMP
    assert (picture.header.stamp.sec, picture.header.stamp.nanosec) == divmod(STAMP, 10**9)
    assert picture.header.frame_id == "camera_optical"
    assert (picture.height, picture.width, picture.step) == (12, 17, 51)
    np.testing.assert_array_equal(picture.data.reshape(12, 17, 3), image)
    assert bytes(found["/camera/image_raw/compressed"][1].data) == b"\xff\xd8\xff"
    info = found["/camera/camera_info"][1]
    assert info.k[4] == 526 and info.p[6] == 240 and (info.height, info.width) == (480, 640)
    pose = found["/pose"][1]
    assert pose.header.frame_id == "map" and pose.pose.orientation.w == 0.8
    assert found["/label"][0] == STAMP + 5 and found["/label"][1].data == "küche"


def test_messages_are_what_rclpy_reads(tmp_path: Path) -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed")
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from std_msgs.msg import String

    kinds = {
        f"{k.__module__.split('.')[0]}/msg/{k.__name__}": k
        for k in (Image, CompressedImage, CameraInfo, PoseStamped, String)
    }
    write_everything(tmp_path / "bag", "sqlite3")
    (file,) = (tmp_path / "bag").glob("*.db3")
    rows = sqlite3.connect(file).execute(
        "select topics.type, messages.data from messages join topics on topic_id = topics.id"
    )
    types = get_typestore(Stores.ROS2_JAZZY)
    seen = set()
    for kind, data in rows:
        message = serialization.deserialize_message(data, kinds[kind])
        # As long when serialised again (padding bytes have no fixed value), and every field the same.
        assert len(serialization.serialize_message(message)) == len(data)
        assert plain(message) == plain(types.deserialize_cdr(data, kind))
        seen.add(kind)
    assert seen == set(kinds)


def test_type_hashes_are_those_of_the_installed_ros(tmp_path: Path) -> None:
    sensor_msgs = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
    import json

    kind = sensor_msgs.Image
    for folder in Path(kind.__module__.replace(".", "/")), *Path(sensor_msgs.__file__).parents:
        found = folder / "share/sensor_msgs/msg/Image.json"
        if found.is_file():
            break
    else:
        pytest.skip("no type description files beside sensor_msgs")
    hashes = {
        h["type_name"]: h["hash_string"] for h in json.loads(found.read_text())["type_hashes"]
    }
    write_everything(tmp_path / "bag", "mcap")
    with AnyReader([tmp_path / "bag"]) as reader:
        digests = {c.msgtype: c.digest for c in reader.connections}
    assert digests["sensor_msgs/msg/Image"] == hashes["sensor_msgs/msg/Image"]


@pytest.mark.parametrize("storage", STORAGES)
def test_interrupted_recording_leaves_nothing(tmp_path: Path, storage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        with RecordingWriter(tmp_path / "bag", storage) as bag:
            bag.label("/label", STAMP, "a")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("room", "messages"), [(2_000, 1), (60_000, 1), (60_000, 400)])
def test_disk_that_is_full_is_one_line_and_leaves_nothing(
    tmp_path: Path, storage: str, room: int, messages: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(SourceError, match=r"bag cannot be written: .*; make room"):
            with RecordingWriter(tmp_path / "bag", storage) as bag:
                for i in range(messages):
                    bag.image("/camera/image_raw", STAMP + i, "cam", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_existing_bag_is_not_overwritten(tmp_path: Path) -> None:
    write_everything(tmp_path / "bag", "sqlite3")
    with pytest.raises(SourceError, match="exists already"):
        write_everything(tmp_path / "bag", "sqlite3")


def test_unknown_storage_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sqlite3, mcap"):
        RecordingWriter(tmp_path / "bag", "rosbag")


def test_topic_keeps_its_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/label"):
        with RecordingWriter(tmp_path / "bag") as bag:
            bag.label("/label", STAMP, "a")
            bag.camera_pose("/label", STAMP, (0, 0, 0), (0, 0, 0, 1))


def test_unwritable_parent_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SourceError, match="cannot be written"):
        with RecordingWriter(tmp_path / "file" / "bag"):
            pass
