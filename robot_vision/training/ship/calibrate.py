"""After training: probabilities and variances that are right on images that were not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.calibration.folds import folds_of, pose_losses, units_of
from robot_vision.contract.calibration import FOLDS
from robot_vision.datasets.sample import Sample
from robot_vision.heads.classifier.temperature import (
    cross_fitted,
    fit_temperature,
    log_probabilities,
)
from robot_vision.heads.pose.training import pose_errors
from robot_vision.heads.pose.variance_scales import BOTH, fit_variance_scales, scaled
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.statistics.judging import cross_fit, judge
from robot_vision.text.counts import counted
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.crossfit import held_out
from robot_vision.training.fit.ensemble import BLOCK
from robot_vision.training.fit.model import is_frozen
from robot_vision.training.ship.evaluate import Views, predict

_MIN_IMAGES = 20  # fewer say nothing about a temperature or a variance


def calibrate(
    network: MultiHeadNetwork,
    views: dict[str, Views],
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
) -> dict[str, Any]:
    """Calibrates the trained heads on the validation images, or poses by cross-fitting.

    Args:
        network: trained; its temperature and its variances are changed.
        views: of `train` and `validation`.
        config: of the run.
        folder: of the run.
        fabric: launched.

    Returns:
        What was found, for the report, by head; or why there was nothing.
    """
    found: dict[str, Any] = {}
    for name, trainer in config.trainers.items():
        if not getattr(config.settings[name], "calibrate", False):
            continue
        targets = trainer.own(views["validation"].samples.targets)
        if trainer.truth == "label":
            found[name] = _classes(network, name, targets, views["validation"], fabric)
        elif trainer.truth == "pose":
            found[name] = _poses(network, name, targets, views, config, folder, fabric)
    return found


def _classes(
    network: MultiHeadNetwork,
    name: str,
    targets: Mapping[str, Tensor],
    validation: Views,
    fabric: Fabric,
) -> Any:
    known = targets["label"] >= 0
    if int(known.sum()) < _MIN_IMAGES:
        return _too_few(int(known.sum()))
    outputs = predict(network, validation, (name,), fabric.device)[name]
    logits = outputs.get("logit_samples", outputs["logits"])
    samples = [validation.samples.samples[i] for i in known.nonzero().flatten().tolist()]
    labels = targets["label"][known].numpy()
    return _temperature(network, name, logits[known].numpy(), labels, samples)


def _poses(
    network: MultiHeadNetwork,
    name: str,
    targets: Mapping[str, Tensor],
    views: dict[str, Views],
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
) -> Any:
    known, train = targets["has_pose"], views["train"]
    folds = config.settings[name].folds
    if int(known.sum()) >= _MIN_IMAGES:
        outputs = predict(network, views["validation"], (name,), fabric.device)[name]
        index = known.nonzero().flatten()
        outputs = {word: value[index] for word, value in outputs.items()}
        block, poses = index // BLOCK, targets["T_map_camera"]
        on = "validation frames"
    elif train.cache is not None and is_frozen(network) and fabric.world_size == 1:
        seen = train.samples.targets
        outputs, index, block = held_out(
            network, name, folds, train, seen["has_pose"], config, folder, fabric
        )
        poses = seen["T_map_camera"]
        on = f"training frames, held out in {folds} folds"
    else:
        return _too_few(int(known.sum()))
    errors = pose_errors(outputs["position"], outputs["orientation_xyzw"], poses[index])
    covariance = outputs["pose_covariance"].double()
    spread = outputs.get("pose_spread", torch.zeros_like(covariance)).double()
    return {"on": on, **_variances(network, name, errors, covariance, spread, block)}


def _temperature(
    network: MultiHeadNetwork,
    name: str,
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Sets the temperature if it helps images left out, beyond noise; returns what was found."""
    rows = np.arange(len(labels))
    after = cross_fitted(logits, labels, folds_of(samples, FOLDS))[rows, labels]
    before = log_probabilities(logits)[rows, labels]
    judgement = judge(-before, -after, units_of(samples, FOLDS))
    fitted = fit_temperature(logits, labels)
    if judgement.better:
        set_temperature(network, name, fitted)
        return {"temperature": fitted}
    why = f"temperature {fitted:.4g} gives a negative log likelihood of {judgement}"
    return {"temperature": 1.0, "left": why}


def _variances(
    network: MultiHeadNetwork,
    name: str,
    errors: Tensor,
    covariance: Tensor,
    spread: Tensor,
    block: Tensor,
) -> dict[str, Any]:
    """Scales the variances if that helps poses that were not fitted on; returns what was found."""
    e, c, fixed, blocks = (v.numpy() for v in (errors, covariance, spread, block))
    scale = fit_variance_scales(e, c, BOTH, blocks, fixed)
    scales = float(scale[0]), float(scale[3])
    found: dict[str, Any] = {
        "frames": len(errors),
        "position_variance_scale": scales[0],
        "rotation_variance_scale": scales[1],
    }
    after = c.copy()
    # Blocks are in the order of time: each fold has blocks of all of it.
    folds = np.unique(blocks, return_inverse=True)[1].reshape(-1) % FOLDS
    for asked, other in cross_fit(
        folds,
        np.ones(len(e), bool),
        lambda seen: fit_variance_scales(e[seen], c[seen], BOTH, blocks[seen], fixed[seen]),
    ):
        after[asked] = scaled(c[asked], other, fixed[asked])
    judgement = judge(pose_losses(e, c), pose_losses(e, after), blocks)
    # One block has no neighbour that could judge.
    if judgement.worse and len(block.unique()) > 1:
        text = ", ".join(f"{value:.3g}" for value in scales)
        why = f"variances times {text} give a negative log likelihood of {judgement}"
        return {
            **found,
            "position_variance_scale": 1.0,
            "rotation_variance_scale": 1.0,
            "left": why,
        }
    scale_variances(network, name, scales)
    return found


def _too_few(count: int) -> str:
    return f"not calibrated: {counted(count, 'validation image')}, {_MIN_IMAGES} are needed"


def set_temperature(network: MultiHeadNetwork, name: str, temperature: float) -> None:
    """Puts a temperature into a classifier and into the network's spec."""
    head: Any = network.heads[name]
    head.constants["temperature"].fill_(temperature)
    changed = replace(network.spec.heads[name], temperature=temperature)
    network.spec = network.spec.with_heads(**{name: changed})


@torch.no_grad()
def scale_variances(network: MultiHeadNetwork, name: str, scales: tuple[float, float]) -> None:
    """Multiplies a pose head's variances by factors for position and rotation."""
    head: Any
    for head in network.every(name):
        bias = head.log_variance.bias
        bias[:3] += math.log(scales[0])
        bias[3:] += math.log(scales[1])
