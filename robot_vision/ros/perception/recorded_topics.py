"""The commands that record the perception node's topics; `launch/record.launch.py` starts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robot_vision.bundle.model_topic import model_topic
from robot_vision.contract import registry
from robot_vision.contract.topics import UNCERTAINTY
from robot_vision.errors import ConfigError


def topic_pattern(node: str, extra: Sequence[str] = ()) -> str:
    """Returns the regular expression of a node's result topics, of all its cameras, and of more topics.

    That is of all heads that are installed, under any name. `ros2 bag record` looks for it anywhere in a
    topic's name, so it is of the whole name.
    """
    name, heads = re.escape("/" + node.strip("/")), registry.installed()
    topics = [t.name for h in heads for t in h.topics(None) if not t.name.startswith("/")]
    latched = [t.name for h in heads for t in h.latched(None)]
    each, once = "|".join(topics), "|".join(latched)
    names = [
        f"{name}/[^/]+/(({each})|{UNCERTAINTY.name}|[a-z][a-z0-9_]*/({each}))",
        f"{name}/(({once})|{model_topic().name}|[a-z][a-z0-9_]*/({once}))",
    ]
    names += [re.escape("/" + topic.strip("/")) for topic in extra]
    return f"^({'|'.join(names)})$"


def record_command(
    output: str, node: str = "/perception", storage: str = "mcap", extra: Sequence[str] = ()
) -> list[str]:
    """Returns the `ros2 bag record` that records a node's results.

    Raises:
        ConfigError: no output is given, or a topic is not the name of one.
    """
    if not output:
        raise ConfigError("output is empty: set it to the directory of the rosbag2 to write")
    for what, topic in (("node", node), *(("extra_topics", topic) for topic in extra)):
        if not re.fullmatch(r"/?\w+(/\w+)*", topic, re.ASCII):
            raise ConfigError(f"{what} has {topic!r}: give full names, such as /camera/image_raw")
    pattern = topic_pattern(node, extra)
    return ["ros2", "bag", "record", "--storage", storage, "--output", output, "--regex", pattern]


def play_command(bag: str, rate: float) -> list[str]:
    """Returns the `ros2 bag play` of a recording."""
    return ["ros2", "bag", "play", bag, "--rate", str(rate)]
