"""A network in one file: weights, and in the header the spec from which to rebuild it. No pickle.

The file is `.safetensors`; its metadata has the key `robot_vision`, whose value is JSON:
`{"format_version": 1, "network": <NetworkSpec>, "training": {...}, "metrics": {...}}`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from robot_vision.contract.constants import name_in
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.whole import draft_of
from robot_vision.networks.checkpoint_path import checkpoint_path
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.settings.mappings import check_mapping

FORMAT_VERSION = 1
KEY = "robot_vision"


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of itself.

    Attributes:
        spec: the network.
        training: what it was trained on (free form).
        metrics: what it scored (free form).
    """

    spec: NetworkSpec
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


def save_network(
    network: MultiHeadNetwork,
    path: str | Path,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Writes a network to one file, which appears whole or not at all.

    Args:
        network: on any device, in any mode.
        path: ends in `.safetensors`.
        training: what it was trained on; JSON.
        metrics: what it scored; JSON.

    Raises:
        ConfigError: another file name.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise ConfigError(f"Checkpoint {str(path)!r}: the name must end in .safetensors")
    data = {
        "format_version": FORMAT_VERSION,
        "network": network.spec.to_dict(),
        "training": dict(training or {}),
        "metrics": dict(metrics or {}),
    }
    tensors = {k: v.detach().to("cpu").contiguous() for k, v in network.state_dict().items()}
    with draft_of(path) as part:
        save_file(tensors, part, {KEY: json.dumps(data, ensure_ascii=False)})


def read_header(path: str | Path) -> CheckpointHeader:
    """Reads what a checkpoint says of itself, without its weights.

    Raises:
        BundleError: the file is absent, a pickle, damaged, or not a network of this package.
    """
    path = checkpoint_path(path)
    with _opened(path) as file:
        return _header(path, file.metadata())


def load_network(path: str | Path) -> MultiHeadNetwork:
    """Loads a network onto the CPU, in evaluation mode.

    Raises:
        BundleError: the file is absent, a pickle, damaged, not a network of this package, or its
            tensors are not those of the network that it describes.
    """
    path = checkpoint_path(path)
    with _opened(path) as file:
        spec = _header(path, file.metadata()).spec
        try:
            with torch.device("meta"):  # no memory and no random numbers for what is replaced below
                network = MultiHeadNetwork(spec)
        except ConfigError as error:
            raise BundleError(f"{path}: {error}") from error
        expected = network.state_dict()
        names = set(file.keys())
        stored = {name: name_in(names, name) for name in expected}
        missing = sorted(name for name, at in stored.items() if at and at not in names)
        extra = sorted(names - set(stored.values()))
        if missing or extra:
            what, keys = ("lacks", missing) if missing else ("has the unexpected", extra)
            raise BundleError(
                f"{path} {what} {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''} "
                f"({len(missing)} missing, {len(extra)} unexpected): it is not the network it describes"
            )
        state = {}
        for name, like in expected.items():
            at = stored[name]
            if at is None:
                state[name] = torch.ones(like.shape, dtype=like.dtype)
                continue
            shape = tuple(file.get_slice(at).get_shape())
            if shape != tuple(like.shape):
                raise BundleError(
                    f"{path}: {name} has shape {shape} and should have {tuple(like.shape)}"
                )
            state[name] = file.get_tensor(at).to(like.dtype)
    network.load_state_dict(state, assign=True)
    return network.eval()


def open_tensors(path: Path) -> Any:
    """Opens a `.safetensors` file, also while another process replaces it, as trainings do theirs.

    `safe_open` opens the name a second time for torch. The second file may be shorter than the first, which
    torch refuses as a RuntimeError; of the same size it has the same layout.

    Raises:
        SafetensorError: the file is damaged, or was never the same for as long as it takes to open it.
        OSError: it cannot be read.
    """
    for _ in range(10):
        try:
            return safe_open(path, framework="pt", device="cpu")
        except RuntimeError as error:
            problem = str(error)
    raise SafetensorError(problem)


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        with open_tensors(path) as file:
            yield file
    except SafetensorError as error:
        raise BundleError(f"{path} is damaged or cut off: {error}; copy it again") from error


def _header(path: Path, metadata: Mapping[str, str] | None) -> CheckpointHeader:
    text = (metadata or {}).get(KEY)
    if text is None:
        raise BundleError(
            f"{path} has weights but no {KEY!r} header: it was not written by robot_vision; give it to "
            "`robot-vision export --weights` if it is a torchvision backbone"
        )
    try:
        data = json.loads(text)
        version = data.get("format_version") if isinstance(data, Mapping) else None
        if version != FORMAT_VERSION:
            raise ConfigError(
                f"format_version is {version!r}: this robot_vision reads {FORMAT_VERSION}"
            )
        needed = ("format_version", "network")
        fields = check_mapping("checkpoint", data, needed, ("training", "metrics"))
        spec = NetworkSpec.from_dict(fields["network"])
        free = [fields.get(key) or {} for key in ("training", "metrics")]
        if not all(isinstance(value, Mapping) for value in free):
            raise ConfigError("training and metrics must be mappings")
    except (json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: its {KEY!r} header is not valid JSON: {error}") from error
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from error
    return CheckpointHeader(spec, *free)
