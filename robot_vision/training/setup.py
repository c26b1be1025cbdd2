"""What a run is before it begins: settings filled in, the machine's devices, the data, and the stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import NONE, DataFacts, Target
from robot_vision.datasets.registry import dataset_options, open_dataset
from robot_vision.datasets.sample import SPLIT_NAMES, Sample, Splits
from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.text.counts import counted
from robot_vision.training.config import TrainingConfig, resolved
from robot_vision.training.config_file import expand
from robot_vision.training.fit.model import build_network, is_frozen
from robot_vision.training.samples.augmentation import augmentation_settings, dense_of
from robot_vision.training.samples.data import SampleSet

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
    splits = open_dataset(config.data.kind, expand(config.data.path), **_options(config))
    if not splits.train:
        raise ConfigError(f"{config.data.path} has no training images: choose another split")
    for trainer in config.trainers.values():
        trainer.check(splits, config.data.path)
    return _with_truth(config, splits)


def _with_truth(config: TrainingConfig, splits: Splits) -> Splits:
    """Leaves out images that teach nothing where all heads learn from images of truth.

    Those often come more seldom than a camera's images, which would cost as much as the others do.
    """
    words = _words(config)
    if not all(word.startswith("image:") for word in words):
        return splits
    kept: dict[str, Any] = {
        name: tuple(s for s in splits.split(name) if any(s.of(w) is not None for w in words))
        for name in SPLIT_NAMES
    }
    left = len(splits.samples) - sum(map(len, kept.values()))
    if not left:
        return splits
    images = counted(left, "image has", "images have")
    note = f"{images} no {' or '.join(words)} and {'is' if left == 1 else 'are'} left out"
    return replace(splits, **kept, notes=(*splits.notes, note))


def _options(config: TrainingConfig) -> dict[str, Any]:
    """Returns the data set's options: one that can look for further truth is asked for that of the heads."""
    words = [word for word in _words(config) if ":" in word]
    if words and "truth" in dataset_options(config.data.kind):
        return {"truth": words, **config.data.options}
    return dict(config.data.options)


def facts_of(config: TrainingConfig, splits: Splits) -> DataFacts:
    """Returns what the heads' settings take from the data."""
    words = [word for word in _words(config) if word.partition(":")[0] in ("label", "image")]
    size = config.network.input
    poses = [s.T_map_camera for s in splits.train if s.T_map_camera is not None]
    return DataFacts(
        {word: splits.labels_of(word) for word in words},
        splits.map_frame,
        (size.height, size.width),
        {word: classes.colours for word, classes in splits.pixel_classes.items()},
        np.array([pose[:3, 3] for pose in poses], np.float64).reshape(-1, 3),
        partial(_camera, splits, size),
        splits.datum,
    )


def _camera(splits: Splits, spec: InputSpec) -> Intrinsics | None:
    """Returns `DataFacts.camera`."""
    cameras: dict[bytes, Sample] = {}
    for sample in splits.train:
        lens = sample.intrinsics
        numbers = (lens.K, lens.distortion) if lens else (sample.camera_matrix,)
        cameras.setdefault(b"".join(np.asarray(n, np.float64).tobytes() for n in numbers), sample)
    if len(cameras) > 1:
        raise ConfigError(
            f"The training images are of {len(cameras)} cameras, and a head learns from those of one: choose "
            "the images of one"
        )
    (sample,) = cameras.values()
    lens, K = sample.intrinsics, sample.camera_matrix
    K = splits.camera_matrix if K is None else K
    if lens is None:
        if K is None:
            return None
        height, width = sample.source.load().shape[:2]
        lens = Intrinsics.of_matrix(K, width, height)
    of_input = Window.of((lens.height, lens.width), spec).intrinsics(
        lens.K, (spec.height, spec.width)
    )
    return Intrinsics(spec.width, spec.height, of_input, lens.distortion, lens.model)


def _words(config: TrainingConfig) -> list[str]:
    """Returns the words of truth that the heads learn from, each once."""
    return list(dict.fromkeys(word for t in config.trainers.values() for word in t.words()))


def sample_set(config: TrainingConfig, splits: Splits, name: str, spec: NetworkSpec) -> SampleSet:
    """Returns a split's samples, with what the heads learn of them."""

    def learned(samples: Sequence[Sample]) -> dict[str, Target]:
        found: dict[str, Target] = {}
        for head, trainer in config.trainers.items():
            found |= trainer.targets(samples, spec.heads[head])
        return found

    dense = dense_of(config, spec)
    return SampleSet.of(splits.split(name), splits.labels, spec.input, learned, dense)


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
    plans = [plan for plan in plans if plan.epochs]
    for trainer in config.trainers.values():
        for plan in plans[-1:]:  # the others only begin
            trainer.check_epochs(plan.epochs)
    return plans


def check_copies(config: TrainingConfig, network: MultiHeadNetwork) -> None:
    """Refuses copies of augmented images that no stage would see.

    Raises:
        ConfigError: it names what they would need.
    """
    wants = {
        "a frozen backbone (network.freeze: [all])": is_frozen(network),
        "an augmentation": augmentation_settings(config)["name"] != NONE,
        "loop.cache_features: true": config.loop.cache_features,
        "losses that do not look at the images": not any(
            trainer.needs_images() for trainer in config.trainers.values()
        ),
    }
    lacks = [what for what, there in wants.items() if not there]
    if config.loop.augmented_copies and lacks:
        raise ConfigError(
            f"loop.augmented_copies is {config.loop.augmented_copies}, which has no effect without "
            f"{' and '.join(lacks)}: add that, or leave it out"
        )


def describe_plan(config: TrainingConfig) -> list[str]:
    """Returns what a run would do, in lines, after opening its data and building its network."""
    config = resolved(config)
    splits = open_splits(config)
    network = build_network(config, facts_of(config, splits))
    check_copies(config, network)
    lines = [
        f"# images: train {len(splits.train)}, validation {len(splits.validation)}, test {len(splits.test)}",
        *(f"# {note}" for note in (*splits.notes, *network.backbone.weight_notes)),
    ]
    for word, labels in facts_of(config, splits).labels.items():
        if labels:
            lines.append(f"# {word.replace('label', 'labels', 1)}: {', '.join(labels)}")
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    lines.append(f"# {network.spec.backbone}: {trained:,} of {total:,} parameters are trained")
    for plan in stages(config, network):
        what = "everything that is not frozen" if plan.whole else "the heads"
        lines.append(f"# stage {plan.name}: {plan.epochs} epochs of {what}")
    lines.append(f"# output: {Path(expand(config.output)).absolute()}")
    return lines
