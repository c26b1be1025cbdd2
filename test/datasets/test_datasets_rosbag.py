"""Bags as data sets: poses interpolated as SciPy does, tf, labels, random access, damage."""

import multiprocessing
import pickle
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation, Slerp
from tiny_datasets import POINT, camera

from robot_vision.datasets import open_dataset
from robot_vision.datasets.sample import true_values
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.geometry.earth import degrees_of_normals, normals_of
from robot_vision.geometry.trajectory import Trajectory, slerp
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.truth.bag_labels import read_spans
from robot_vision.truth.reading import TruthRequest, read_truth

START_NS = 1_700_000_000_123_456_789
TYPES = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, POSE = "/camera/image_raw", "/camera/true_pose"


def picture(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (12, 16, 3), np.uint8)


def quaternion(cam):
    """Of map from camera, xyzw."""
    return Rotation.from_matrix(np.column_stack((cam.right, cam.down, cam.forward))).as_quat()


def ns(seconds):
    return START_NS + round(seconds * 1e9)


def write_images(bag, times, topic=IMAGE, frame="camera_optical_frame"):
    for i, t in enumerate(times):
        bag.image(topic, ns(t), frame, picture(i))


def write_poses(bag, times, topic=POSE, frame="map"):
    for t in times:
        cam = camera(10 * t)
        bag.camera_pose(topic, ns(t), cam.centre, quaternion(cam), frame)


def transform(parent, child, t, position, xyzw):
    T = TYPES.types
    return T["geometry_msgs/msg/TransformStamped"](
        header=header(t, parent),
        child_frame_id=child,
        transform=T["geometry_msgs/msg/Transform"](
            T["geometry_msgs/msg/Vector3"](*map(float, position)),
            T["geometry_msgs/msg/Quaternion"](*map(float, xyzw)),
        ),
    )


def header(t, frame):
    T = TYPES.types
    stamp = T["builtin_interfaces/msg/Time"](ns(t) // 10**9, ns(t) % 10**9)
    return T["std_msgs/msg/Header"](stamp, frame)


def write_tf(bag, t, *links, topic="/tf"):
    bag.write(topic, ns(t), TYPES.types["tf2_msgs/msg/TFMessage"](list(links)))


def odometry(t, position, xyzw, parent="odom", child="base_link"):
    T = TYPES.types
    pose = T["geometry_msgs/msg/Pose"](
        T["geometry_msgs/msg/Point"](*map(float, position)),
        T["geometry_msgs/msg/Quaternion"](*map(float, xyzw)),
    )
    zero = T["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    return T["nav_msgs/msg/Odometry"](
        header(t, parent),
        child,
        T["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
        T["geometry_msgs/msg/TwistWithCovariance"](
            T["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36)
        ),
    )


def expected_poses(pose_times, times):
    """By SciPy: Slerp and linear interpolation."""
    cams = [camera(10 * t) for t in pose_times]
    turn = Slerp(pose_times, Rotation.from_quat([quaternion(c) for c in cams]))(times)
    T = np.tile(np.eye(4), (len(times), 1, 1))
    T[:, :3, :3] = turn.as_matrix()
    for k in range(3):
        T[:, k, 3] = np.interp(times, pose_times, [c.centre[k] for c in cams])
    return T


def poses_of(samples):
    return np.array([s.T_map_camera for s in samples])


# Interpolation


quaternions = (
    st.tuples(*[st.floats(-1, 1)] * 4).map(np.array).filter(lambda q: np.linalg.norm(q) > 0.1)
)


@given(quaternions, quaternions, st.floats(0, 1))
def test_slerp_agrees_with_scipy(a, b, t):
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    if abs(a @ b) < 1e-3:
        return  # opposite rotations: both ways are as short
    expected = Slerp([0, 1], Rotation.from_quat([a, b]))(t)
    error = (Rotation.from_quat(slerp(a, b, t)).inv() * expected).magnitude()
    assert error < 1e-7


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_rosbag_interpolates_a_pose_topic_as_scipy_does(storage, tmp_path):
    times = np.arange(40) * 0.033 + 0.01
    pose_times = np.arange(21) * 0.07
    with RecordingWriter(tmp_path / "walk", storage) as bag:
        write_poses(bag, pose_times)
        write_images(bag, times)
    splits = open_dataset("rosbag", tmp_path / "walk", split="train")
    assert len(splits.train) == 40 and splits.map_frame == "map"
    assert [s.stamp_ns for s in splits.train] == [ns(t) for t in times]
    # Stamps are whole nanoseconds, of which a double holds 200 at a time since 1970.
    np.testing.assert_allclose(poses_of(splits.train), expected_poses(pose_times, times), atol=1e-7)
    for i in (39, 3, 17):  # any order
        np.testing.assert_array_equal(splits.train[i].source.load(), picture(i))


def test_rosbag_pose_at_an_image_stamp_is_that_pose(tmp_path):
    times = np.arange(5) * 2.0  # further apart than the limit
    with RecordingWriter(tmp_path / "walk") as bag:
        write_poses(bag, times)
        write_images(bag, times)
    train = open_dataset("rosbag", tmp_path / "walk", split="train").train
    for t, sample in zip(times, train, strict=True):
        cam = camera(10 * t)
        np.testing.assert_allclose(
            cam.sees(sample.T_map_camera, POINT), cam.coordinates(POINT), atol=1e-9
        )


def test_rosbag_refuses_gaps_and_extrapolation_and_counts_them(tmp_path):
    pose_times = np.array([0.2, 0.3, 0.4, 1.4, 1.5])
    times = np.arange(20) * 0.1 + 0.05
    with RecordingWriter(tmp_path / "walk") as bag:
        write_poses(bag, pose_times)
        write_images(bag, times)
    splits = open_dataset("rosbag", tmp_path / "walk", split="train")
    kept = [(s.stamp_ns - START_NS) / 1e9 for s in splits.train]
    np.testing.assert_allclose(kept, [0.25, 0.35, 1.45])
    assert any(
        n.startswith("17 frames skipped, which have no poses within 0.5 s") for n in splits.notes
    )
    wide = open_dataset("rosbag", tmp_path / "walk", split="train", max_gap_s=1)
    assert len(wide.train) == 13


def test_trajectory_of_nothing_holds_nowhere():
    empty = Trajectory(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 4)))
    poses, holds = empty.at(np.array([1, 2], np.int64), 10**9)
    assert poses.shape == (2, 4, 4) and not holds.any()


# tf and odometry


def test_rosbag_follows_tf_from_map_to_camera(tmp_path):
    """Map -> odom -> base_link move, base_link -> mast -> camera do not."""
    rng = np.random.default_rng(0)
    mount = Rotation.from_euler("xyz", [-1.9, 0.1, -1.6])
    tilt = Rotation.from_euler("y", 0.2)
    times = np.arange(30) / 30 + 0.2
    with RecordingWriter(tmp_path / "robot") as bag:
        write_tf(
            bag,
            0,
            transform("base_link", "mast", 0, [0.1, 0, 0.8], tilt.as_quat()),
            transform("mast", "camera_optical_frame", 0, [0, 0.05, 0.1], mount.as_quat()),
            topic="/tf_static",
        )
        odom_times, map_times = np.arange(70) / 50, np.arange(15) / 10
        odom = [(rng.normal(size=3), Rotation.from_rotvec([0.1 * t, 0.2, t])) for t in odom_times]
        drift = [(np.array([t, 1, 0]), Rotation.from_rotvec([0, 0, 0.1 * t])) for t in map_times]
        for t, (p, r) in zip(odom_times, odom, strict=True):
            write_tf(bag, t, transform("odom", "base_link", t, p, r.as_quat()))
        for t, (p, r) in zip(map_times, drift, strict=True):
            write_tf(bag, t, transform("map", "odom", t, p, r.as_quat()))
        write_images(bag, times)
        bag.write(
            "/odom", ns(0), odometry(0, [9, 9, 9], [0, 0, 0, 1])
        )  # tf from the map is preferred
    splits = open_dataset("rosbag", tmp_path / "robot", split="train")
    assert len(splits.train) == 30 and splits.map_frame == "map"
    assert any("tf, from map to camera_optical_frame" in note for note in splits.notes)

    def between(stamps, links, t):
        p = [np.interp(t, stamps, [link[0][k] for link in links]) for k in range(3)]
        return np.array(p), Slerp(stamps, Rotation.concatenate([link[1] for link in links]))(t)

    for t, sample in zip(times, splits.train, strict=True):
        p, r = np.zeros(3), Rotation.identity()
        for p_next, r_next in (
            between(map_times, drift, t),
            between(odom_times, odom, t),
            (np.array([0.1, 0, 0.8]), tilt),
            (np.array([0, 0.05, 0.1]), mount),
        ):
            p, r = p + r.apply(p_next), r * r_next
        np.testing.assert_allclose(sample.T_map_camera[:3, 3], p, atol=1e-6)
        np.testing.assert_allclose(sample.T_map_camera[:3, :3], r.as_matrix(), atol=1e-6)
    local = open_dataset("rosbag", tmp_path / "robot", split="train", map_frame="odom")
    assert local.map_frame == "odom" and len(local.train) == 30
    with pytest.raises(ConfigError, match="tf does not connect 'world' to .*base_link"):
        open_dataset("rosbag", tmp_path / "robot", map_frame="world", pose_source="tf")


@pytest.mark.slow
def test_rosbag_moves_odometry_to_the_camera(tmp_path):
    mount = Rotation.from_euler(
        "xyz", [-np.pi / 2, 0, -np.pi / 2]
    )  # optical frame of a camera ahead
    times = np.arange(5) / 10

    def write(bag):
        write_images(bag, times)
        for t in times:
            yaw = Rotation.from_euler("z", t)
            bag.write("/odom", ns(t), odometry(t, [t, 2, 0], yaw.as_quat()))

    with RecordingWriter(tmp_path / "bare") as bag:
        write(bag)
    with RecordingWriter(tmp_path / "static") as bag:
        write(bag)
        link = transform("base_link", "camera_optical_frame", 0, [0.3, 0, 0.5], mount.as_quat())
        write_tf(bag, 0, link, topic="/tf_static")
    with pytest.raises(ConfigError, match="'base_link'.*set base_to_camera"):
        open_dataset("rosbag", tmp_path / "bare")
    numbers = ",".join(map(str, (0.3, 0, 0.5, *mount.as_quat())))
    given_ = open_dataset("rosbag", tmp_path / "bare", split="train", base_to_camera=numbers)
    static = open_dataset("rosbag", tmp_path / "static", split="train")
    np.testing.assert_allclose(poses_of(given_.train), poses_of(static.train), atol=1e-12)
    assert static.map_frame == "odom"
    for t, sample in zip(times, static.train, strict=True):
        c, s = np.cos(t), np.sin(t)
        np.testing.assert_allclose(
            sample.T_map_camera[:3, 3], [t + 0.3 * c, 2 + 0.3 * s, 0.5], atol=1e-9
        )
        np.testing.assert_allclose(sample.T_map_camera[:3, 2], [c, s, 0], atol=1e-9)
        np.testing.assert_allclose(sample.T_map_camera[:3, 1], [0, 0, -1], atol=1e-9)
    plain = open_dataset("rosbag", tmp_path / "bare", split="train", base_to_camera="identity")
    np.testing.assert_allclose(plain.train[2].T_map_camera[:3, 3], [0.2, 2, 0], atol=1e-9)
    with pytest.raises(ConfigError, match="use x,y,z,qx,qy,qz,qw"):
        open_dataset("rosbag", tmp_path / "bare", base_to_camera="1,2,3")


def test_rosbag_refuses_a_frame_with_two_parents(tmp_path):
    with RecordingWriter(tmp_path / "robot") as bag:
        write_images(bag, [0.0])
        one = [0, 0, 0, 1]
        write_tf(
            bag,
            0,
            transform("map", "base", 0, one[:3], one),
            transform("odom", "base", 0, one[:3], one),
        )
    with pytest.raises(SourceError, match="'base' has two parents, 'map' and 'odom'"):
        open_dataset("rosbag", tmp_path / "robot")


# What poses and stamps may not be


@pytest.mark.parametrize(
    ("xyzw", "position", "t", "message"),
    [
        ([0, 0, 0, 0.5], [0, 0, 0], 0.3, "has length 0.5: it must be 1"),
        ([0, 0, 0, 1], [np.nan, 0, 0], 0.3, "all must be finite"),
        ([0, 0, 0, 1], [0, 0, 0], 0.1, "goes back by 0.1"),
    ],
)
def test_rosbag_names_the_message_when_a_pose_is_bad(xyzw, position, t, message, tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0.1, 0.2])
        write_poses(bag, [0.0, 0.1, 0.2])
        types = TYPES.types
        pose = types["geometry_msgs/msg/Pose"](
            types["geometry_msgs/msg/Point"](*map(float, position)),
            types["geometry_msgs/msg/Quaternion"](*map(float, xyzw)),
        )
        bag.write(POSE, ns(0.3), types["geometry_msgs/msg/PoseStamped"](header(t, "map"), pose))
    with pytest.raises(SourceError, match=f"walk:{POSE}#3: .*{message}"):
        open_dataset("rosbag", tmp_path / "walk")
    splits = open_dataset("rosbag", tmp_path / "walk", bad_poses="skip", split="train")
    assert len(splits.train) == 2
    assert any(message in note for note in splits.notes)


def test_rosbag_names_the_image_when_its_stamp_goes_back(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0.1, 0.2])
        types = TYPES.types
        late = types["sensor_msgs/msg/Image"](
            header(0.05, ""), 1, 1, "mono8", 0, 1, np.zeros(1, np.uint8)
        )
        bag.write(IMAGE, ns(0.3), late)
    with pytest.raises(SourceError, match=f"{IMAGE}#2: stamp .*stamps must increase"):
        open_dataset("rosbag", tmp_path / "walk")
    splits = open_dataset("rosbag", tmp_path / "walk", bad_poses="skip")
    assert len(splits.samples) == 2


def test_rosbag_asks_which_topic_when_there_are_several(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        for name in ("left", "right"):
            write_images(bag, [0.1, 0.2], f"/{name}/image_raw")
            write_poses(bag, [0.1, 0.2], f"/{name}/pose")
    with pytest.raises(
        ConfigError, match="2 image topics: set image_topic to one of /left/image_raw"
    ):
        open_dataset("rosbag", tmp_path / "walk")
    with pytest.raises(ConfigError, match="did you mean '/left/image_raw'"):
        open_dataset("rosbag", tmp_path / "walk", image_topic="left/image")
    with pytest.raises(
        ConfigError, match=r"2 pose topics \(/left/pose, /right/pose\): set pose_topic"
    ):
        open_dataset("rosbag", tmp_path / "walk", image_topic="left/image_raw")
    options = {"image_topic": "left/image_raw", "pose_topic": "left/pose"}
    assert len(open_dataset("rosbag", tmp_path / "walk", **options).samples) == 2
    with pytest.raises(ConfigError, match="Unknown pose topic '/pose'"):
        open_dataset("rosbag", tmp_path / "walk", image_topic="left/image_raw", pose_topic="pose")


def test_rosbag_refuses_what_is_no_bag_or_is_damaged(tmp_path):
    (tmp_path / "bad.mcap").write_bytes(b"\x89MCAP0\r\n nothing more")
    with pytest.raises(SourceError, match=r"bad.mcap cannot be read as a bag.*repair"):
        open_dataset("rosbag", tmp_path / "bad.mcap")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="is not a bag"):
        open_dataset("rosbag", tmp_path / "folder")
    with RecordingWriter(tmp_path / "poses") as bag:
        write_poses(bag, [0.1])
    with pytest.raises(SourceError, match=rf"no image topic: it has {POSE} \(geometry_msgs"):
        open_dataset("rosbag", tmp_path / "poses")


# Labels


def test_rosbag_labels_from_a_string_topic_hold_until_the_next(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, np.arange(10) / 10)
        bag.label("/room", ns(0.15), "kitchen")
        bag.label("/room", ns(0.45), "hall")
        bag.label("/room", ns(0.75), "")
    path = tmp_path / "walk"
    splits = open_dataset("rosbag", path, label_topic="room", split="train")
    assert [s.label for s in splits.train] == ["kitchen"] * 3 + ["hall"] * 3
    assert splits.labels == ("hall", "kitchen")
    assert any(n.startswith("4 frames skipped, which have no label") for n in splits.notes)
    short = open_dataset("rosbag", path, label_topic="room", label_hold_s=0.1, split="train")
    assert [s.label for s in short.train] == ["kitchen", "hall"]
    unlabelled = open_dataset("rosbag", path, split="train")
    assert len(unlabelled.train) == 10
    assert any("set label_topic to /room" in note for note in unlabelled.notes)
    with pytest.raises(ConfigError, match="Unknown label topic '/rom'.*'/room'"):
        open_dataset("rosbag", path, label_topic="rom")


def test_rosbag_words_for_a_missing_value_label_nothing(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, np.arange(10) / 10)
        bag.label("/room", ns(0.15), "None")
        bag.label("/room", ns(0.45), "hall ")
        bag.label("/room", ns(0.75), "nan")
    splits = open_dataset("rosbag", tmp_path / "walk", label_topic="room", split="train")
    assert splits.labels == ("hall",) and len(splits.train) == 3
    assert any(
        "1 of 3 messages on /room label nothing, as the class 'None'" in n for n in splits.notes
    )
    truth = read_truth(tmp_path / "walk", TruthRequest(label_topic="room"))
    assert truth.labels.names == ("", "hall", "")
    assert any(
        "1 of 3 messages on /room label nothing, as the class 'nan'" in n for n in truth.notes
    )


def test_labels_of_spans_are_as_written(tmp_path):
    file = tmp_path / "rooms.yaml"
    words = ["yes", "010", "1_0", "12:30", "2024-01-01", "1.50", "'off'"]
    spans = [f"- {{label: {w}, from_s: {i}, to_s: {i + 1}}}" for i, w in enumerate(words)]
    file.write_text("\n".join(spans))
    assert [label for *_, label in read_spans(file)] == [w.strip("'") for w in words]


def test_rosbag_labels_from_a_classification_whose_definition_is_in_the_bag(tmp_path):
    """The writer's definitions, not this package's: a type that the reader does not know."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in {
        "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
        "vision_msgs/msg/Classification": "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results",
    }.items():
        store.register(get_types_from_msg(text, name))
    make = store.types["vision_msgs/msg/ObjectHypothesis"]
    Classification = store.types["vision_msgs/msg/Classification"]
    results = [("hall", 0.2), ("lab", 0.7)]
    with Writer2(tmp_path / "walk", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        images = bag.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=store)
        labels = bag.add_connection("/room", Classification.__msgtype__, typestore=store)
        # Logged late, stamped right: the stamp counts.
        message = Classification(header(0.1, ""), [make(*r) for r in results])
        data = np.zeros(1, np.uint8)
        for i in range(4):
            image = store.types["sensor_msgs/msg/Image"](
                header(i / 10, "c"), 1, 1, "mono8", 0, 1, data
            )
            bag.write(images, ns(i / 10), store.serialize_cdr(image, image.__msgtype__))
        bag.write(labels, ns(0.9), store.serialize_cdr(message, message.__msgtype__))
    splits = open_dataset("rosbag", tmp_path / "walk", label_topic="/room", split="train")
    assert [s.label for s in splits.train] == ["lab"] * 3


def test_rosbag_labels_from_spans(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, np.arange(10) / 10)
    spans = tmp_path / "rooms.yaml"
    spans.write_text(
        "- {label: hall, from_s: 0.45, to_s: 0.7}\n- label: lab\n  from_s: 0\n  to_s: 0.2\n"
    )
    splits = open_dataset("rosbag", tmp_path / "walk", label_spans=str(spans), split="train")
    assert [s.label for s in splits.train] == ["lab", "lab", "hall", "hall"]
    assert [s.name.split("#")[1] for s in splits.train] == ["0", "1", "5", "6"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- {label: a, from_s: 0, to_s: 2}\n- {label: b, from_s: 1, to_s: 3}\n",
            ":2: 'b' from 1 s overlaps",
        ),
        ("- {label: a, from_s: 2, to_s: 1}\n", ":1: from_s 2 must be at least 0 and less"),
        (
            "- {label: a, from_s: 0, to_s: 1}\n- {label: a, from: 1, to_s: 2}\n",
            ":2: Unknown key 'from'",
        ),
        ("- {label: a, from_s: x, to_s: 1}\n", ":1: from_s and to_s must be seconds"),
        ("- {label: '', from_s: 0, to_s: 1}\n", ":1: the label is empty"),
        ("- {label: null, from_s: 0, to_s: 1}\n", ":1: the label is empty"),
        ("- {label: NaN, from_s: 0, to_s: 1}\n", ":1: the span has no label, as the class 'NaN'"),
        ("- {label: a, from_s: 0}\n", ":1: needs label, from_s and to_s"),
        ("- a\n", ":1: needs label"),
        ("a: 1\n", ":1: needs a list"),
        ("", ":1: needs a list"),
        ("- {label: a\n", "not YAML"),
    ],
)
def test_read_spans_names_file_and_line_when_a_span_is_bad(text, message, tmp_path):
    file = tmp_path / "rooms.yaml"
    file.write_text(text)
    with pytest.raises(SourceError, match=f"rooms.yaml.*{message}"):
        read_spans(file)


# Many bags, many processes, other storages


def test_rosbag_opens_a_folder_of_bags_as_recordings(tmp_path):
    for k, name in enumerate(("run_2", "run_10")):
        with RecordingWriter(tmp_path / name, ("sqlite3", "mcap")[k]) as bag:
            write_images(bag, np.arange(6) / 10)
            write_poses(bag, np.arange(7) / 10)
            K = np.array([[500.0 + k, 0, 8], [0, 500, 6], [0, 0, 1]])
            bag.camera_info("/camera/camera_info", ns(0), "camera_optical_frame", (12, 16), K)
    splits = open_dataset("rosbag", tmp_path, test_sequences="run_10", validation=0)
    assert {s.sequence for s in splits.train} == {"run_2"}
    assert {s.sequence for s in splits.test} == {"run_10"}
    assert splits.camera_matrix is None
    assert splits.train[0].camera_matrix[0, 0] == 500 and splits.test[0].camera_matrix[0, 0] == 501
    one = open_dataset("rosbag", tmp_path / "run_2", every=2)
    assert one.camera_matrix[0, 0] == 500 and len(one.samples) == 3


def test_bag_image_tells_messages_of_one_nanosecond_apart(tmp_path):
    with RecordingWriter(tmp_path / "burst") as bag:
        for i in range(3):
            types = TYPES.types
            image = types["sensor_msgs/msg/Image"](
                header(i / 100, "c"), 12, 16, "rgb8", 0, 48, picture(i).reshape(-1)
            )
            bag.write(IMAGE, ns(1), image)
    samples = open_dataset("rosbag", tmp_path / "burst").samples
    for i in (2, 0, 1):
        sample = next(s for s in samples if s.name.endswith(f"#{i}"))
        np.testing.assert_array_equal(sample.source.load(), picture(i))


def checksum(sample):
    return int(sample.source.load().sum())


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_bag_samples_load_in_threads_and_forked_and_spawned_processes(storage, tmp_path):
    with RecordingWriter(tmp_path / "walk", storage) as bag:
        write_images(bag, np.arange(12) / 10)
    samples = sorted(open_dataset("rosbag", tmp_path / "walk").samples, key=lambda s: s.stamp_ns)
    expected = [int(picture(i).sum()) for i in range(12)]
    assert [checksum(s) for s in samples] == expected  # now open in this process
    assert [checksum(pickle.loads(pickle.dumps(s))) for s in samples] == expected
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(checksum, samples, chunksize=1) == expected
    found = SimpleNamespace(sums=None)
    thread = threading.Thread(target=lambda: setattr(found, "sums", [checksum(s) for s in samples]))
    thread.start()
    thread.join()
    assert found.sums == expected


def test_bag_image_says_so_when_the_bag_is_gone(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0.1])
    sample = open_dataset("rosbag", tmp_path / "walk").samples[0]
    (tmp_path / "walk").rename(tmp_path / "moved")
    with pytest.raises(ImageError, match=f"walk:{IMAGE}#0"):
        sample.source.load()


def test_rosbag_reads_ros1_headers_and_poses(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    times, pose_times = np.arange(8) / 10 + 0.02, np.arange(10) / 10
    T = store.types

    def stamped(t, frame):
        return T["std_msgs/msg/Header"](
            seq=7,
            stamp=T["builtin_interfaces/msg/Time"](ns(t) // 10**9, ns(t) % 10**9),
            frame_id=frame,
        )

    with Writer1(tmp_path / "old.bag") as bag:
        images = bag.add_connection("camera/image", "sensor_msgs/msg/Image", typestore=store)
        poses = bag.add_connection("/pose", "geometry_msgs/msg/PoseStamped", typestore=store)
        for t in pose_times:
            cam = camera(10 * t)
            pose = T["geometry_msgs/msg/Pose"](
                T["geometry_msgs/msg/Point"](*cam.centre),
                T["geometry_msgs/msg/Quaternion"](*quaternion(cam)),
            )
            message = T["geometry_msgs/msg/PoseStamped"](stamped(t, "/map"), pose)
            bag.write(poses, ns(t), store.serialize_ros1(message, message.__msgtype__))
        for i, t in enumerate(times):
            image = T["sensor_msgs/msg/Image"](
                stamped(t, "cam"), 12, 16, "rgb8", 0, 48, picture(i).reshape(-1)
            )
            bag.write(images, ns(t) + 5_000_000, store.serialize_ros1(image, image.__msgtype__))
    splits = open_dataset("rosbag", tmp_path / "old.bag", split="train")
    assert [s.stamp_ns for s in splits.train] == [ns(t) for t in times]
    assert splits.map_frame == "map"
    np.testing.assert_allclose(poses_of(splits.train), expected_poses(pose_times, times), atol=1e-7)
    np.testing.assert_array_equal(splits.train[5].source.load(), picture(5))


def test_camera_info_of_images_of_another_size_is_not_used_and_said(tmp_path):
    """Images that a driver binned, with the camera_info of the whole sensor."""
    K = np.array([[500.0, 0, 16], [0, 500, 12], [0, 0, 1]])
    for size in ((12, 16), (24, 32)):
        path = tmp_path / f"{size[0]}"
        with RecordingWriter(path) as bag:
            write_images(bag, np.arange(6) / 10)
            write_poses(bag, np.arange(7) / 10)
            bag.camera_info("/camera/camera_info", ns(0), "camera_optical_frame", size, K)
        splits = open_dataset("rosbag", path)
        assert (splits.camera_matrix is not None) == (size == (12, 16))
        said = [n for n in splits.notes if "is not used" in n]
        if size == (24, 32):
            assert "16 x 12 and their camera_info is of 32 x 24" in said[0]
        else:
            assert not said


def test_a_damaged_first_image_loses_no_camera(tmp_path):
    K = np.array([[500.0, 0, 8], [0, 500, 6], [0, 0, 1]])
    Image = TYPES.types["sensor_msgs/msg/Image"]
    for whole in (3, 0):
        with RecordingWriter(tmp_path / f"{whole}") as bag:
            for i in range(6):
                data = picture(i).reshape(-1)[: None if i >= 6 - whole else 7]
                head = header(i / 10, "camera_optical_frame")
                bag.write(IMAGE, ns(i / 10), Image(head, 12, 16, "rgb8", 0, 48, data))
            bag.camera_info("/camera/camera_info", ns(0), "camera_optical_frame", (12, 16), K)
        splits = open_dataset("rosbag", tmp_path / f"{whole}")
        assert (splits.camera_matrix is not None) == (whole > 0)
        assert any("is not used" in n and "7 bytes" in n for n in splits.notes) == (whole == 0)


# Real data


@pytest.mark.parametrize("name", ["aruco_images", "aruco_marker", "fiducial_board_611"])
def test_real_ros1_bags_open_as_others_read_them(name, data_dir):
    path = data_dir / "ros1_bags" / f"{name}.bag"
    splits = open_dataset("rosbag", path, split="test")
    with AnyReader([path]) as reader:
        connections = [c for c in reader.connections if c.msgtype.endswith("CompressedImage")]
        messages = [reader.deserialize(d, c.msgtype) for c, _, d in reader.messages(connections)]
        info = next(c for c in reader.connections if c.msgtype.endswith("CameraInfo"))
        K = next(reader.deserialize(d, info.msgtype).K for _, _, d in reader.messages([info]))
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]
    assert [s.stamp_ns for s in splits.test] == stamps
    np.testing.assert_array_equal(splits.camera_matrix.reshape(-1), K)
    expected = cv2.imdecode(np.asarray(messages[0].data), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(splits.test[0].source.load(), expected)
    with open_source(str(path)) as source:
        np.testing.assert_array_equal(
            splits.test[0].source.load(), to_rgb(next(iter(source)).message)
        )


@pytest.mark.slow
def test_kitchen_in_a_bag_is_the_kitchen(data_dir, tmp_path):
    """The same JPEG bytes and poses, whether they lie in a folder or in a bag."""
    folder = open_dataset("seven_scenes", data_dir / "kitchen", split="train").train[:40]
    with RecordingWriter(tmp_path / "kitchen") as bag:
        for i, sample in enumerate(folder):
            T = sample.T_map_camera
            q = Rotation.from_matrix(T[:3, :3]).as_quat()
            bag.camera_pose(POSE, ns(i / 30), T[:3, 3], q)
            bag.compressed_image(
                "/camera/image_raw/compressed",
                ns(i / 30),
                "camera",
                sample.source.encoded(),
                "jpeg",
            )
    bagged = open_dataset("rosbag", tmp_path / "kitchen", split="train")
    np.testing.assert_allclose(poses_of(bagged.train), poses_of(folder), atol=1e-9)
    np.testing.assert_array_equal(bagged.train[30].source.load(), folder[30].source.load())
    (tmp_path / "few").mkdir()
    for i in range(40):
        for kind in ("color.jpg", "pose.txt"):
            (tmp_path / "few" / f"frame-{i:06}.{kind}").symlink_to(
                data_dir / "kitchen" / f"frame-{i:06}.{kind}"
            )
    few = open_dataset("seven_scenes", tmp_path / "few", split="train")
    assert few.fingerprint("train") == bagged.fingerprint("train")


def test_bag_that_does_not_exist_is_not_called_damaged(tmp_path):
    with pytest.raises(SourceError, match="nowhere does not exist: give a rosbag"):
        BagFile(tmp_path / "nowhere")


# Numbers


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A bag with a Twist, whose time is the log's, a Joy with a header, and labels."""
    T, path = TYPES.types, tmp_path_factory.mktemp("drive") / "drive"
    vector, String = T["geometry_msgs/msg/Vector3"], T["std_msgs/msg/String"]
    with RecordingWriter(path) as bag:
        write_images(bag, [0.0, 0.1, 0.2, 0.3, 0.4])
        for t, z in ((0.05, 0.5), (0.25, float("nan")), (0.31, -1.0)):
            twist = T["geometry_msgs/msg/Twist"](vector(0.0, 0.0, 0.0), vector(0.0, 0.0, z))
            bag.write("/cmd_vel", ns(t), twist)
        for t, x in ((0.0, 1.0), (0.2, 0.25)):
            axes, buttons = np.array([0.0, x], np.float32), np.array([1], np.int32)
            bag.write("/joy", ns(t), T["sensor_msgs/msg/Joy"](header(t, ""), axes, buttons))
        for t, word in ((0.1, "collision"), (0.2, "free"), (0.4, "")):
            bag.write("/label", ns(t), String(word))
    return path


def test_numbers_of_topics_and_labels_hold_at_the_images(drive):
    numbers = "steering=/cmd_vel*0.5, stick=joy:axes.1, collision=label:collision"
    splits = open_dataset("rosbag", drive, numbers=numbers, label_topic="/label")
    found = [
        [s.of(f"number:{name}") for s in splits.samples]
        for name in ("steering", "stick", "collision")
    ]
    assert found == [
        [None, 0.25, 0.25, 0.25, -0.5],
        [1.0, 1.0, 0.25, 0.25, 0.25],
        [None, 1.0, 0.0, 0.0, None],
    ]
    assert any("1 message on /cmd_vel left out: angular.z is not finite" in n for n in splits.notes)
    held = open_dataset("rosbag", drive, numbers="steering=/cmd_vel", number_hold_s=0.1)
    assert [s.stamp_ns for s in held.samples] == [ns(0.1), ns(0.4)]
    assert any("3 frames skipped, which have no number" in note for note in held.notes)


def test_true_numbers_are_those_of_the_data_set(drive):
    request = TruthRequest(
        numbers="steering=/cmd_vel*0.5,collision=label:collision", label_topic="/label"
    )
    truth = read_truth(drive, request)
    times = np.array([ns(t) for t in (0.0, 0.1, 0.2, 0.3, 0.4)])
    assert truth.numbers["steering"].by_log and truth.numbers["collision"].by_log
    np.testing.assert_equal(truth.numbers["steering"].at(times), [np.nan, 0.25, 0.25, 0.25, -0.5])
    np.testing.assert_equal(truth.numbers["collision"].at(times), [np.nan, 1, 0, 0, np.nan])
    with pytest.raises(ConfigError, match="is of a label, and .* has none: give labels"):
        read_truth(drive, TruthRequest(numbers="collision=label:collision", label_source="none"))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ("steering", "'steering' is no source of a number"),
        ("steering=/cmd_vel*x", "is no source"),
        ("a=/joy:axes.0,a=/cmd_vel", "two sources of one number"),
        ("a=/cmd_val", "Unknown topic of a '/cmd_val'.*'/cmd_vel'"),
        ("a=/joy", "sensor_msgs/msg/Joy: say which field a is"),
        ("a=/cmd_vel:angular.w", "no field angular.w .*there are x, y, z"),
        ("a=/joy:axes.7", "no field axes.7"),
        ("a=/joy:axes", "which is no number"),
        ("a=label:collision", "set label_topic or label_spans"),
    ],
)
def test_a_source_of_numbers_that_is_none_is_named(drive, numbers, message):
    with pytest.raises(ConfigError, match=message):
        open_dataset("rosbag", drive, numbers=numbers)


# True pixels


def raw_image(t, pixels, encoding):
    data = pixels.tobytes()
    step = pixels.shape[1] * pixels.dtype.itemsize
    return TYPES.types["sensor_msgs/msg/Image"](
        header(t, "camera_optical_frame"),
        *pixels.shape,
        encoding,
        0,
        step,
        np.frombuffer(data, np.uint8),
    )


def depth_image(t, millimetres):
    """As compressed_depth_image_transport sends it."""
    data = bytes(12) + cv2.imencode(".png", millimetres)[1].tobytes()
    return TYPES.types["sensor_msgs/msg/CompressedImage"](
        header(t, "camera_optical_frame"),
        "16UC1; compressedDepth png",
        np.frombuffer(data, np.uint8),
    )


DEPTH, MASK = "/camera/depth/image", "/mask"


@pytest.mark.parametrize("form", ["16UC1", "32FC1", "compressedDepth"])
def test_rosbag_gives_true_pixels_of_the_nearest_stamp(form, tmp_path):
    metres = np.full((12, 16), 1.5, np.float32)
    metres[0, 0] = 0
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0, 0.1, 0.2, 0.3])
        for t in (0.008, 0.11, 0.24):  # the third image has none near
            depth = metres * (1 + t)
            if form == "32FC1":
                bag.write(DEPTH, ns(t), raw_image(t, np.where(depth > 0, depth, np.nan), form))
            else:
                stored = (depth * 1000).round().astype(np.uint16)
                message = raw_image(t, stored, form) if form == "16UC1" else depth_image(t, stored)
                bag.write(DEPTH, ns(t), message)
        for t in (0.1, 0.2):
            ids = np.zeros((12, 16), np.uint8)
            ids[:, 8:] = 1 if t == 0.1 else 255
            bag.write(MASK, ns(t), raw_image(t, ids, "mono8"))
    splits = open_dataset(
        "rosbag", tmp_path / "walk", split="train", classes="floor,wall",
        truth_images=f"depth={DEPTH},segmentation={MASK}",
    )  # fmt: skip
    assert [s.stamp_ns - START_NS for s in splits.train] == [0, 10**8, 2 * 10**8]
    depths, masks = ([s.of(f"image:{n}") for s in splits.train] for n in ("depth", "segmentation"))
    assert depths[2] is None and masks[0] is None
    for truth, t in zip(depths[:2], (0.008, 0.11), strict=True):
        values = true_values(pickle.loads(pickle.dumps(truth)), "float32", -1)
        assert values[0, 0] == -1
        np.testing.assert_allclose(values[1:], 1.5 * (1 + t), atol=6e-4)
    np.testing.assert_array_equal(masks[1].load()[0], [0] * 8 + [1] * 8)
    np.testing.assert_array_equal(masks[2].load()[0], [0] * 8 + [255] * 8)
    assert splits.pixel_classes["image:segmentation"].names == ("floor", "wall")
    notes = "\n".join(splits.notes)
    assert f"2 of 4 images have depth of {DEPTH} within 0.02 s" in notes
    assert "1 frame skipped, which has no image of truth" in notes


def test_rosbag_multiplies_true_pixels_by_the_factor_of_their_topic(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0])
        bag.write(DEPTH, ns(0), raw_image(0, np.full((12, 16), 5000, np.uint16), "16UC1"))
    splits = open_dataset(
        "rosbag", tmp_path / "walk", split="train", truth_images=f"depth={DEPTH}*0.0002"
    )
    (sample,) = splits.train
    np.testing.assert_allclose(true_values(sample.of("image:depth"), "float32", -1), 1)


def test_rosbag_takes_mono16_for_millimetres_only_where_that_is_said(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0])
        stored = np.full((12, 16), 1, np.uint16)
        stored[0] = 0
        bag.write(DEPTH, ns(0), raw_image(0, stored, "mono16"))
    walk = tmp_path / "walk"
    with pytest.raises(ConfigError, match=rf"no distances by REP 118 .*depth={DEPTH}\*0.001"):
        open_dataset("rosbag", walk, truth_images=f"depth={DEPTH}")
    splits = open_dataset("rosbag", walk, split="train", truth_images=f"depth={DEPTH}*0.001")
    found = true_values(splits.train[0].of("image:depth"), "float32", -1)
    np.testing.assert_allclose(found, stored * 0.001)  # 0 is a number as others
    splits = open_dataset(
        "rosbag", walk, split="train", truth_images=f"ground={DEPTH}", classes="floor,wall"
    )
    np.testing.assert_array_equal(splits.train[0].of("image:ground").load(), stored)


def test_rosbag_refuses_topics_that_hold_no_truth(tmp_path):
    with RecordingWriter(tmp_path / "walk") as bag:
        write_images(bag, [0])
        bag.write(MASK, ns(0), raw_image(0, np.zeros((12, 16), np.uint8), "mono8"))
    for options, error, words in (
        ({"truth_images": f"segmentation={MASK}"}, ConfigError, "set classes to their names"),
        ({"truth_images": f"a={IMAGE}", "image_topic": IMAGE}, SourceError, "rgb8"),
        ({"truth_images": "depth=/dept"}, ConfigError, "topic of true images of depth '/dept'"),
        ({"truth_images": "depth"}, ConfigError, "'depth' is no .* give NAME=TOPIC"),
        ({"truth_images": "a=/x,a=/y"}, ConfigError, "images of a are given twice"),
    ):
        with pytest.raises(error, match=words):
            open_dataset("rosbag", tmp_path / "walk", **{"image_topic": IMAGE, **options})


def write_fixes(path, fixes, times):
    """Writes images with fixes (latitude, longitude, altitude, status) at the same times."""
    T = TYPES.types
    with RecordingWriter(path) as bag:
        write_images(bag, times)
        for t, (lat, lon, altitude, status) in zip(times, fixes, strict=True):
            said = T["sensor_msgs/msg/NavSatStatus"](status, 1)
            numbers = float(lat), float(lon), float(altitude)
            bag.write(
                "/fix",
                ns(t),
                T["sensor_msgs/msg/NavSatFix"](header(t, "gps"), said, *numbers, np.zeros(9), 0),
            )


def test_a_nav_sat_fix_gives_positions_in_metres_and_says_what_it_leaves_out(tmp_path):
    """Across the date line; the second degree of latitude there is 110,648 m long."""
    nan = float("nan")
    fixes = [
        (-17.0, 179.9999, 5.0, 0),
        (-17.001, 179.9999, nan, 2),
        (-17.0, -179.9999, 7.0, 0),
        (0.0, 0.0, 0.0, 0),
        (-17.0, 179.0, 5.0, -1),
        (nan, 179.0, 5.0, 0),
    ]
    write_fixes(tmp_path / "walk", fixes, np.arange(6) * 0.1)
    options = {"pose_topic": "/fix", "split": "train"}
    with pytest.raises(ConfigError, match=r"set datum to .* such as -17.0000,179.9999"):
        open_dataset("rosbag", tmp_path / "walk", **options)
    with pytest.raises(ConfigError, match="latitude,longitude in degrees"):
        open_dataset("rosbag", tmp_path / "walk", datum="91,0", **options)
    splits = open_dataset("rosbag", tmp_path / "walk", datum="-17.0,180.0", **options)
    at = poses_of(splits.train)[:, :3, 3]
    east = 0.0001 * np.pi / 180 * 6378137 / np.sqrt(1 - 0.00669438 * np.sin(np.radians(17)) ** 2)
    east *= np.cos(np.radians(17))
    np.testing.assert_allclose(at[:, 0], [-east, -east, east], atol=0.01)
    np.testing.assert_allclose(at[:, 1], [0, -110.67, 0], atol=0.1)
    np.testing.assert_allclose(at[:, 2], [5, 0, 7])
    assert not splits.has_orientation and splits.datum == "-17.0,180.0"
    on_earth = open_dataset("rosbag", tmp_path / "walk", datum="earth", **options)
    assert (on_earth.map_frame, on_earth.datum) == ("earth", "earth")
    normal, height = normals_of(poses_of(on_earth.train)[:, :3, 3])
    np.testing.assert_allclose(degrees_of_normals(normal)[1], [179.9999, 179.9999, -179.9999])
    np.testing.assert_allclose(height, [5, 0, 7], atol=1e-6)
    notes = "\n".join(splits.notes)
    for words in (
        "1 message without a fix",
        "at latitude 0",
        "no degrees",
        "1 message without altitude",
    ):
        assert words in notes
    assert "3 frames skipped" in notes


@pytest.mark.slow
def test_positions_far_from_the_datum_and_options_that_mean_nothing_are_refused(tmp_path):
    """Beyond the plane's half of the earth, positions fold over: those of the antipode are at its origin."""
    nan = float("nan")
    fixes = [
        (52.0, 7.0, 1e308, 0),
        (-52.0, -173.0, 5.0, 0),
        (7.0, 52.0, 5.0, 0),
        (52.0, 7.0, nan, 0),
    ]
    write_fixes(tmp_path / "walk", fixes, np.arange(4) * 0.1)
    options = {"pose_topic": "/fix", "split": "train"}
    splits = open_dataset("rosbag", tmp_path / "walk", datum="52.0,7.0", **options)
    np.testing.assert_allclose(poses_of(splits.train)[:, :3, 3], 0, atol=1e-6)
    notes = "\n".join(splits.notes)
    assert "2 messages more than 1000 km from datum 52.0,7.0 (latitude,longitude)" in notes
    assert "2 messages without altitude" in notes
    for moved in ({"base_to_camera": "identity"}, {"base_frame": "base_link"}):
        with pytest.raises(ConfigError, match="cannot be applied: leave it out"):
            open_dataset("rosbag", tmp_path / "walk", datum="52,7", **moved, **options)
    for source in ("tf", "none"):
        with pytest.raises(ConfigError, match=f"/fix and pose_source {source}: leave one of them"):
            open_dataset("rosbag", tmp_path / "walk", pose_source=source, **options)
    # Without its topic the bag has no poses, and both ways say which topic there is.
    with pytest.raises(ConfigError, match=r"set pose_topic to a NavSatFix \(/fix\)"):
        open_dataset("rosbag", tmp_path / "walk", datum="52,7")
    with pytest.raises(ConfigError, match="use one of /fix"):
        open_dataset("rosbag", tmp_path / "walk", pose_topic="/gps/fix")
    assert any(
        "set pose_topic to /fix" in n for n in open_dataset("rosbag", tmp_path / "walk").notes
    )
    with pytest.raises(ConfigError, match="--data rosbag with --option pose_topic=/fix"):
        read_truth(tmp_path / "walk", TruthRequest(pose_topic="/fix"), "camera_optical_frame")


def test_a_bag_without_a_fix_is_refused_with_the_reason(tmp_path):
    write_fixes(tmp_path / "walk", [(-17.0, 179.0, 5.0, -1)] * 3, np.arange(3) * 0.1)
    with pytest.raises(SourceError, match=r"no position \(3 messages without a fix"):
        open_dataset("rosbag", tmp_path / "walk", pose_topic="/fix", datum="1,2")
