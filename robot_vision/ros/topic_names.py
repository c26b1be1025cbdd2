"""Topics that must differ: two sources that end in one topic are refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from robot_vision.errors import ConfigError


def check_topics(node: Any, parameter: str, topics: Iterable[tuple[str, str]]) -> None:
    """Refuses topics that are no topics, and two that are one in the node's namespace and after remapping.

    Args:
        node: resolves the names.
        parameter: that has them.
        topics: what each is of, and its name.

    Raises:
        ConfigError: a name is not allowed, or two are one topic.
    """
    users: dict[str, str] = {}
    for user, topic in topics:
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            raise ConfigError(
                f"{parameter} has {topic!r} for {user}: a topic has letters, digits, _ and single slashes, "
                "and no part of it begins with a digit"
            ) from error
        name = node.resolve_topic_name(topic)
        if name in users:
            raise ConfigError(
                f"{parameter} has {name} for {users[name]} and for {user}: give each a topic of its own"
            )
        users[name] = user
