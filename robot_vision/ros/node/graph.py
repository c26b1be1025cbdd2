"""The graph of a robot: names and topics that are there twice, and inputs that must differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robot_vision.errors import ConfigError

# Topics on which many nodes publish by design.
_SHARED = {"/tf", "/tf_static", "/diagnostics", "/rosout", "/parameter_events"}
NAMELESS = "a node without a name"


class GraphWatch:
    """Looks for other sources of what a node publishes and subscribes.

    Args:
        node: whose name and topics are looked at.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._before: set[str] = set()

    def doubles(self, *shared: str) -> list[str]:
        """Returns a line for each name and topic that there is twice, as it was when last looked.

        Args:
            shared: more topics on which others may publish, such as those on which people give commands.
        """
        node = self._node
        fine = _SHARED | {node.resolve_topic_name(topic) for topic in shared}
        own = node.get_fully_qualified_name()
        there = [full_name(*names) for names in node.get_node_names_and_namespaces()]
        found: dict[str, str] = {}
        if there.count(own) > 1:
            found[own] = (
                f"{there.count(own)} nodes are named {own}, and their messages mix: give each a name or "
                "namespace of its own (one that crashed is seen for some seconds more)"
            )
        made = [publisher.topic_name for publisher in node.publishers]
        heard = {subscription.topic_name for subscription in node.subscriptions}
        for topic in sorted({*made, *heard} - fine):
            if node.count_publishers(topic) <= (made.count(topic) or 1):
                continue
            infos = node.get_publishers_info_by_topic(topic)
            names = [full_name(info.node_name, info.node_namespace) for info in infos]
            if topic in made and set(names) == {own}:
                continue  # that is said already
            found[topic] = (
                f"{topic} has {len(names)} publishers, and their messages mix: {', '.join(sorted(names))}"
            )
        # A node that was just discovered has no name yet, and one that ends may be there for a moment more.
        lasting = [line for key, line in found.items() if key in self._before]
        self._before = set(found)
        return lasting


def full_name(name: str, namespace: str) -> str:
    """Returns a node's name with its namespace."""
    # As rmw says of what is no ROS node, or not known to be one yet.
    return NAMELESS if "UNKNOWN" in name else f"{namespace.rstrip('/')}/{name}"


def other_types(node: Any, topic: str, stamped: bool) -> list[str]:
    """Returns a line for each type other than the node's own with which others use a topic of commands."""
    wanted = f"geometry_msgs/msg/{'TwistStamped' if stamped else 'Twist'}"
    full = node.resolve_topic_name(topic)
    ends = (*node.get_publishers_info_by_topic(full), *node.get_subscriptions_info_by_topic(full))
    remedy = f"set stamped_cmd_vel to {str(not stamped).lower()}, or change the others"
    return [
        f"{full} is {wanted} here and {other} elsewhere: {remedy}"
        for other in sorted({info.topic_type for info in ends} - {wanted})
    ]


_OF_ALL = {
    "/tf": "transforms",
    "/tf_static": "fixed transforms",
    "/clock": "the time",
    "/diagnostics": "diagnostics",
    "/rosout": "logs",
    "/parameter_events": "parameters",
}


def check_topics(
    node: Any, parameter: str, topics: Iterable[tuple[str, str]], outputs: bool = False
) -> None:
    """Refuses inputs that are no topics, the node's own, or one in its namespace and after remapping.

    Topics on which every node reads or writes messages of another type are no inputs either.

    Args:
        node: resolves the names.
        parameter: that has them.
        topics: what each is of, and its name.
        outputs: whether they are the node's own: a player named `front` may publish `/front/image_raw`.

    Raises:
        ConfigError: a name is not allowed, the node's own, or that of another input.
    """
    users = dict(_OF_ALL)
    for user, topic in topics:
        try:
            name = node.resolve_topic_name(topic)
        except Exception as error:  # rclpy does not export rcl's
            raise ConfigError(
                f"{parameter} has {topic!r} for {user}: a topic has letters, digits, _ and single slashes, "
                "and no part of it begins with a digit"
            ) from error
        if not outputs and name.startswith(f"{node.get_fully_qualified_name()}/"):
            raise ConfigError(f"{parameter} has {name} for {user}: the node itself publishes there")
        if name in users:
            raise ConfigError(
                f"{parameter} has {name} for {users[name]} and for {user}: give each a topic of its own"
            )
        users[name] = user
