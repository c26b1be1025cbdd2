"""Honest residuals without validation frames: the head is trained again on parts of the training frames.

A head is surer of the frames that it was trained on than it may be of others. Where every frame is needed
for training, the frames are cut into blocks of time; for each of a few folds a head is trained on the
other folds' blocks and asked about its own. The backbone is frozen and its features are cached, so this
costs a few times the seconds that the head itself took.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robot_vision.heads.pose.measures import pose_errors
from robot_vision.networks.ensemble import with_members, with_monte_carlo
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.ensemble import BLOCK, fit_member, part_of
from robot_vision.training.fit.record import Recorder
from robot_vision.training.ship.evaluate import Views, predict

Residuals = tuple[Tensor, Tensor, Tensor, Tensor]


def pose_residuals(
    network: MultiHeadNetwork, train: Views, config: TrainingConfig, folder: Path, fabric: Fabric
) -> Residuals:
    """Returns what the head says of training frames held out in turn.

    Every fold's head answers as often as the network does: by passes, and by as many members.

    Args:
        network: with a frozen backbone; it is not changed.
        train: with cached features.
        config: of the run; `pose.folds` is the number of folds.
        folder: for the folds' checkpoints, removed in the end.
        fabric: launched, one process.

    Returns:
        Errors (N, 6), predicted covariances (N, 6, 6), the part of them by which answers differ, and the
        block of time (N,) that each frame is of.
    """
    assert train.cache is not None and network.spec.pose is not None
    assert config.loop.epochs is not None
    known = train.samples.targets["has_pose"]
    block = torch.arange(len(train)) // BLOCK
    fold_of = block % config.pose.folds
    alone = replace(config, heads=("pose",))
    wanted, quiet = config.epistemic, Recorder(None, quiet=True)
    errors, covariances, spreads, blocks = [], [], [], []
    for fold in range(config.pose.folds):
        seen = ((fold_of != fold) & known).nonzero().flatten()
        asked = ((fold_of == fold) & known).nonzero().flatten()
        if not len(seen) or not len(asked):
            continue
        part, held_out = part_of(train, seen), part_of(train, asked)
        place = folder / f"fold{fold}"
        members = [
            fit_member(network, number, part, None, alone, place / str(number), fabric, quiet)
            for number in range(wanted.members)
        ]
        other = with_members(network, [])
        other.heads["pose"] = members[0]["pose"]
        if wanted.members > 1:
            other = with_members(other, members[1:])
        if wanted.passes:
            other = with_monte_carlo(other, wanted.passes, config.loop.seed)
        fabric.to_device(other)
        outputs = predict(other, held_out, ("pose",), fabric.device)
        true = held_out.samples.targets["T_map_camera"]
        errors.append(pose_errors(outputs["position"], outputs["orientation_xyzw"], true))
        covariances.append(outputs["pose_covariance"].double())
        spreads.append(spread_of(outputs))
        blocks.append(block[asked])
        shutil.rmtree(place, ignore_errors=True)
    return torch.cat(errors), torch.cat(covariances), torch.cat(spreads), torch.cat(blocks)


def spread_of(outputs: dict[str, Tensor]) -> Tensor:
    """Returns the answers' spread (N, 6, 6): zero where there is one answer."""
    spread = outputs.get("pose_spread")
    zero = torch.zeros_like(outputs["pose_covariance"])
    return (zero if spread is None else spread).double()
