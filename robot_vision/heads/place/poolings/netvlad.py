"""Place head: one descriptor of a whole image, whose dot product says how alike two places look."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.errors import ConfigError
from robot_vision.heads.place.poolings.pooling import l2_normalised, require_map
from robot_vision.heads.place.poolings.whitening import pca_whitening
from robot_vision.heads.place.spec import PlaceSpec

ASSIGNMENT_RATIO = 100.0  # nearest to second nearest cluster, as in the authors' code


class NetVladHead(nn.Module):
    """NetVLAD: residuals to K cluster centres, softly assigned and summed over the image.

    Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place recognition" (CVPR
    2016). For descriptors x_i of the feature map, each of L2 norm 1:

        a_k(x) = exp(w_k . x + b_k) / sum_l exp(w_l . x + b_l)                            (eq. 3)
        V(k)   = sum_i a_k(x_i) (x_i - c_k)                                               (eq. 4)

    with w_k = 2 alpha c_k and b_k = -alpha ||c_k||^2 at the start, by which eq. 3 is the soft
    assignment by distance exp(-alpha ||x - c_k||^2) (eq. 2); training moves w, b and c apart. Each
    V(k) is L2-normalised ("intra-normalisation"), then all are concatenated and L2-normalised. With
    whitening, the descriptor is projected by PCA to unit variances and L2-normalised again (section
    5).

    Args:
        spec: clusters and the whitened size.
        shape: the tap's shape, (C, H, W).

    Attributes:
        size: numbers in a descriptor.
        centres: parameter (K, C).

    Raises:
        ConfigError: the tap is no feature map, or the whitened size is too large.
    """

    whitening_weight: Tensor
    whitening_bias: Tensor

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...]) -> None:
        super().__init__()
        require_map(spec, shape)
        self.clusters, self.channels = spec.clusters, shape[0]
        full = self.clusters * self.channels
        if spec.whitened_size > full:
            raise ConfigError(
                f"place whitened_size is {spec.whitened_size}: it must be at most clusters x channels = "
                f"{self.clusters} x {self.channels} = {full}"
            )
        self.size = spec.whitened_size or full
        self.assignment = nn.Conv2d(self.channels, self.clusters, kernel_size=1)
        centres = F.normalize(torch.randn(self.clusters, self.channels), dim=1)
        self.centres = nn.Parameter(centres)
        self.whitened = spec.whitened_size > 0
        if self.whitened:
            # Until it is fitted, a random projection, which roughly keeps angles.
            weight = torch.randn(self.size, full) / math.sqrt(self.size)
            self.register_buffer("whitening_weight", weight)
            self.register_buffer("whitening_bias", torch.zeros(self.size))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Computes the descriptors.

        Args:
            features: feature map (N, C, H, W).

        Returns:
            `descriptor` (N, D), of L2 norm 1; D is `size`.
        """
        vlad = self.aggregate(features)  # (N, K * C)
        if self.whitened:
            vlad = F.linear(vlad, self.whitening_weight, self.whitening_bias)  # (N, D)
            vlad = l2_normalised(vlad, dim=1)
        return {"descriptor": vlad}

    def aggregate(self, features: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, K * C) of norm 1, cluster by cluster."""
        x = l2_normalised(features, dim=1)  # (N, C, H, W)
        a = F.softmax(self.assignment(x).flatten(2), dim=1)  # (N, K, P), P = H * W
        # sum_i a_k(x_i) (x_i - c_k) without the (N, K, C, P) residuals that eq. 4 seems to ask for.
        weighted = torch.matmul(a, x.flatten(2).transpose(1, 2))  # (N, K, C)
        vlad = weighted - a.sum(dim=2, keepdim=True) * self.centres
        vlad = l2_normalised(vlad, dim=2)
        return l2_normalised(vlad.flatten(1), dim=1)

    def decode(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the descriptors as float32; they are already final."""
        return {"descriptor": raw["descriptor"].float()}

    @torch.no_grad()
    def initialise(
        self,
        descriptors: Tensor,
        seed: int = 0,
        iterations: int = 50,
        ratio: float = ASSIGNMENT_RATIO,
    ) -> float:
        """Sets centres by k-means and the assignment so that it is by distance to them (eq. 2).

        Args:
            descriptors: (P, C) columns of feature maps of training images; normalised here.
            seed: of k-means.
            iterations: of k-means, at most.
            ratio: of the nearest centre's assignment to the second nearest one's, on average. The
                authors' code takes 100; less assigns more softly.

        Returns:
            alpha, chosen so that the ratio is as asked.

        Raises:
            ConfigError: fewer descriptors than clusters, another number of channels, not finite, or
                a ratio of 1 or less.
        """
        if not 1 < ratio < math.inf:
            raise ConfigError(f"ratio is {ratio!r}: it must be above 1, and 100 is usual")
        if descriptors.dim() != 2 or descriptors.shape[1] != self.channels:
            shape = tuple(descriptors.shape)
            raise ConfigError(f"descriptors have shape {shape}: it must be (P, {self.channels})")
        if len(descriptors) < self.clusters:
            raise ConfigError(
                f"{len(descriptors)} descriptors are too few for {self.clusters} clusters: use more images"
            )
        if not bool(descriptors.isfinite().all()):
            raise ConfigError("descriptors are not finite: check the backbone's weights")
        x = F.normalize(descriptors.to(self.centres), dim=1)
        centres = kmeans(x, self.clusters, seed, iterations)
        alpha = self._alpha(x, centres, ratio)
        exact = centres.double()
        self.centres.copy_(centres)
        # Computed in double and rounded once: the argmax is then the nearest centre for near ties
        # too.
        self.assignment.weight.copy_((2 * alpha * exact)[:, :, None, None])
        assert self.assignment.bias is not None
        self.assignment.bias.copy_(-alpha * exact.square().sum(dim=1))
        return alpha

    @staticmethod
    def _alpha(x: Tensor, centres: Tensor, ratio: float) -> float:
        if len(centres) < 2:
            return 1.0
        _, distances = nearest_two(x, centres)
        gap = float((distances[:, 1] - distances[:, 0]).double().mean())
        return math.log(ratio) / max(gap, 1e-6)

    @torch.no_grad()
    def fit_whitening(self, descriptors: Tensor) -> None:
        """Fits PCA whitening.

        Args:
            descriptors: (n, K * C), what `aggregate` returned for n training images.

        Raises:
            ConfigError: the head has no whitening, n is not larger than the whitened size, or the
                descriptors vary in fewer directions.
        """
        if not self.whitened:
            raise ConfigError("the place head has no whitening: set whitened_size")
        full = self.clusters * self.channels
        if descriptors.dim() != 2 or descriptors.shape[1] != full:
            shape = tuple(descriptors.shape)
            raise ConfigError(f"descriptors have shape {shape}: it must be (n, {full})")
        weight, bias = pca_whitening(descriptors, self.size)
        self.whitening_weight.copy_(weight)
        self.whitening_bias.copy_(bias)


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
