"""Losses by name. The table holds names only, so that a loss's packages are imported when it is made."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import nn

from robot_vision.contract import registry
from robot_vision.errors import ConfigError, unknown

_LOSSES: dict[str, dict[str, str]] = {
    "classifier": {"cross_entropy": "robot_vision.heads.classifier.loss:CrossEntropy"},
    "pose": {
        "beta": "robot_vision.heads.pose.losses.regression:BetaLoss",
        "homoscedastic": "robot_vision.heads.pose.losses.regression:HomoscedasticLoss",
        "reprojection": "robot_vision.heads.pose.losses.reprojection:ReprojectionLoss",
        "heteroscedastic": "robot_vision.heads.pose.losses.likelihood:GaussianLikelihood",
    },
    "place": {
        "triplet": "robot_vision.heads.place.loss:TripletRankingLoss",
        "multi_similarity": "robot_vision.heads.place.loss:MultiSimilarityLoss",
    },
}


def loss_names(head: str) -> tuple[str, ...]:
    """Returns the names of a head's losses.

    Raises:
        ConfigError: an unknown head.
    """
    if head not in _LOSSES:
        raise ConfigError(unknown("head", head, registry.names()))
    return tuple(_LOSSES[head])


def make_loss(head: str, name: str, **settings: Any) -> nn.Module:
    """Returns a loss: a module called as `loss(raw, batch)` that gives a `LossValue`.

    Its parameters, if it has any, are learned with the network's and belong into the optimiser and
    the checkpoint (without weight decay).

    Args:
        head: `classifier`, `pose` or `place`.
        name: one of `loss_names(head)`.
        settings: what the loss's class takes. Any pose loss also takes `relative`: a mapping of the
            settings of `relative.RelativePoseLoss`, which is then added to it.

    Raises:
        ConfigError: an unknown head, name or setting (the message names the nearest), or a value
            out of range.
    """
    if name not in loss_names(head):
        raise ConfigError(unknown(f"{head} loss", name, _LOSSES[head]))
    relative = settings.pop("relative", None) if head == "pose" else None
    loss = _build(_LOSSES[head][name], f"{name} loss", settings)
    if relative is None:
        return loss
    if not isinstance(relative, dict):
        raise ConfigError(f"relative is {relative!r}: it must be a mapping of settings")
    return _build(
        "robot_vision.heads.pose.losses.relative:RelativePoseLoss",
        "relative",
        {"absolute": loss, **relative},
    )


def _build(where: str, what: str, settings: dict[str, Any]) -> nn.Module:
    module, _, kind = where.partition(":")
    cls = getattr(importlib.import_module(module), kind)
    allowed = [p for p in inspect.signature(cls).parameters if p != "absolute"]
    for key in settings:
        if key not in allowed and key != "absolute":
            raise ConfigError(unknown(f"setting of {what}", key, allowed))
    loss: nn.Module = cls(**settings)
    return loss
