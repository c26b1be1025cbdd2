"""What a robot has twice by mistake: nodes of one name, publishers of one topic, sources of one frame."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs")
pytest.importorskip("tf2_msgs")

from ros_helpers import coloured_image, rgb_message, set_header, wait_until  # noqa: E402
from tiny_bundle import make_tiny_bundle  # noqa: E402

from robot_vision.ros.filters.node import FilterNode  # noqa: E402
from robot_vision.ros.node.transitions import SUCCESS  # noqa: E402
from robot_vision.ros.perception.node import PerceptionNode  # noqa: E402

pytestmark = pytest.mark.ros


class Robot:
    """Nodes of this process, each with a context of its own as in a process of its own, spun together.

    What ended may be in the graph for some seconds: tests that look at it have a namespace of their own.
    """

    def __init__(self) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._made: list[tuple[Any, Any, Any]] = []
        self._executor = SingleThreadedExecutor
        self.log: dict[str, list[str]] = {}
        self.client = self._add(lambda context: rclpy.create_node("client", context=context))

    def _add(self, create: Callable[[Any], Any], *rules: str) -> Any:
        context = rclpy.Context()
        words = [word for rule in rules for word in ("-r", rule)]
        rclpy.init(args=["--ros-args", *words] if words else None, context=context)
        node = create(context)
        executor = self._executor(context=context)
        executor.add_node(node)
        self._made.append((node, executor, context))
        return node

    def start(self, kind: Any, *rules: str, **values: Any) -> Any:
        from rclpy.parameter import Parameter

        values = {"autostart": False, "diagnostics_period_s": 0.2, "warn_period_s": 0.1, **values}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = self._add(lambda c: kind(context=c, parameter_overrides=overrides), *rules)
        node.said = []
        warn = node._warn
        node._warn = lambda key, text: (node.said.append(text), warn(key, text))[1]
        node.sent = []
        publish = node._diagnostics.publish
        node._diagnostics = SimpleNamespace(publish=lambda m: (node.sent.append(m), publish(m)))
        assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
        return node

    def spin(self) -> None:
        for _, executor, _ in self._made:
            executor.spin_once(timeout_sec=0.01)

    def until(self, condition: Callable[[], Any], what: str = "", each: Any = None) -> Any:
        def go() -> None:
            if each is not None:
                each()
            self.spin()

        return wait_until(condition, what=what, each=go)

    def status(self, node: Any) -> tuple[int, str, dict[str, str]]:
        """Returns what the node's next message on /diagnostics says of the node itself."""
        node.sent.clear()
        self.until(lambda: node.sent, "diagnostics")
        first = node.sent[-1].status[0]
        return ord(first.level), first.message, {v.key: v.value for v in first.values}

    def close(self) -> None:
        while self._made:
            node, executor, context = self._made.pop()
            executor.shutdown()
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
            context.try_shutdown()


@pytest.fixture
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()
    gc.collect()  # or its nodes stay in the graph that other tests look at


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Parameters of a perception node."""
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("m") / "tiny")
    return {"model": str(bundle), "engine": "onnx", "threads": 1, "always_infer": True}


def doubled(robot: Robot, node: Any) -> str:
    level, text, values = robot.status(node)
    return text if level == 1 and int(values["doubles"]) else ""


@pytest.mark.slow
def test_two_nodes_of_one_name_say_so(robot: Robot) -> None:
    first = robot.start(FilterNode, "__ns:=/one")
    assert robot.status(first)[2]["doubles"] == "0"
    second = robot.start(FilterNode, "__ns:=/one")
    for node in (first, second):
        robot.until(
            lambda node=node: doubled(robot, node).startswith("2 nodes are named /one/filters")
        )
        assert any(text.startswith("2 nodes are named /one/filters") for text in node.said)
        # Once is enough: the topics are not named, too.
        robot.until(lambda node=node: "/one/filters/pose" not in doubled(robot, node))


@pytest.mark.slow
def test_a_second_publisher_of_an_output_or_input_is_named(robot: Robot) -> None:
    from geometry_msgs.msg import PoseWithCovarianceStamped as Pose
    from nav_msgs.msg import Odometry

    node = robot.start(FilterNode, "__ns:=/two")
    robot.client.create_publisher(Odometry, "/two/odom", 1)
    robot.client.create_publisher(Pose, "/two/filters/pose", 1)
    line = "/two/filters/pose has 2 publishers, and their messages mix: /client, /two/filters"
    robot.until(lambda: doubled(robot, node) == line, "the second publisher of the pose")
    robot.client.create_publisher(Odometry, "/two/odom", 1)
    robot.until(lambda: "/two/odom has 2 publishers" in doubled(robot, node), "two odometries")


@pytest.mark.slow
def test_a_command_topic_may_have_several_publishers(robot: Robot) -> None:
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from vision_msgs.msg import Classification

    from robot_vision.ros.places.node import PlaceNode

    filters, places = (robot.start(k, "__ns:=/three") for k in (FilterNode, PlaceNode))
    for _ in range(2):
        robot.client.create_publisher(Classification, "/three/filters/prior", 1)
    robot.client.create_publisher(PoseWithCovarianceStamped, "/three/initialpose", 1)
    robot.until(lambda: filters.count_publishers("/three/filters/prior") == 2)
    robot.until(lambda: places.count_publishers("/three/initialpose") == 2)
    for node in (filters, places):
        for _ in range(3):
            robot.status(node)
        assert not any("prior" in text or "initialpose" in text for text in node.said)


def images(robot: Robot, frame_ids: dict[str, str]) -> Callable[[], None]:
    """Returns what sends an image of each topic, of another colour each time."""
    from sensor_msgs.msg import Image

    publishers = {topic: robot.client.create_publisher(Image, topic, 1) for topic in frame_ids}

    def send() -> None:
        for number, (topic, publisher) in enumerate(publishers.items()):
            image = coloured_image((200 - 90 * number, 40, 60))
            publisher.publish(rgb_message(image, time.time_ns(), frame_ids[topic]))

    return send


def heard_tf(robot: Robot) -> list[Any]:
    from tf2_msgs.msg import TFMessage

    heard: list[Any] = []
    robot.client.create_subscription(TFMessage, "/tf", lambda m: heard.extend(m.transforms), 100)
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("base", ["", "base_link"])
def test_two_cameras_give_one_frame_from_one_of_them_only(
    robot: Robot, eyes: dict[str, Any], base: str
) -> None:
    heard = heard_tf(robot)
    given = {"base_frame": base, "camera_to_base": [0.0] * 6} if base else {}
    node = robot.start(PerceptionNode, **eyes, **given, cameras=["front", "rear"], publish_tf=True)
    frame = {"front": "front", "rear": "rear"} if base else dict.fromkeys(("front", "rear"), "eye")
    send = images(robot, {f"/{camera}/image_raw": f for camera, f in frame.items()})

    def left_out() -> int:
        return sum(c.statistics.counters.get("frame_taken", 0) for c in node._cameras.values())

    robot.until(lambda: left_out() > 3 and len(heard) > 3, "one is left out", each=send)
    assert {t.child_frame_id for t in heard} == {f"{base or 'eye'}_estimated"}
    places = {round(t.transform.translation.x, 3) for t in heard}
    assert len(places) == 1, "two cameras in turns"
    assert any("its transform is left out, since camera" in text for text in node.said)


@pytest.mark.slow
def test_cameras_of_different_frames_each_give_theirs(robot: Robot, eyes: dict[str, Any]) -> None:
    heard = heard_tf(robot)
    node = robot.start(PerceptionNode, **eyes, cameras=["front", "rear"], publish_tf=True)
    send = images(robot, {"/front/image_raw": "f", "/rear/image_raw": "r"})
    wanted = {"f_estimated", "r_estimated"}
    robot.until(lambda: {t.child_frame_id for t in heard} == wanted, "both", each=send)
    assert not any(c.statistics.counters.get("frame_taken") for c in node._cameras.values())


@pytest.mark.slow
@pytest.mark.parametrize("static", [False, True])
def test_a_frame_that_another_node_broadcasts_is_named(
    robot: Robot, eyes: dict[str, Any], static: bool
) -> None:
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    heard_tf(robot)
    suffix = {"tf_suffix": ""} if static else {}  # as a URDF has it
    node = robot.start(PerceptionNode, **eyes, **suffix, publish_tf=True)
    send = images(robot, {"/camera/image_raw": "eye"})
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    topic = "/tf_static" if static else "/tf"
    other = robot.client.create_publisher(TFMessage, topic, latched if static else 10)
    transform = TransformStamped(child_frame_id="eye" if static else "eye_estimated")
    transform.header.frame_id = "base_link"
    transform.transform.rotation.w = 1.0

    def both() -> None:
        send()
        other.publish(TFMessage(transforms=[transform]))

    text = robot.until(lambda: doubled(robot, node), "the other broadcaster", each=both)
    assert "another node broadcasts eye" in text
    assert int(robot.status(node)[2]["tf_doubled"]) > 0
    assert any("in 'base_link'" in said and "publish_tf" in said for said in node.said)


@pytest.mark.slow
def test_own_transforms_are_nobody_else_s_and_nobody_infers_for_them(
    robot: Robot, eyes: dict[str, Any]
) -> None:
    heard = heard_tf(robot)
    node = robot.start(PerceptionNode, **{**eyes, "always_infer": False}, publish_tf=True)
    send = images(robot, {"/camera/image_raw": "eye"})
    robot.until(lambda: node.tf._subscriptions and len(heard) > 5, "own transforms", each=send)
    assert robot.status(node)[2]["tf_doubled"] == "0" and robot.status(node)[0] == 0
    assert node.tf.listened
    for subscription in list(robot.client.subscriptions):
        if subscription.topic_name == "/tf":
            robot.client.destroy_subscription(subscription)
    robot.until(lambda: not node.tf.listened, "its own subscription is no listener")


# Poses of another frame


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "given", "text"),
    [
        ({}, {"base_frame": "base_link"}, "it is the pose of the camera"),
        ({"base_frame": "base_link"}, {"base_frame": "base_link"}, ""),
        ({"base_frame": "foot"}, {"base_frame": "base_link"}, "it is the pose of 'foot'"),
        ({"base_frame": "base_link"}, {"pose_frames": ["lens"]}, "'base_link'"),
        ({}, {}, ""),
    ],
)
def test_poses_of_another_frame_are_refused(
    robot: Robot, eyes: dict[str, Any], source: dict[str, Any], given: dict[str, Any], text: str
) -> None:
    mounted = {**source, "camera_to_base": [0.0] * 6} if source else {}
    robot.start(PerceptionNode, **eyes, **mounted)
    filters = robot.start(FilterNode, odometry_source="none", **given)
    send = images(robot, {"/camera/image_raw": "eye"})
    count = filters._poses.statistics

    def counted(*names: str) -> int:
        return sum(count.counters.get(name, 0) for name in names)

    if text:
        robot.until(lambda: counted("refused_pose_of") > 2, "poses are refused", each=send)
        assert any(text in said and "pose_frames" in said for said in filters.said)
        assert counted("accepted", "initialised", "waiting") == 0
    else:
        robot.until(lambda: counted("published") > 2, "filtered poses", each=send)
        assert counted("refused_pose_of") == 0


@pytest.mark.slow
def test_poses_of_nodes_of_others_are_taken(robot: Robot) -> None:
    from geometry_msgs.msg import PoseWithCovarianceStamped

    filters = robot.start(
        FilterNode, odometry_source="none", base_frame="base_link", pose_topics=["/gps"]
    )
    gps = robot.client.create_publisher(PoseWithCovarianceStamped, "/gps", 1)

    def send() -> None:
        message = PoseWithCovarianceStamped()
        set_header(message, time.time_ns(), "map")
        message.pose.pose.orientation.w = 1.0
        message.pose.covariance = (0.01 * np.eye(6)).reshape(36)
        gps.publish(message)

    counters = filters._poses.statistics
    robot.until(lambda: counters.counters.get("published", 0) > 2, "poses", each=send)
