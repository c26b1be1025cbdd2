"""Descriptors that need no training, by the name of the pooling: what baselines compare images by."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

GEM_POWER = 3.0  # Radenovic et al. (PAMI 2018) start there


def pooled(features: Tensor) -> Tensor:
    """Returns (N, C): the average over a feature map, or the features as they are."""
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


def poolings(features: Tensor) -> dict[str, Tensor]:
    """Returns descriptors of L2 norm 1 by the name of the pooling that made them.

    Args:
        features: (N, C, h, w), or (N, C), which allows no choice.
    """
    named = {"average pooling": pooled(features)}
    if features.dim() == 4:
        powers = features.clamp(min=1e-6).pow(GEM_POWER)
        named["GeM pooling"] = powers.mean(dim=(2, 3)).pow(1 / GEM_POWER)
        named["flattened map"] = features.flatten(1)
    return {name: F.normalize(value.float(), dim=1) for name, value in named.items()}
