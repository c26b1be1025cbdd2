"""Honest residuals without validation frames: the head is trained anew on parts of the training frames.

A head is surer of the frames that it was trained on than it may be of others. Where every frame is needed
for training, the frames are cut into blocks of time; for each of a few folds a head is trained on the
other folds' blocks and asked about its own. The backbone is frozen and its features are cached, so this
costs a few times the seconds that the head itself took.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robot_vision.networks.heads.posenet import PoseNetHead
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training import loop
from robot_vision.training.config import TrainingConfig
from robot_vision.training.evaluate import Views, pose_errors, predict
from robot_vision.training.features import FeatureCache
from robot_vision.training.model import Trainee
from robot_vision.training.objectives import make_losses
from robot_vision.training.record import Recorder

BLOCK = (
    50  # neighbouring frames that stay together; neighbours in other folds would flatter the head
)


def pose_residuals(
    network: MultiHeadNetwork, train: Views, config: TrainingConfig, folder: Path, fabric: Fabric
) -> tuple[Tensor, Tensor]:
    """Returns errors (N, 6) and predicted covariances (N, 6, 6) of training frames held out in turn.

    Args:
        network: with a frozen backbone; it is not changed.
        train: with cached features.
        config: of the run; `pose.folds` is the number of folds.
        folder: for the folds' checkpoints, removed in the end.
        fabric: launched, one process.
    """
    assert train.cache is not None and network.spec.pose is not None
    assert config.loop.epochs is not None
    known = train.samples.targets["has_pose"]
    block = torch.arange(len(train)) // BLOCK
    fold_of = block % config.pose.folds
    alone = replace(config, heads=("pose",))
    errors, covariances = [], []
    for fold in range(config.pose.folds):
        seen = ((fold_of != fold) & known).nonzero().flatten()
        asked = ((fold_of == fold) & known).nonzero().flatten()
        if not len(seen) or not len(asked):
            continue
        part, held_out = part_of(train, seen), part_of(train, asked)
        torch.manual_seed(config.loop.seed)
        tap = network.taps["pose"]
        head = PoseNetHead(network.spec.pose, network.backbone.shapes[tap])
        head.set_position_statistics(part.samples.targets["T_map_camera"][:, :3, 3])
        other = copy.deepcopy(network)
        other.heads["pose"] = head
        losses = make_losses(alone, other.spec, part.samples.targets)
        stage = loop.Stage(f"fold {fold + 1}", config.loop.epochs)
        place = folder / f"fold{fold}"
        quiet = Recorder(None, quiet=True)
        loop.fit(
            Trainee(other, losses, {"pose": 1.0}, True),
            part,
            None,
            alone,
            stage,
            place,
            fabric,
            quiet,
        )
        outputs = predict(other, held_out, ("pose",), fabric.device)
        true = held_out.samples.targets["T_map_camera"]
        errors.append(pose_errors(outputs["position"], outputs["orientation_xyzw"], true))
        covariances.append(outputs["pose_covariance"].double())
        shutil.rmtree(place, ignore_errors=True)
    return torch.cat(errors), torch.cat(covariances)


def part_of(views: Views, index: Tensor) -> Views:
    """Returns some of the samples with their cached features."""
    whole, cache = views.samples, views.cache
    part = replace(
        whole,
        samples=tuple(whole.samples[i] for i in index.tolist()),
        targets={key: value[index] for key, value in whole.targets.items()},
        pixels=None if whole.pixels is None else whole.pixels[index],
    )
    assert cache is not None
    return Views(part, FeatureCache({head: value[index] for head, value in cache.features.items()}))
