"""The planner of the tutorials runs over DDS, and the topic that docs/uncertainty.md describes is there."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.node import Node  # noqa: E402
from ros_helpers import wait_until  # noqa: E402
from std_msgs.msg import Float32  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from vision_msgs.msg import Classification, ObjectHypothesis  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "planner.md").read_text()


@pytest.fixture
def world():
    """A node that says what the filters say, and answers as the place node does."""
    rclpy.init()
    node = Node("test_world")
    node.limits, node.requests = [], 0
    node.rooms = node.create_publisher(Classification, "/filters/classification", 5)
    node.poses = node.create_publisher(PoseWithCovarianceStamped, "/filters/pose", 5)
    node.create_subscription(Float32, "/speed_limit", lambda m: node.limits.append(m.data), 5)

    def relocalise(request, response):
        node.requests += 1
        response.success = True
        return response

    node.create_service(Trigger, "/places/relocalise", relocalise)
    yield node
    node.destroy_node()
    rclpy.shutdown()


def tell(node, room, score, sigma):
    message = Classification(results=[ObjectHypothesis(class_id=room, score=score)])
    node.rooms.publish(message)
    pose = PoseWithCovarianceStamped()
    pose.pose.pose.orientation.w = 1.0
    covariance = np.diag([0.01, sigma**2, 0.01, 0.1, 0.1, 0.1])
    pose.pose.covariance = covariance.reshape(36)
    node.poses.publish(pose)


@pytest.mark.slow
@pytest.mark.ros
def test_worked_example_slows_down_and_relocalises(world, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "planner.py").write_text(code)
    log = (tmp_path / "log").open("w")
    planner = subprocess.Popen(
        [sys.executable, tmp_path / "planner.py"], stdout=log, stderr=subprocess.STDOUT
    )

    def said(limit, room, score, sigma):
        def each():
            tell(world, room, score, sigma)
            rclpy.spin_once(world, timeout_sec=0.05)

        world.limits.clear()
        wait_until(
            lambda: limit in [round(v, 3) for v in world.limits],
            what=f"{limit} m/s at {room}, {score}, {sigma} m",
            each=each,
        )

    try:
        said(1.0, "kitchen", 0.97, 0.1)
        said(0.4, "kitchen", 0.6, 0.1)
        said(0.1, "unknown", 0.3, 0.1)
        assert world.requests == 0
        said(1.0, "kitchen", 0.97, 0.1)
        said(0.1, "kitchen", 0.97, 0.8)
        wait_until(
            lambda: world.requests,
            what="a relocalisation",
            each=lambda: (
                tell(world, "kitchen", 1.0, 0.8),
                rclpy.spin_once(world, timeout_sec=0.05),
            ),
        )
        said(1.0, "kitchen", 0.97, 0.1)
        world.limits.clear()  # silence
        wait_until(
            lambda: world.limits and round(world.limits[-1], 3) == 0.1,
            what="creeping in silence",
            each=lambda: rclpy.spin_once(world, timeout_sec=0.05),
        )
        assert planner.poll() is None
    finally:
        planner.terminate()
        planner.wait(timeout=60)


@pytest.mark.ros
@pytest.mark.slow
def test_node_publishes_what_several_answers_say(world, tmp_path):
    pytest.importorskip("torch")
    from network_helpers import small_network
    from ros_helpers import NodeProcess, pixels_message

    from robot_vision.heads.classifier.spec import ClassifierSpec
    from robot_vision.heads.pose.spec import PoseSpec
    from robot_vision.networks.ensemble import with_monte_carlo
    from robot_vision.networks.export import export_bundle
    from robot_vision.pipeline import Pipeline
    from robot_vision.ros.node.dds import use_large_image_profile

    use_large_image_profile()
    network = small_network(
        size=32,
        classifier=ClassifierSpec(("a", "b"), tap="layer2", dropout=0.4),
        pose=PoseSpec(tap="layer2", hidden=16, dropout=0.4),
        place=None,
    )
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    bundle = export_bundle(with_monte_carlo(network, 8), tmp_path / "b", "b", [image])
    with Pipeline.load(bundle.path, "onnx", "cpu", threads=1) as pipeline:
        (expected,) = pipeline([image])
    heard = []
    world.create_subscription(DiagnosticArray, "/perception/camera/uncertainty", heard.append, 5)
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    camera = world.create_publisher(Image, "/camera/image_raw", 5)
    header = Header(frame_id="optical")
    header.stamp.sec = 7
    process = NodeProcess(
        tmp_path / "node", "robot_vision.ros.perception.node", "--ros-args", "-p",
        f"model:={bundle.path}", "-p", "engine:=onnx", "-p", "threads:=1",
    )  # fmt: skip
    try:
        wait_until(
            lambda: heard,
            what=f"uncertainty ({process.output})",
            each=lambda: (
                camera.publish(pixels_message(header, image, "rgb8")),
                rclpy.spin_once(world, timeout_sec=0.1),
            ),
        )
    finally:
        process.stop()
    (status,) = heard[0].status
    values = {pair.key: float(pair.value) for pair in status.values}
    assert heard[0].header.stamp.sec == 7 and status.name == "camera"
    classes, pose = expected["classifier"], expected["pose"]
    assert values["mutual_information"] == pytest.approx(classes.mutual_information, rel=1e-3)
    assert values["entropy"] == pytest.approx(classes.entropy, rel=1e-3)
    for name, matrix in (("sigma", pose.covariance), ("spread", pose.spread)):
        found = values[f"position_{name}_m"], values[f"rotation_{name}_rad"]
        wanted = [np.sqrt(np.trace(matrix[s, s])) for s in (slice(0, 3), slice(3, 6))]
        assert found == pytest.approx(wanted, rel=1e-3)
