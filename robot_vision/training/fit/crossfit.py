"""Honest residuals without validation frames: the head is trained again on parts of the training frames.

A head is surer of the frames that it was trained on than it may be of others. Where every frame is needed
for training, the frames are cut into parts: blocks of time, or regions of the map. For each of a few folds a
head is trained on the other folds' parts and asked about its own. They learn from augmented images where the
head did: one that did not would err more, and the intervals become too wide. The backbone is frozen, so this
costs a few times what the head itself took.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robot_vision.networks.ensemble import with_members, with_monte_carlo
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.ensemble import fit_member, needs_images, part_of
from robot_vision.training.fit.record import Recorder
from robot_vision.training.samples.augmentation import make_augment
from robot_vision.training.ship.evaluate import Views, features_of, predict


def held_out(
    network: MultiHeadNetwork,
    name: str,
    fold_of: Tensor,
    train: Views,
    known: Tensor,
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
) -> tuple[dict[str, Tensor], Tensor]:
    """Returns what a head says of training samples held out in turn.

    Every fold's head answers as often as the network does: by passes, and by as many members.

    Args:
        network: with a frozen backbone; it is not changed.
        name: of the head.
        fold_of: int64 (N,), the fold in which each sample is held out.
        train: with cached features, and with those of augmented copies where the run has some.
        known: bool (N,), the samples that have the head's truth.
        config: of the run.
        folder: for the folds' checkpoints, removed in the end.
        fabric: launched, one process.

    Returns:
        Outputs (M, ...) by the head's words, and the samples (M,) that they are of.
    """
    assert train.cache is not None
    alone = replace(config, heads=(name,))
    augment = make_augment(alone, network.spec, train.samples.pixel_aspect)
    copied = train.cache.copies > 0
    again = (augment is not None and not copied) or needs_images(alone)
    whole = Views(train.samples) if again else train
    wanted, quiet = config.epistemic, Recorder(None, quiet=True)
    outputs, rows = [], []
    for fold in fold_of.unique().tolist():
        seen = ((fold_of != fold) & known).nonzero().flatten()
        asked = ((fold_of == fold) & known).nonzero().flatten()
        if not len(seen) or not len(asked):
            continue
        part, rest = part_of(whole, seen), part_of(train, asked)
        place = folder / f"fold{fold}"
        members = [
            fit_member(
                network,
                number,
                part,
                None,
                alone,
                place / str(number),
                fabric,
                quiet,
                augment=augment,
            )
            for number in range(wanted.members)
        ]
        other = with_members(network, [])
        other.heads[name] = members[0][name]
        if wanted.members > 1:
            other = with_members(other, members[1:])
        if wanted.passes:
            other = with_monte_carlo(other, wanted.passes, config.loop.seed)
        fabric.to_device(other)
        with torch.no_grad():
            trainer = config.trainers[name]
            seen_by = features_of(other, part_of(train, seen), trainer)
            trainer.finish(other.heads[name], other.spec.heads[name], seen_by)
        outputs.append(predict(other, rest, (name,), fabric.device)[name])
        rows.append(asked)
        shutil.rmtree(place, ignore_errors=True)
    index = torch.cat(rows)
    return {w: torch.cat([o[w] for o in outputs]) for w in outputs[0]}, index
