"""Further heads on the trained backbone: an ensemble that costs one run of the backbone.

The backbone stays as it is, so that a member costs what a probe costs. Members start from other random
numbers and see the images in another order (Lakshminarayanan et al., NeurIPS 2017). That is not enough for a
linear layer on frozen features, whose loss has one minimum: its members would agree about everything. So
each further linear head is also trained on its own bootstrap sample of the images (Breiman 1996), by default.
A head with a hidden layer needs every image: of a part of the scene that it was not shown it knows nothing.
Where a recording is sampled nevertheless, whole stretches are drawn, as neighbouring frames are alike.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robot_vision.networks.ensemble import with_members, with_monte_carlo
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit import loop
from robot_vision.training.fit.model import make_chooser, make_trainee, prepare_heads
from robot_vision.training.fit.record import Recorder
from robot_vision.training.samples.augmentation import make_augment
from robot_vision.training.samples.data import SampleSet
from robot_vision.training.ship.evaluate import Views

BLOCK = 50  # neighbouring frames that stay together, in a bootstrap sample and in a fold


def answer_often(
    network: MultiHeadNetwork,
    views: dict[str, Views],
    sets: dict[str, SampleSet],
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
    recorder: Recorder,
    resume: bool,
) -> MultiHeadNetwork:
    """Trains further members, and adds the passes of Monte Carlo dropout, as `config.epistemic` says.

    Args:
        network: trained; its heads are the first members. It is not changed.
        views: of train and validation, with the trained backbone's features where they fit into memory.
        sets: the images, for augmentation.
        config: of the run.
        folder: of the run.
        fabric: launched.
        recorder: progress and logs.
        resume: continue where an interrupted run stopped.
    """
    wanted = config.epistemic
    heads = tuple(name for name, t in config.trainers.items() if t.head.sampled)
    alone = replace(config, heads=heads) if heads else config
    # What the first member's last stage saw: augmented images, unless the backbone is frozen.
    aspect = sets["train"].pixel_aspect
    augment = make_augment(alone, network.spec, aspect) if heads else None
    train, validation = views["train"], views["validation"]
    copied = train.cache is not None and train.cache.copies > 0
    if (augment is not None and not copied) or needs_images(alone):
        train = Views(sets["train"])
    others = []
    for number in range(1, wanted.members):
        name = f"member{number + 1}"
        recorder.say(f"{name}: of an ensemble of {wanted.members}")
        held_out = validation if len(validation) else None
        others.append(
            fit_member(
                network, number, train, held_out, alone, folder / name, fabric, recorder,
                augment=augment, resume=resume,
            )
        )  # fmt: skip
    if others:
        network = with_members(network, others)
    if wanted.passes:
        network = with_monte_carlo(network, wanted.passes, config.loop.seed)
    return network


def fit_member(
    network: MultiHeadNetwork,
    number: int,
    train: Views,
    validation: Views | None,
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
    recorder: Recorder,
    augment: Any = None,
    resume: bool = False,
) -> dict[str, nn.Module]:
    """Trains one member's heads from nothing on the network's backbone.

    Args:
        network: its backbone is used; it is not changed.
        number: of the member; its seed is the run's plus this. The first, 0, sees every image.
        train: training samples.
        validation: to choose the epoch by; None for the last.
        config: of the run; its `heads` are trained.
        folder: for checkpoints.
        fabric: launched.
        recorder: progress and logs.
        augment: changes training batches, or None.
        resume: continue from a checkpoint.

    Returns:
        Head's name to the trained head, on the CPU.
    """
    assert config.loop.epochs is not None
    seeded = replace(config, loop=replace(config.loop, seed=config.loop.seed + number))
    if number and draws_samples(config):
        posed = bool(train.samples.targets["has_pose"].any())
        index = bootstrap(len(train), BLOCK if posed else 1, seeded.loop.seed)
        train = part_of(train, index)
    other = copy.deepcopy(network)
    other.members = nn.ModuleList()
    everything = tuple(name for name, _ in other.backbone.body.named_children())
    other.backbone.freeze(everything)
    torch.manual_seed(seeded.loop.seed)
    for name in config.heads:
        other.heads[name] = other.new_head(name)
    prepare_heads(seeded, other, train)
    trainee = make_trainee(seeded, other, train, frozen_norms=True)
    rank, world = fabric.global_rank, fabric.world_size
    chooser = make_chooser(seeded, tuple(trainee.losses), other, train, rank, world)
    stage = loop.Stage(f"member {number + 1}", config.loop.epochs, augment, chooser)
    if resume and loop.finished(folder, train) is not None:
        loop.load_best(other, folder)
    else:
        fabric.to_device(other)
        loop.fit(trainee, train, validation, seeded, stage, folder, fabric, recorder, resume)
    return {name: other.heads[name].to("cpu") for name in config.heads}


def needs_images(config: TrainingConfig) -> bool:
    """Whether a head's loss looks at the images, so that cached features are not enough."""
    return any(trainer.needs_images() for trainer in config.trainers.values())


def draws_samples(config: TrainingConfig) -> bool:
    """Whether further members see a bootstrap sample of the images."""
    if any(trainer.keeps_order() for trainer in config.trainers.values()):
        return False  # a sample tears the sequence apart
    wanted = config.epistemic.bootstrap
    return all(t.linear for t in config.trainers.values()) if wanted is None else wanted


def bootstrap(count: int, block: int, seed: int) -> Tensor:
    """Draws about `count` of this many samples with replacement, in stretches of `block` neighbours."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.arange(count).split(block)
    drawn = torch.randint(len(blocks), (len(blocks),), generator=generator)
    return torch.cat([blocks[i] for i in drawn.tolist()])


def part_of(views: Views, index: Tensor) -> Views:
    """Returns some of the samples, with their cached features where there are any."""
    whole, cache = views.samples, views.cache
    part = replace(
        whole,
        samples=tuple(whole.samples[i] for i in index.tolist()),
        targets={key: value[index] for key, value in whole.targets.items()},
        maps={key: value[index] for key, value in whole.maps.items()},
        whole={key: value[index] for key, value in whole.whole.items()},
        pixels=None if whole.pixels is None else whole.pixels[index],
    )
    return Views(part, None if cache is None else cache.part(index, len(whole)))
