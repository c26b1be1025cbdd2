"""Whose a run's folder is: `config.yaml` says with which settings it was begun, a lock that it runs now."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from robot_vision.errors import ConfigError
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import expand, parse, plain

CONFIG, LOCK = "config.yaml", "running"
# What does not change what is learned may differ between a run and its resumption.
_FREE = (
    ("data", "threads"),
    ("data", "memory_gib"),
    ("loop", "threads"),
    ("loop", "checkpoint_seconds"),
)


def folder_of(config: TrainingConfig) -> Path:
    """Returns a resolved configuration's folder."""
    return Path(expand(config.output)).absolute()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run's folder for this process; one that is left empty is removed again.

    Raises:
        ConfigError: another training has it, or it cannot be written.
    """
    made = not folder.exists()
    lock = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without truncation: the file may name the process that has the lock.
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be used ({error.strerror}): choose another --output"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError as error:
        process = os.read(descriptor, 20).decode(errors="replace")
        os.close(descriptor)
        raise ConfigError(
            f"{folder} is in use by another training (process {process}): wait until it ends, or "
            "choose another --output"
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


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
        bundle = folder / "bundle"
        if different == ["variants"] and bundle.is_dir():
            raise ConfigError(
                f"{folder} gets no other variants by --resume: `robot-vision optimise {bundle}` adds "
                "faster programs to its bundle without training"
            )
        raise ConfigError(
            f"{file} differs from this configuration in {', '.join(different)}: resume with the "
            "settings that the run had"
        )


def claim_folder(folder: Path, config: TrainingConfig) -> None:
    """Writes the resolved configuration, where it does not exist yet."""
    # Imports torch, which takes seconds
    from robot_vision.training.fit.checkpoint import write_whole

    if not (folder / CONFIG).is_file():
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        write_whole(folder / CONFIG, text.encode())
