"""The network of a run: built, its weights found, its parts frozen; and what a training step calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.bundle.bundle import WEIGHTS
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError, unknown
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.networks.checkpoint import load_network
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.settings.mappings import from_mapping
from robot_vision.training.config import NetworkConfig, TrainingConfig
from robot_vision.training.config_file import expand
from robot_vision.training.samples.data import Batch

_KINDS: dict[str, Any] = {"classifier": ClassifierSpec, "pose": PoseSpec, "place": PlaceSpec}
_NORMS = (nn.modules.batchnorm._BatchNorm,)


def build_network(
    config: TrainingConfig, labels: tuple[str, ...], map_frame: str = "map"
) -> MultiHeadNetwork:
    """Builds the run's network on the CPU, with its parts frozen as the configuration says.

    Args:
        config: resolved.
        labels: of the classifier.
        map_frame: of the poses, where the configuration names none.

    Raises:
        ConfigError: unknown names, or sizes that do not fit together.
        BundleError: weights that are absent or of another network.
    """
    torch.manual_seed(config.loop.seed)
    if config.network.init_from:
        network = _extended(config, labels, map_frame)
    else:
        heads = {name: _head(config.network, name, labels, map_frame) for name in config.heads}
        spec = NetworkSpec(config.network.backbone, config.network.input, heads)
        weights = config.network.weights
        if weights and weights != "torchvision":
            weights = expand(weights)
        network = MultiHeadNetwork(spec, weights)
        _reinitialise(network, config.network.reinitialise)
    network.backbone.freeze(frozen_stages(network, config.network))
    for name, head in network.heads.items():
        head.requires_grad_(name in config.heads)
    return network


def _extended(config: TrainingConfig, labels: tuple[str, ...], map_frame: str) -> MultiHeadNetwork:
    """A bundle's network with further heads; everything that was there keeps its numbers."""
    path = Path(expand(config.network.init_from or ""))
    old = load_network(path / WEIGHTS if path.is_dir() else path)
    if old.spec.epistemic:
        raise ConfigError(
            f"{path} answers several times, which a further head could not: start from the network with "
            "one answer, and export with --monte-carlo in the end"
        )
    for name in config.heads:
        if name in old.spec.heads:
            raise ConfigError(
                f"{path} has a {name} head already: name the heads to add, or leave out init_from"
            )
    new = {name: _head(config.network, name, labels, map_frame) for name in config.heads}
    network = MultiHeadNetwork(old.spec.with_heads(**new))
    state = network.state_dict()
    kept = old.state_dict()
    missing = [key for key in kept if key not in state]
    assert not missing, missing
    network.load_state_dict({**state, **kept})
    return network


def _head(config: NetworkConfig, name: str, labels: tuple[str, ...], map_frame: str) -> Any:
    settings = dict(getattr(config, name))
    if name == "classifier":
        if "labels" in settings:
            raise ConfigError("network.classifier.labels: the labels are those of the data")
        settings["labels"] = list(labels)
    elif name == "pose":
        settings.setdefault("map_frame", map_frame)
    return from_mapping(_KINDS[name], f"network.{name}", settings)


def frozen_stages(network: MultiHeadNetwork, config: NetworkConfig) -> tuple[str, ...]:
    """Returns the stages of the backbone that the configuration freezes.

    Raises:
        ConfigError: `freeze_until` names no stage of the network.
    """
    everything = tuple(name for name, _ in network.backbone.body.named_children())
    if "all" in config.freeze or config.init_from:
        return everything
    frozen = list(config.freeze)
    if config.freeze_until:
        stages = list(network.backbone.architecture.stages)
        known = [s for s in stages if _built(network, s)]
        if config.freeze_until not in known:
            raise ConfigError(
                f"network.freeze_until: {unknown('stage', config.freeze_until, known)}"
            )
        # Layers that come before it and are no stage of their own are frozen with it.
        before = stages[: stages.index(config.freeze_until) + 1]
        frozen += [stage for stage in before if _built(network, stage)]
        if "." not in config.freeze_until:
            frozen += _stem(network, before[0])
    return tuple(dict.fromkeys(frozen))


def _built(network: MultiHeadNetwork, stage: str) -> bool:
    names = [name for name, _ in network.backbone.body.named_modules() if name]
    return any(name == stage or name.startswith(stage + ".") for name in names)


def _stem(network: MultiHeadNetwork, first: str) -> list[str]:
    children = [name for name, _ in network.backbone.body.named_children()]
    return children[: children.index(first)] if first in children else []


def _reinitialise(network: MultiHeadNetwork, layers: tuple[str, ...]) -> None:
    names = dict(network.backbone.body.named_modules())
    for layer in layers:
        if layer not in names:
            raise ConfigError(
                f"network.reinitialise: {unknown('layer', layer, [n for n in names if n])}"
            )
        for module in names[layer].modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


def is_frozen(network: MultiHeadNetwork) -> bool:
    """Whether no parameter of the backbone is trained."""
    return not any(p.requires_grad for p in network.backbone.parameters())


class Trainee(nn.Module):
    """What a training step calls, and what is replicated over processes: network, losses, their sum.

    Args:
        network: whose `heads` that have a loss are trained.
        losses: head's name to its loss.
        weights: head's name to its share in the sum.
        frozen_norms: batch norms of the backbone keep their running statistics.
    """

    def __init__(
        self,
        network: MultiHeadNetwork,
        losses: dict[str, nn.Module],
        weights: dict[str, float],
        frozen_norms: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.losses = nn.ModuleDict(losses)
        self.weights = weights
        self.frozen_norms = frozen_norms

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the losses.

        Args:
            batch: `images` uint8 (N, H, W, 3), or `feature:<head>` tensors from the cache; and targets.

        Returns:
            The weighted sum (), and each head's total and parts by name, detached.
        """
        raw = self.network.raw_from_features(self.features(batch))
        total = torch.zeros((), device=next(iter(raw.values())).device)
        parts: dict[str, Tensor] = {}
        raw = {key: tensor.float() for key, tensor in raw.items()}
        for name, loss in self.losses.items():
            # Mixed precision is for the network: distances of descriptors need all their digits.
            with torch.autocast(total.device.type, enabled=False):
                value = loss(raw, batch)
            total = total + self.weights[name] * value.total
            parts[name] = value.total.detach()
            parts.update(
                {f"{name}.{k}": torch.as_tensor(v).detach() for k, v in value.parts.items()}
            )
        return total, parts

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the features of the heads that are trained, from the cache or from the backbone."""
        cached = {k[len("feature:") :]: v for k, v in batch.items() if k.startswith("feature:")}
        if cached:
            return cached
        features = self.network.forward_features(batch["images"])
        return {name: value for name, value in features.items() if name in self.losses}

    def train(self, mode: bool = True) -> Trainee:
        """Sets training mode; frozen batch norms and heads without a loss stay in evaluation mode."""
        super().train(mode)
        if self.frozen_norms:
            for module in self.network.backbone.modules():
                if isinstance(module, _NORMS):
                    module.eval()
        for name, head in self.network.heads.items():
            if name not in self.losses:
                head.eval()
        return self
