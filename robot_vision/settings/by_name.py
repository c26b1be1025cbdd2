"""A thing by its name and settings.

Tables hold names only, so that the packages of a thing are imported when it is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from robot_vision.errors import ConfigError, unknown


def make_by_name(
    what: str, table: Mapping[str, str], name: str, settings: Mapping[str, Any], **given: Any
) -> Any:
    """Returns what a table's class makes of settings.

    Args:
        what: it is, for messages.
        table: name to `module:Class`.
        name: one of the table.
        settings: what the class takes.
        given: further arguments, which are no settings.

    Raises:
        ConfigError: an unknown name or setting (the message names the nearest), or a value out of range.
    """
    if name not in table:
        raise ConfigError(unknown(what, name, table))
    module, _, kind = table[name].partition(":")
    cls = getattr(importlib.import_module(module), kind)
    allowed = [p for p in inspect.signature(cls).parameters if p not in given]
    for key in settings:
        if key not in allowed:
            raise ConfigError(unknown(f"setting of {name} {what.rpartition(' ')[2]}", key, allowed))
    return cls(**settings, **given)
