"""Reading a torchvision network's weights from torchvision's download or from a file, strictly."""

from __future__ import annotations

import pickle
import urllib.error
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models

from robot_vision.errors import BundleError, ConfigError
from robot_vision.networks.architectures import INCEPTIONS, Architecture

TORCHVISION = "torchvision"
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, never built


def read_weights(architecture: Architecture, weights: str, needed: set[str]) -> dict[str, Tensor]:
    """Reads the weights of a torchvision network.

    Args:
        architecture: the network that they should fit.
        weights: `torchvision`, or the path of a `.safetensors` or torchvision `.pth` file.
        needed: names of the parameters and buffers that must be there. Layers of the network that
            are not needed may be there or not; anything else is an error.

    Returns:
        Names, as torchvision has them, to tensors on the CPU.

    Raises:
        ConfigError: torchvision has no weights, or they cannot be downloaded.
        BundleError: the file is absent, broken or of another network.
    """
    if weights == TORCHVISION:
        return _download(architecture.name)
    path = Path(weights).expanduser()
    state = _without_auxiliary(architecture, _read(path))
    _check(architecture, state, needed, path)
    return state


def _download(name: str) -> dict[str, Tensor]:
    try:
        default = models.get_model_weights(name).DEFAULT
    except AttributeError as error:
        raise ConfigError(f"torchvision has no weights for {name}: give a file, or none") from error
    try:
        # Through the builder and not the file, because it also renames DenseNet's old keys.
        state: dict[str, Tensor] = models.get_model(name, weights=default).state_dict()
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"torchvision's weights for {name} could not be downloaded ({reason}): fetch {default.url} "
            "on a machine with internet and give the file's path"
        ) from error
    return {k: v for k, v in state.items() if not k.startswith(_AUXILIARY)}


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise BundleError(
            f"No weights file {str(path)!r}: give a .safetensors or torchvision's .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(
            f"{path} is no file of weights that can be read safely: {reason}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        found = (
            ", ".join(map(str, list(state)[:4]))
            if isinstance(state, Mapping)
            else type(state).__name__
        )
        raise BundleError(
            f"{path} holds {found} and not only tensors by name: save the model's state_dict() alone"
        )
    return state


def _without_auxiliary(
    architecture: Architecture, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    drop = _AUXILIARY if architecture.name in INCEPTIONS else ()
    return {k: v for k, v in state.items() if not (drop and k.startswith(drop))}


def _check(
    architecture: Architecture, state: Mapping[str, Tensor], needed: set[str], path: Path
) -> None:
    where = f"{path} does not fit {architecture.name}"
    # Files from before torch 0.4.1 lack the counters, which evaluation does not use.
    missing = sorted(k for k in needed - set(state) if not k.endswith("num_batches_tracked"))
    extra = sorted(set(state) - set(architecture.keys))
    if missing or extra:
        parts = [
            f"{what} {len(keys)}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
            for what, keys in (("missing", missing), ("unexpected", extra))
            if keys
        ]
        raise BundleError(f"{where}: {'; '.join(parts)}")
    for key in sorted(needed & set(state)):
        if tuple(state[key].shape) != architecture.keys[key]:
            raise BundleError(
                f"{where}: {key} has shape {tuple(state[key].shape)} and not {architecture.keys[key]}"
            )
