"""Reading a network's weights from torchvision's or timm's download or from a file, strictly."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from robot_vision.backbones import timm_networks
from robot_vision.backbones.architectures import INCEPTIONS, Architecture
from robot_vision.errors import BundleError, ConfigError

TORCHVISION, TIMM = "torchvision", "timm"  # who downloads
_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, never built


def read_weights(
    architecture: Architecture,
    weights: str,
    needed: Mapping[str, tuple[int, ...]],
    body: nn.Module,
) -> tuple[dict[str, Tensor], list[str]]:
    """Reads the weights of a network.

    A file may be a training's checkpoint, which holds them under a key such as `state_dict`, and may put a
    prefix before their names, as wrappers do (`module.` of DistributedDataParallel, `model.` of a
    LightningModule's attribute) or a part into them (`_orig_mod` of torch.compile).

    Args:
        architecture: the network that they should fit.
        weights: `torchvision` or `timm`, or the path of a `.safetensors` or `.pth` file.
        needed: names of the parameters and buffers that must be there, to their shapes. Layers of the network
            that are not needed may be there or not; anything else under the prefix is an error.
        body: the network of timm to which position embeddings are resampled.

    Returns:
        Names, as torchvision or timm has them, to tensors on the CPU; and notes on where in the file they
        were, and what else is there.

    Raises:
        ConfigError: the package has no weights, or they cannot be downloaded.
        BundleError: the file is absent, broken or of another network.
    """
    of_timm = timm_networks.is_timm(architecture.name)
    if weights in (TORCHVISION, TIMM):
        if (weights == TIMM) != of_timm:
            raise ConfigError(
                f"{weights} has no weights for {architecture.name}: say {TIMM if of_timm else TORCHVISION}, "
                "or give a file, or none"
            )
        if not of_timm:
            return _download(architecture.name), []
        state, path, notes = _download_timm(architecture.name), Path(TIMM), list[str]()
    else:
        path = Path(weights).expanduser()
        found, notes = _unwrapped(read_file(path), set(needed), path)
        state = _without_auxiliary(architecture, found)
    if of_timm:
        state = timm_networks.resampled(body, state)
    _check(architecture, state, needed, path)
    return state, notes


def _download_timm(name: str) -> dict[str, Tensor]:
    try:
        with torch.device("cpu"):
            return timm_networks.create(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"timm's weights for {name} could not be downloaded ({reason}): fetch model.safetensors of "
            "that name on a machine with internet and give the file's path"
        ) from error


def _download(name: str) -> dict[str, Tensor]:
    try:
        default = models.get_model_weights(name).DEFAULT
    except (AttributeError, ValueError) as error:
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


def read_file(path: Path) -> Any:
    """Reads what a `.safetensors` or `.pth` file holds, without running code.

    Raises:
        BundleError: it is absent, or holds more than tensors and plain data.
    """
    if not path.is_file():
        raise BundleError(
            f"No weights file {str(path)!r}: give a .safetensors or torchvision's .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises anything, such as KeyError of a text file
        raise BundleError(
            f"{path} is no file of weights that can be read safely: {_reason(error)} (save the model's "
            "state_dict() alone, which is nothing but tensors)"
        ) from error
    return state


def _reason(error: Exception) -> str:
    """Returns why a file was not read, without torch's advice to run what is pickled in it."""
    text = str(error)
    if found := re.search(r"Unsupported \w+:? (?:[^.\n]|\.(?=\S))+", text):
        return found[0]
    if isinstance(error, (SafetensorError, OSError, RuntimeError)) and "weights_only" not in text:
        return text.splitlines()[0] if text else type(error).__name__
    return "it holds something else"


@dataclass(frozen=True)
class _Network:
    """Tensors of one network in a file: the keys that lead to them, their prefix, and what else is there."""

    keys: tuple[str, ...]
    prefix: str
    state: dict[str, Tensor]
    others: tuple[str, ...]
    wrappers: frozenset[str]
    complete: bool

    def __str__(self) -> str:
        return (
            ".".join((*self.keys, self.prefix.rstrip("."))).strip(".") or "names without a prefix"
        )


def _unwrapped(content: Any, needed: set[str], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors of the only network in a file, by torchvision's names, and notes."""
    wanted = {key for key in needed if not key.endswith("num_batches_tracked")}
    found = list(_networks(content, wanted))
    found = [network for network in found if network.complete] or found
    if len(found) > 1 and found[0].complete:
        raise BundleError(
            f"{path} holds {len(found)} networks ({', '.join(map(str, found))}): save the state_dict() of one"
        )
    if not found or not found[0].complete and found[0].keys:
        what = ", ".join(map(str, list(content)[:4])) if isinstance(content, Mapping) else ""
        raise BundleError(
            f"{path} holds {what or type(content).__name__} and no tensors by this network's names: save the "
            "model's state_dict() alone"
        )
    network = found[0]
    notes = []
    if network.keys or network.prefix:
        notes.append(f"{path.name}: the weights are those of {network}, a prefix that is taken off")
    if network.wrappers:
        notes.append(
            f"{path.name}: {' and '.join(sorted(network.wrappers))} in names of weights is taken out"
        )
    if network.others:
        count = len(network.others)
        more = ", ..." if count > 3 else ""
        notes.append(
            f"{path.name}: {count} other entries are not used: {', '.join(network.others[:3])}{more}"
        )
    return network.state, notes


def _networks(content: Any, wanted: set[str], keys: tuple[str, ...] = ()) -> Iterator[_Network]:
    """Yields what may be the network: of each mapping the tensors under a prefix that fits."""
    if not isinstance(content, Mapping) or not wanted:
        return
    tensors = {_without_wrappers(str(k)): v for k, v in content.items() if isinstance(v, Tensor)}
    parts = {
        part
        for key, value in content.items()
        if isinstance(value, Tensor)
        for part in str(key).split(".")
    }
    inner = {str(k): v for k, v in content.items() if not isinstance(v, Tensor)}
    # Any tensor that is needed tells where names begin.
    anchor = min(wanted, key=lambda key: (key.count("."), key))
    prefixes = {k[: -len(anchor)] for k in tensors if k == anchor or k.endswith(f".{anchor}")}
    complete = sorted(p for p in prefixes if all(p + key in tensors for key in wanted))
    for prefix in complete or ([""] if tensors else []):
        mine = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        others = (*(k for k in tensors if not k.startswith(prefix)), *inner)
        yield _Network(keys, prefix, mine, others, _WRAPPERS & parts, bool(complete))
    for key, value in inner.items():
        yield from _networks(value, wanted, (*keys, key))


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_auxiliary(
    architecture: Architecture, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    drop = _AUXILIARY if architecture.name in INCEPTIONS else ()
    return {k: v for k, v in state.items() if not (drop and k.startswith(drop))}


def _check(
    architecture: Architecture,
    state: Mapping[str, Tensor],
    needed: Mapping[str, tuple[int, ...]],
    path: Path,
) -> None:
    where = f"{path} does not fit {architecture.name}"
    # Files from before torch 0.4.1 lack the counters, which evaluation does not use.
    missing = sorted(k for k in set(needed) - set(state) if not k.endswith("num_batches_tracked"))
    extra = sorted(set(state) - set(architecture.keys))
    if missing or extra:
        parts = [
            f"{what} {len(keys)}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
            for what, keys in (("missing", missing), ("unexpected", extra))
            if keys
        ]
        raise BundleError(f"{where}: {'; '.join(parts)}")
    for key in sorted(set(needed) & set(state)):
        if tuple(state[key].shape) != needed[key]:
            raise BundleError(
                f"{where}: {key} has shape {tuple(state[key].shape)} and not {needed[key]}"
            )
