"""Head of cells: calibrated probabilities of cells of the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.constants import Constants
from robot_vision.heads.cells.spec import CellsSpec


class CellsModule(nn.Module):
    """Pooled features, dropout, a linear layer or two; softmax with a temperature.

    Weyand, Kostrikov and Philbin, "PlaNet: Photo Geolocation with Convolutional Neural Networks" (ECCV 2016),
    section 3: the classifier of cells. Its LSTM over albums is not here: filters do that on a robot.

    Args:
        spec: cells, width of the hidden layer, dropout and temperature.
        channels: C of the tap.

    Attributes:
        linear: the last layer.
        constants: `temperature` ().
    """

    def __init__(self, spec: CellsSpec, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, spec.hidden) if spec.hidden else None
        self.dropout = nn.Dropout(spec.dropout)
        self.linear = nn.Linear(spec.hidden or channels, len(spec.images))
        self.constants = Constants(temperature=())
        self.constants["temperature"].fill_(spec.temperature)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns `cell_logits` (N, K), before the temperature.

        Args:
            features: (N, C), or a feature map (N, C, H, W), which is averaged over H and W.
        """
        if features.dim() == 4:
            features = features.mean(dim=(2, 3))  # (N, C)
        if self.hidden is not None:
            features = F.relu(self.hidden(features))  # (N, hidden)
        return {"cell_logits": self.linear(self.dropout(features))}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `cell_probabilities` (N, K), which sum to 1."""
        scaled = raw["cell_logits"].float() / self.constants["temperature"]
        return {"cell_probabilities": torch.softmax(scaled, dim=1)}
