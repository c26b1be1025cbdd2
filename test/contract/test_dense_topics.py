"""Maps, calibrations, clouds, scans and ranges as messages, as those read them who subscribe."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from nav2_readers import (
    UINT8,
    collision_monitor_reads_range,
    costmap_reads,
    floats,
    semantic_layer_reads,
)
from toy_heads import DENSE, SIZE, Dense, DenseOptions

from robot_vision.contract.dense_topics import Cloud, cloud_topic
from robot_vision.contract.topics import LeftOut, Shot
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.messages.making import rclpy_maker, rosbags_maker
from robot_vision.messages.sensors import range_writer, scan_writer
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.types import LASER_SCAN, RANGE, message_types

CAMERA = (90, 120)
LENS = Intrinsics(
    120, 90, np.array([[100.0, 0, 61], [0, 98, 43], [0, 0, 1]]), np.array([-0.1, 0.02, 1e-3, 0, 0])
)
RULES = [("squash", 1.0), ("crop", 0.8), ("letterbox", 1.0)]


@pytest.fixture(params=["rclpy", "rosbags"])
def make(request):
    """What makes messages, and what sends them over the wire."""
    if request.param == "rosbags":
        types = message_types()
        return rosbags_maker(types), lambda message, kind: types.deserialize_cdr(
            types.serialize_cdr(message, kind), kind
        )
    pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message, serialize_message

    return rclpy_maker, lambda message, kind: deserialize_message(
        serialize_message(message), type(message)
    )


def shot(rule=("squash", 1.0), **changed) -> Shot:
    window = Window.of(CAMERA, InputSpec(*SIZE, *rule))
    about = {"window": window, "intrinsics": lambda: LENS, **changed}
    return Shot(Stamp(12, 345), about.pop("frame_id", "optical"), "front", **about)


def answer(seed=0) -> Dense:
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 12, SIZE).astype(np.float32)
    z[0, :4] = 0, np.nan, np.inf, -1
    return Dense(z, rng.integers(0, 2, SIZE, np.uint8))


def said(make, about: Shot, of: Dense, **options) -> dict[str, object]:
    new, over_the_wire = make
    chosen = DenseOptions(**options)
    found = {}
    for topic in DENSE.topics(None):
        message = topic.writer(new)(about, of, chosen)
        left_out = isinstance(message, LeftOut)
        found[topic.name[6:]] = message if left_out else over_the_wire(message, topic.kind)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_points_are_where_the_pixels_of_the_map_look(make, rule):
    of, about = answer(), shot(rule)
    cloud = said(make, about, of)["points"]
    points = np.column_stack([floats(cloud, name) for name in "xyz"]).reshape(*SIZE, 3)
    known = np.isfinite(points).all(2)
    wanted = about.window.covered(SIZE) & np.isfinite(of.z_m) & (of.z_m > 0)
    assert np.array_equal(known, wanted) and known.sum() > 500
    np.testing.assert_array_equal(points[known][:, 2], of.z_m[known])
    # OpenCV projects them back to the camera's pixels that the map's pixels lie on.
    pixels, _ = cv2.projectPoints(
        points[known].astype(np.float64), np.zeros(3), np.zeros(3), LENS.K, LENS.distortion
    )
    np.testing.assert_allclose(pixels[:, 0], about.window.pixels(SIZE)[known], atol=0.01)


def test_cloud_is_what_obstacle_and_voxel_layers_read(make):
    of = answer()
    cloud = said(make, shot(), of)["points"]
    assert (cloud.height, cloud.width) == SIZE and not cloud.is_dense
    assert len(costmap_reads(cloud)) == of.z_m.size - 4
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "id"]
    (ids,) = [f for f in cloud.fields if f.name == "id"]
    assert (ids.datatype, ids.offset, cloud.point_step) == (UINT8, 12, 16)
    data = np.frombuffer(bytes(cloud.data), np.uint8).reshape(*SIZE, 16)
    assert np.array_equal(data[..., 12], of.ids) and not data[..., 13:].any()


def test_mask_and_cloud_are_what_the_semantic_layer_reads(make):
    of = answer()
    found = said(make, shot(("letterbox", 1.0)), of)
    mask, cloud = found["mask"], found["points"]
    assert mask.header == cloud.header
    read = semantic_layer_reads(mask, mask, cloud)
    z = np.array([point[2] for _, _, point in read])
    rows = [np.flatnonzero(of.z_m.ravel() == value)[0] for value in z]
    assert len(read) > 500 and [i for i, _, _ in read] == of.ids.ravel()[rows].tolist()


def test_range_and_step_thin_the_cloud(make):
    of = answer()
    whole = said(make, shot(), of)["points"]
    points = np.column_stack([floats(whole, name) for name in "xyz"]).reshape(*SIZE, 3)
    near = said(make, shot(), of, toy_far_m=5.0)["points"]
    left = costmap_reads(near)
    distance = np.linalg.norm(points.astype(float), axis=2)
    assert len(left) == (distance <= 5).sum() and (near.height, near.width) == SIZE
    thin = said(make, shot(), of, toy_step=5)["points"]
    assert (thin.height, thin.width) == (7, 10)
    some = np.column_stack([floats(thin, name) for name in "xyz"]).reshape(7, 10, 3)
    np.testing.assert_array_equal(some, points[::5, ::5])


@pytest.mark.parametrize("rule", RULES)
def test_calibration_of_the_map_projects_to_its_pixels(make, rule):
    about = shot(rule)
    info = said(make, about, answer())["camera_info"]
    assert (info.height, info.width) == SIZE and info.distortion_model == "plumb_bob"
    assert list(info.d) == LENS.distortion.tolist() and list(info.r) == np.eye(3).ravel().tolist()
    K = np.array(info.k).reshape(3, 3)
    assert np.array_equal(np.array(info.p).reshape(3, 4), np.column_stack([K, np.zeros(3)]))
    assert info.header.stamp.nanosec == 345 and info.header.frame_id == "optical"
    rays = np.column_stack([LENS.rays(about.window.pixels(SIZE).reshape(-1, 2)), np.ones(1536)])
    pixels, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K, np.array(info.d))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    np.testing.assert_allclose(pixels[:, 0], np.column_stack([x.ravel(), y.ravel()]), atol=0.01)


def test_rays_are_of_the_camera_that_is_there_now():
    """The calibration, the size or the window may change while the node runs."""
    types = message_types()
    write = cloud_topic("points", "", lambda a, o: Cloud(a)).writer(rosbags_maker(types))
    z = np.full(SIZE, 2.0, np.float32)
    first = floats(write(shot(), z, None), "x")
    other = Intrinsics(120, 90, LENS.K * [[2], [2], [1]] + [[0, 0, -30], [0, 0, 0], [0, 0, 0]], [])
    second = floats(write(shot(intrinsics=lambda: other), z, None), "x")
    cropped = floats(write(shot(("crop", 0.5)), z, None), "x")
    small = write(shot(), z[:8, :8], None)
    again = floats(write(shot(), z, None), "x")
    assert len({values.tobytes() for values in (first, second, cropped)}) == 3
    assert (small.height, small.width) == (8, 8) and np.array_equal(first, again)


def test_a_message_keeps_its_numbers_when_the_next_is_written(make):
    new, _ = make
    write = next(t for t in DENSE.topics(None) if t.name.endswith("points")).writer(new)
    first = write(shot(), answer(0), DenseOptions())
    before = bytes(first.data)
    second = write(shot(), answer(1), DenseOptions())
    assert bytes(first.data) == before != bytes(second.data)


def test_without_calibration_or_frame_maps_go_out_and_points_do_not(make):
    missing = LeftOut("no_camera_info", "publish it")
    found = said(make, shot(intrinsics=lambda: missing), answer())
    assert found["points"] is found["camera_info"] is missing
    assert found["z"].encoding == "32FC1" and np.isnan(np.frombuffer(found["z"].data, "<f4")[1])
    found = said(make, shot(frame_id=""), answer())
    assert found["points"].reason == "no_frame_id" and found["mask"].encoding == "mono8"
    assert said(make, shot(window=None), answer())["points"].reason == "no_image_size"


@pytest.mark.parametrize(
    ("metres", "said"), [(1.5, 1.5), (np.inf, 5.0), (9.0, 5.0), (0.01, 0.1), (5.0, 5.0)]
)
def test_range_is_what_the_collision_monitor_believes(make, metres, said):
    new, over_the_wire = make
    header = SimpleNamespace(stamp=Stamp(3, 4), frame_id="optical")
    message = range_writer(new)(header, "base_link", metres, 0.5, 0.1, 5.0)
    message = over_the_wire(message, RANGE)
    assert collision_monitor_reads_range(message) == pytest.approx(said)
    assert message.header.frame_id == "base_link" and message.header.stamp.sec == 3
    with pytest.raises(ValueError, match="not a number"):
        range_writer(new)(header, "base_link", np.nan, 0.5, 0.1, 5.0)


def test_scan_is_what_the_collision_monitor_and_the_obstacle_layer_read(make):
    """Scan::getSourceData adds up angles; laser_geometry asks that their number fits the limits."""
    new, over_the_wire = make
    header = SimpleNamespace(stamp=Stamp(3, 4), frame_id="optical")
    ranges = np.array([1.0, np.inf, np.nan, 2.0, 0.05], np.float32)
    scan = over_the_wire(
        scan_writer(new)(header, "base_link", ranges, -0.4, 0.2, 0.1, 5.0), LASER_SCAN
    )
    count = round((scan.angle_max - scan.angle_min) / scan.angle_increment) + 1
    assert count == len(scan.ranges) == 5 and scan.header.frame_id == "base_link"
    points, angle = [], scan.angle_min
    for value in scan.ranges:
        if scan.range_min <= value <= scan.range_max:
            points.append((value * np.cos(angle), value * np.sin(angle)))
        angle += scan.angle_increment
    np.testing.assert_allclose(
        points, [(np.cos(0.4), -np.sin(0.4)), (2 * np.cos(0.2), 2 * np.sin(0.2))], atol=1e-6
    )
    assert np.isposinf(scan.ranges[1])  # with inf_is_valid it clears up to range_max
