"""Folders for what is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from robot_vision.errors import ConfigError


def make_folder(path: Path, option: str = "--output", sources: Iterable[str | Path] = ()) -> None:
    """Makes a folder for what is written, before the work whose results it takes.

    Args:
        path: of the folder.
        option: that names it.
        sources: what is read; see `refuse_source`.

    Raises:
        ConfigError: it cannot be made, or not be written to, or is a source or in one.
    """
    refuse_source(path, option, sources)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be made: {error.strerror}: name another folder"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {path} may not be written to: name another folder")


def refuse_source(path: str | Path, option: str, sources: Iterable[str | Path]) -> None:
    """Refuses to write to what is read, or into a folder of it, where results would be read as data.

    A recording whose files are listed (`metadata.yaml`) reads no others.

    Raises:
        ConfigError: `path` is one of the sources, or in one that is such a folder.
    """
    place = Path(path).expanduser().resolve()
    for source in sources:
        given = Path(source).expanduser().resolve()
        if place == given:
            raise ConfigError(f"{option} {path} is a source: name another place")
        if given in place.parents and not (given / "metadata.yaml").exists():
            raise ConfigError(f"{option} {path} is in {source}, which is read: name another place")
