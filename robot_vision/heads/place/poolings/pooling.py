"""What the poolings of a place head share: the projection behind them, and what they give."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError
from robot_vision.heads.place.poolings.whitening import pca_whitening
from robot_vision.heads.place.spec import PlaceSpec


def l2_normalised(x: Tensor, dim: int) -> Tensor:
    """Returns x / ||x|| along `dim`, and zero for zero: F.normalize, with half its ONNX operators."""
    return x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp(min=1e-12)


def require_map(spec: PlaceSpec, shape: tuple[int, ...]) -> None:
    """Raises ConfigError where the tap is no feature map (C, H, W)."""
    if len(shape) != 3:
        raise ConfigError(
            f"the place head needs a feature map: the tap {spec.tap!r} has shape {shape}; "
            "use a tap before pooling"
        )


class Pooling(nn.Module):
    """Pools a feature map to a vector of L2 norm 1.

    With `whitened_size` a linear layer follows, fitted by PCA (`fit_whitening`) and perhaps trained on, and
    norm 1 again.

    Args:
        spec: the whitened size.
        full: numbers that `aggregate` gives.

    Attributes:
        size: numbers in a descriptor.

    Raises:
        ConfigError: the whitened size is larger than `full`.
    """

    def __init__(self, spec: PlaceSpec, full: int) -> None:
        super().__init__()
        self.full = full
        self.size = spec.whitened_size or full
        if self.size > full:
            raise ConfigError(
                f"place whitened_size is {spec.whitened_size}: it must be at most the {full} numbers that "
                f"{spec.pooling} gives"
            )
        self.projection: nn.Linear | None = None
        if spec.whitened_size:
            # Until it is fitted or trained, a random projection, which roughly keeps angles.
            self.projection = nn.Linear(full, self.size)
            nn.init.normal_(self.projection.weight, std=1 / math.sqrt(self.size))
            nn.init.zeros_(self.projection.bias)

    def forward(self, *taps: Tensor) -> dict[str, Tensor]:
        """Computes the descriptors.

        Args:
            taps: feature map (N, C, H, W), and what else the pooling reads.

        Returns:
            `descriptor` (N, D), of L2 norm 1; D is `size`.
        """
        pooled = self.aggregate(*taps)  # (N, full)
        if self.projection is not None:
            pooled = l2_normalised(self.projection(pooled), dim=1)  # (N, D)
        return {"descriptor": pooled}

    @abstractmethod
    def aggregate(self, *taps: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, full) of norm 1."""

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the descriptors as float32; they are already final."""
        return {"descriptor": raw["descriptor"].float()}

    @torch.no_grad()
    def fit_whitening(self, descriptors: Tensor) -> None:
        """Fits PCA whitening.

        Args:
            descriptors: (n, full), what `aggregate` returned for n training images.

        Raises:
            ConfigError: the head has no whitening, n is not larger than the whitened size, or the
                descriptors vary in fewer directions.
        """
        if self.projection is None:
            raise ConfigError("the place head has no whitening: set whitened_size")
        if descriptors.dim() != 2 or descriptors.shape[1] != self.full:
            shape = tuple(descriptors.shape)
            raise ConfigError(f"descriptors have shape {shape}: it must be (n, {self.full})")
        weight, bias = pca_whitening(descriptors, self.size)
        self.projection.weight.copy_(weight)
        self.projection.bias.copy_(bias)
