"""The state of a run in one file, which is replaced whole or not at all. No pickle.

A checkpoint is a `.safetensors` file: weights, their average and the optimiser's numbers are its tensors;
step, history and configuration are JSON in its header. Nothing random has to be kept: the order of an
epoch, augmentation and dropout follow from the seed and the step (see `loop.py`).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robot_vision.contract.constants import name_in
from robot_vision.errors import BundleError, RobotVisionError
from robot_vision.files import whole
from robot_vision.networks.checkpoint import open_tensors

FORMAT_VERSION = 1
KEY = "robot_vision_run"


class SaveError(RobotVisionError):
    """A checkpoint could not be written; the one before it is untouched."""


def save_state(
    path: Path,
    states: Mapping[str, Mapping[str, Tensor]],
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Writes a checkpoint: next to it first, then in its place.

    Args:
        path: the file.
        states: name to tensors by name, such as a module's `state_dict()`.
        optimiser: whose state is kept; its groups follow from the configuration.
        state: JSON.

    Raises:
        SaveError: the disk is full or read-only; the old file is still there.
    """
    tensors: dict[str, Tensor] = {}
    for name, values in states.items():
        tensors.update({f"{name}.{key}": value for key, value in values.items()})
    scalars: dict[str, float] = {}
    for index, numbers in optimiser.state_dict()["state"].items():
        for key, value in numbers.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{key}"] = value
            elif value is not None:
                scalars[f"{index}.{key}"] = value
    header = {"format_version": FORMAT_VERSION, "optimiser": scalars, **state}
    save_tensors(path, tensors, {KEY: json.dumps(header)})


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors as `.safetensors`, whole or not at all.

    Raises:
        SaveError: it cannot be written.
    """
    # clone(): safetensors refuses tensors that share memory, which tied weights do.
    ready = {k: v.detach().to("cpu").contiguous().clone() for k, v in tensors.items()}
    write_whole(path, save(ready, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads what `save_tensors` wrote.

    Raises:
        BundleError: the file is absent or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is damaged or absent: {error}; start the run again") from error


def load_state(
    path: Path, optimiser: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Reads a checkpoint, and puts the optimiser's numbers back.

    Returns:
        The JSON, and the tensors by name of the state and name in it.

    Raises:
        BundleError: the file is damaged or of another run.
    """
    header = read_header(path)
    if header.get("format_version") != FORMAT_VERSION:
        raise BundleError(f"{path} is no checkpoint of a run of this robot_vision")
    states: dict[str, dict[str, Tensor]] = {}
    numbers: dict[int, dict[str, Any]] = {}
    with open_tensors(path) as file:
        for key in file.keys():  # noqa: SIM118 - it is no mapping
            name, rest = key.split(".", 1)
            if name == "optimiser":
                index, what = rest.split(".", 1)
                numbers.setdefault(int(index), {})[what] = file.get_tensor(key)
            else:
                states.setdefault(name, {})[rest] = file.get_tensor(key)
    for key, scalar in header.pop("optimiser").items():
        index, what = key.split(".", 1)
        numbers.setdefault(int(index), {})[what] = scalar
    data = optimiser.state_dict()
    data["state"] = numbers
    try:
        optimiser.load_state_dict(data)
    except (ValueError, RuntimeError) as error:
        raise _other_network(path, error) from error
    return header, states


def load_module(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Puts a checkpoint's tensors into a module.

    Raises:
        BundleError: they are of another network.
    """
    try:
        module.load_state_dict(with_constants(state, module.state_dict()))
    except RuntimeError as error:
        raise _other_network(path, error) from error


def with_constants(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns a checkpoint's tensors with the constants that those of before there were any lack."""
    found = dict(state)
    for wanted, value in expected.items():
        name = name_in(state, wanted)
        if name is None:
            found[wanted] = value  # of ones, until it is calibrated
        elif name != wanted:
            found[wanted] = found.pop(name)
    return found


def _other_network(path: Path, error: Exception) -> BundleError:
    return BundleError(
        f"{path} is of another network than this configuration's: resume with the configuration next to "
        f"it, or choose another output folder ({str(error).splitlines()[0]})"
    )


def read_header(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's JSON without its tensors; empty where there is no such file.

    Raises:
        BundleError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with open_tensors(path) as file:
            header: dict[str, Any] = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise BundleError(f"{path} is damaged: {error}; remove it to start again") from error
    return header


def write_whole(path: Path, content: bytes, sync: bool = True) -> None:
    """Writes a file so that a crash, kill or full disk leaves the old one or the new one, whole.

    Args:
        path: the file; folders above it are made.
        content: of it.
        sync: wait for the disk, so that a power failure too leaves one of both.

    Raises:
        SaveError: it cannot be written.
    """
    try:
        whole.write_whole(path, content, sync, alone=True)
    except OSError as error:
        kept = f"; the one before it is untouched ({path})" if path.exists() else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"make room in {path.parent}" if full else f"see that {path.parent} can be written"
        raise SaveError(
            f"A checkpoint could not be written ({error.strerror or error}){kept}: {remedy} and run "
            "again with --resume"
        ) from error
