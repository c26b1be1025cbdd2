"""What every loss takes and gives, and the masks that keep unlabelled samples out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError

Tensors = Mapping[str, Tensor]


class LossValue(NamedTuple):
    """A loss, and what it is made of.

    Attributes:
        total: scalar to minimise; zero, with a graph, when no sample of the batch has a target.
        parts: name to detached scalar, for the log: terms in their own units and learned weights.
            Parts that are means over samples are absent when there were none.
    """

    total: Tensor
    parts: dict[str, Tensor]


def full_precision(x: Tensor) -> Tensor:
    """Returns float64 as it is and everything else as float32: no loss is computed in float16."""
    return x if x.dtype == torch.float64 else x.float()


def zero_of(*tensors: Tensor) -> Tensor:
    """Returns a scalar 0 that depends on tensors, so that `backward` runs and gives zero gradients.

    An empty slice is summed and not a product with zero taken: 0 x inf is not zero.
    """
    return torch.stack([full_precision(t).flatten()[:0].sum() for t in tensors]).sum()


def require(ok: bool, loss: str, setting: str, value: object, allowed: str) -> None:
    """Raises ConfigError about a loss's setting unless `ok`."""
    if not ok:
        raise ConfigError(f"{loss} loss: {setting} is {value!r}: it must be {allowed}")


class ClassLoss(nn.Module):
    """The settings that losses of classes have in common.

    Args:
        class_weights: a positive number for each class; None weighs all alike.
        label_smoothing: in [0, 1).
    """

    weights: Tensor | None

    def __init__(
        self, class_weights: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        ok, name = 0 <= label_smoothing < 1, "cross_entropy"
        require(ok, name, "label_smoothing", label_smoothing, "in [0, 1)")
        self.label_smoothing = label_smoothing
        weights = None
        if class_weights is not None:
            weights = torch.as_tensor(class_weights, dtype=torch.float32)
            ok = weights.dim() == 1 and bool((weights > 0).all() and weights.isfinite().all())
            require(ok, name, "class_weights", class_weights, "positive, one for each class")
        self.register_buffer("weights", weights, persistent=False)
