"""How like a view is to those that a head was trained on: a score that is part of the head's graph.

It is the score `knn` of a classifier's open set (Sun et al., ICML 2022), by the distance to the k-th nearest
of the training images' features that the bundle keeps, as a number from 1 (a training view) towards 0. It is
computed in the graph, since what a head says may depend on it, and every reader of the graph is to get that.
Features are whitened: what they have in common in every view of a place would hide in what they differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 64  # numbers of a view at most
NEIGHBOURS = 3  # k: neighbouring frames of a recording are nearly one view
_IMAGES_AN_AXIS = 8  # fewer tell no axis from noise
_FOR_AXES = 1024  # images that the axes are computed from
_LEAST = 1e-2  # extent of an axis, as a share of the largest one's
_ROUNDED = 1e-3  # and of the features themselves
_STRETCHED = 1e-2  # of the features: what differs less is not stretched to a view of its own
_SOFT = 0.1  # so that a view near the centre, which has no direction, is none by rounding


class KnownViews(nn.Module):
    """Training views, and the distance to the nearest.

    A view is what a head reads (N, D), along the first principal axes of the training images' and in units of
    their standard deviations.

    Args:
        count: R, of the views that are kept.
        inputs: D.

    Attributes:
        centre: buffer (D,).
        axes: buffer (D, S).
        references: buffer (R, S), as `view` makes them.
    """

    centre: Tensor
    axes: Tensor
    references: Tensor

    def __init__(self, count: int, inputs: int) -> None:
        super().__init__()
        size = min(SIZE, inputs)
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("axes", torch.zeros(inputs, size))
        # Before `keep` every view is new, at a distance of 1.
        self.register_buffer("references", torch.full((count, size), size**-0.5))

    def keep(self, features: Tensor) -> None:
        """Sets what new views are compared with.

        Args:
            features: (N, D) of training images, in the order in which they were recorded: if there are more
                than are kept, those that are kept are spread evenly over them.
        """
        some = features[_spread(len(features), min(len(features), _FOR_AXES))].double()
        centre = some.mean(dim=0)
        _, deviations, axes = torch.linalg.svd(some - centre, full_matrices=False)
        size = min(self.axes.shape[1], max(1, len(some) // _IMAGES_AN_AXIS))
        # Along axes of little extent, rounding would be taken for views.
        least = max(_LEAST * float(deviations[0]), _ROUNDED * float(some.norm()))
        size = max(1, min(size, int((deviations > least).sum())))
        # Whitened, and of length 1 on average.
        stretched = deviations[:size].clamp(min=max(_STRETCHED * float(some.norm()), 1e-12))
        scale = (len(some) / size) ** 0.5 / stretched
        self.axes.zero_()[:, :size] = axes[:size].T * scale
        self.centre.copy_(centre)
        self.references.copy_(self.view(features[_spread(len(features), len(self.references))]))

    def view(self, features: Tensor) -> Tensor:
        """Returns vectors (N, S) of length 1 at most of features (N, D)."""
        x = (features - self.centre) @ self.axes
        return x / (x.square().sum(dim=1, keepdim=True) + _SOFT).sqrt()

    def forward(self, features: Tensor) -> Tensor:
        """Returns the squared distance (N,), from 0 to 4, to the k-th nearest view of features (N, D)."""
        # By differences: where vectors are alike, 2 - 2 cos has lost its digits in 16 bits.
        apart = self.view(features).unsqueeze(1) - self.references  # (N, R, S)
        squared = apart.square().sum(dim=2)  # (N, R)
        k = min(NEIGHBOURS, squared.shape[1])
        return squared.topk(k, dim=1, largest=False).values[:, -1]


def _spread(count: int, wanted: int) -> Tensor:
    """Returns this many of `count` rows, in order and evenly spread; some again where there are fewer."""
    return torch.linspace(0, count - 1, wanted, dtype=torch.float64).round().long()
