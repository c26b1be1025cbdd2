"""The scale-invariant loss of depth, its gradients, and the likelihood of the uncertainty."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.heads.depth.network import LOG_SIGMA


class DepthLoss(nn.Module):
    """The loss of Eigen et al. (2014, equation 4) and of Eigen and Fergus (2015, equation 1).

    With d the difference of the logarithms of depth, over an image's n pixels with truth:

        L = sum(d^2) / n - invariance (sum(d) / n)^2 + gradient sum((d_x)^2 + (d_y)^2) / m

    where d_x and d_y are differences between neighbours, m of them with truth on both sides. To it comes,
    times `likelihood`, the mean of |d| sqrt(2) / sigma + log(sigma): the negative log likelihood of d under
    a Laplace distribution whose standard deviation sigma the network says. Images with truth are averaged.

    Args:
        minimum: least depth that counts as truth, metres.
        maximum: largest depth that does.
        invariance: 1 forgives a wrong scale of the whole image, 0 does not; 0.5 in the paper.
        gradient: weight of the gradients.
        likelihood: weight of the likelihood.
    """

    def __init__(
        self,
        minimum: float = 0.0,
        maximum: float = math.inf,
        invariance: float = 0.5,
        gradient: float = 1.0,
        likelihood: float = 1.0,
    ) -> None:
        super().__init__()
        self.minimum, self.maximum = minimum, maximum
        require(0 <= invariance <= 1, "depth", "invariance", invariance, "from 0 to 1")
        for name, weight in (("gradient", gradient), ("likelihood", likelihood)):
            require(0 <= weight < math.inf, "depth", name, weight, "at least 0 and finite")
        self.invariance, self.gradient, self.likelihood = invariance, gradient, likelihood

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Returns the loss.

        Args:
            raw: `log_depth` and `log_sigma` (N, h, w).
            batch: `image:depth` (N, h, w), metres; NaN where there is no truth.
        """
        said, log_sigma = full_precision(raw["log_depth"]), full_precision(raw["log_sigma"])
        true = batch["image:depth"].to(said)
        known = (true >= self.minimum) & (true <= self.maximum) & (true > 0)  # false for NaN
        seen = known.flatten(1).any(dim=1)
        if not seen.any():
            return LossValue(zero_of(said, log_sigma), {})
        said, log_sigma, true, known = (t[seen] for t in (said, log_sigma, true, known))
        # Where there is no truth the difference is a constant zero, so that no gradient comes from there.
        d = torch.where(known, said - torch.where(known, true, 1.0).log(), 0.0)
        mask = known.to(d)
        invariant = _mean(d.square(), mask) - self.invariance * _mean(d, mask).square()
        across, down = mask[:, :, 1:] * mask[:, :, :-1], mask[:, 1:] * mask[:, :-1]
        gradients = _mean(d.diff(dim=2).square(), across) + _mean(d.diff(dim=1).square(), down)
        sigma = log_sigma.clamp(*LOG_SIGMA)
        surprise = _mean(math.sqrt(2) * d.abs() * (-sigma).exp() + sigma, mask)
        total = invariant + self.gradient * gradients + self.likelihood * surprise
        return LossValue(
            total.mean(),
            {
                "scale_invariant": invariant.mean().detach(),
                "gradients": gradients.mean().detach(),
                "surprise": surprise.mean().detach(),
            },
        )


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean (N,) over the pixels of a mask, zero where there is none."""
    return (values * mask).flatten(1).sum(dim=1) / mask.flatten(1).sum(dim=1).clamp(min=1)
