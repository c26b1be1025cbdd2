"""Two sources that end in one topic are refused, whatever names lead there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from robot_vision.errors import ConfigError  # noqa: E402
from robot_vision.ros.node.graph import check_topics  # noqa: E402


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-r", "/robot1/c/image:=/robot1/a/image"], context=context)
    node = rclpy.create_node("names", namespace="/robot1", context=context)
    yield node
    node.destroy_node()
    context.shutdown()


@pytest.mark.parametrize("other", ["a/image", "/robot1/a/image", "c/image"])
def test_one_topic_for_two_cameras_is_refused(node: Any, other: str) -> None:
    topics = [("camera front", "a/image"), ("camera rear", other)]
    with pytest.raises(ConfigError, match="/robot1/a/image for camera front and for camera rear"):
        check_topics(node, "image_topics", topics)


@pytest.mark.parametrize("name", ["/tf", "/clock", "/diagnostics"])
def test_a_topic_that_every_node_uses_is_no_input(node: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"The node has {name} for .* and for odometry_topic"):
        check_topics(node, "The node", [("odometry_topic", name)])


def test_topics_that_differ_pass(node: Any) -> None:
    check_topics(node, "image_topics", [("camera front", "a/image"), ("camera rear", "/a/image")])


def test_a_topic_of_the_node_itself_is_refused(node: Any) -> None:
    with pytest.raises(ConfigError, match="/robot1/names/pose for source 1: the node itself"):
        check_topics(node, "pose_topics", [("source 1", "~/pose")])


@pytest.mark.parametrize("name", ["/a//b", "a b", "1a", "/a/"])
def test_names_that_are_no_topics_are_refused(node: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="image_topics has .* a topic has letters"):
        check_topics(node, "image_topics", [("camera front", name)])
