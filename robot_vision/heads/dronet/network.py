"""DroNet's head: two numbers of flattened features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robot_vision.heads.dronet.spec import DronetSpec


class DronetModule(nn.Module):
    """Dropout and a linear layer, whose two numbers are steering and the logit of a collision.

    Args:
        spec: dropout.
        shape: of the tap, (C,) or (C, h, w).
    """

    def __init__(self, spec: DronetSpec, shape: Sequence[int]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(math.prod(shape), 2)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns `steering` and `collision_logit` (N,) of features (N, C) or (N, C, h, w)."""
        numbers = self.linear(self.dropout(features.flatten(1)))
        return {"steering": numbers[:, 0], "collision_logit": numbers[:, 1]}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `steering` and the probability `collision`, (N,)."""
        return {
            "steering": raw["steering"].float(),
            "collision": torch.sigmoid(raw["collision_logit"].float()),
        }
