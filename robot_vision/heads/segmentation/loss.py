"""Losses of a class for each pixel: cross-entropy and Dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.contract.losses import (
    ClassLoss,
    LossValue,
    Tensors,
    full_precision,
    require,
    zero_of,
)
from robot_vision.heads.segmentation.answer import NONE


class PixelCrossEntropy(ClassLoss):
    """The mean cross-entropy of the pixels with a truth.

    With class weights w it is sum w_y (-log p_y) / sum w_y, as `torch.nn.functional.cross_entropy` has it.

    Args:
        class_weights: a positive number for each class; None weighs all alike. See `class_weights`.
        label_smoothing: in [0, 1).
    """

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `logits` (N, K, h, w).
            batch: `image:segmentation` (N, h, w), true ids, 255 for none.
        """
        logits, true, known = _known(raw, batch)
        if not bool(known.any()):
            return LossValue(zero_of(logits), {})
        weights = None if self.weights is None else self.weights.to(logits)
        loss = F.cross_entropy(
            logits, true, weights, ignore_index=NONE, label_smoothing=self.label_smoothing
        )
        right = (logits.argmax(dim=1) == true)[known].float().mean()
        return LossValue(loss, {"cross_entropy": loss.detach(), "pixel_accuracy": right})


class Dice(nn.Module):
    """One less the Dice coefficient, plus a share of the cross-entropy.

    With probabilities p and one-hot truth t over all pixels of the batch (Milletari et al., 3DV 2016,
    with plain sums in the divisor, as most have it since):

        L = 1 - mean over classes of 2 sum p t / (sum p + sum t)  +  cross_entropy CE

    The mean is over the classes that the batch has: of another one the coefficient is zero whatever is said.
    Each counts the same, however few its pixels are.

    Args:
        cross_entropy: its share; Dice alone has hardly a gradient where everything is wrong.
    """

    def __init__(self, cross_entropy: float = 1.0) -> None:
        super().__init__()
        require(cross_entropy >= 0, "dice", "cross_entropy", cross_entropy, "at least 0")
        self.share = cross_entropy
        self.entropy = PixelCrossEntropy()

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss; see `PixelCrossEntropy.forward`."""
        logits, true, known = _known(raw, batch)
        if not bool(known.any()):
            return LossValue(zero_of(logits), {})
        p = F.softmax(logits, dim=1) * known.unsqueeze(1)
        t = F.one_hot(torch.where(known, true, 0), logits.shape[1]).permute(0, 3, 1, 2)
        t = t.to(p) * known.unsqueeze(1)
        both, said, is_true = (x.sum(dim=(0, 2, 3)) for x in (p * t, p, t))
        there = is_true > 0
        dice = 1 - (2 * both / (said + is_true).clamp(min=1e-6))[there].mean()
        entropy, parts = self.entropy(raw, batch)
        return LossValue(dice + self.share * entropy, {"dice": dice.detach(), **parts})


def class_weights(pixels: Sequence[int], rule: str) -> list[float]:
    """Returns weights that make rare classes count, with mean 1 over the pixels; 1 for a class without any.

    Args:
        pixels: of each class in the training images.
        rule: `inverse` (of the frequency), `sqrt_inverse`, or `log`: 1 / log(1.02 + frequency), of ENet
            (Paszke et al. 2016), between the two.
    """
    n = torch.as_tensor(pixels, dtype=torch.float64)
    share = n / n.sum().clamp(min=1)
    rules = {
        "inverse": 1 / share,
        "sqrt_inverse": share.rsqrt(),
        "log": 1 / (1.02 + share).log(),
    }
    weights = torch.where(n > 0, rules[rule], 0.0)
    weights = weights / (weights * share).sum().clamp(min=1e-12)
    found: list[float] = torch.where(n > 0, weights, 1.0).tolist()
    return found


def _known(raw: Tensors, batch: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits, the true ids int64 (N, h, w), and which of them there are."""
    logits, true = full_precision(raw["logits"]), batch["image:segmentation"].long()
    return logits, true, true != NONE
