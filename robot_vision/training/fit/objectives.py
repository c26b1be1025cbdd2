"""What a run minimises, and how its images are changed: losses and augmentation from the configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.mixup import Mixup
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.losses import make_loss
from robot_vision.training.samples.augmentation import BatchAugmentation, make_augmentation

NONE = "none"


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
    losses: dict[str, nn.Module] = {}
    for head in config.heads:
        chosen = getattr(config, head)
        if chosen.loss == NONE:
            continue
        settings: dict[str, Any] = dict(chosen.settings)
        if head == "classifier" and config.classifier.class_weights != NONE:
            settings["class_weights"] = _class_weights(config, spec, targets["label"])
        if head == "place":
            settings = {**relation(config), **settings}
        losses[head] = make_loss(head, chosen.loss, **settings)
    return losses


def relation(config: TrainingConfig) -> dict[str, float | None]:
    """Returns what counts as the same place and what as another, as losses and mining take it."""
    place = config.place
    return {
        "positive_m": place.positive_m,
        "positive_deg": place.positive_deg,
        "negative_m": place.negative_m,
        "negative_deg": place.negative_deg,
    }


def _class_weights(config: TrainingConfig, spec: NetworkSpec, labels: Tensor) -> list[float]:
    from robot_vision.heads.classifier.loss import class_weights

    assert spec.classifier is not None
    counts = torch.bincount(labels[labels >= 0], minlength=len(spec.classifier.labels))
    return class_weights(counts.tolist(), config.classifier.class_weights)


def augmentation_settings(config: TrainingConfig) -> dict[str, Any]:
    """Returns the augmentation's name and settings, the defaults filled in."""
    if config.augmentation is not None:
        return {"name": NONE, **config.augmentation}
    if "all" in config.network.freeze or config.network.init_from:
        return {"name": NONE}
    return {"name": "labels" if config.heads == ("classifier",) else "poses"}


def make_augment(
    config: TrainingConfig, spec: NetworkSpec, pixel_aspect: float = 1.0
) -> BatchAugmentation | None:
    """Builds the augmentation, or None where there is none.

    Args:
        config: of the run.
        spec: of the network.
        pixel_aspect: of the network's input, see `SampleSet.pixel_aspect`: a camera that is turned about its
            axis turns a squashed image otherwise.

    Raises:
        ConfigError: an unknown name or setting, or one that makes poses or labels untrue.
    """
    settings = augmentation_settings(config)
    name, alpha = settings.pop("name"), settings.pop("mixup", 0.0)
    alone = config.heads == ("classifier",)
    if not alone and (name == "labels" or alpha):
        what = "mixup" if alpha else "augmentation 'labels'"
        raise ConfigError(
            f"{what} makes poses untrue: with {', '.join(config.heads)} use name: poses"
        )
    mixup = None
    if alpha:
        assert spec.classifier is not None
        mixup = Mixup(len(spec.classifier.labels), float(alpha), config.loop.seed)
    if name == NONE and mixup is None:
        return None
    if name == "poses":
        settings.setdefault("pixel_aspect", pixel_aspect)
        matrix, size = settings.get("camera_matrix") or (), (spec.input.width, spec.input.height)
        if any(not 0 <= c <= side for c, side in zip(matrix[2:], size, strict=False)):
            raise ConfigError(
                f"augmentation.camera_matrix is {tuple(matrix)}, whose centre lies outside of the network's "
                f"input of {size[0]} x {size[1]}: give it in pixels of the input"
            )
    return BatchAugmentation(make_augmentation(name, config.loop.seed, **settings), mixup)
