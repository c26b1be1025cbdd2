"""Cross-entropy with class weights, label smoothing and soft targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robot_vision.contract.losses import (
    ClassLoss,
    LossValue,
    Tensors,
    full_precision,
    zero_of,
)
from robot_vision.errors import ConfigError, unknown


class CrossEntropy(ClassLoss):
    """Weighted cross-entropy of hard or soft labels, smoothed.

    With target distribution t_i (one-hot, or mixup's), smoothing e, class weights w and K classes:

        q_ik = (1 - e) t_ik + e / K            (Szegedy et al., CVPR 2016, section 7)
        L = sum_i sum_k w_k q_ik (-log p_ik)  /  sum_i sum_k w_k t_ik

    For hard labels this is `torch.nn.functional.cross_entropy`. For soft ones the divisor is the
    same, where torch divides by the number of samples: with it, a mixup of nothing changes nothing.

    Args:
        class_weights: one positive number for each class; None weighs all alike. See `class_weights`.
        label_smoothing: e, in [0, 1).
    """

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `logits` (N, K).
            batch: `label` int64 (N,), -1 for none; or `soft_label` (N, K), whose rows sum to 1, or
                to 0 for none, and which is then used instead.
        """
        logits = full_precision(raw["logits"])
        target = self._targets(logits, batch)  # (N, K)
        known = target.sum(dim=1) > 0
        if not bool(known.any()):
            return LossValue(zero_of(logits), {})
        logits, target = logits[known], target[known]
        log_p = F.log_softmax(logits, dim=1)
        smoothed = (1 - self.label_smoothing) * target + self.label_smoothing / logits.shape[1]
        weights = torch.ones_like(logits[0]) if self.weights is None else self.weights.to(logits)
        loss = -(weights * smoothed * log_p).sum() / (weights * target).sum()
        hits = (logits.argmax(dim=1) == target.argmax(dim=1)).to(loss.dtype).mean()
        return LossValue(loss, {"cross_entropy": loss.detach(), "accuracy": hits})

    def _targets(self, logits: Tensor, batch: Tensors) -> Tensor:
        if self.weights is not None and len(self.weights) != logits.shape[1]:
            raise ConfigError(
                f"class_weights has {len(self.weights)} numbers for {logits.shape[1]} classes: "
                "give one for each class"
            )
        if "soft_label" in batch:
            return batch["soft_label"].to(logits)
        label = batch["label"]
        known = (label >= 0).unsqueeze(1)
        return F.one_hot(label.clamp(min=0), logits.shape[1]).to(logits) * known


def class_weights(counts: Sequence[int], rule: str = "inverse") -> list[float]:
    """Returns weights that make rare classes count, with mean 1 over the samples.

    Args:
        counts: training samples of each class.
        rule: `inverse` (1 / n: all classes count alike), `sqrt_inverse` (half way), or `effective`
            (Cui et al., CVPR 2019, eq. 2: (1 - b) / (1 - b^n) with b = 1 - 1 / N).

    Raises:
        ConfigError: a class without samples, or an unknown rule.
    """
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.dim() != 1 or len(n) == 0 or bool((n <= 0).any()):
        raise ConfigError(
            f"class counts are {list(counts)}: every class needs at least one training sample"
        )
    if rule == "inverse":
        weights = 1 / n
    elif rule == "sqrt_inverse":
        weights = n.rsqrt()
    elif rule == "effective":
        b = 1 - 1 / max(float(n.sum()), 2.0)
        weights = (1 - b) / (1 - b**n)
    else:
        raise ConfigError(
            unknown("class weight rule", rule, ("inverse", "sqrt_inverse", "effective"))
        )
    return [float(w) for w in weights * n.sum() / (weights * n).sum()]
