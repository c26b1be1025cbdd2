"""Place head: SALAD, features by optimal transport to clusters or a dustbin, and a global token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError
from robot_vision.heads.place.poolings.pooling import Pooling, l2_normalised, require_map
from robot_vision.heads.place.spec import PlaceSpec

ITERATIONS = 3  # of Sinkhorn's algorithm, as in the paper
DROPOUT = 0.3  # in training, as in the authors' code


class SaladHead(Pooling):
    """Izquierdo and Civera, "Optimal Transport Aggregation for Visual Place Recognition" (CVPR 2024).

    Two layers with a ReLU give each of n features its scores s_i for m clusters (eq. 3) and a smaller
    feature f_i (section 3.3); two more make g of the global token (section 3.4). With a further
    row for the dustbin, whose score z is learned (eq. 4), Sinkhorn's algorithm finds the assignment
    P whose logarithm is the scores plus one number for each row and one for each column, with

        sum_i P_ji = 1 for clusters j,   sum_i P_ji = n - m for the dustbin,   sum_j P_ji = 1   (eq. 5)

    up to a common factor; the dustbin's row is left out (eq. 6). V_j = sum_i P_ji f_i (eq. 7), and the
    descriptor is g and all V_j, each of norm 1, one after the other and again of norm 1 (eq. 8).

    Args:
        spec: clusters m, `channels` of f, `token_size` of g, `hidden` numbers between two layers.
        shape: the feature map's shape, (C, H, W).
        token: the global token's shape, (C,).

    Raises:
        ConfigError: the tap is no feature map, or it has no more features than there are clusters.
    """

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...], token: tuple[int, ...]) -> None:
        require_map(spec, shape)
        self.clusters, self.features = spec.clusters, shape[1] * shape[2]
        if self.features <= self.clusters:
            raise ConfigError(
                f"salad needs more features than clusters: the map of {shape[1]} x {shape[2]} has "
                f"{self.features}, clusters is {self.clusters}; use fewer clusters, a larger input or an "
                "earlier tap"
            )
        channels, size, hidden = (spec.of(n) for n in ("channels", "token_size", "hidden"))
        super().__init__(spec, size + self.clusters * channels)
        self.score = _layers(shape[0], hidden, self.clusters)
        self.reduce = _layers(shape[0], hidden, channels)
        self.token = nn.Sequential(nn.Linear(token[0], hidden), nn.ReLU(), nn.Linear(hidden, size))
        self.dustbin = nn.Parameter(torch.tensor(1.0))

    def aggregate(self, *taps: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, token_size + clusters * channels) of norm 1.

        Args:
            taps: feature map (N, C, H, W) and global token (N, C).
        """
        features, token = taps
        reduced = self.reduce(features).flatten(2)  # (N, l, n)
        assigned = self.transport(self.score(features).flatten(2))  # (N, m, n)
        clusters = reduced @ assigned.transpose(1, 2)  # (N, l, m)
        parts = [l2_normalised(self.token(token), dim=1), l2_normalised(clusters, dim=1).flatten(1)]
        return l2_normalised(torch.cat(parts, dim=1), dim=1)

    def transport(self, scores: Tensor) -> Tensor:
        """Returns the assignment (N, m, n) of n features to m clusters for scores (N, m, n)."""
        m, n = self.clusters, self.features
        dustbin = self.dustbin.to(scores.dtype).expand(scores.shape[0], 1, n)
        scores = torch.cat([scores, dustbin], dim=1)  # (N, m + 1, n)
        rows = scores.new_tensor([0.0] * m + [math.log(n - m)])
        columns = scores.new_zeros(1, n)  # (N, n) after the first round
        for _ in range(ITERATIONS):
            row = rows - torch.logsumexp(scores + columns[:, None], dim=2)  # (N, m + 1)
            columns = -torch.logsumexp(scores + row[:, :, None], dim=1)
        return (scores + row[:, :, None] + columns[:, None])[:, :m].exp()


def _layers(channels: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.Dropout(DROPOUT), nn.ReLU(), nn.Conv2d(hidden, out, 1)
    )
