"""Folders for what is written."""

from __future__ import annotations

import os
from pathlib import Path

from robot_vision.errors import ConfigError


def make_folder(path: Path, option: str = "--output") -> None:
    """Makes a folder for what is written, before the work whose results it takes.

    Raises:
        ConfigError: it cannot be made, or not be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be made: {error.strerror}: name another folder"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {path} may not be written to: name another folder")
