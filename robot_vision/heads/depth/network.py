"""The depth head's decoder: from the coarsest map to the finest, with skips."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.constants import Constants
from robot_vision.heads.depth.spec import DepthSpec

# The range of sigma's logarithm, from a thousandth of the depth to beyond any use.
LOG_SIGMA = (-7.0, 2.0)


class DepthModule(nn.Module):
    """Regresses the logarithm of depth, and that of its standard deviation.

    The idea of skips is that of Long et al. (2015), and a map is added where it is by the feature pyramid
    of Lin et al. (2017): the coarser map is enlarged bilinearly, the finer one is brought to the same
    channels, and a depthwise and a pointwise convolution follow. Pooled features of the coarsest map are
    added to it, since how far a room's walls are away is seen from all of it.

    Args:
        spec: range, channels and dropout.
        shapes: of the taps, from the finest to the coarsest, (C, h, w).

    Attributes:
        size: rows and columns of what it says.
    """

    log_mean: Tensor
    log_scale: Tensor

    def __init__(self, spec: DepthSpec, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        width = spec.channels
        self.size = (int(shapes[0][1]), int(shapes[0][2])) if not max(spec.size) else spec.size
        self.laterals = nn.ModuleList(nn.Conv2d(int(c), width, 1) for c, _, _ in shapes)
        self.pooled = nn.Linear(int(shapes[-1][0]), width)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.blocks = nn.ModuleList(_block(width) for _ in shapes)
        self.last = nn.Conv2d(width, 2, 3, padding=1)
        self.low, self.high = math.log(spec.minimum), math.log(spec.maximum)
        self.register_buffer("log_mean", torch.tensor((self.low + self.high) / 2))
        self.register_buffer("log_scale", torch.tensor(1.0))
        self.constants = Constants(scale=())

    def set_statistics(self, mean: float, deviation: float) -> None:
        """Sets mean and deviation of the logarithms of the training depths."""
        self.log_mean.fill_(mean)
        self.log_scale.fill_(max(deviation, 1e-3))

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        """Regresses what a depth loss is computed on.

        Args:
            maps: of the taps, from the finest to the coarsest, each (N, C, h, w).

        Returns:
            `log_depth` (N, h, w), log of metres; `log_sigma` (N, h, w), of the same error.
        """
        coarsest = maps[-1]
        x = self.laterals[-1](self.dropout(coarsest))
        x = x + self.pooled(coarsest.mean(dim=(2, 3)))[:, :, None, None]
        x = self.blocks[-1](x)
        for i in range(len(maps) - 2, -1, -1):
            size = (int(maps[i].shape[2]), int(maps[i].shape[3]))
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = self.blocks[i](x + self.laterals[i](maps[i]))  # (N, channels, h, w)
        x = self.last(x)
        if tuple(x.shape[2:]) != tuple(self.size):
            x = F.interpolate(x, size=tuple(self.size), mode="bilinear", align_corners=False)
        return {"log_depth": self.log_mean + self.log_scale * x[:, 0], "log_sigma": x[:, 1] - 2.0}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `depth` in metres, within the range, and `depth_sigma`, both (N, h, w)."""
        depth = raw["log_depth"].float().clamp(self.low, self.high).exp()
        sigma = raw["log_sigma"].float().clamp(*LOG_SIGMA).exp() * self.constants["scale"]
        return {"depth": depth, "depth_sigma": sigma}


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
