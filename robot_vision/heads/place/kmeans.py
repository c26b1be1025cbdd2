"""A small seeded k-means for cluster centres of image descriptors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 1 << 14  # rows a time: distances to 4096 centres then take 256 MB


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Returns (P, K) squared Euclidean distances of points (P, C) to centres (K, C)."""
    cross = points @ centres.T
    norms = points.square().sum(1, keepdim=True) + centres.square().sum(1)
    return (norms - 2 * cross).clamp_(min=0)


def nearest_two(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the index (P,) of the nearest centre and (P, min(2, K)) squared distances, ascending."""
    index, distances = [], []
    for part in points.split(_CHUNK):
        best = squared_distances(part, centres).topk(min(2, len(centres)), dim=1, largest=False)
        index.append(best.indices[:, 0])
        distances.append(best.values)
    return torch.cat(index), torch.cat(distances)


def kmeans(points: Tensor, clusters: int, seed: int = 0, iterations: int = 50) -> Tensor:
    """Lloyd's algorithm from greedy k-means++ seeds (Arthur and Vassilvitskii, 2007).

    Args:
        points: (P, C), P >= clusters.
        clusters: K.
        seed: the same seed gives the same centres on the same machine.
        iterations: at most; it stops once no point changes its centre.

    Returns:
        Centres (K, C), in the points' type. A centre that lost all its points moves to the point
        that is furthest from its own centre.
    """
    assert len(points) >= clusters >= 1
    generator = torch.Generator(device="cpu").manual_seed(seed)
    centres = _seeds(points, clusters, generator)
    labels = torch.full((len(points),), -1, device=points.device)
    for _ in range(iterations):
        previous = labels
        labels, distances = nearest_two(points, centres)
        if torch.equal(labels, previous):
            break
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        counts = torch.bincount(labels, minlength=clusters)
        centres = sums / counts.clamp(min=1).unsqueeze(1)
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            far = distances[:, 0].topk(len(empty)).indices
            centres[empty] = points[far]
    return centres


def _seeds(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: of a few candidates for each centre, the one that helps most is kept."""
    trials = 2 + int(math.log(clusters))
    first = torch.randint(len(points), (1,), generator=generator).to(points.device)
    chosen = [first]
    nearest = squared_distances(points, points[first])  # (P, 1)
    for _ in range(clusters - 1):
        # A draw in proportion to the squared distance, by the inverse of its cumulative sum: unlike
        # torch.multinomial it takes more than 2^24 points.
        cumulative = nearest[:, 0].double().cumsum(0)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(points.device)
        index = torch.searchsorted(cumulative, draws * cumulative[-1], right=True)
        index.clamp_(max=len(points) - 1)  # also where all points are chosen and nothing is left
        candidates = torch.minimum(nearest, squared_distances(points, points[index]))
        best = int(candidates.sum(dim=0).argmin())
        nearest = candidates[:, best : best + 1]
        chosen.append(index[best : best + 1])
    return points[torch.cat(chosen)].clone()
