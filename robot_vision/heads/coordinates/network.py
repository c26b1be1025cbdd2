"""The decoder of scene coordinates: maps of several strides, joined at one resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robot_vision.backbones.enlarging import enlarged
from robot_vision.heads.coordinates.spec import CoordinatesSpec

LOG_DEVIATION = (-6.0, 3.0)  # from 2 mm to 20 m


class CoordinatesModule(nn.Module):
    """Regresses for each cell a point of the map and the logarithm of its deviation.

    ACE (Brachmann et al. 2023) has a backbone of its own that was trained for this, and residual blocks of
    1 x 1 convolutions. Here maps of any backbone are joined, finer ones folded by a strided convolution and
    coarser ones enlarged, and each block begins with a depthwise convolution over the neighbourhood.

    Args:
        spec: size, channels, blocks and dropout.
        shapes: of the taps, from the finest to the coarsest, (C, h, w).
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, spec: CoordinatesSpec, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.size, width = (spec.size[0], spec.size[1]), spec.channels
        self.laterals = nn.ModuleList()
        for channels, height, _ in shapes:
            fold = max(1, int(height) // self.size[0])
            self.laterals.append(nn.Conv2d(int(channels), width, fold, stride=fold))
        self.dropout = nn.Dropout2d(spec.dropout)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(_block(width) for _ in range(spec.blocks))
        self.last = nn.Conv2d(width, 4, 1)
        self.register_buffer("offset", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(()))

    def set_statistics(self, mean: Tensor, deviation: float) -> None:
        """Sets mean (3,) and deviation of the training coordinates, metres from the centre."""
        self.offset.copy_(mean.view(1, 3, 1, 1))
        self.scale.fill_(max(deviation, 1e-3))

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        """Regresses what a loss is computed on.

        Args:
            maps: of the taps, from the finest to the coarsest, each (N, C, h, w).

        Returns:
            `points` (N, 3, h, w), metres from the centre; `log_deviation` (N, h, w).
        """
        x: Tensor = sum(  # type: ignore[assignment]
            enlarged(lateral(self.dropout(m)), self.size)
            for lateral, m in zip(self.laterals, maps, strict=True)
        )
        x = torch.relu(self.norm(x))
        for block in self.blocks:
            x = torch.relu(x + block(x))  # (N, channels, h, w)
        y = self.last(x)
        return {"points": self.offset + self.scale * y[:, :3], "log_deviation": y[:, 3]}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `scene_points` (N, 3, h, w) and `scene_deviation` (N, h, w), metres."""
        deviation = raw["log_deviation"].float().clamp(*LOG_DEVIATION).exp()
        return {"scene_points": raw["points"].float(), "scene_deviation": deviation}


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )
