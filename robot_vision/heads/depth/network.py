"""The depth head's decoder: from the coarsest map to the finest, with skips."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.backbones.enlarging import enlarged
from robot_vision.contract.constants import Constants
from robot_vision.heads.depth.spec import DepthSpec

# The range of sigma's logarithm, from a thousandth of the depth to beyond any use.
LOG_SIGMA = (-7.0, 2.0)


class DepthModule(nn.Module):
    """Regresses the logarithm of depth, and that of its standard deviation.

    Args:
        spec: range, size, channels and dropout.
        shapes: of the taps, from the finest to the coarsest, (C, h, w).

    Attributes:
        size: rows and columns of what it says.
    """

    log_mean: Tensor
    log_scale: Tensor

    def __init__(self, spec: DepthSpec, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.size = (int(shapes[0][1]), int(shapes[0][2])) if not max(spec.size) else spec.size
        self.low, self.high = math.log(spec.minimum), math.log(spec.maximum)
        self.register_buffer("log_mean", torch.tensor((self.low + self.high) / 2))
        self.register_buffer("log_scale", torch.tensor(1.0))
        self.constants = Constants(scale=())

    def set_statistics(self, mean: float, deviation: float) -> None:
        """Sets mean and deviation of the logarithms of the training depths."""
        self.log_mean.fill_(mean)
        self.log_scale.fill_(max(deviation, 1e-3))

    def numbers(self, *maps: Tensor) -> Tensor:
        """Returns two numbers for each pixel of the finest map (N, 2, h, w): of its depth and its sigma."""
        raise NotImplementedError

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        """Regresses what a depth loss is computed on.

        Args:
            maps: of the taps, from the finest to the coarsest, each (N, C, h, w).

        Returns:
            `log_depth` (N, h, w), log of metres; `log_sigma` (N, h, w), of the same error.
        """
        x = enlarged(self.numbers(*maps), self.size)
        return {"log_depth": self.log_mean + self.log_scale * x[:, 0], "log_sigma": x[:, 1] - 2.0}

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns `depth` in metres, within the range, and `depth_sigma`, both (N, h, w)."""
        depth = raw["log_depth"].float().clamp(self.low, self.high).exp()
        sigma = raw["log_sigma"].float().clamp(*LOG_SIGMA).exp() * self.constants["scale"]
        return {"depth": depth, "depth_sigma": sigma}


class Pyramid(DepthModule):
    """The decoder `pyramid`: convolutions at all strides, down to the finest.

    The idea of skips is that of Long et al. (2015), and a map is added where it is by the feature pyramid
    of Lin et al. (2017): the coarser map is enlarged bilinearly, the finer one is brought to the same
    channels, and a depthwise and a pointwise convolution follow. Pooled features of the coarsest map are
    added to it, since how far a room's walls are away is seen from all of it.
    """

    def __init__(self, spec: DepthSpec, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__(spec, shapes)
        width = spec.channels
        self.laterals = nn.ModuleList(nn.Conv2d(int(c), width, 1) for c, _, _ in shapes)
        self.pooled = nn.Linear(int(shapes[-1][0]), width)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.blocks = nn.ModuleList(_smoothing(width) for _ in shapes)
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def numbers(self, *maps: Tensor) -> Tensor:
        coarsest = maps[-1]
        x = self.laterals[-1](self.dropout(coarsest))
        x = x + self.pooled(coarsest.mean(dim=(2, 3)))[:, :, None, None]
        x = self.blocks[-1](x)
        for i in range(len(maps) - 2, -1, -1):
            x = enlarged(x, maps[i].shape[2:])
            x = self.blocks[i](x + self.laterals[i](maps[i]))  # (N, channels, h, w)
        found: Tensor = self.last(x)
        return found


class Folded(DepthModule):
    """The decoder `folded`, for CPUs: no convolution runs on as many pixels as it answers.

    Each 2 x 2 pixels of the finest map are folded into one, by a convolution; there the coarser maps are
    added, from the coarsest on, as in a feature pyramid (Lin et al. 2017), and pooled features of the
    coarsest, since what a pixel shows depends on the whole scene. The answer of 2 x 2 pixels is scored at
    once and unfolded (sub-pixel convolution, Shi et al. 2016). With maps of strides 4 to 32 all is computed
    at stride 8, for an answer at stride 4.
    """

    def __init__(self, spec: DepthSpec, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__(spec, shapes)
        width = spec.channels
        self.fold = nn.Conv2d(int(shapes[0][0]), width, 2, stride=2)
        self.laterals = nn.ModuleList(nn.Conv2d(int(c), width, 1) for c, _, _ in shapes[1:])
        self.pooled = nn.Linear(int(shapes[-1][0]), width)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.blocks = nn.ModuleList(_smoothing(width) for _ in shapes[1:] or shapes)
        self.unfold = nn.Conv2d(width, 4 * 2, 1)

    def numbers(self, *maps: Tensor) -> Tensor:
        coarsest = maps[-1]
        added = [lateral(x) for lateral, x in zip(self.laterals, maps[1:-1], strict=False)]
        if len(maps) > 1:
            added.append(self.laterals[-1](self.dropout(coarsest)))
            rows, columns = added[0].shape[2:]
            added[0] = added[0] + self.fold(_fitted(maps[0], 2 * rows, 2 * columns))
        else:
            rows, columns = coarsest.shape[2:]
            even = _fitted(self.dropout(coarsest), rows + rows % 2, columns + columns % 2)
            added.append(self.fold(even))
        x = added[-1] + self.pooled(coarsest.mean(dim=(2, 3)))[:, :, None, None]
        x = self.blocks[-1](x)
        for block, finer in zip(list(self.blocks)[-2::-1], added[-2::-1], strict=True):
            doubled = enlarged(x, (2 * x.shape[2], 2 * x.shape[3]))
            x = block(finer + _fitted(doubled, *finer.shape[2:]))
        return _fitted(F.pixel_shuffle(self.unfold(x), 2), *maps[0].shape[2:])


MODULES = {"pyramid": Pyramid, "folded": Folded}


def _smoothing(channels: int) -> nn.Sequential:
    """Returns a depthwise 5 x 5 and a pointwise convolution, each with batch norm, and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def _fitted(x: Tensor, rows: int, columns: int) -> Tensor:
    """Returns (N, C, h, w) without what is beyond a size, or with its last row and column repeated."""
    # Traced sizes are tensors, and would be computed in the graph.
    rows, columns = int(rows), int(columns)
    if x.shape[2] > rows or x.shape[3] > columns:
        x = x[:, :, :rows, :columns]
    down, right = rows - int(x.shape[2]), columns - int(x.shape[3])
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
