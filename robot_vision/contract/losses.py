"""What every loss takes and gives, and the masks that keep unlabelled samples out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

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
