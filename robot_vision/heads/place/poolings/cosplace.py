"""Place head: CosPlace's and EigenPlaces' layers, GeM of normalised features and a linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_vision.heads.place.poolings.gem import START_POWER
from robot_vision.heads.place.poolings.pooling import Pooling, l2_normalised, require_map
from robot_vision.heads.place.spec import PlaceSpec

FLOOR = 1e-6  # of a feature, as in the authors' code: x^p has no gradient at 0


class CosPlaceHead(Pooling):
    """GeM over features of norm 1, then a linear layer that is trained with it.

    Berton, Masone and Caputo, "Rethinking Visual Geo-localization for Large-Scale Applications" (CVPR
    2022), and Berton et al., "EigenPlaces" (ICCV 2023), which has the same layers. For features x_i
    of norm 1 along the channels:

        f_c = ( 1/P sum_i max(x_ic, 1e-6)^p )^(1/p),    d = W f + b

    and the descriptor is d, L2-normalised. Unlike `gem` with `whitened_size`, f is not normalised
    before the linear layer, and the layer is no PCA.

    Args:
        spec: `channels` numbers come out.
        shape: the tap's shape, (C, H, W).

    Attributes:
        power: parameter (), p.

    Raises:
        ConfigError: the tap is no feature map, or the whitened size is too large.
    """

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...]) -> None:
        require_map(spec, shape)
        super().__init__(spec, spec.of("channels"))
        self.power = nn.Parameter(torch.tensor(START_POWER))
        self.linear = nn.Linear(shape[0], spec.of("channels"))

    def aggregate(self, *taps: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, channels) of norm 1."""
        x = l2_normalised(taps[0], dim=1).flatten(2).clamp(min=FLOOR)  # (N, C, P)
        means = x.pow(self.power).mean(dim=2).pow(1 / self.power)  # (N, C)
        return l2_normalised(self.linear(means), dim=1)
