"""Events that can wait do not cost every message that comes, and are heard all the same."""

import time

import pytest

rclpy = pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    made = rclpy.create_node("seldom", context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def test_a_subscriber_that_cannot_be_served_is_said_within_two_seconds(node):
    from rclpy.executors import SingleThreadedExecutor
    from std_msgs.msg import Empty

    from robot_vision.ros.node.qos import Seldom, profile, publisher_events

    said, asked = [], []

    class Counted(Seldom):
        def can_execute(self, entity):
            asked.append(super().can_execute(entity))
            return asked[-1]

    node.create_publisher(
        Empty,
        "topic",
        profile("best_effort", 1),
        callback_group=Counted(),
        event_callbacks=publisher_events("topic", said.append),
    )
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.01)
    assert asked[0] and not asked[-1]
    node.create_subscription(Empty, "topic", lambda message: None, profile("reliable", 1))
    start = time.monotonic()
    end = start + 5
    while not said and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.01)
    assert said and "incompatible RELIABILITY" in said[0]
    assert time.monotonic() - start < 2.5
