"""Which node's pose a topic gives: nodes of this package are asked again and again, others once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from robot_vision.ros.filters.pose_sources import PoseSources

TOPIC = "/pose_sources/pose"
OURS = {"base_frame": "base_link", "camera_to_base": "", "pose_covariance_scale": 1.0}


class Publisher:
    """A node that publishes poses and counts who asks for its parameters."""

    def __init__(self, executor: Any, context: Any, name: str, has: dict[str, Any]) -> None:
        self.asked = 0
        self._has = has
        self.node = rclpy.create_node(name, context=context, start_parameter_services=False)
        self.node.create_service(GetParameters, f"{name}/get_parameters", self._answer)
        self.publisher = self.node.create_publisher(PoseWithCovarianceStamped, TOPIC, 1)
        executor.add_node(self.node)

    def _answer(self, request: Any, response: Any) -> Any:
        self.asked += 1
        known = [name for name in request.names if name in self._has]
        if len(known) == len(request.names):
            values = [Parameter(n, value=self._has[n]).get_parameter_value() for n in known]
            response.values = values
        return response

    def restart(self) -> None:
        self.node.destroy_publisher(self.publisher)
        self.publisher = self.node.create_publisher(PoseWithCovarianceStamped, TOPIC, 1)


@pytest.fixture
def ros() -> Iterator[tuple[Any, Any]]:
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    yield executor, context
    executor.shutdown()
    rclpy.shutdown(context=context)


@pytest.mark.slow
@pytest.mark.ros
def test_a_node_without_the_parameters_is_asked_once_for_each_publisher(ros: Any) -> None:
    """Since Lyrical rclpy warns in the asked node's log, each time, that it has no such parameter."""
    executor, context = ros
    ours = Publisher(executor, context, "localiser", OURS)
    other = Publisher(executor, context, "amcl", {"base_frame": "base_footprint"})
    asking = rclpy.create_node("filters", context=context)
    executor.add_node(asking)
    sources = PoseSources(asking, [TOPIC])

    def ask_until(done: Any) -> None:
        deadline = time.monotonic() + 20.0
        while not done():
            assert time.monotonic() < deadline, (ours.asked, other.asked)
            sources.ask()
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                executor.spin_once(timeout_sec=0.02)

    ask_until(lambda: other.asked)
    first = ours.asked
    ask_until(lambda: ours.asked > first + 3)
    assert other.asked == 1
    assert "base_frame of /localiser" in sources.wrong(TOPIC, "lidar", camera=False)

    other.restart()
    ask_until(lambda: other.asked > 1)
    first = ours.asked
    ask_until(lambda: ours.asked > first + 3)
    assert other.asked == 2
    sources.destroy()
