"""Losses of place descriptors: which images of a batch show the same place follows from their poses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.errors import ConfigError
from robot_vision.heads.place.neighbours import PlaceRelation
from robot_vision.heads.pose.losses.rotations import xyzw_of


class InBatchRelation(nn.Module):
    """Finds the positives and definite negatives among the rows of a batch.

    By the first of these that the batch has:

    - `tuple` and `role` int64 (N,): rows of one tuple; role 0 is its query, 1 a potential positive, 2 a
      negative, and only the query's relations are given;
    - `place` int64 (N,): same place, or another; -1 for none;
    - `T_map_camera` (N, 4, 4) and `has_pose` bool (N,): by distance and angle (`PlaceRelation`).
      `has_position` bool (N,), where given, goes before `has_pose` if the relation has no angles.

    A row is not its own positive; two rows of one image (equal `index`) say nothing of each other.
    """

    def __init__(self, **relation: Any) -> None:
        super().__init__()
        defaults = asdict(PlaceRelation())
        self.relation = PlaceRelation(**{**defaults, **relation})

    def forward(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        """Returns two bool tensors (N, N): positives and negatives of each row."""
        positive, negative = self._relations(batch)
        if "index" in batch:
            other = batch["index"][:, None] != batch["index"][None]
        else:
            other = ~torch.eye(len(positive), dtype=torch.bool, device=positive.device)
        return positive & other, negative & other

    def _relations(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        if "tuple" in batch:
            role = batch["role"]
            own = (batch["tuple"][:, None] == batch["tuple"][None]) & (role == 0)[:, None]
            return own & (role == 1)[None], own & (role == 2)[None]
        if "place" in batch:
            place = batch["place"]
            known = (place >= 0)[:, None] & (place >= 0)[None]
            same = place[:, None] == place[None]
            return same & known, ~same & known
        posed = batch["has_pose"].bool()
        if not self.relation.uses_heading:
            posed = batch.get("has_position", posed).bool()
        # Unknown poses may be anything, NaN too: they are zeroed before distances are taken.
        T = torch.where(posed[:, None, None], batch["T_map_camera"], 0).double()
        both = posed[:, None] & posed[None]
        distance = torch.linalg.vector_norm(T[:, None, :3, 3] - T[None, :, :3, 3], dim=2)
        positive = distance <= self.relation.positive_m
        negative = distance > self.relation.negative_m
        if self.relation.uses_heading:
            q = xyzw_of(T[:, :3, :3])
            apart = torch.linalg.vector_norm(q[:, None] - q[None], dim=2)
            flipped = torch.linalg.vector_norm(q[:, None] + q[None], dim=2)
            angle = (4 * (torch.minimum(apart, flipped) / 2).clamp(max=1).asin()).rad2deg()
            if self.relation.positive_deg is not None:
                positive = positive & (angle <= self.relation.positive_deg)
            if self.relation.negative_deg is not None:
                negative = negative | (angle > self.relation.negative_deg)
        return positive & both, negative & both


class TripletRankingLoss(nn.Module):
    """NetVLAD's weakly supervised triplet ranking loss: Arandjelovic et al. (CVPR 2016), eq. 7.

        L = sum_j max( min_i d^2(q, p_i) + m - d^2(q, n_j), 0 )

    over the negatives j of query q; the positives i are potential ones: near, but perhaps looking
    elsewhere, so that only the best match is pulled. d is the Euclidean distance. Every row with a
    positive and a negative in the batch is a query; the mean over queries is taken.

    Args:
        margin: m, of squared distances: 0.1 in the paper.
        reduction: of the negatives: `sum` as in the paper, or `mean`, whose size does not depend on
            how many there are.
        relation: the numbers of `PlaceRelation`; give those that the mining uses.
    """

    def __init__(
        self,
        margin: float = 0.1,
        reduction: str = "sum",
        positive_m: float = 10.0,
        positive_deg: float | None = None,
        negative_m: float = 25.0,
        negative_deg: float | None = None,
    ) -> None:
        super().__init__()
        require(margin > 0, "triplet", "margin", margin, "positive")
        require(reduction in ("sum", "mean"), "triplet", "reduction", reduction, "sum or mean")
        self.margin = margin
        self.reduction = reduction
        self.relations = InBatchRelation(
            positive_m=positive_m,
            positive_deg=positive_deg,
            negative_m=negative_m,
            negative_deg=negative_deg,
        )

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `descriptor` (N, D).
            batch: what `InBatchRelation` reads.
        """
        descriptor = full_precision(raw["descriptor"])
        positive, negative = self.relations(batch)
        query = positive.any(dim=1) & negative.any(dim=1)
        if not bool(query.any()):
            return LossValue(zero_of(descriptor), {})
        squared = squared_distances(descriptor)[query]  # (Q, N)
        positive, negative = positive[query], negative[query]
        best = squared.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)  # (Q, 1)
        hinge = (best + self.margin - squared).clamp(min=0) * negative  # (Q, N)
        loss = hinge.sum(dim=1)
        if self.reduction == "mean":
            loss = loss / negative.sum(dim=1)
        loss = loss.mean()
        active = ((hinge > 0).sum() / negative.sum()).to(loss.dtype)
        return LossValue(loss, {"triplet": loss.detach(), "active_negatives": active})


class MultiSimilarityLoss(nn.Module):
    """Multi-similarity loss with its miner: Wang et al. (CVPR 2019), eq. 11 to 15.

        L = 1/N sum_i [ 1/a log(1 + sum_P_i exp(-a (S_ik - l))) + 1/b log(1 + sum_N_i exp(b (S_ik - l))) ]

    over cosine similarities S of the pairs that the miner keeps: negatives that are more similar than
    the least similar positive minus epsilon, and positives that are less similar than the most similar
    negative plus epsilon. The loss is pytorch-metric-learning's; the miner is that package's rule,
    extended to pairs of which nothing is known.

    Args:
        alpha: a, of positives: 2 in the paper.
        beta: b, of negatives: 50 in the paper.
        base: l, the similarity around which pairs are weighed: 0.5 in the authors' code.
        epsilon: of the miner: 0.1 in the paper.
        relation: the numbers of `PlaceRelation`.

    Raises:
        ConfigError: pytorch-metric-learning is not installed.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float = 0.1,
        positive_m: float = 10.0,
        positive_deg: float | None = None,
        negative_m: float = 25.0,
        negative_deg: float | None = None,
    ) -> None:
        super().__init__()
        try:
            from pytorch_metric_learning import losses
        except ImportError as error:
            raise ConfigError(
                "the multi_similarity loss needs pytorch-metric-learning: install it (extra `train`), "
                "or use the triplet loss"
            ) from error
        require(alpha > 0, "multi_similarity", "alpha", alpha, "positive")
        require(beta > 0, "multi_similarity", "beta", beta, "positive")
        self.loss = losses.MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)
        self.epsilon = epsilon
        self.relations = InBatchRelation(
            positive_m=positive_m,
            positive_deg=positive_deg,
            negative_m=negative_m,
            negative_deg=negative_deg,
        )

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `descriptor` (N, D).
            batch: what `InBatchRelation` reads.
        """
        descriptor = full_precision(raw["descriptor"])
        positive, negative = self.relations(batch)
        with torch.no_grad():
            unit = nn.functional.normalize(descriptor, dim=1)
            positive, negative = mine_pairs(unit @ unit.T, positive, negative, self.epsilon)
        counts = {
            "positive_pairs": positive.sum().float(),
            "negative_pairs": negative.sum().float(),
        }
        a1, p = positive.nonzero(as_tuple=True)
        a2, n = negative.nonzero(as_tuple=True)
        # What the package finds nothing to learn from has no graph of its own.
        loss = self.loss(descriptor, indices_tuple=(a1, p, a2, n)) + zero_of(descriptor)
        return LossValue(loss, {"multi_similarity": loss.detach(), **counts})


def squared_distances(x: Tensor) -> Tensor:
    """Returns squared Euclidean distances (N, N) of rows (N, D), never negative."""
    norms = x.square().sum(dim=1)
    return (norms[:, None] + norms[None] - 2 * x @ x.T).clamp(min=0)


def mine_pairs(
    similarity: Tensor, positive: Tensor, negative: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Returns which of the pairs (N, N) are informative: Wang et al., eq. 11 and 12."""
    hardest_negative = similarity.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    hardest_positive = similarity.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
    return (
        positive & (similarity - epsilon < hardest_negative),
        negative & (similarity + epsilon > hardest_positive),
    )
