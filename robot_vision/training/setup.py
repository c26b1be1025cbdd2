"""What a run is before it begins: settings filled in, the machine's devices, the data, and the stages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robot_vision.datasets.registry import open_dataset
from robot_vision.datasets.sample import Splits
from robot_vision.errors import ConfigError
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig, resolved
from robot_vision.training.config_file import expand
from robot_vision.training.fit.model import build_network, is_frozen

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_fabric(config: TrainingConfig) -> Fabric:
    """Builds Fabric for this machine; under `torchrun` its numbers of processes and machines count.

    Raises:
        ConfigError: a device that is not there, or float16 on a CPU.
    """
    from lightning_fabric import Fabric  # takes seconds, and a plan needs none

    settings = config.loop
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError("loop.accelerator is cuda, and torch sees no GPU here: use cpu or auto")
    if settings.precision == "float16" and accelerator == "cpu":
        raise ConfigError("loop.precision float16 needs a GPU: use bfloat16 or float32 on a CPU")
    devices, nodes = settings.devices, settings.nodes
    if "LOCAL_WORLD_SIZE" in os.environ and "WORLD_SIZE" in os.environ:  # torchrun
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    precision: Any = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp_find_unused_parameters_true" if devices * nodes > 1 else "auto",
        precision=precision[settings.precision],
    )


def open_splits(config: TrainingConfig) -> Splits:
    """Opens the run's data.

    Raises:
        ConfigError: no data set, or one without what the heads need.
        SourceError: it cannot be read.
    """
    if not config.data.kind or not config.data.path:
        raise ConfigError("data.kind and data.path are needed: which data set, and where it is")
    splits = open_dataset(config.data.kind, expand(config.data.path), **config.data.options)
    if not splits.train:
        raise ConfigError(f"{config.data.path} has no training images: choose another split")
    if "classifier" in config.heads and len(splits.labels) < 2:
        found = ", ".join(splits.labels) or "none"
        raise ConfigError(
            f"A classifier needs at least two classes; {config.data.path} has {len(splits.labels)} "
            f"({found}): add images of another class, or leave the head out"
        )
    posed = sum(s.T_map_camera is not None for s in splits.train)
    for head in ("pose", "place"):
        if head in config.heads and posed < 2:
            raise ConfigError(
                f"The {head} head needs poses; {posed} of {len(splits.train)} training images of "
                f"{config.data.path} have one"
            )
    if "pose" in config.heads and not splits.has_orientation:
        raise ConfigError(
            f"The pose head needs orientations, which {config.data.path} does not have"
        )
    turned = config.place.positive_deg is not None or config.place.negative_deg is not None
    if "place" in config.heads and turned and not splits.has_orientation:
        raise ConfigError(
            f"place.positive_deg and place.negative_deg need orientations, which {config.data.path} does not "
            "have: set both to null"
        )
    return splits


def is_frozen_by_config(config: TrainingConfig) -> bool:
    """Whether the configuration freezes the whole backbone."""
    return "all" in config.network.freeze or config.network.init_from is not None


def is_pretrained(config: TrainingConfig) -> bool:
    """Whether the backbone starts from weights."""
    return bool(config.network.weights or config.network.init_from)


@dataclass(frozen=True)
class Plan:
    """A stage of a run.

    Attributes:
        name: of it and of its folder.
        epochs: how many.
        whole: train the backbone too.
    """

    name: str
    epochs: int
    whole: bool


def stages(config: TrainingConfig, network: MultiHeadNetwork) -> list[Plan]:
    """Heads alone first, on a frozen or pretrained backbone; then all that is not frozen."""
    frozen = is_frozen(network)
    pretrained = is_pretrained(config)
    assert config.loop.epochs is not None
    plans = []
    if frozen:
        plans.append(Plan("heads", config.loop.epochs, whole=False))
    else:
        if pretrained and config.loop.head_epochs:
            plans.append(Plan("heads", config.loop.head_epochs, whole=False))
        plans.append(Plan("all", config.loop.epochs, whole=True))
    return [plan for plan in plans if plan.epochs]


def describe_plan(config: TrainingConfig) -> list[str]:
    """Returns what a run would do, in lines, after opening its data and building its network."""
    config = resolved(config)
    splits = open_splits(config)
    network = build_network(config, splits.labels, splits.map_frame)
    lines = [
        f"# images: train {len(splits.train)}, validation {len(splits.validation)}, test {len(splits.test)}",
        *(f"# {note}" for note in (*splits.notes, *network.backbone.weight_notes)),
    ]
    if splits.labels:
        lines.append(f"# labels: {', '.join(splits.labels)}")
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    lines.append(f"# {network.spec.backbone}: {trained:,} of {total:,} parameters are trained")
    for plan in stages(config, network):
        what = "everything that is not frozen" if plan.whole else "the heads"
        lines.append(f"# stage {plan.name}: {plan.epochs} epochs of {what}")
    lines.append(f"# output: {Path(expand(config.output)).absolute()}")
    return lines
