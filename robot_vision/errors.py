"""Errors that a user can cause. The command line prints their one line; a bug keeps its traceback."""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Iterable
from typing import Any

from robot_vision.text.address import without_secrets

_SHORT = 6  # letters
# Control characters but tab and line feed, as Python would write them.
_VISIBLE = {c: f"\\x{c:02x}" for c in (*range(9), *range(11, 32), *range(127, 160))}


class RobotVisionError(Exception):
    """An expected error: its message names the value, what is allowed and the remedy, in one line.

    Values may come from anywhere, so what would fill a log or steer a terminal is left out of the message,
    and so are secrets in addresses.
    """

    MAX_CHARACTERS = 4000

    def __init__(self, message: str = "") -> None:
        message = without_secrets(message)
        half = self.MAX_CHARACTERS // 2
        if len(message) > self.MAX_CHARACTERS:
            message = f"{message[:half]} ... {message[-half:]}"
        super().__init__(message.translate(_VISIBLE))


class ConfigError(RobotVisionError):
    """A setting, parameter or argument that is unknown, of the wrong type or out of range."""


class BundleError(RobotVisionError):
    """A model bundle that is missing, altered, truncated or contradicts itself."""


class EngineError(RobotVisionError):
    """An inference engine or device that is not there or failed."""


class SourceError(RobotVisionError):
    """A recording (bag, video, folder) that cannot be opened or read."""

    def __init__(self, message: str = "") -> None:
        # Names out of a damaged recording may be anything, whole message definitions among it.
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class ImageError(RobotVisionError):
    """An image message that cannot be decoded.

    Attributes:
        reason: a short fixed word for counters, one of `ImageError.REASONS`.
    """

    REASONS = ("encoding", "size", "data_length", "corrupt", "non_finite")

    def __init__(self, reason: str, message: str) -> None:
        assert reason in self.REASONS, reason
        super().__init__(message)
        self.reason = reason


def is_whole(value: Any, least: int = 0) -> bool:
    """Says whether a value, which may be of any type, is a whole number of `least` or more."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        return False


def path_text(value: Any, name: str) -> str:
    """Returns a path as text.

    Raises:
        ConfigError: it is no text and no path; `name` says of which argument.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ConfigError(f"{name} is {value!r}: give a path")
    return text


def refuse_fork(process: int, what: str, error: type[RobotVisionError]) -> None:
    """Refuses to use in a forked process what another one has: its threads, connections and locks.

    Raises:
        error: this process is not `process`, which has `what`.
    """
    if os.getpid() != process:
        raise error(
            f"This process was forked from {process}, and {what} there cannot be used here: start it with "
            'multiprocessing.get_context("spawn"), and load or open what it needs in it'
        )


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """Returns the one-line message for a name that is not among those allowed, with the nearest one."""
    names = list(allowed)
    near = nearest(str(value), names)
    if near and near.lower() == str(value).lower():
        return f"Unknown {kind} {value!r}: write it {near!r}"
    hint = f" (did you mean {near!r}?)" if near else ""
    return f"Unknown {kind} {value!r}{hint}: use one of {', '.join(names)}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns which of several names was meant, in whatever case; empty where none is near enough.

    Long names that share a word, such as camera_to_base and cameras, are near by their letters only.
    """
    by_case = {other.lower(): other for other in names}
    cutoff = 0.6 if len(name) <= _SHORT else 0.8
    near = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=cutoff)
    return by_case[near[0]] if near else ""


class MeasurementError(RobotVisionError):
    """A measurement or message that cannot be used.

    Attributes:
        reason: a short fixed word for counters, one of `MeasurementError.REASONS`.
    """

    REASONS = (
        "non_finite", "out_of_range", "quaternion", "shape", "covariance", "stamp", "out_of_order",
        "too_old", "jump", "frame",
    )  # fmt: skip

    def __init__(self, reason: str, message: str) -> None:
        assert reason in self.REASONS, reason
        super().__init__(message)
        self.reason = reason
