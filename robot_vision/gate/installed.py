"""Finds a file of rules by its path or by the name of one that is installed."""

from __future__ import annotations

from pathlib import Path

from robot_vision.bundle.installed import shared_folders
from robot_vision.errors import ConfigError, unknown
from robot_vision.gate.rules import Rules, read_rules

_FOLDER = "config/gates"


def installed_rules() -> dict[str, Path]:
    """Returns the installed files of rules by name."""
    found: dict[str, Path] = {}
    for folder in shared_folders(_FOLDER):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def rules_path(rules: str) -> Path:
    """Returns the file for a path or a name.

    Raises:
        ConfigError: there is none.
    """
    path, installed = Path(rules).expanduser(), installed_rules()
    if path.is_file():
        return path
    if path.suffix or path.name != rules:
        raise ConfigError(f"{path} cannot be read: there is no such file")
    if rules not in installed:
        raise ConfigError(unknown("gate", rules, installed))
    return installed[rules]


def find_rules(rules: str) -> Rules:
    """Returns the rules of a path or a name.

    Raises:
        ConfigError: there is no such file, or it is wrong; see `read_rules`.
    """
    return read_rules(rules_path(rules))
