"""What the perception node publishes of a depth head, over DDS, and what Nav2 does with it."""

import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.pipeline import Pipeline

K = np.array([[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]])
SIZE = (60, 80)
MOUNTING = [0.2, 0.0, 0.4, -np.pi / 2, 0.0, -np.pi / 2]  # looks ahead, 0.4 m above the floor


def as_array(message):
    dtype = {"32FC1": "<f4"}[message.encoding]
    return np.frombuffer(bytes(message.data), dtype).reshape(message.height, message.width)


def info_message(stamp_ns, frame="front_optical"):
    from ros_helpers import set_header
    from sensor_msgs.msg import CameraInfo

    message = CameraInfo(height=SIZE[0], width=SIZE[1], distortion_model="plumb_bob")
    set_header(message, stamp_ns, frame)
    message.d, message.k = [0.0] * 5, K.reshape(-1).tolist()
    message.r = np.eye(3).reshape(-1).tolist()
    message.p = np.hstack([K, np.zeros((3, 1))]).reshape(-1).tolist()
    return message


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("depth") / "bundle"
    made = ["--torchvision", "shufflenet_v2_x0_5", "--weights", "none", "--heads", "depth"]
    assert main(["export", *made, "--input", "96x128", "--out", str(path)]) == 0
    return path


@pytest.mark.slow
@pytest.mark.ros
def test_node_publishes_all_that_nav2_reads(bundle, tmp_path):
    pytest.importorskip("rclpy")
    from ros_helpers import rgb_message, running, stamp_ns, wait_until
    from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, Range

    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    with Pipeline.load(bundle, "onnx", threads=1) as pipeline:
        expected = pipeline([image])[0]["depth"]
    given = {"model": bundle, "engine": "onnx", "cameras": "[front]"}
    given |= {"base_frame": "base_link", "camera_to_base": MOUNTING}
    given |= {"obstacle_low_m": -50.0, "obstacle_high_m": 50.0, "corridor_width_m": 50.0}
    with running(tmp_path, "perception_node", **given) as (_, client):
        kinds = {
            "depth": Image,
            "depth_deviation": Image,
            "depth/camera_info": CameraInfo,
            "points": PointCloud2,
            "scan": LaserScan,
            "obstacle": Range,
            "obstacle_near": Range,
        }
        heard = {n: client.listen(kind, f"/perception/front/{n}") for n, kind in kinds.items()}
        stamp = 1_700_000_000_123_456_789

        def send():
            client.publisher(CameraInfo, "/front/camera_info").publish(info_message(stamp))
            client.publisher(Image, "/front/image_raw").publish(rgb_message(image, stamp))

        wait_until(lambda: all(heard.values()), what="all topics of depth", each=send)
        said = {name: messages[-1] for name, messages in heard.items()}
        assert {stamp_ns(m) for m in said.values()} == {stamp}
        depth, deviation = as_array(said["depth"]), as_array(said["depth_deviation"])
        np.testing.assert_allclose(depth, expected.depth, rtol=1e-4)
        np.testing.assert_allclose(deviation, expected.deviation, rtol=1e-3)
        assert said["depth"].header.frame_id == said["points"].header.frame_id == "front_optical"

        # The same lens on fewer pixels, and a point for each of them.
        info = said["depth/camera_info"]
        assert (info.height, info.width) == depth.shape == (24, 32)
        fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
        assert (fx, fy) == pytest.approx((60 * 32 / 80, 60 * 24 / 60))
        cloud = said["points"]
        assert (cloud.height, cloud.width) == depth.shape and not cloud.is_dense
        assert [(f.name, f.offset, f.datatype) for f in cloud.fields] == [
            ("x", 0, 7),
            ("y", 4, 7),
            ("z", 8, 7),
        ]
        xyz = np.frombuffer(bytes(cloud.data), "<f4").reshape(*depth.shape, cloud.point_step // 4)
        v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
        np.testing.assert_allclose(xyz[..., 2], depth, rtol=1e-5)
        np.testing.assert_allclose(xyz[..., 0], (u - cx) / fx * depth, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(xyz[..., 1], (v - cy) / fy * depth, rtol=1e-3, atol=1e-4)

        # In base x is the depth and 0.2 m; all pixels are obstacles here.
        ahead = np.sort(depth[np.isfinite(depth)].ravel())[4] + 0.2
        found, near = said["obstacle"], said["obstacle_near"]
        assert found.header.frame_id == said["scan"].header.frame_id == "base_link"
        assert found.min_range <= near.range < found.range <= found.max_range
        assert found.range == pytest.approx(ahead, rel=1e-4)
        scan = said["scan"]
        ranges = np.array(scan.ranges)
        assert len(ranges) == 32 and scan.angle_min < 0 < scan.angle_max
        bearing = np.arctan2(-xyz[..., 0], xyz[..., 2] + 0.2)
        span = np.hypot(xyz[..., 0], xyz[..., 2] + 0.2)
        for i, r in enumerate(ranges):
            beam = np.rint((bearing - scan.angle_min) / scan.angle_increment) == i
            if beam.any():
                assert r == pytest.approx(span[beam].min(), rel=1e-3)


@pytest.mark.slow
@pytest.mark.ros
def test_without_calibration_and_mounting_depth_goes_on_and_the_rest_is_said(bundle, tmp_path):
    pytest.importorskip("rclpy")
    from ros_helpers import rgb_message, running, wait_until
    from sensor_msgs.msg import Image, LaserScan, PointCloud2

    image = np.zeros((*SIZE, 3), np.uint8)
    given = {"model": bundle, "engine": "onnx", "cameras": "[front]"}
    with running(tmp_path, "perception_node", **given) as (node, client):
        depth = client.listen(Image, "/perception/front/depth")
        points = client.listen(PointCloud2, "/perception/front/points")
        scan = client.listen(LaserScan, "/perception/front/scan")
        publish = client.publisher(Image, "/front/image_raw").publish

        def send():
            publish(rgb_message(image, 1_700_000_000_000_000_000))

        wait_until(lambda: len(depth) > 2, what="depth", each=send)
        for reason in ("no_camera_info", "no_base_frame"):
            wait_until(lambda r=reason: client.count("front", r) > 0, what=reason, each=send)
        assert not points and not scan
    assert "camera_info" in node.output and "base_frame is not set" in node.output
