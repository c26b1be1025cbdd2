"""The commands that record the perception node's topics; `launch/record.launch.py` starts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robot_vision.errors import ConfigError

RESULTS = ("classification", "descriptor", "pose")
LATCHED = ("label_info", "vision_info")


def topic_pattern(node: str) -> str:
    """Returns the regular expression of a node's result topics, of all its cameras."""
    name = re.escape("/" + node.strip("/"))
    return f"{name}/(.+/({'|'.join(RESULTS)})|{'|'.join(LATCHED)})"


def record_command(
    output: str, node: str = "/perception", storage: str = "mcap", extra: Sequence[str] = ()
) -> list[str]:
    """Returns the `ros2 bag record` that records a node's results.

    Raises:
        ConfigError: no output is given.
    """
    if not output:
        raise ConfigError("output is empty: set it to the directory of the rosbag2 to write")
    pattern = "|".join([topic_pattern(node), *(re.escape(topic) for topic in extra)])
    return ["ros2", "bag", "record", "--storage", storage, "--output", output, "--regex", pattern]


def play_command(bag: str, rate: float) -> list[str]:
    """Returns the `ros2 bag play` of a recording."""
    return ["ros2", "bag", "play", bag, "--rate", str(rate)]
