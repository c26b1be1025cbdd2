"""A small seeded k-means for cluster centres of image descriptors."""

from __future__ import annotations

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
    """Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii, 2007).

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
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [first]
    nearest = squared_distances(points, points[first : first + 1])[:, 0]
    for _ in range(clusters - 1):
        # A draw in proportion to the squared distance, by the inverse of its cumulative sum: unlike
        # torch.multinomial it takes more than 2^24 points.
        cumulative = nearest.double().cumsum(0)
        total = float(cumulative[-1])
        draw = float(torch.rand(1, generator=generator, dtype=torch.float64)) * total
        index = int(torch.searchsorted(cumulative, draw, right=True).clamp(max=len(points) - 1))
        if total == 0:  # fewer different points than clusters
            index = int(torch.randint(len(points), (1,), generator=generator))
        chosen.append(index)
        distance = squared_distances(points, points[index : index + 1])[:, 0]
        nearest = torch.minimum(nearest, distance)
    return points[torch.tensor(chosen, device=points.device)].clone()
