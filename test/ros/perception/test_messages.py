"""Predictions to messages and back, and image messages read from their bytes."""

from __future__ import annotations

import array
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from pathlib import Path
from types import SimpleNamespace

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from tiny_bundle import LABELS, make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.model_topic import model_topic
from robot_vision.contract import registry
from robot_vision.errors import ImageError
from robot_vision.geometry.camera_pose import CameraPose, base_pose
from robot_vision.geometry.frames import FrameTree
from robot_vision.geometry.published_covariance import MAX_COVARIANCE, covariance_numbers
from robot_vision.geometry.rigid import matrix_from_xyzw, pose_matrix
from robot_vision.heads.classifier.answer import Hypothesis
from robot_vision.heads.classifier.options import ClassifierOptions
from robot_vision.heads.classifier.topics import hypotheses_writer, label_topic
from robot_vision.heads.place.answer import Descriptor
from robot_vision.images.decode import to_rgb
from robot_vision.messages.making import rclpy_maker, set_header, set_pixels
from robot_vision.messages.serialized import read_compressed_image, read_image
from robot_vision.messages.types import IMAGE
from robot_vision.ros.node.status import (
    header_message,
    pose_message,
    status_message,
    transform_message,
)
from robot_vision.ros.node.transforms import (
    add_static,
    transform_from_numbers,
)
from robot_vision.ros.places.messages import PlaceHypothesis, places_message

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id="front_optical")
classification_message = hypotheses_writer(rclpy_maker)


def descriptor_message(header, descriptor):  # noqa: ANN001, ANN201
    (topic,) = registry.head("place").topics(None)
    return topic.writer(rclpy_maker)(header, Descriptor(descriptor), None)


def image_message(header, image):  # noqa: ANN001, ANN201
    message = rclpy_maker(IMAGE)()
    set_header(message.header, header)
    set_pixels(message, image, "rgb8")
    return message


def label_info_message(stamp, labels, threshold):  # noqa: ANN001, ANN201
    options = ClassifierOptions(unknown_threshold=-math.inf if threshold is None else threshold)
    return label_topic("label_info", labels).writer(rclpy_maker)(stamp, options)


def _random_covariance(rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    root = rng.normal(size=(6, 6)) * scale
    return root @ root.T + 1e-6 * np.eye(6)


def _amcl_accepts(message) -> bool:  # noqa: ANN001
    """The checks of Nav2's AMCL on a pose: header, finite, unit quaternion, entries in [0, 1e9]."""
    q, t = message.pose.pose.orientation, message.pose.pose.position
    numbers = [q.x, q.y, q.z, q.w, t.x, t.y, t.z, *message.pose.covariance]
    return (
        message.header.frame_id != ""
        and message.header.stamp.nanosec < 1e9
        and bool(np.all(np.isfinite(numbers)))
        and abs(q.x**2 + q.y**2 + q.z**2 + q.w**2 - 1) < 1e-4
        and all(0 <= c <= 1e9 for c in message.pose.covariance)
    )


def test_header_is_copied_field_by_field() -> None:
    source = SimpleNamespace(stamp=SimpleNamespace(sec=-3, nanosec=7), frame_id="cam")
    message = header_message(source)
    assert (message.stamp.sec, message.stamp.nanosec, message.frame_id) == (-3, 7, "cam")


def test_classification_keeps_order_labels_and_scores() -> None:
    message = classification_message(HEADER, [Hypothesis("door", 0.75), Hypothesis("wall", 0.2)])
    again = deserialize_message(serialize_message(message), type(message))
    assert again.header == HEADER
    assert [(r.class_id, r.score) for r in again.results] == [("door", 0.75), ("wall", 0.2)]


@pytest.mark.parametrize("in_map", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("probabilities", [(), (0.9, 0.6, 0.1), (0.3, 0.2)])
def test_places_that_are_not_accepted_are_below_unknown(
    probabilities: tuple[float, ...], in_map: float
) -> None:
    """A place that looks right and was refused by its geometry, for one."""
    pose = CameraPose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.eye(6))
    places = [PlaceHypothesis(i, p, pose) for i, p in enumerate(probabilities)]
    results = places_message(Header(), "map", places, False, in_map).results
    scores = [r.hypothesis.score for r in results]
    assert results[0].hypothesis.class_id == "unknown" and len(results) == 1 + len(places)
    assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-9
    accepted = places_message(Header(), "map", places, True, in_map).results
    if places:
        assert [r.hypothesis.score for r in accepted] == list(probabilities)


@pytest.mark.parametrize("size", [1, 8, 4096, 32768])
def test_descriptor_round_trip_as_a_subscriber_reads_it(size: int) -> None:
    rng = np.random.default_rng(size)
    descriptor = rng.normal(size=size).astype(np.float32)
    message = descriptor_message(HEADER, descriptor)
    again = deserialize_message(serialize_message(message), Image)
    assert (again.encoding, again.height, again.width, again.step) == ("32FC1", 1, size, 4 * size)
    assert np.array_equal(np.frombuffer(again.data, np.float32), descriptor)
    # As cv_bridge does: a float matrix over the data, by the message's own fields.
    matrix = np.ndarray((again.height, again.width), np.dtype("<f4"), bytes(again.data))
    assert cv2.norm(matrix - descriptor[None]) == 0


def test_descriptor_of_strided_or_double_values_is_converted() -> None:
    values = np.arange(10, dtype=np.float64)[::2]
    assert (
        np.frombuffer(descriptor_message(HEADER, values).data, np.float32).tolist()
        == values.tolist()
    )


def test_annotated_image_is_read_back_by_the_decoder() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    message = image_message(HEADER, image[:, ::-1])  # not contiguous
    assert np.array_equal(to_rgb(message), image[:, ::-1])
    assert message.header == HEADER


@given(
    arrays(np.float64, 3, elements=st.floats(-1e4, 1e4)),
    arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-9, 1e-4, 1.0, 1e3, 1e7]),
)
@settings(max_examples=60)
def test_pose_is_accepted_by_amcl_and_never_less_uncertain(
    position: np.ndarray, quaternion: np.ndarray, seed: int, scale: float
) -> None:
    covariance = _random_covariance(np.random.default_rng(seed), scale)
    message = pose_message(HEADER, CameraPose(position, quaternion, covariance), "map")
    assert _amcl_accepts(message)
    assert (message.header.frame_id, message.header.stamp) == ("map", HEADER.stamp)
    q = message.pose.pose.orientation
    sent = Rotation.from_quat([q.x, q.y, q.z, q.w])
    assert (sent * Rotation.from_quat(quaternion).inv()).magnitude() < 1e-6
    numbers = message.pose.covariance.reshape(6, 6)
    assert np.array_equal(numbers, numbers.T)
    size = np.abs(numbers).max()
    if np.abs(covariance).max() < 1e8:  # below the limit nothing is cut off
        assert np.linalg.eigvalsh(numbers - covariance).min() > -1e-9 * size
        assert np.linalg.eigvalsh(numbers).min() > -1e-9 * size


def test_signed_covariance_is_published_as_it_is() -> None:
    covariance = _random_covariance(np.random.default_rng(1))
    assert (covariance < 0).any()
    numbers = covariance_numbers(covariance, 2.0, signed=True).reshape(6, 6)
    assert np.allclose(numbers, 2 * covariance)


def test_positive_covariance_is_not_inflated() -> None:
    covariance = 0.1 * np.ones((6, 6)) + np.diag([1.0, 2, 3, 4, 5, 6])
    assert np.allclose(covariance_numbers(covariance).reshape(6, 6), covariance)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0, 1e300])
def test_covariance_that_says_nothing_becomes_usable(value: float) -> None:
    numbers = covariance_numbers(np.full((6, 6), value)).reshape(6, 6)
    assert np.all(np.isfinite(numbers)) and np.all(np.diagonal(numbers) > 0)
    assert numbers.min() >= 0 and numbers.max() <= MAX_COVARIANCE


def test_pose_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        pose_message(
            HEADER, CameraPose(np.array([0, np.nan, 0]), np.array([0, 0, 0, 1.0]), np.eye(6)), "map"
        )


def test_transform_has_map_as_parent() -> None:
    pose = CameraPose(np.array([1.0, 2, 3]), np.array([0, 0, 0.6, 0.8]), np.eye(6))
    message = transform_message(HEADER, pose, "map", "cam_estimated")
    assert (message.header.frame_id, message.child_frame_id) == ("map", "cam_estimated")
    assert message.transform.translation.z == 3 and message.transform.rotation.w == 0.8


@pytest.mark.slow
def test_infos_name_labels_threshold_and_model(tmp_path: Path) -> None:
    bundle = ModelBundle.load(make_tiny_bundle(tmp_path / "b"))
    info = label_info_message(HEADER.stamp, LABELS, 0.25)
    assert [(c.class_id, c.class_name) for c in info.class_map] == list(enumerate(LABELS))
    assert info.threshold == 0.25
    assert label_info_message(HEADER.stamp, LABELS, None).threshold == 0.0
    assert (
        len(label_info_message(HEADER.stamp, [str(i) for i in range(70000)], None).class_map)
        == 65536
    )
    vision = model_topic(bundle).writer(rclpy_maker)(HEADER.stamp, None)
    assert "tiny" in vision.method and bundle.sha256 in vision.method
    assert vision.database_location == str(tmp_path / "b")
    assert vision.database_version == int(bundle.sha256[:8], 16) // 2
    serialize_message(vision)


def test_status_values_are_text() -> None:
    status = status_message(1, "n", "t", "cpu", {"a": 1.23456, "b": 2, "c": float("nan")})
    assert status.level == b"\x01"
    assert [(v.key, v.value) for v in status.values] == [("a", "1.235"), ("b", "2"), ("c", "nan")]


# Serialised images


@pytest.mark.slow
@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**32 - 1),
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=9),
    st.sampled_from(["rgb8", "mono8", "bayer_rggb16", ""]),
    st.binary(max_size=64),
)
def test_serialised_image_reads_as_rclpy_reads_it(
    sec: int, nanosec: int, frame: str, encoding: str, data: bytes
) -> None:
    header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame)
    image = Image(header=header, height=3, width=nanosec, encoding=encoding, is_bigendian=1, step=9)
    image.data = array.array("B", data)
    view = read_image(serialize_message(image))
    expected = deserialize_message(serialize_message(image), Image)
    for name in ("height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(view, name) == getattr(expected, name)
    assert header_message(view.header) == expected.header
    assert bytes(view.data) == bytes(expected.data)

    compressed = CompressedImage(header=header, format=encoding, data=array.array("B", data))
    view = read_compressed_image(serialize_message(compressed))
    assert (view.format, bytes(view.data)) == (encoding, data)
    assert header_message(view.header) == header


def test_serialised_image_in_big_endian_is_read() -> None:
    text = b"\0\0\0\4cam\0" + b"\0\0\0\1\0\0\0\2" + b"\0\0\0\6mono8\0" + b"\0\0"
    raw = b"\0\0\0\0" + b"\xff\xff\xff\xff\0\0\0\7" + text + b"\0\0\0\2\0\0\0\2\7\t"
    view = read_image(raw)
    assert (view.header.stamp.sec, view.header.stamp.nanosec) == (-1, 7)
    assert (view.header.frame_id, view.height, view.width) == ("cam", 1, 2)
    assert (view.encoding, view.step, bytes(view.data)) == ("mono8", 2, b"\7\t")
    assert deserialize_message(raw, Image) == Image(
        header=Header(stamp=Time(sec=-1, nanosec=7), frame_id="cam"),
        height=1,
        width=2,
        encoding="mono8",
        step=2,
        data=array.array("B", [7, 9]),
    )


def test_serialised_image_in_another_form_is_refused() -> None:
    raw = serialize_message(Image(header=HEADER, encoding="mono8"))
    with pytest.raises(ImageError, match="only plain CDR"):
        read_image(bytes([0, 3]) + raw[2:])  # a parameter list


def test_serialised_image_that_ends_early_is_an_error() -> None:
    raw = serialize_message(
        Image(header=HEADER, encoding="mono8", data=array.array("B", bytes(100)))
    )
    with pytest.raises(ImageError, match="ends within"):
        read_image(raw[:-30])


# Transforms


def test_base_pose_covariance_against_monte_carlo() -> None:
    rng = np.random.default_rng(4)
    T_base_camera = transform_from_numbers([0.3, -0.2, 1.1, -1.57, 0.1, -1.4])
    quaternion = Rotation.from_rotvec([0.4, -1.0, 0.3]).as_quat()
    root = rng.normal(size=(6, 6)) * 0.01
    camera = CameraPose(np.array([2.0, 1.0, 0.5]), quaternion, root @ root.T)
    got = base_pose(camera, T_base_camera)

    T_camera_base = np.linalg.inv(T_base_camera)
    errors = rng.multivariate_normal(np.zeros(6), camera.covariance, 40000)
    rotations = Rotation.from_rotvec(errors[:, 3:]) * Rotation.from_quat(quaternion)
    positions = camera.position + errors[:, :3] + rotations.apply(T_camera_base[:3, 3])
    turned = rotations * Rotation.from_matrix(T_camera_base[:3, :3])
    mean = pose_matrix(camera.position, quaternion) @ T_camera_base
    assert np.allclose(got.position, mean[:3, 3])
    assert np.allclose(matrix_from_xyzw(got.orientation_xyzw), mean[:3, :3])
    deltas = (turned * Rotation.from_matrix(mean[:3, :3]).inv()).as_rotvec()
    sampled = np.cov(np.hstack([positions - mean[:3, 3], deltas]).T)
    assert np.abs(sampled - got.covariance).max() < 0.04 * np.abs(sampled).max()
    naive = np.abs(sampled - camera.covariance).max()
    assert naive > 0.5 * np.abs(sampled).max(), "the lever arm must matter in this test"


def test_numbers_are_those_of_a_urdf_origin() -> None:
    matrix = transform_from_numbers([1, 2, 3, 0.1, 0.2, 0.3])
    assert np.allclose(matrix[:3, :3], Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix())
    assert matrix[:3, 3].tolist() == [1, 2, 3]


def test_static_chains_are_composed_up_and_down() -> None:
    rng = np.random.default_rng(0)

    def random_transform() -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.random(random_state=rng).as_matrix()
        matrix[:3, 3] = rng.normal(size=3)
        return matrix

    base_mast, mast_cam, cam_optical, base_laser = (random_transform() for _ in range(4))
    tree = FrameTree()
    tree.fix("mast", "cam", mast_cam)
    assert tree.lookup("base_link", "cam") is None
    tree.fix("base_link", "mast", base_mast)
    tree.fix("/cam", "/optical", cam_optical)
    tree.fix("base_link", "laser", base_laser)
    assert np.allclose(tree.lookup("base_link", "optical"), base_mast @ mast_cam @ cam_optical)
    assert np.allclose(
        tree.lookup("optical", "base_link"), np.linalg.inv(base_mast @ mast_cam @ cam_optical)
    )
    assert np.allclose(
        tree.lookup("laser", "cam"), np.linalg.inv(base_laser) @ base_mast @ mast_cam
    )
    assert np.array_equal(tree.lookup("cam", "cam"), np.eye(4))
    assert tree.lookup("base_link", "elsewhere") is None
    tree.fix("base_link", "mast", np.eye(4))  # a correction replaces
    assert np.allclose(tree.lookup("base_link", "cam"), mast_cam)


def test_static_loop_and_broken_transform_do_no_harm() -> None:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    tree = FrameTree()
    tree.fix("a", "b", np.eye(4))
    tree.fix("b", "a", np.eye(4))
    assert tree.lookup("a", "elsewhere") is None
    bad = TransformStamped(child_frame_id="c")
    bad.header.frame_id = "a"
    bad.transform.rotation.w = 0.0  # no rotation at all
    worse = TransformStamped(child_frame_id="d")
    worse.header.frame_id = "a"
    worse.transform.translation.x = float("nan")
    refused: list[str] = []
    add_static(tree, TFMessage(transforms=[bad, worse]), refused.append)
    assert "quaternion" in refused[0] and "nan" in refused[1]
    assert tree.lookup("a", "c") is None and tree.lookup("a", "d") is None
