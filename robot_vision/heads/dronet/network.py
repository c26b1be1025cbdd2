"""DroNet's head: two numbers of flattened features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError
from robot_vision.heads.dronet.spec import DronetSpec


class DronetModule(nn.Module):
    """Dropout and a linear layer, whose two numbers are steering and the logit of a collision.

    Args:
        spec: dropout, and the layers before them that the paper does not have.
        shape: of the tap, (C,) or (C, h, w).

    Raises:
        ConfigError: `reduce_channels` is asked of a tap that is no feature map.
    """

    def __init__(self, spec: DronetSpec, shape: Sequence[int]) -> None:
        super().__init__()
        self.reduce: nn.Module | None = None
        if spec.reduce_channels:
            if len(shape) != 3:
                raise ConfigError(
                    f"reduce_channels needs a feature map, and the tap has shape {tuple(shape)}: use an "
                    "earlier one, or 0"
                )
            self.reduce = nn.Sequential(nn.Conv2d(shape[0], spec.reduce_channels, 1), nn.ReLU())
            shape = (spec.reduce_channels, *shape[1:])
        size = math.prod(shape)
        self.hidden: nn.Module | None = None
        if spec.hidden:
            layers = (nn.Dropout(spec.dropout), nn.Linear(size, spec.hidden), nn.ReLU())
            self.hidden, size = nn.Sequential(*layers), spec.hidden
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(size, 2)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns `steering` and `collision_logit` (N,) of features (N, C) or (N, C, h, w)."""
        if self.reduce is not None:
            features = self.reduce(features)
        features = features.flatten(1)
        if self.hidden is not None:
            features = self.hidden(features)
        numbers = self.linear(self.dropout(features))
        return {"steering": numbers[:, 0], "collision_logit": numbers[:, 1]}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `steering` and the probability `collision`, (N,)."""
        return {
            "steering": raw["steering"].float(),
            "collision": torch.sigmoid(raw["collision_logit"].float()),
        }
