"""Place head: generalised-mean pooling, a descriptor of as many numbers as the tap has channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.errors import ConfigError
from robot_vision.heads.place.netvlad import l2_normalised
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.place.whitening import pca_whitening

START_POWER = 3.0  # the paper's initial p
MIN_POWER, MAX_POWER = 1.0, 20.0  # 1 is average pooling; far above, x^p leaves float32's range
FLOOR = 1e-6  # x^p has no gradient at 0


class GemHead(nn.Module):
    """GeM: the power mean of each channel over the image, with a learned power.

    Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI
    2019), eq. 3, for one p shared by all channels:

        f_c = ( 1/|X| sum_{x in X} x_c^p )^(1/p)

    which is average pooling for p = 1 and max pooling for p to infinity; the descriptor is f,
    L2-normalised. With `whitened_size` a linear layer follows and the descriptor is L2-normalised
    again: the paper's whitening, which is fitted by PCA (`fit_whitening`) and may be trained on.

    Departure from the paper: each channel is divided by its largest value before the power and
    multiplied by it after, which changes nothing but rounding, so that features of any scale stay
    in float16's range. Negative features count as zero, as in the authors' code.

    Args:
        spec: the whitened size.
        shape: the tap's shape, (C, H, W).

    Attributes:
        size: numbers in a descriptor.
        power: parameter (), p.

    Raises:
        ConfigError: the tap is no feature map.
    """

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ConfigError(
                f"the place head needs a feature map: the tap {spec.tap!r} has shape {shape}; "
                "use a tap before pooling"
            )
        self.channels = shape[0]
        self.size = spec.whitened_size or self.channels
        if self.size > self.channels:
            raise ConfigError(
                f"place whitened_size is {spec.whitened_size}: with GeM it must be at most the "
                f"tap's {self.channels} channels"
            )
        self.power = nn.Parameter(torch.tensor(START_POWER))
        self.projection: nn.Linear | None = None
        if spec.whitened_size:
            # Until it is fitted or trained, a random projection, which roughly keeps angles.
            self.projection = nn.Linear(self.channels, self.size)
            nn.init.normal_(self.projection.weight, std=1 / math.sqrt(self.size))
            nn.init.zeros_(self.projection.bias)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Computes the descriptors.

        Args:
            features: feature map (N, C, H, W).

        Returns:
            `descriptor` (N, D), of L2 norm 1; D is `size`.
        """
        pooled = self.aggregate(features)  # (N, C)
        if self.projection is not None:
            pooled = l2_normalised(self.projection(pooled), dim=1)  # (N, D)
        return {"descriptor": pooled}

    def aggregate(self, features: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, C) of norm 1."""
        p = self.power.clamp(MIN_POWER, MAX_POWER)
        x = F.relu(features).flatten(2)  # (N, C, P), P = H * W
        largest = x.amax(dim=2, keepdim=True).detach().clamp(min=FLOOR)  # (N, C, 1)
        relative = (x / largest).clamp(min=FLOOR)
        mean = relative.pow(p).mean(dim=2).pow(1 / p)  # (N, C), in (0, 1]
        return l2_normalised(mean * largest.squeeze(2), dim=1)

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the descriptors as float32; they are already final."""
        return {"descriptor": raw["descriptor"].float()}

    @torch.no_grad()
    def fit_whitening(self, descriptors: Tensor) -> None:
        """Fits PCA whitening.

        Args:
            descriptors: (n, C), what `aggregate` returned for n training images.

        Raises:
            ConfigError: the head has no whitening, n is not larger than the whitened size, or the
                descriptors vary in fewer directions.
        """
        if self.projection is None:
            raise ConfigError("the place head has no whitening: set whitened_size")
        if descriptors.dim() != 2 or descriptors.shape[1] != self.channels:
            shape = tuple(descriptors.shape)
            raise ConfigError(f"descriptors have shape {shape}: it must be (n, {self.channels})")
        weight, bias = pca_whitening(descriptors, self.size)
        self.projection.weight.copy_(weight)
        self.projection.bias.copy_(bias)
