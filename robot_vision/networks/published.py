"""Networks out of checkpoints that others have published: recognised by the heads, converted strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robot_vision.backbones.pretrained import read_file
from robot_vision.contract import registry
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import Published
from robot_vision.errors import BundleError, ConfigError
from robot_vision.images.input import InputSpec
from robot_vision.networks.network import MultiHeadNetwork

_SHOWN = 4  # names in a message


def convert(
    path: Path, given: InputSpec, size: tuple[int, int] | None
) -> tuple[MultiHeadNetwork, str]:
    """Builds the network that is in a file of another program.

    Args:
        path: a `.safetensors` file, or a `.pth` or `.ckpt`, which is read without running pickled code.
        given: how images are fitted to the input.
        size: (height, width) of the input; None for the method's own.

    Returns:
        The network in evaluation mode, and the method's name.

    Raises:
        BundleError: the file is absent, broken or no network that a head knows; or tensors are missing, are
            too many or have other shapes: the message says how many and names them.
        ConfigError: the input does not fit the network.
    """
    state = _tensors(read_file(path))
    for kind in registry.names():
        try:
            found = registry.head(kind).trainer().published(state, size)
        except ConfigError as error:
            raise BundleError(f"{path}: {error}") from error
        if found is not None:
            break
    else:
        first = ", ".join(list(state)[:_SHOWN]) or "no tensors"
        raise BundleError(
            f"{path} is no published network that is known here (its {len(state)} tensors begin with "
            f"{first}): use --torchvision with --weights for a backbone alone"
        )
    input = dataclasses.replace(given, height=found.size[0], width=found.size[1])
    network = MultiHeadNetwork(NetworkSpec(found.backbone, input, {kind: found.spec}))
    _fill(network, kind, found, state, path)
    return network.eval(), found.name


def _tensors(content: Any) -> dict[str, Tensor]:
    """Returns a file's tensors by their names, without what wraps them."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        return {}
    found = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod.", "model."):
        if found and all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _fill(
    network: MultiHeadNetwork, kind: str, found: Published, state: Mapping[str, Tensor], path: Path
) -> None:
    """Puts the file's tensors into a network; each must have its place, and each place its tensor."""
    whole = {found.BACKBONE: "backbone.body.", found.HEAD: f"heads.{kind}."}
    pairs = [
        (theirs, new + ours.removeprefix(old))
        for theirs, ours in found.pairs
        for old, new in whole.items()
        if ours.startswith(old)
    ]
    needed = network.state_dict()
    filled: dict[str, Tensor] = {}
    extra = []
    for theirs, tensor in {**state, **found.changed}.items():
        ours = _renamed(theirs, pairs)
        if ours in needed and ours not in filled:
            filled[ours] = _fitting(theirs, tensor, needed[ours], path, found.name)
        elif not theirs.startswith(found.unused):
            extra.append(theirs)
    back = [(ours, theirs) for theirs, ours in pairs]
    missing = [_renamed(name, back) or name for name in needed if name not in filled]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or extra:
        parts = [
            f"{len(n)} {what}: {_some(n)}"
            for what, n in (("missing", missing), ("additional", extra))
            if n
        ]
        raise BundleError(
            f"{path} is not quite {found.name}, whose tensors it has; {'; '.join(parts)}"
        )
    network.load_state_dict({**needed, **filled})


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return ""


def _fitting(name: str, tensor: Tensor, like: Tensor, path: Path, method: str) -> Tensor:
    if tensor.numel() == like.numel() == 1:
        tensor = tensor.reshape(like.shape)
    if tensor.shape != like.shape:
        raise BundleError(
            f"{path} is not quite {method}: {name} has shape {tuple(tensor.shape)} and not "
            f"{tuple(like.shape)}"
        )
    return tensor.to(like.dtype)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
