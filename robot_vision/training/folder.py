"""Whose a run's folder is: its `config.yaml` says with which settings it was begun."""

from __future__ import annotations

from pathlib import Path

import yaml

from robot_vision.errors import ConfigError
from robot_vision.training.checkpoint import write_whole
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import parse, plain

CONFIG = "config.yaml"
# What does not change what is learned may differ between a run and its resumption.
_FREE = (
    ("data", "threads"),
    ("data", "memory_gib"),
    ("loop", "threads"),
    ("loop", "checkpoint_seconds"),
)


def check_folder(folder: Path, config: TrainingConfig, resume: bool) -> None:
    """Refuses a folder that holds another run than the one to be resumed.

    Raises:
        ConfigError: it holds a run that is not to be resumed, or one with other settings.
    """
    file = folder / CONFIG
    if not file.is_file():
        return
    if not resume:
        raise ConfigError(
            f"{folder} holds a run already: continue it with --resume, or choose another --output"
        )
    old = plain(parse(TrainingConfig, "", yaml.safe_load(file.read_text(encoding="utf-8"))))
    new = plain(config)
    for data in (old, new):
        data.pop("output")
        for group, key in _FREE:
            data[group].pop(key)
    if old != new:
        different = [key for key in new if old.get(key) != new[key]]
        raise ConfigError(
            f"{file} differs from this configuration in {', '.join(different)}: resume with the "
            "settings that the run had"
        )


def claim_folder(folder: Path, config: TrainingConfig) -> None:
    """Writes the resolved configuration, where it is not there yet."""
    if not (folder / CONFIG).is_file():
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        write_whole(folder / CONFIG, text.encode())
