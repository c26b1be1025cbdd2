"""Sources: bags of every kind, whole and cut off, videos, folders, patterns, and what is none of these."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.images.decode import to_rgb
from robot_vision.messages.stamps import MAX_STAMP_NS, nanoseconds
from robot_vision.recordings import open_source
from robot_vision.recordings.image_formats import missing_decoder
from robot_vision.recordings.writing import STORAGES, RecordingWriter

START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 60, 80, 3), np.uint8)


def write_bag(path: Path, storage: str = "sqlite3") -> Path:
    with RecordingWriter(path, storage) as bag:
        for i, image in enumerate(IMAGES):
            stamp = START + i * PERIOD
            bag.label("/label", stamp, "kitchen")
            bag.image("/front/image_raw", stamp, "front", image)
            if i % 2 == 0:
                png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
                bag.compressed_image("/rear/image_raw/compressed", stamp + 1, "rear", png, "png")
    return path


def write_ros1_bag(path: Path) -> Path:
    types = get_typestore(Stores.ROS1_NOETIC)
    make = types.types
    with Writer1(path) as bag:
        connection = bag.add_connection(
            "front/image_raw", "sensor_msgs/msg/Image", typestore=types
        )  # without a leading slash, as some ROS 1 nodes named their topics
        for i, image in enumerate(IMAGES):
            stamp = make["builtin_interfaces/msg/Time"](*divmod(START + i * PERIOD, 10**9))
            header = make["std_msgs/msg/Header"](i, stamp, "front")
            message = make["sensor_msgs/msg/Image"](
                header, 60, 80, "rgb8", 0, 240, image.reshape(-1)
            )
            data = types.serialize_ros1(message, connection.msgtype)
            bag.write(connection, START + i * PERIOD + 7, data)
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_bag_gives_its_frames_in_order(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "bag", storage)
    with open_source(bag) as source:
        frames = list(source)
        assert source.topics == ("/front/image_raw", "/rear/image_raw/compressed")
        assert source.count == len(frames) == 30 and source.problems == []
        assert [f.stamp_ns for f in source] == [f.stamp_ns for f in frames]  # can be read again
    assert [f.stamp_ns for f in frames] == sorted(f.stamp_ns for f in frames)
    for frame in frames:
        number, late = divmod(frame.stamp_ns - START, PERIOD)
        assert frame.frame_id == ("rear" if late else "front")
        np.testing.assert_array_equal(to_rgb(frame.message), IMAGES[number])
    assert frames[-1].name == "bag:/front/image_raw#19"


@pytest.mark.parametrize("storage", STORAGES)
def test_bag_without_metadata_and_its_bare_file_are_read(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / "bag", storage)
    (bag / "metadata.yaml").unlink()
    (file,) = bag.iterdir()
    assert len(list(open_source(bag))) == len(list(open_source(file))) == 30


def test_ros1_bag_gives_its_frames_under_a_slashed_topic(tmp_path: Path) -> None:
    source = open_source(write_ros1_bag(tmp_path / "one.bag"), topics=["front/image_raw"])
    frames = list(source)
    assert source.topics == ("/front/image_raw",) and source.count == 20
    assert [f.stamp_ns for f in frames] == [START + i * PERIOD for i in range(20)]
    assert [f.log_ns for f in frames] == [START + i * PERIOD + 7 for i in range(20)]
    np.testing.assert_array_equal(to_rgb(frames[3].message), IMAGES[3])


def test_topics_and_times_are_chosen(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag")
    source = open_source(bag, topics=["rear/image_raw/compressed"], start_s=0.4, duration_s=1.0)
    assert [(f.stamp_ns - START) // PERIOD for f in source] == [4, 6, 8, 10, 12]
    assert source.count is None


def test_zero_stamp_is_replaced_by_the_logs(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as bag:
        bag.image("/image", 0, "", IMAGES[0])
    (file,) = (tmp_path / "bag").glob("*.db3")
    import sqlite3

    with sqlite3.connect(file) as database:
        database.execute("update messages set timestamp = ?", (START,))
    assert next(iter(open_source(file))).stamp_ns == START


# Damage


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", [*STORAGES, "ros1"])
def test_cut_off_bag_is_read_as_far_as_it_goes(tmp_path: Path, kind: str, share: float) -> None:
    if kind == "ros1":
        opened = file = write_ros1_bag(tmp_path / "bag.bag")
        each = 20
    else:
        opened = write_bag(tmp_path / "bag", kind)
        file = next(p for p in opened.iterdir() if p.name != "metadata.yaml")
        each = 30
    os.truncate(file, int(file.stat().st_size * share))
    source = open_source(opened)
    frames = list(source)
    assert 0.7 * share * each <= len(frames) <= each
    # What SQLite 3.46 or newer writes last are statistics, and without them all images are there.
    if kind != "sqlite3" or len(frames) < each:
        assert len(source.problems) == 1 and "damaged" in source.problems[0]
    assert source.count is not None and source.count >= len(frames)
    for frame in frames:
        number = (frame.stamp_ns - START) // PERIOD
        np.testing.assert_array_equal(to_rgb(frame.message), IMAGES[number])


def write_many_chunks(path: Path, image: np.ndarray, count: int, compression: str) -> None:
    """Writes frames so large that there are many chunks."""
    types = get_typestore(Stores.ROS1_NOETIC if path.suffix == ".bag" else Stores.ROS2_HUMBLE)
    make = types.types
    writer: Any
    if path.suffix == ".bag":
        writer = Writer1(path)
        if compression:
            writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    else:
        writer = Writer2(path, version=8, storage_plugin=StoragePlugin.MCAP)
        if compression:
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=types)
        for i in range(count):
            stamp = make["builtin_interfaces/msg/Time"](*divmod(START + i, 10**9))
            number = [i] if path.suffix == ".bag" else []
            header = make["std_msgs/msg/Header"](*number, stamp, "")
            height, width = image.shape[:2]
            message = make["sensor_msgs/msg/Image"](
                header, height, width, "rgb8", 0, 3 * width, image.reshape(-1)
            )
            serialize = types.serialize_ros1 if number else types.serialize_cdr
            writer.write(connection, START + i, serialize(message, connection.msgtype))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compression"),
    [("bag", ""), ("bag", "zstd"), ("a.bag", ""), ("a.bag", "bz2"), ("a.bag", "lz4")],
)
def test_chunks_before_the_cut_are_all_read(tmp_path: Path, name: str, compression: str) -> None:
    large = RNG.integers(0, 256, (480, 640, 3), np.uint8)
    path = tmp_path / name
    write_many_chunks(path, large, 12, compression)
    file = path if path.is_file() else path / "bag.mcap"
    os.truncate(file, file.stat().st_size // 2)
    source = open_source(path)
    frames = list(source)
    assert 4 <= len(frames) <= 6 and "damaged" in source.problems[0]
    assert [f.stamp_ns for f in frames] == [START + i for i in range(len(frames))]
    np.testing.assert_array_equal(to_rgb(frames[-1].message), large)


def test_damage_within_a_bag_ends_the_reading_with_a_problem(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag")
    (file,) = bag.glob("*.db3")
    data = bytearray(file.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 16384] = bytes(16384)
    file.write_bytes(data)
    source = open_source(bag)
    frames = list(source)
    damaged = 0
    for frame in frames:
        number = (frame.stamp_ns - START) // PERIOD
        try:
            damaged += not np.array_equal(to_rgb(frame.message), IMAGES[number])
        except ImageError:
            damaged += 1
    assert len(frames) >= 10 and (source.problems or damaged)


@pytest.mark.parametrize("name", ["bag.bag", "bag.db3", "bag.mcap"])
@pytest.mark.parametrize("content", [b"", b"not a bag at all" * 100])
def test_file_that_is_no_bag_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as a bag"):
        open_source(tmp_path / name)


# What is asked for and not there


def test_bag_without_images_lists_its_topics(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as bag:
        bag.label("/label", START, "x")
    with pytest.raises(SourceError, match=r"no image topic.*/label \(std_msgs/msg/String\)"):
        open_source(tmp_path / "bag")


def test_unknown_topic_lists_the_image_topics(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag")
    with pytest.raises(SourceError, match="did you mean '/front/image_raw'.*/rear/image_raw/compr"):
        open_source(bag, topics=["/front/image"])
    with pytest.raises(SourceError, match="'/label'"):
        open_source(bag, topics=["/label"])


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/nowhere/*.jpg", "~/nowhere-at-all.bag"])
def test_missing_path_is_one_line(path: str) -> None:
    with pytest.raises(SourceError, match="nowhere.*does not exist"):
        open_source(path)


def test_times_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for wrong in ({"start_s": -1.0}, {"duration_s": 0.0}, {"rate": 0.0}, {"start_s": float("nan")}):
        with pytest.raises(ConfigError, match="start"):
            open_source(tmp_path, **wrong)  # type: ignore[arg-type]


# Files


def write_folder(path: Path) -> Path:
    for name in ("frame-10.png", "frame-2.png", "sub/frame-1.png", ".hidden.png", ".git/a.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        number = int("".join(c for c in name if c.isdigit()) or 0)
        cv2.imwrite(str(path / name), IMAGES[number])
    (path / "notes.txt").write_text("no image")
    return path


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    source = open_source(write_folder(tmp_path / "run"), rate=10.0)
    frames = list(source)
    assert [f.name for f in frames] == ["frame-2.png", "frame-10.png", "sub/frame-1.png"]
    assert [f.stamp_ns for f in frames] == [0, PERIOD, 2 * PERIOD]
    assert source.count == 3
    np.testing.assert_array_equal(to_rgb(frames[1].message), IMAGES[10][..., ::-1])


def test_folder_is_cut_to_the_time_asked_for(tmp_path: Path) -> None:
    source = open_source(write_folder(tmp_path / "run"), rate=10.0, start_s=0.1, duration_s=0.1)
    assert [f.name for f in source] == ["frame-10.png"]


def test_times_that_no_recording_has_are_no_fault(tmp_path: Path) -> None:
    source = open_source(write_folder(tmp_path / "run"), start_s=1e308)
    assert not list(source) and "nothing is read" in str(source.problems)
    longest = nanoseconds(1e308)
    assert longest == nanoseconds(1e12) == -nanoseconds(-1e308) and nanoseconds(1.5) == 1500000000
    assert MAX_STAMP_NS + longest < 1 << 63, "next to a stamp they fit in 64 bits"


def test_empty_path_is_not_the_folder_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_folder(tmp_path / "run"))
    assert len(list(open_source("."))) > 0
    with pytest.raises(SourceError, match="path is empty"):
        open_source("")
    with pytest.raises(SourceError, match="path is empty: give the path of a image_folder"):
        open_dataset("image_folder", "")


def test_compressed_files_pass_through_unchanged(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), IMAGES[0])
    (frame,) = open_source(tmp_path / "a.jpg")
    assert frame.message.format == "jpeg"
    assert frame.message.data == (tmp_path / "a.jpg").read_bytes()


def write_image(file: Path, image: np.ndarray) -> None:
    """Writes a file by its suffix, also of formats that OpenCV does not write or has another name for."""
    if file.suffix in (".heic", ".heif"):
        heif = pytest.importorskip("pillow_heif")
        size = image.shape[1::-1]
        heif.from_bytes("RGB", size, image[..., ::-1].tobytes()).save(str(file), quality=90)
        return
    if missing_decoder(file.suffix[1:]):
        pytest.skip(missing_decoder(file.suffix[1:]))
    encoder = ".jpg" if file.suffix in (".jfif", ".jpe") else file.suffix
    file.write_bytes(cv2.imencode(encoder, image)[1].tobytes())


@pytest.mark.parametrize(
    "suffix", [".bmp", ".tif", ".webp", ".ppm", ".JPG", ".jfif", ".jpe", ".avif", ".heic"]
)
def test_other_image_files_are_decoded(tmp_path: Path, suffix: str) -> None:
    smooth = cv2.resize(IMAGES[0][:3, :4], (80, 60))
    write_image(tmp_path / f"a{suffix}", smooth)
    (frame,) = open_source(tmp_path)
    assert np.abs(to_rgb(frame.message)[..., ::-1].astype(int) - smooth).mean() < 6


@pytest.mark.skipif(not missing_decoder("heic"), reason="there is a decoder of HEIC here")
def test_heic_without_a_decoder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    cv2.imwrite(str(tmp_path / "b.png"), IMAGES[0])
    source = open_source(tmp_path)
    assert [f.name for f in source] == ["b.png"]
    assert len(source.problems) == 1
    assert (
        "a.heic cannot be read: HEIC needs a decoder: pip install pillow-heif" in source.problems[0]
    )


def test_unreadable_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "frame-3.bmp").write_bytes(b"no bitmap")
    (tmp_path / "frame-4.jpg").symlink_to(tmp_path / "nothing")
    source = open_source(tmp_path)
    assert [f.name for f in source] == ["frame-2.png", "frame-10.png", "sub/frame-1.png"]
    bitmap, link = source.problems
    assert "frame-3.bmp" in bitmap and "frame-4.jpg" in link


def test_pattern_matches_files_in_natural_order(tmp_path: Path) -> None:
    write_folder(tmp_path / "run")
    names = [Path(f.name).name for f in open_source(f"{tmp_path}/run/*.png")]
    assert names == ["frame-2.png", "frame-10.png"]
    assert len(list(open_source(f"{tmp_path}/**/*.png"))) == 3


def test_name_with_brackets_that_exists_is_no_pattern(tmp_path: Path) -> None:
    write_folder(tmp_path / "run[1]")
    assert len(list(open_source(tmp_path / "run[1]"))) == 3


def test_folder_of_bags_asks_for_one(tmp_path: Path) -> None:
    write_ros1_bag(tmp_path / "one.bag")
    shutil.copy(tmp_path / "one.bag", tmp_path / "two.bag")
    with pytest.raises(SourceError, match="one.bag, two.bag"):
        open_source(tmp_path)


def test_bags_among_images_are_said(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_ros1_bag(tmp_path / "one.bag")
    source = open_source(tmp_path)
    assert source.count == 3
    assert any(
        "holds bags, too, which are not read with images: one.bag" in n for n in source.notes
    )
    with pytest.raises(SourceError, match=r"matches 1 bags.*one\.bag"):
        open_source(f"{tmp_path}/*")


def test_folder_without_images_names_the_endings(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\.jpg"):
        open_source(tmp_path)


def test_topics_of_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/front"):
        open_source(write_folder(tmp_path / "run"), topics=["/front"])


def test_unknown_kind_of_file_names_the_endings(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"\.mcap.*\.mp4"):
        open_source(tmp_path / "notes.txt")


def test_natural_order_sorts_numbers_and_words() -> None:
    names = ["b", "a10", "a9", "10", "9", "a9b", ""]
    assert sorted(names, key=natural_key) == ["", "9", "10", "a9", "a9b", "a10", "b"]


# Videos


def write_video(path: Path, frames: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (80, 60))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for i in range(frames):
        writer.write(np.full((60, 80, 3), (10 * i, 0, 250 - 10 * i), np.uint8))  # BGR
    writer.release()
    return path


def test_video_gives_stamped_frames_in_colour(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.avi"))
    frames = list(source)
    assert source.count == len(frames) == 12
    steps = np.diff([f.stamp_ns for f in frames])
    np.testing.assert_allclose(steps, 50_000_000, rtol=1e-3)
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(to_rgb(frame.message)[30, 40], (250 - 10 * i, 0, 10 * i), atol=6)


def test_video_is_cut_to_the_time_asked_for(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "v.avi"), start_s=0.2, duration_s=0.2)
    assert [f.name for f in source] == [f"v.avi#{i}" for i in (4, 5, 6, 7)]


def test_damaged_video_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match="cannot be read as a video"):
        list(open_source(tmp_path / "v.mp4"))


# Real recordings


def test_recorded_ros1_bags_are_read(data_dir: Path) -> None:
    seen = {}
    for path in sorted((data_dir / "ros1_bags").glob("*.bag")):
        for frame in open_source(path):
            seen[path.name] = frame.topic, frame.frame_id, to_rgb(frame.message).shape
    assert seen == {
        "aruco_images.bag": ("/raspicam_node/image/compressed", "raspicam", (960, 1280, 3)),
        "aruco_marker.bag": ("/raspicam_node/image/compressed", "raspicam", (720, 1280, 3)),
        "fiducial_board_611.bag": (
            "/raspicam_node/camera/image/compressed",
            "raspicam",
            (720, 1280, 3),
        ),
    }


@pytest.mark.slow
@settings(max_examples=60)
@given(
    suffix=st.sampled_from([".db3", ".mcap", ".bag"]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 10**6),
)
@example(suffix=".mcap", edits=[(104, 1)], cut=1012)  # a definition of several lines as a name
def test_any_damaged_bag_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    edits: list[tuple[int, int]],
    cut: int,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "small_bags"
    if not folder.exists():
        folder.mkdir()
        small = IMAGES[0][:4, :5]
        for storage, ending in (("sqlite3", ".db3"), ("mcap", ".mcap")):
            with RecordingWriter(folder / storage, storage) as bag:
                for i in range(3):
                    bag.image("/image", START + i, "", small)
            shutil.copy(folder / storage / f"{storage}{ending}", folder / f"whole{ending}")
        write_many_chunks(folder / "whole.bag", small, 3, "")
    data = bytearray((folder / f"whole{suffix}").read_bytes())
    for at, value in edits:
        data[at % len(data)] = value
    path = folder / f"damaged{suffix}"
    path.write_bytes(data[: cut % len(data) or None])
    try:
        for frame in open_source(path):
            with contextlib.suppress(ImageError):
                to_rgb(frame.message)
    except SourceError as error:
        assert "\n" not in str(error)


def test_images_of_truth_are_no_camera_unless_they_are_named(tmp_path: Path) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    with RecordingWriter(tmp_path / "bag") as bag:
        for topic in ("/camera/image_raw", "/truth/depth", "/robot/ground_truth/mask"):
            bag.image(topic, 10**9, "camera", image)
    with open_source(str(tmp_path / "bag")) as source:
        assert source.topics == ("/camera/image_raw",) and source.count == 1
        assert any("2 image topics left out as truth" in note for note in source.notes)
    with open_source(str(tmp_path / "bag"), ["/truth/depth"]) as source:
        assert source.topics == ("/truth/depth",) and not source.notes


def test_distances_are_no_camera_s_pictures_unless_they_are_named_or_alone(tmp_path: Path) -> None:
    image, far = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.uint16)
    with RecordingWriter(tmp_path / "both") as bag:
        bag.image("/depth/image", 10**9, "camera", far, "16UC1")
        bag.image("/camera/image_raw", 10**9, "camera", image)
        bag.image("/metres", 10**9, "camera", far.astype(np.float32), "32FC1")
    with open_source(str(tmp_path / "both")) as source:
        assert source.topics == ("/camera/image_raw",) and source.count == 1
        (note,) = source.notes
        assert "2 image topics left out as distances" in note and "/metres" in note
    with open_source(str(tmp_path / "both"), ["/depth/image"]) as source:
        assert source.topics == ("/depth/image",) and not source.notes
    with open_source(str(tmp_path / "both"), distances=True) as source:
        assert set(source.topics) == {"/camera/image_raw", "/depth/image", "/metres"}
    with RecordingWriter(tmp_path / "thermal") as bag:
        bag.image("/thermal", 10**9, "camera", far, "16UC1")
    with open_source(str(tmp_path / "thermal")) as source:
        assert source.topics == ("/thermal",) and not source.notes
    (sample,) = open_dataset("rosbag", str(tmp_path / "both"), pose_source="none").samples
    assert "/camera/image_raw" in sample.name
