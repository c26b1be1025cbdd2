"""Place head: generalised-mean pooling, a descriptor of as many numbers as the tap has channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.heads.place.poolings.pooling import Pooling, l2_normalised, require_map
from robot_vision.heads.place.spec import PlaceSpec

START_POWER = 3.0  # the paper's initial p
MIN_POWER, MAX_POWER = 1.0, 20.0  # 1 is average pooling; far above, x^p leaves float32's range
FLOOR = 1e-6  # x^p has no gradient at 0


class GemHead(Pooling):
    """GeM: the power mean of each channel over the image, with a learned power.

    Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI
    2019), eq. 3, for one p shared by all channels:

        f_c = ( 1/|X| sum_{x in X} x_c^p )^(1/p)

    which is average pooling for p = 1 and max pooling for p to infinity; the descriptor is f,
    L2-normalised. The paper's whitening is `Pooling`'s.

    Departure from the paper: each channel is divided by its largest value before the power and
    multiplied by it after, which changes nothing but rounding, so that features of any scale stay
    in float16's range. Negative features count as zero, as in the authors' code.

    Args:
        spec: the whitened size.
        shape: the tap's shape, (C, H, W).

    Attributes:
        power: parameter (), p.

    Raises:
        ConfigError: the tap is no feature map, or the whitened size is too large.
    """

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...]) -> None:
        require_map(spec, shape)
        super().__init__(spec, shape[0])
        self.power = nn.Parameter(torch.tensor(START_POWER))

    def aggregate(self, *taps: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, C) of norm 1."""
        return l2_normalised(self.means(taps[0]), dim=1)

    def means(self, features: Tensor) -> Tensor:
        """Returns the power means (N, C) of a feature map (N, C, H, W)."""
        p = self.power.clamp(MIN_POWER, MAX_POWER)
        x = F.relu(features).flatten(2)  # (N, C, P), P = H * W
        largest = x.amax(dim=2, keepdim=True).detach().clamp(min=FLOOR)  # (N, C, 1)
        relative = (x / largest).clamp(min=FLOOR)
        mean = relative.pow(p).mean(dim=2).pow(1 / p)  # (N, C), in (0, 1]
        return mean * largest.squeeze(2)
