"""Poses from scene coordinates over DDS, by the camera's calibration: absent, hostile, right, another's."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from network_helpers import tiny_network, torch
from ros_helpers import rgb_message, running, set_header, wait_until

from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.heads.coordinates.spec import CoordinatesSpec
from robot_vision.networks.export import export_bundle

pytestmark = [pytest.mark.ros, pytest.mark.slow]
SPEC = CoordinatesSpec(
    (8, 8),
    (60.0, 60.0, 31.0, 33.0),
    centre=(100.0, -50.0, 1.0),
    strides=(4, 8),
    channels=8,
    blocks=1,
    error_px=0.5,
    least_inliers=0.9,
)
POSITION = np.array([1.0, 2.0, 0.5])  # from the centre
R = matrix_from_xyzw(np.array([0.1, -0.2, 0.3, 0.9]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A network that says of every image what a camera in one pose sees of a random scene."""
    network = tiny_network(classifier=None, place=None, pose=None, coordinates=SPEC)
    depth = np.random.default_rng(0).uniform(1, 3, (8, 8, 1))
    rays = np.concatenate([SPEC.rays(), np.ones((8, 8, 1))], axis=-1)
    points = (depth * rays) @ R.T + POSITION
    module = network.heads["coordinates"]
    with torch.no_grad():
        module.last.weight.zero_()
        module.last.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -4.0]))
    module.offset = torch.tensor(points.transpose(2, 0, 1)[None], dtype=torch.float32)
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    export_bundle(network, folder, "scene", list(images))
    return folder


def test_calibration_that_is_absent_or_wrong_is_said_and_the_node_lives_on(bundle, tmp_path):
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from sensor_msgs.msg import CameraInfo

    given = {"model": bundle, "engine": "onnx", "threads": 1, "cameras": "[front]"}
    often, info = {"diagnostics_period_s": 0.2, "warn_period_s": 0.1}, {"K": None}
    with running(tmp_path, "perception_node", **given, **often) as (node, client):
        poses = client.listen(PoseWithCovarianceStamped, "/perception/front/coordinates/pose")
        image = np.zeros((64, 64, 3), np.uint8)

        def send():
            stamp = time.time_ns()
            if info["K"] is not None:
                message = CameraInfo(height=64, width=64, distortion_model="plumb_bob")
                set_header(message, stamp, "front_optical")
                message.k = info["K"]
                client.publisher(CameraInfo, "/front/camera_info").publish(message)
            image_message = rgb_message(image, stamp)
            client.publisher(type(image_message), "/front/image_raw").publish(image_message)
            time.sleep(0.05)

        def counted(reason):
            wait_until(lambda: client.count("front", reason) > 0, what=reason, each=send)

        counted("no_camera_info")
        info["K"] = [0.0] * 9
        counted("camera_info_refused")
        info["K"] = [float("nan")] * 9
        counted("camera_info_refused")
        assert not poses
        info["K"] = [60.0, 0.0, 31.0, 0.0, 60.0, 33.0, 0.0, 0.0, 1.0]
        pose = wait_until(lambda: poses and poses[-1], what="a pose", each=send)
        p, q = pose.pose.pose.position, pose.pose.pose.orientation
        np.testing.assert_allclose([p.x, p.y, p.z], POSITION + SPEC.centre, atol=1e-3)
        np.testing.assert_allclose(matrix_from_xyzw([q.x, q.y, q.z, q.w]), R, atol=1e-3)
        assert pose.header.frame_id == "map"
        info["K"] = [200.0, 0.0, 12.0, 0.0, 200.0, 50.0, 0.0, 0.0, 1.0]  # another camera's
        counted("few_inliers")
    assert "few inliers" in node.output
