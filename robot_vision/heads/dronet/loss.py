"""DroNet's loss (Loquercio et al. 2018, equation 1, and as its authors train with it)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.heads.dronet.training import START_EPOCH


class DronetLoss(nn.Module):
    """Squared error of steering, and binary cross-entropy of collision, whose weight grows from zero.

    With epochs e counted from 0:

        L = L_steering + max(0, 1 - exp(-decay (e - start_epoch))) L_collision

    Each is the sum of the k largest losses in the batch, over k: hard examples are mined. An image counts
    for what it has a truth of. From `mining_epoch` on k goes from the batch's n images down to a share:

        k = n - n (1 - share) max(0, 1 - exp(-mining_decay (e - mining_epoch)))

    Args:
        start_epoch: until this epoch collisions are not learned.
        decay: how fast their weight grows.
        mining_epoch: until this epoch all examples count.
        mining_decay: how fast k decreases.
        hard_steering: share of the batch that counts for steering in the end.
        hard_collision: the same for collisions.
    """

    def __init__(
        self,
        start_epoch: float = START_EPOCH,
        decay: float = 0.1,
        mining_epoch: float = 30,
        mining_decay: float = 1 / 30,
        hard_steering: float = 10 / 32,
        hard_collision: float = 5 / 32,
    ) -> None:
        super().__init__()
        for name, rate in (("decay", decay), ("mining_decay", mining_decay)):
            require(0 < rate < math.inf, "dronet", name, rate, "positive and finite")
        for name, share in (("hard_steering", hard_steering), ("hard_collision", hard_collision)):
            require(0 < share <= 1, "dronet", name, share, "in (0, 1]")
        self.start_epoch, self.decay = start_epoch, decay
        self.mining_epoch, self.mining_decay = mining_epoch, mining_decay
        self.hard_steering, self.hard_collision = hard_steering, hard_collision

    def weight(self, epoch: float) -> float:
        """Returns the weight of collisions in an epoch, counted from 0."""
        return _grown(epoch - self.start_epoch, self.decay)

    def kept(self, count: int, share: float, epoch: float) -> int:
        """Returns how many of a batch's examples count."""
        mined = _grown(epoch - self.mining_epoch, self.mining_decay)
        return max(1, round(count - count * (1 - share) * mined))

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `steering` and `collision_logit` (N,).
            batch: `steering` and `collision` (N,), NaN where there is no truth; `epoch` (). Without an
                epoch collisions have their whole weight, and all examples count.
        """
        steering, logit = full_precision(raw["steering"]), full_precision(raw["collision_logit"])
        turn, hit = batch["steering"].to(steering), batch["collision"].to(logit)
        squares = (steering - turn)[turn.isfinite()] ** 2
        known = hit.isfinite()
        entropies = F.binary_cross_entropy_with_logits(logit[known], hit[known], reduction="none")
        weight, k = 1.0, (len(turn), len(turn))
        if "epoch" in batch:
            epoch = float(batch["epoch"])
            weight, shares = self.weight(epoch), (self.hard_steering, self.hard_collision)
            k = (
                self.kept(len(turn), shares[0], epoch),
                self.kept(len(turn), shares[1], epoch),
            )
        total = _hardest(squares, k[0]) + weight * _hardest(entropies, k[1])
        parts = {"collision_weight": torch.tensor(weight)}
        if len(squares):
            parts["squared_error"] = squares.mean()
        if len(entropies):
            parts["cross_entropy"] = entropies.mean()
        return LossValue(total + zero_of(steering, logit), parts)


def _grown(epochs: float, decay: float) -> float:
    return max(0.0, 1 - math.exp(-decay * epochs)) if epochs > 0 else 0.0


def _hardest(losses: Tensor, k: int) -> Tensor:
    return losses.topk(min(k, len(losses))).values.sum() / k
