"""A robot in a namespace: nothing of it listens or speaks outside, but for what ROS shares."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs")

from ros_helpers import coloured_image, jpeg_message, wait_until  # noqa: E402
from tiny_bundle import make_tiny_bundle  # noqa: E402

from robot_vision.ros.filters.node import FilterNode  # noqa: E402
from robot_vision.ros.node.transitions import FAILURE, SUCCESS  # noqa: E402
from robot_vision.ros.perception.node import PerceptionNode  # noqa: E402
from robot_vision.ros.places.node import PlaceNode  # noqa: E402

pytestmark = pytest.mark.ros
SHARED = {"/tf", "/tf_static", "/diagnostics", "/rosout", "/parameter_events", "/clock"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes a node in this process, with ROS arguments of a command line."""
    from rclpy.parameter import Parameter

    made: list[tuple[Any, Any]] = []

    def make(kind: Any, *rules: str, **parameters: Any) -> Any:
        context = rclpy.Context()
        rclpy.init(context=context)
        values = {"autostart": False, **parameters}
        node = kind(
            context=context,
            cli_args=["--ros-args", *(word for rule in rules for word in ("-r", rule))],
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        made.append((node, context))
        return node

    yield make
    for node, context in made:
        node.close()
        node.destroy_node()
        context.try_shutdown()
    made.clear()
    del node
    gc.collect()  # or they stay in the graph that other tests look at


def topics(node: Any) -> set[str]:
    """Returns what the node subscribes and publishes, but for what all robots share."""
    ends = (*node.subscriptions, *node.publishers)
    return {end.topic_name for end in ends} - SHARED


def activate(node: Any) -> set[str]:
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    return topics(node)


def settings(kind: Any, folder: Path) -> dict[str, Any]:
    if kind is PerceptionNode:
        bundle = make_tiny_bundle(folder / "tiny")
        return {"model": str(bundle), "engine": "onnx", "threads": 1}
    if kind is PlaceNode:
        return {"pose_source": "pose", "verify": True}
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FilterNode, PlaceNode, PerceptionNode])
def test_every_default_topic_is_in_the_node_s_namespace(
    make: Callable[..., Any], kind: Any, tmp_path: Path
) -> None:
    given = settings(kind, tmp_path)
    inside, root = (activate(make(kind, *r, **given)) for r in (("__ns:=/robot1",), ()))
    assert len(root) > 5 and inside == {f"/robot1{topic}" for topic in root}


@pytest.mark.slow
def test_names_that_are_given_in_full_stay(make: Callable[..., Any]) -> None:
    given = {"perception_node": "/eyes", "pose_topics": ["/gps"], "odometry_topic": "/wheels"}
    found = activate(make(FilterNode, "__ns:=/robot1", **given))
    assert {"/eyes/label_info", "/eyes/camera/classification", "/gps", "/wheels"} < found
    found = activate(make(PlaceNode, "__ns:=/robot1", initialpose_topic="/initialpose"))
    assert "/initialpose" in found and "/robot1/perception/camera/descriptor" in found


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        (FilterNode, {"pose_topics": ["~/pose"]}, "the node itself publishes there"),
        (
            FilterNode,
            {"pose_topics": ["gps", "/gps"]},
            "/gps for pose source 1 and for pose source 2",
        ),
        (FilterNode, {"cell_topics": ["/odom"]}, "/odom for cell source 1 and for odometry_topic"),
        (FilterNode, {"odometry_topic": "/tf"}, "/tf for transforms and for odometry_topic"),
        (
            FilterNode,
            {"cameras": ["a", "b"], "classification_topics": ["c", "c"]},
            "/c for camera a and for camera b",
        ),
        (
            PerceptionNode,
            {"cameras": ["a", "b"], "image_topics": ["/c", "c"]},
            "/c for camera a and for camera b",
        ),
        (
            PlaceNode,
            {"pose_source": "pose_with_covariance", "pose_topic": "places/pose"},
            "the node itself publishes there",
        ),
        (
            PlaceNode,
            {"pose_source": "pose_with_covariance", "pose_topic": "/initialpose"},
            "initialpose_topic is /initialpose, which the node subscribes",
        ),
        (PlaceNode, {"features": "/nowhere/x.onnx", "verify": True}, "x.onnx cannot be read"),
        (PlaceNode, {"features": __file__, "verify": True}, "is no ONNX file"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(
    make: Callable[..., Any], kind: Any, given: dict[str, Any], text: str
) -> None:
    node = make(kind, **given)
    assert node.trigger_configure() == FAILURE and text in node.problem


@pytest.mark.slow
def test_compressed_images_are_found_on_either_name(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import CompressedImage, Image

    node = make(
        PerceptionNode,
        **settings(PerceptionNode, tmp_path),
        image_topics=["/axis/image_jpeg"],
        transport="compressed",
        always_infer=True,
    )
    assert "/axis/image_jpeg/compressed" in activate(node)
    context = rclpy.Context()  # a driver is a process of its own
    rclpy.init(context=context)
    driver = rclpy.create_node("driver", context=context)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    raw = driver.create_publisher(Image, "/axis/image_jpeg", 1)
    wait_until(lambda: "set transport to raw" in node._cameras["camera"]._images.advice())
    driver.destroy_publisher(raw)
    publisher = driver.create_publisher(CompressedImage, "/axis/image_jpeg", 1)
    message = jpeg_message(coloured_image((200, 40, 60)), 1)

    def send() -> None:
        publisher.publish(message)
        executor.spin_once(timeout_sec=0.1)

    statistics = node._cameras["camera"].statistics
    wait_until(lambda: statistics.counters.get("received"), what="an image", each=send)
    assert "/axis/image_jpeg" in topics(node) and "/axis/image_jpeg/compressed" not in topics(node)
    usual = driver.create_publisher(CompressedImage, "/axis/image_jpeg/compressed", 1)
    wait_until(
        lambda: usual.get_subscription_count() == 1, what="image_transport's name", each=send
    )
    executor.shutdown()
    driver.destroy_node()
    context.try_shutdown()
