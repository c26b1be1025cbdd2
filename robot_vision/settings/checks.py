"""Checks of settings."""

from __future__ import annotations

from robot_vision.errors import ConfigError


def require(ok: bool, what: str, value: object, allowed: str) -> None:
    """Checks a setting.

    Raises:
        ConfigError: `ok` is false; the message says what the value is and what is allowed.
    """
    if not ok:
        raise ConfigError(f"{what} is {value!r}: it must be {allowed}")
