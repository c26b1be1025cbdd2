"""Topics that must differ: two sources that end in one topic, and a node that hears itself, are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robot_vision.errors import ConfigError


def check_topics(node: Any, parameter: str, topics: Iterable[tuple[str, str]]) -> None:
    """Refuses inputs that are no topics, the node's own, or one in its namespace and after remapping.

    Args:
        node: resolves the names.
        parameter: that has them.
        topics: what each is of, and its name.

    Raises:
        ConfigError: a name is not allowed, the node's own, or that of another input.
    """
    users: dict[str, str] = {}
    for user, topic in topics:
        try:
            name = node.resolve_topic_name(topic)
        except Exception as error:  # rclpy does not export rcl's
            raise ConfigError(
                f"{parameter} has {topic!r} for {user}: a topic has letters, digits, _ and single slashes, "
                "and no part of it begins with a digit"
            ) from error
        if name.startswith(f"{node.get_fully_qualified_name()}/"):
            raise ConfigError(f"{parameter} has {name} for {user}: the node itself publishes there")
        if name in users:
            raise ConfigError(
                f"{parameter} has {name} for {users[name]} and for {user}: give each a topic of its own"
            )
        users[name] = user
