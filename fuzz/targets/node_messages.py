"""Messages on every subscription of the whole nodes: valid ones, and ones with hostile fields.

The callbacks are called as the executor calls them, with nodes that are active; their workers run in threads.
Whatever an internal guard had to catch is a bug.
"""

from __future__ import annotations

import array
import functools
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from hypothesis import strategies as st
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rosidl_parser.definition import (
    AbstractNestedType,
    AbstractString,
    Array,
    BasicType,
    NamespacedType,
)

from fuzz import scratch
from robot_vision.driving.route import Route
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map
from robot_vision.ros.driving.node import DriverNode
from robot_vision.ros.filters.node import FilterNode
from robot_vision.ros.gate.node import GateNode
from robot_vision.ros.localising.node import LocaliserNode
from robot_vision.ros.node.sequence import NUMBERED
from robot_vision.ros.perception.node import PerceptionNode
from robot_vision.ros.places.node import PlaceNode
from robot_vision.ros.repeating.node import RepeatNode

MAX_LEN = 1 << 10  # some hundred messages: most of an input's time goes into what follows them
ALLOWED_S = 20.0
SIZE, DIMENSION, SHA = (48, 64), 8, "ab" * 32
_DOUBLES = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-320, -5e-324, 1e9, 1e10, 1e150, -1e155, 1e300, 1e308,
    1.7976931348623157e308, -1.7976931348623157e308, float("nan"), float("inf"), float("-inf"), 3.5, -7.25,
)  # fmt: skip
_FLOATS = (0.0, 1.0, -1.0, 1e-45, 3.4e38, -3.4e38, float("nan"), float("inf"), 0.25)
_TEXTS = (
    "", "map", "odom", "base_link", "front_optical", "/map", "32FC1", "rgb8", "bgr8", "mono8", "jpeg",
    "plumb_bob", "kitchen", "red", "green", "blue", "unknown", "x" * 300, "\u00e9\n\u2028",
)  # fmt: skip
_RULES = """
labels: belief/label_info
rules:
  class: {kind: class, topic: belief/front/classification, label: red}
  known: {kind: known, topic: belief/front/classification}
  collision: {kind: collision, topic: eyes/front/collision}
  obstacle: {kind: obstacle, topic: eyes/front/obstacle_near, deceleration: 0.5, limits: forward}
  uncertain: {kind: uncertainty, topic: belief/pose, sigma_m: 0.5, sigma_deg: 10}
  localised: {kind: localised, topic: belief/belief}
  image: {kind: fresh, topic: front/image_raw, type: sensor_msgs/msg/Image}
"""
# Errors that only a guard can count.
DOMAIN = 50  # of their own: in that of other tests they would be heard
GUARDED = ("callback_errors", "internal_errors", "recognition_failures")


@functools.cache
def nodes() -> tuple[Any, ...]:
    """Returns the nodes, active: each kind of motion and of odometry that they know."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    folder = scratch.folder()
    place_map = _map(folder / "places.map")

    def make(kind: Any, name: str, **values: Any) -> Any:
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        remap = ["--ros-args", "-r", f"__node:={name}"]
        node = kind(context=context, parameter_overrides=overrides, cli_args=remap)
        node.get_logger().set_level(LoggingSeverity.FATAL)
        node.start()
        assert node.state_label == "active", (name, node.problem)
        return node

    rules = folder / "rules.yaml"
    rules.write_text(_RULES)
    mounted = {"camera_to_base": [0.1, 0.0, 0.5, -1.5, 0.0, -1.5], "base_frame": "base_link"}
    places = {"map": str(place_map), "camera": "front"}
    return (
        make(PerceptionNode, "eyes", model="demo", cameras=["front"], always_infer=True,
             max_rate_hz=5.0, **mounted),
        make(FilterNode, "belief", cameras=["front"], labels=["red", "green", "blue"], cell_topics=["cells"]),
        make(FilterNode, "belief_tf", cameras=["front"], odometry_source="tf", base_frame="base_link"),
        make(PlaceNode, "places", pose_source="odometry", verify=True, **places, **mounted),
        make(PlaceNode, "mapper", pose_source="pose_with_covariance", mapping=True,
             map=str(folder / "grown.map"), camera="front"),
        make(PlaceNode, "places_tf", pose_source="tf", **places),
        make(GateNode, "gate", rules=str(rules)),
        make(DriverNode, "driver", camera="front", distance_topic="eyes/front/obstacle_near",
             classification_topic="belief/classification", belief_topic="belief/belief"),
        make(LocaliserNode, "localiser", map=str(place_map), camera="front", perception_node="eyes",
             camera_to_base=mounted["camera_to_base"]),
        make(RepeatNode, "repeat", route=str(_route(folder)), collision_topic="eyes/front/collision"),
    )  # fmt: skip


def _route(folder: Path) -> Path:
    points = np.stack([np.arange(0.0, 3.0, 0.1), np.zeros(30), np.zeros(30)], axis=1)
    return Route("places.map", SHA, "map", "base_link", points).write(folder)


def _map(path: Path) -> Path:
    with create_map(
        path, bundle_name="tiny", bundle_sha256=SHA, dimension=DIMENSION, frame_id="map"
    ) as made:
        for i in range(20):
            T = np.eye(4)
            T[0, 3] = 0.3 * i
            made.add_many(
                [
                    Keyframe.checked(
                        stamp_ns=10**18 + i,
                        camera="front",
                        source="first",
                        T_map_camera=T,
                        descriptor=_unit(i),
                    )
                ]
            )
    return path


def _unit(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values), np.float32)


@functools.cache
def subscriptions() -> tuple[tuple[Any, Any], ...]:
    """Returns each node with each of its subscriptions."""
    return tuple((node, s) for node in nodes() for s in node.subscriptions)


def one_input(data: bytes) -> None:
    """For each message: a byte that picks the subscription, a count of hostile fields, then which and how."""
    take = scratch.Bytes(data)
    before = [_guarded(node) for node in nodes()]
    number = 0
    while take.at < len(data) or not number:
        node, subscription = subscriptions()[take.number(1) % len(subscriptions())]
        message = valid(subscription.msg_type, subscription.topic_name, number)
        for _ in range(take.number(1) % 4):
            spoil(message, take)
        info = [{"publication_sequence_number": number, "publisher_gid": {"data": b"fuzz"}}]
        content = serialize_message(message) if subscription.raw else message
        subscription.callback(content, *(info if NUMBERED else ()))
        number += 1
    scratch.count(number)
    for node in nodes():
        node._on_diagnostics()  # the timer's: what the node then says of itself, and the mapping it begins
    after = [_guarded(node) for node in nodes()]
    assert before == after, dict(zip([n.get_name() for n in nodes()], after, strict=True))


def _guarded(node: Any) -> tuple[int, ...]:
    return tuple(node._statistics.counters.get(name, 0) for name in GUARDED)


def valid(kind: Any, topic: str, number: int) -> Any:
    """Returns a message that the nodes take, a moment after the one before."""
    message = kind()
    now = nodes()[0].get_clock().now().to_msg()
    for part in (message, *getattr(message, "transforms", ())):
        if hasattr(part, "header"):
            part.header.stamp, part.header.frame_id = now, "front_optical"
    name = kind.__name__
    if name in ("PoseWithCovarianceStamped", "Odometry", "PoseStamped"):
        message.header.frame_id = "odom" if name == "Odometry" else "map"
        pose = message.pose if name == "PoseStamped" else message.pose.pose
        pose.position.x = 0.01 * number
        pose.orientation.w = 1.0
        if name != "PoseStamped":
            message.pose.covariance = (np.eye(6) * 0.01).ravel()
    if name == "Odometry":
        message.child_frame_id = "base_link"
    elif name == "TFMessage":
        from geometry_msgs.msg import TransformStamped

        for parent, child in (("odom", "base_link"), ("base_link", "front_optical")):
            edge = TransformStamped(child_frame_id=child)
            edge.header.stamp, edge.header.frame_id = now, parent
            edge.transform.rotation.w = 1.0
            message.transforms.append(edge)
    elif name == "PointCloud2":
        from sensor_msgs.msg import PointField

        message.header.frame_id = "map"
        message.fields = [
            PointField(name=word, offset=4 * i, datatype=7, count=1)
            for i, word in enumerate(("x", "y", "z", "size", "probability"))
        ]
        cells = np.array([[0.5, 0.5, 0, 1, 0.75], [1.5, 0.5, 0, 1, 0.25]], "<f4")
        message.point_step, message.width, message.height = 20, 2, 1
        message.data = array.array("B", cells.tobytes())
    elif name == "Classification":
        from vision_msgs.msg import ObjectHypothesis

        scores = {"red": 0.7, "green": 0.2, "blue": 0.1}
        if topic.endswith("collision"):
            scores = {"free": 0.9, "collision": 0.1}
        message.results = [ObjectHypothesis(class_id=c, score=s) for c, s in scores.items()]
    elif name == "Range":
        message.range, message.max_range = 2.0, 10.0
    elif name == "DiagnosticStatus":
        from diagnostic_msgs.msg import KeyValue

        message.message = "localised"
        message.values = [KeyValue(key="stamp_ns", value=str(now.sec * 10**9 + now.nanosec))]
    elif name == "LabelInfo":
        from vision_msgs.msg import VisionClass

        message.class_map = [
            VisionClass(class_id=i, class_name=c) for i, c in enumerate(("red", "green", "blue"))
        ]
    elif name == "CameraInfo":
        message.height, message.width, message.distortion_model = *SIZE, "plumb_bob"
        message.k = [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
    elif name == "VisionInfo":
        message.method = f"tiny onnx cpu sha256:{SHA}"
    elif name == "Image" and topic.endswith("descriptor"):
        message.height, message.width, message.encoding, message.step = (
            1,
            DIMENSION,
            "32FC1",
            4 * DIMENSION,
        )
        message.data = array.array("B", _unit(number % 25).tobytes())
    elif name == "Image":
        message.height, message.width, message.encoding = *SIZE, "rgb8"
        message.step = 3 * SIZE[1]
        message.data = array.array("B", bytes([number % 256]) * (3 * SIZE[0] * SIZE[1]))
    return message


def spoil(message: Any, take: scratch.Bytes) -> None:
    """Sets one field of a message, at any depth, to a value that its type allows."""
    while True:
        slots = list(
            zip(message.get_fields_and_field_types(), type(message).SLOT_TYPES, strict=True)
        )
        if not slots:
            return
        name, slot = slots[take.number(1) % len(slots)]
        value = getattr(message, name)
        if isinstance(slot, NamespacedType):
            message = value
            continue
        if isinstance(slot, AbstractNestedType):
            item = slot.value_type
            if isinstance(item, NamespacedType):
                if value and take.number(1) % 4:
                    message = value[take.number(1) % len(value)]
                    continue
                setattr(message, name, list(value) * (take.number(1) % 3))
                return
            if isinstance(slot, Array):  # of a fixed length
                changed = list(value)
                changed[take.number(1) % len(changed)] = _value(item, take)
            else:
                changed = [_value(item, take) for _ in range(take.number(1) % 12)]
            setattr(message, name, changed)
            return
        setattr(message, name, _value(slot, take))
        return


def _value(slot: Any, take: scratch.Bytes) -> Any:
    choice = take.number(1)
    if isinstance(slot, AbstractString):
        return _TEXTS[choice % len(_TEXTS)]
    assert isinstance(slot, BasicType)
    if slot.typename == "double":
        return _DOUBLES[choice % len(_DOUBLES)]
    if slot.typename == "float":
        return _FLOATS[choice % len(_FLOATS)]
    if slot.typename == "boolean":
        return bool(choice & 1)
    if slot.typename in ("octet", "char"):
        return bytes([choice]) if slot.typename == "octet" else choice
    bits = int("".join(filter(str.isdigit, slot.typename)))
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if slot.typename.startswith("u"):
        low, high = 0, (1 << bits) - 1
    return (low, high, low + 1, 0, 1, 64 % (high + 1), choice % (high + 1), high - 1)[choice % 8]


def seeds() -> list[bytes]:
    """Returns a valid message on each subscription, each with one hostile field, and long inputs."""
    count = len(subscriptions())
    long = [bytes([i, 0] * count) for i in range(count)]
    rng = np.random.default_rng(0)
    return [
        *(bytes([i, 0]) for i in range(count)),
        *(
            bytes([i, 1, f, f, f, v])
            for i in range(count)
            for f in (0, 1, 2, 3)
            for v in (8, 13, 16)
        ),
        *long,
        *(rng.bytes(MAX_LEN) for _ in range(8)),
    ]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns long inputs: some hundred messages each, most of them with hostile fields."""
    return st.integers(0, 2**64 - 1).map(lambda seed: np.random.default_rng(seed).bytes(MAX_LEN))
