"""The parameters that every managed node has."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.settings.parameters import LIVE, NEVER, parameter

RELIABILITY = ("best_effort", "reliable")


@dataclass(frozen=True)
class ManagedParameters:
    """What the managed nodes have in common; the base of a node's own parameters."""

    autostart: bool = parameter(
        True, "Configure and activate the node without a lifecycle manager.", change=NEVER
    )
    subscribe_reliability: str = parameter(
        "best_effort",
        "QoS reliability of the subscriptions; best_effort works with every publisher.",
        choices=RELIABILITY,
    )
    publish_reliability: str = parameter(
        "reliable",
        "QoS reliability of the results; reliable works with every subscriber.",
        choices=RELIABILITY,
    )
    publish_depth: int = parameter(5, "QoS history of the results, in messages.", low=1, high=1000)
    warn_period_s: float = parameter(
        5.0,
        "Shortest time between two warnings of the same kind about the same input, in seconds.",
        low=0.1,
        high=3600,
        change=LIVE,
    )
    diagnostics_period_s: float = parameter(
        1.0,
        "Time between two messages on /diagnostics, in seconds.",
        low=0.1,
        high=60,
        change=NEVER,
    )
    diagnostics_window_s: float = parameter(
        10.0,
        "Length of the sliding window over which /diagnostics gives rates and other statistics, in "
        "seconds.",
        low=1,
        high=300,
        change=NEVER,
    )


def check_camera_name(what: str, name: str) -> None:
    """Refuses what cannot be a part of a topic.

    Args:
        what: begins the message, such as `camera is`.
        name: of the camera.

    Raises:
        ConfigError: it is no such part.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(
            f"{what} {name!r}: a name starts with a letter and has letters, digits and '_'"
        )


def check_camera_names(names: Sequence[str]) -> None:
    """Refuses a parameter `cameras` that does not name each of them.

    Raises:
        ConfigError: there is none, a name is not allowed, or two are the same.
    """
    if not names:
        raise ConfigError("cameras is empty: set it to at least one name, such as [camera]")
    for name in names:
        check_camera_name("cameras has", name)
    if len(set(names)) != len(names):
        raise ConfigError(f"cameras is {list(names)}: make the names differ")


def check_mountings(numbers: Sequence[float], cameras: int = 1) -> None:
    """Refuses a parameter `camera_to_base` that is not finite, or not of one camera or each.

    Raises:
        ConfigError: a number is not, or there are too few or too many.
    """
    if len(numbers) not in (0, 6, 6 * cameras):
        each = "" if cameras == 1 else f" for all cameras or {6 * cameras} for each of {cameras}"
        raise ConfigError(
            f"camera_to_base has {len(numbers)} numbers: give six{each}, or leave it empty"
        )
    if any(not math.isfinite(v) for v in numbers):
        raise ConfigError(f"camera_to_base is {list(numbers)}: give finite numbers")
