"""PCA whitening of descriptors, fitted once on training images and applied as one linear layer."""

from __future__ import annotations

import torch
from torch import Tensor

from robot_vision.errors import ConfigError


@torch.no_grad()
def pca_whitening(descriptors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns the affine map onto the first principal axes, each scaled to variance 1.

    Args:
        descriptors: (n, F) of n training images.
        size: D, how many axes are kept.

    Returns:
        Weight (D, F) and bias (D,), float64: `weight @ x + bias` has mean 0 and covariance 1 over
        the given descriptors.

    Raises:
        ConfigError: n is not larger than D, or the descriptors vary in fewer than D directions.
    """
    if len(descriptors) <= size:
        raise ConfigError(
            f"{len(descriptors)} images are too few to whiten to {size} numbers: "
            f"use at least {size + 1}, or a smaller whitened_size"
        )
    x = descriptors.double()
    mean = x.mean(dim=0)
    x = x - mean
    # The smaller of the two Gram matrices has the same eigenvalues and costs less than an SVD.
    wide = x.shape[1] > len(x)
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)  # ascending
    values, vectors = values.flip(0)[:size], vectors.flip(1)[:, :size]
    deviations = (values.clamp(min=0) / (len(x) - 1)).sqrt()  # (D,)
    floor = float(deviations[0]) * 1e-6
    if float(deviations[-1]) <= floor:
        rank = int((deviations > floor).sum())
        raise ConfigError(
            f"descriptors vary in {rank} directions only: use other images, or at most {rank} as "
            "whitened_size"
        )
    axes = (x.T @ vectors / values.sqrt() if wide else vectors).T  # (D, F), orthonormal
    weight = axes / deviations[:, None]
    return weight, -(weight @ mean)
