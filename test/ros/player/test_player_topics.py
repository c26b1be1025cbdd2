"""Under which names a camera player publishes what was recorded, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from robot_vision.errors import ConfigError
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.ros.player.playback import Playback
from robot_vision.ros.player.topics import player_topics

START = 1_700_000_000_000_000_000
K = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
IMAGE = np.full((24, 32, 3), (200, 60, 30), np.uint8)


def record(path: Path, raw: Sequence[str], compressed: Sequence[str], infos: Sequence[str]) -> Path:
    """Writes a bag of one message a topic; each camera_info has a focal length of its own."""
    _, jpeg = cv2.imencode(".jpg", IMAGE[..., ::-1])
    with RecordingWriter(path) as bag:
        for topic in raw:
            bag.image(topic, START, "optical", IMAGE)
        for topic in compressed:
            bag.compressed_image(topic, START, "optical", jpeg.tobytes(), "jpeg")
        for number, topic in enumerate(infos):
            bag.camera_info(topic, START, "optical", (24, 32), K + number)
        bag.camera_pose("/pose", START, np.zeros(3), np.array([0, 0, 0, 1.0]), "map")
    return path


AXIS, DEPTH = "/axis/image_jpeg", "/depth/image_raw/compressedDepth"
BOTH = ("/cam/image_raw", "/cam/image_raw/compressed")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names that drivers give: compressed images without a suffix, distances, nested camera_info."""
    path = tmp_path_factory.mktemp("odd") / "bag"
    infos = ("/axis/image_jpeg/camera_info", "/depth/camera_info", "/cam/camera_info")
    return record(path, BOTH[:1], (AXIS, DEPTH, *BOTH[1:]), infos)


def played(
    bag: Path, *settings: str, outputs: Sequence[str] = (), namespace: str = "/"
) -> Playback:
    playback = Playback(open_source(bag), outputs, *settings, namespace=namespace)
    topics = {item.topic for item in playback}
    assert topics == set(playback.topics.kinds) and playback.bad_frames == 0
    return playback


def test_recorded_names_stay_with_their_camera_info(odd: Path) -> None:
    topics = played(odd, "as_recorded").topics
    assert set(topics.kinds) == {
        AXIS,
        "/axis/image_jpeg/camera_info",
        DEPTH,
        "/depth/camera_info",
        *BOTH,
        "/cam/camera_info",
    }
    assert topics.notes == [] and topics.others == ["/pose"]


def test_other_names_keep_what_image_transport_adds(odd: Path) -> None:
    topics = played(odd, "as_recorded", outputs=["/a/image", "depth/image", "/c/image"]).topics
    # In the order of the recording: raw ones first.
    assert set(topics.kinds) == {
        "/a/image",
        "/a/image/compressed",
        "/a/camera_info",
        "depth/image/compressed",
        "depth/image/camera_info",
        "/c/image/compressedDepth",
        "/c/camera_info",
    }


def test_two_forms_of_one_camera_are_played_once_and_distances_are_not_decoded(odd: Path) -> None:
    raw = played(odd, "raw")
    assert sorted(t for t, k in raw.topics.kinds.items() if k.endswith("/Image")) == [
        AXIS,
        "/cam/image_raw",
    ]
    assert [note.split(" is left out: ")[0] for note in raw.topics.notes] == [DEPTH, BOTH[1]]
    packed = played(odd, "compressed")
    assert {t for t, k in packed.topics.kinds.items() if k.endswith("/CompressedImage")} == {
        AXIS,
        DEPTH,
        BOTH[1],
    }
    assert packed.topics.notes == [
        f"{BOTH[0]} is left out: {BOTH[1]} has the same images, and is played on {BOTH[1]}"
    ]


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ("/", {"/robot1/cam/image", "/cam/image"}),
        ("/robot2", {"robot1/cam/image", "cam/image"}),
        ("/robot1/cam", {"/robot1/cam/image", "cam/image"}),
    ],
)
def test_recorded_names_are_relative_to_a_namespace_unless_they_are_in_it(
    tmp_path: Path, namespace: str, expected: set[str]
) -> None:
    bag = record(tmp_path / "bag", ("/robot1/cam/image", "/cam/image"), (), ())
    assert set(played(bag, namespace=namespace).topics.kinds) == expected


def test_files_have_their_default_names_in_the_namespace(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), IMAGE)
    topics = player_topics(open_source(tmp_path), namespace="/robot1")
    assert "camera/image_raw/compressed" in topics.kinds
    assert not any(topic.startswith("/") for topic in topics.kinds)


def test_one_camera_info_serves_two_cameras_under_their_new_names(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", ("/cam/left", "/cam/right"), (), ("/cam/camera_info",))
    topics = played(bag, outputs=["/l/image", "/r/image"]).topics
    assert {"/l/camera_info", "/r/camera_info"} < set(topics.kinds)


@pytest.mark.parametrize("outputs", [["/x/left", "/x/right"], ["/x/image", "/x/image"]])
def test_two_cameras_on_one_topic_are_refused(tmp_path: Path, outputs: list[str]) -> None:
    bag = record(
        tmp_path / "bag",
        ("/a/image", "/b/image"),
        (),
        ("/a/camera_info", "/b/camera_info"),
    )
    with pytest.raises(ConfigError, match="would both be published on /x/"):
        Playback(open_source(bag), outputs)


def test_an_output_topic_without_a_folder_has_its_camera_info_beside_it(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", ("/a/image",), (), ("/a/camera_info",))
    assert set(played(bag, outputs=["image"]).topics.kinds) == {"image", "camera_info"}


def test_what_was_renamed_is_what_was_recorded(odd: Path) -> None:
    (item,) = (i for i in Playback(open_source(odd), transport="raw") if i.topic == AXIS)
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    message = deserialize_message(bytes(item.data), Image)
    assert np.abs(to_rgb(message).astype(int) - IMAGE).max() < 12
