"""The network of a run: built, its weights found, its parts frozen; and what a training step calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from robot_vision.bundle.bundle import WEIGHTS
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import Chooser, DataFacts, Share
from robot_vision.errors import ConfigError, unknown
from robot_vision.networks.checkpoint import load_network
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import NetworkConfig, TrainingConfig
from robot_vision.training.config_file import expand
from robot_vision.training.samples.data import Batch
from robot_vision.training.ship.evaluate import Views, features_of

_NORMS = (nn.modules.batchnorm._BatchNorm,)


def build_network(config: TrainingConfig, facts: DataFacts) -> MultiHeadNetwork:
    """Builds the run's network on the CPU, with its parts frozen as the configuration says.

    Args:
        config: resolved.
        facts: what the heads' settings take from the data.

    Raises:
        ConfigError: unknown names, or sizes that do not fit together.
        BundleError: weights that are absent or of another network.
    """
    torch.manual_seed(config.loop.seed)
    old = None
    if config.network.init_from:
        old = _network_of(Path(expand(config.network.init_from)))
        facts = replace(facts, input=(old.spec.input.height, old.spec.input.width))
    new = {
        name: trainer.spec(config.network.heads[name], facts)
        for name, trainer in config.trainers.items()
    }
    if old is not None:
        network = _extended(old, config.network.init_from, new)
    else:
        spec = NetworkSpec(config.network.backbone, config.network.input, new)
        weights = config.network.weights
        if weights is not None and weights not in ("torchvision", "timm"):
            weights = expand(weights)
            if not Path(weights).is_file():
                raise ConfigError(
                    f"network.weights is {weights!r}: there is no such file; use torchvision or timm, which "
                    "download theirs, a .pth or .safetensors file, or null for random numbers"
                )
        network = MultiHeadNetwork(spec, weights)
        _reinitialise(network, config.network.reinitialise)
    network.backbone.freeze(frozen_stages(network, config.network))
    for name, head in network.heads.items():
        head.requires_grad_(name in config.heads)
    return network


def _network_of(path: Path) -> MultiHeadNetwork:
    """Returns the network of a bundle or checkpoint, to which heads are added."""
    old = load_network(path / WEIGHTS if path.is_dir() else path)
    if old.spec.epistemic:
        raise ConfigError(
            f"{path} answers several times, which a further head could not: start from the network with "
            "one answer, and export with --monte-carlo in the end"
        )
    return old


def _extended(old: MultiHeadNetwork, path: str | None, new: dict[str, object]) -> MultiHeadNetwork:
    """A network with further heads; everything that was there keeps its numbers."""
    for name in new:
        if name in old.spec.heads:
            raise ConfigError(
                f"{path} has a {name} head already: name the heads to add, or leave out init_from"
            )
    network = MultiHeadNetwork(old.spec.with_heads(**new))
    state = network.state_dict()
    kept = old.state_dict()
    missing = [key for key in kept if key not in state]
    assert not missing, missing
    network.load_state_dict({**state, **kept})
    return network


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
        frozen += _stem(network, before[0].partition(".")[0])
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
        self._trainers = {h.name: h.trainer() for h, _ in network.spec.bound if h.name in losses}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the losses.

        Args:
            batch: `images` uint8 (N, H, W, 3), or `feature:<head>:<tap>` tensors from the cache; targets;
                and `epoch` int64 (), of the stage, from 0.

        Returns:
            The weighted sum (), and each head's total and parts by name, detached.
        """
        raw = self.network.raw_from_features(self.features(batch))
        total = torch.zeros((), device=self.network.pixel_scale.device)
        parts: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            own = {key: tensor.float() for key, tensor in raw[name].items()}
            # Mixed precision is for the network: distances of descriptors need all their digits.
            with torch.autocast(total.device.type, enabled=False):
                value = loss(own, self._trainers[name].own(batch))
            total = total + self.weights[name] * value.total
            parts[name] = value.total.detach()
            parts.update(
                {f"{name}.{k}": torch.as_tensor(v).detach() for k, v in value.parts.items()}
            )
        return total, parts

    def features(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Returns the features of the heads that are trained, from the cache or from the backbone."""
        cached: dict[str, list[Tensor]] = {}
        for key, value in batch.items():
            kind, _, rest = key.partition(":")
            if kind == "feature":
                cached.setdefault(rest.partition(":")[0], []).append(value)
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


def make_losses(
    config: TrainingConfig, spec: NetworkSpec, targets: dict[str, Tensor]
) -> dict[str, nn.Module]:
    """Builds the losses of the heads that are trained.

    Args:
        config: of the run.
        spec: of the network.
        targets: of the training set, from which class weights follow.

    Returns:
        Head to loss; a head whose loss is `none` is left out.
    """
    losses = {}
    for name, trainer in config.trainers.items():
        loss = trainer.loss(spec.heads[name], trainer.own(targets))
        if loss is not None:
            losses[name] = loss
    return losses


def make_trainee(
    config: TrainingConfig, network: MultiHeadNetwork, train: Views, frozen_norms: bool
) -> Trainee:
    """Returns what is trained of a network: the heads that have a loss, with these."""
    losses = make_losses(config, network.spec, train.samples.truth)
    weights = {name: config.settings[name].weight for name in losses}
    return Trainee(network, losses, weights, frozen_norms)


def make_chooser(
    config: TrainingConfig,
    heads: Sequence[str],
    network: MultiHeadNetwork,
    train: Views,
    rank: int,
    world: int,
) -> Chooser | None:
    """Returns what chooses the batches, or None for all images in random order.

    Args:
        config: of the run.
        heads: that are trained.
        network: that describes images for mining.
        train: training samples.
        rank: of this process.
        world: number of processes.
    """
    share = Share(config.loop.batch_size, config.loop.seed, rank, world)
    for name in heads:
        trainer = config.trainers[name]
        if trainer.chooses():
            features = features_of(network, train, trainer)
            return trainer.chooser(network.heads[name], features, share)
    return None


def prepare_heads(config: TrainingConfig, network: MultiHeadNetwork, train: Views) -> None:
    """Sets what the training images say before the first step: statistics, clusters."""
    with torch.no_grad():
        for name, trainer in config.trainers.items():
            if name in network.pretrained:  # its last layer came with the weights
                continue
            features = features_of(network, train, trainer)
            spec = network.spec.heads[name]
            trainer.prepare(network.heads[name], spec, features, config.loop.seed)
