"""Parameter groups, and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from robot_vision.training.config import OptimiserConfig


def make_optimiser(
    backbone: nn.Module,
    others: Iterable[nn.Module],
    config: OptimiserConfig,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Builds the optimiser: the backbone at its own rate, weight decay on matrices and kernels only.

    Args:
        backbone: trained at `backbone_learning_rate`.
        others: heads and losses with parameters, at `learning_rate`.
        config: with `backbone_learning_rate` resolved.
        fused: all of an update in one pass over the numbers: a third of the time of one pass for each of
            its terms. Gradients that are scaled (float16) cannot be clipped before it.
    """
    assert config.backbone_learning_rate is not None
    groups = []
    for modules, rate in (
        ([backbone], config.backbone_learning_rate),
        (list(others), config.learning_rate),
    ):
        trained = [p for m in modules for p in m.parameters() if p.requires_grad]
        for decays in (True, False):
            group = [p for p in trained if (p.dim() > 1) == decays]
            if group:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": group, "lr": rate, "peak": rate, "weight_decay": decay})
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=fused
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


def rate_factor(step: int, steps: int, config: OptimiserConfig) -> float:
    """Returns the share of the peak rate at a step: a linear warm-up, then a cosine.

    Args:
        step: from 0 to `steps` - 1.
        steps: of the whole run.
        config: `warmup` and `final`.
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to a share of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
