"""Finds a model bundle by its directory or by the name of one that is installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from robot_vision.errors import ConfigError, unknown

PACKAGE = "robot_vision"


def shared_folders(name: str) -> list[Path]:
    """Returns the folders of a name that are installed, the first to be looked at first.

    These are `share/robot_vision/<name>` of every ROS prefix (workspaces before the distribution) and of
    this Python's prefix, and `<name>` of a source tree.
    """
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [Path(p) / "share" / PACKAGE / name for p in prefixes if p]
    folders.append(Path(__file__).resolve().parents[2] / name)
    return [f for f in dict.fromkeys(folders) if f.is_dir()]


def model_folders() -> list[Path]:
    """Returns the folders that may hold installed bundles; see `shared_folders`."""
    return shared_folders("models")


def installed_models() -> dict[str, Path]:
    """Returns the installed bundles by name."""
    found: dict[str, Path] = {}
    for folder in model_folders():
        for path in sorted(folder.iterdir()):
            if (path / "bundle.yaml").is_file():
                found.setdefault(path.name, path)
    return found


def find_model(model: str) -> Path:
    """Returns the bundle's directory for a path or a name.

    Raises:
        ConfigError: nothing was given, or there is no such directory or model.
    """
    installed = installed_models()
    if not model.strip():
        names = ", ".join(installed) or "none installed"
        raise ConfigError(
            f"model is empty: set it to a bundle's directory or to the name of a model ({names})"
        )
    path = Path(model).expanduser()
    if path.is_dir():
        if model in installed and not (path / "bundle.yaml").is_file():
            raise ConfigError(
                f"model is {model!r}: a folder of that name here is no bundle and hides the installed "
                f"model: give the path, {installed[model]}"
            )
        return path
    if os.sep in model or not installed:
        raise ConfigError(f"model is {model!r}: there is no such directory")
    if model not in installed:
        raise ConfigError(unknown("model", model, installed))
    return installed[model]


def package_executable(name: str) -> Path | None:
    """Returns `lib/robot_vision/<name>` of the first ROS prefix that has it, as launch files look it up.

    None in an environment that pip made, which has its executables elsewhere.
    """
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix) / "lib" / PACKAGE / name
        if prefix and path.is_file():
            return path
    return None
