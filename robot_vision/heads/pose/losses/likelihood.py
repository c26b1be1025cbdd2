"""Heteroscedastic pose loss: the network says how far off each of its poses may be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.contract.losses import LossValue, Tensors, full_precision, require, zero_of
from robot_vision.errors import ConfigError, unknown
from robot_vision.heads.pose.covariance_layer import (
    below_diagonal,
    correlation_factor,
    log_variance_bounds,
)
from robot_vision.heads.pose.losses.regression import HomoscedasticLoss, PosePairs

MEANS = ("homoscedastic", "likelihood")


class GaussianLikelihood(nn.Module):
    """Negative log likelihood of the true pose under the predicted pose and covariance.

    Kendall and Gal, "What Uncertainties Do We Need" (NeurIPS 2017), eq. 5, with a 6 x 6 covariance:

        L = 1/2 ( r^T Sigma^-1 r + log det Sigma )            (+ 3 log 2 pi, which is left out)

    r is the position's error and the rotation vector about the map's fixed axes, `R_true = exp(delta)
    R_predicted`: the convention of `pose_covariance`. Sigma is what the head's `decode` makes of
    `log_variance` and, with a full covariance, of `correlation`.

    The likelihood alone is a poor teacher of the pose: it divides each error by its variance, so the
    frames that are worst are attended to least (Seitzer et al., ICLR 2022). So `mean` is there.

    Args:
        mean: `homoscedastic` (default): the pose is learned by `HomoscedasticLoss` and the covariance by
            the likelihood of the pose as it is; their gradients do not mix in the regressors.
            `likelihood`: both by the likelihood, as in the paper.
        weight: of the likelihood against the other loss.
        beta: with `likelihood`, each axis' gradient is multiplied by its variance to this power
            (Seitzer et al., eq. 4; diagonal covariances only): 0 is the paper's loss, 0.5 their
            advice.
        settings: of the `HomoscedasticLoss`.
    """

    low: Tensor
    high: Tensor
    below_diagonal: Tensor

    def __init__(
        self,
        mean: str = "homoscedastic",
        weight: float = 0.1,
        beta: float = 0.0,
        s_x: float = 0.0,
        s_q: float = -3.0,
        norm: str = "l1",
    ) -> None:
        super().__init__()
        if mean not in MEANS:
            raise ConfigError(unknown("mean of the heteroscedastic loss", mean, MEANS))
        require(weight > 0, "heteroscedastic", "weight", weight, "positive")
        require(0 <= beta <= 1, "heteroscedastic", "beta", beta, "in [0, 1]")
        self.weight = weight if mean == "homoscedastic" else 1.0
        self.beta = beta
        self.pose_loss = HomoscedasticLoss(s_x, s_q, norm) if mean == "homoscedastic" else None
        low, high = log_variance_bounds()
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("below_diagonal", below_diagonal(), persistent=False)

    def forward(self, raw: Tensors, batch: Tensors) -> LossValue:
        """Computes the loss.

        Args:
            raw: `position` (N, 3), metres; `quaternion_xyzw` (N, 4) of any length; `log_variance`
                (N, 6); and, for a full covariance, `correlation` (N, 15).
            batch: `T_map_camera` (N, 4, 4) and `has_pose` bool (N,).
        """
        pairs = PosePairs(raw, batch)
        keys = ("position", "quaternion_xyzw", "log_variance", "correlation")
        total = zero_of(*(raw[key] for key in keys if key in raw))
        parts: dict[str, Tensor] = {}
        residual = pairs.residual()
        if self.pose_loss is not None:
            value = self.pose_loss(raw, batch)
            total, parts = total + value.total, dict(value.parts)
            residual = residual.detach()
        elif len(pairs):
            parts = pairs.errors()
        if len(pairs):
            log_variance = full_precision(raw["log_variance"])[pairs.keep]
            bounded = soft_bounds(log_variance, self.low.to(residual), self.high.to(residual))
            factor = None
            if "correlation" in raw:
                correlation = full_precision(raw["correlation"])[pairs.keep]
                factor = correlation_factor(correlation, self.below_diagonal.to(residual))
            likelihood, squared = gaussian_nll(residual, bounded, factor, self.beta)
            total = total + self.weight * likelihood
            parts["nll"] = likelihood.detach()
            parts["nees"] = squared.detach().mean() / 6  # 1 for honest covariances
        return LossValue(total, parts)


def gaussian_nll(
    residual: Tensor, log_variance: Tensor, factor: Tensor | None = None, beta: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns the mean negative log likelihood without its constant, and r^T Sigma^-1 r (M,).

    Args:
        residual: (M, 6).
        log_variance: (M, 6).
        factor: (M, 6, 6), the Cholesky factor of the correlations; None for none.
        beta: of Seitzer et al.; 0 for the likelihood itself.
    """
    if factor is None:
        squares = residual.square() * (-log_variance).exp()  # (M, 6)
        terms = 0.5 * (squares + log_variance)
        if beta:
            terms = terms * (beta * log_variance.detach()).exp()
        return terms.sum(dim=1).mean(), squares.sum(dim=1)
    if beta:
        raise ConfigError("beta of the heteroscedastic loss is for diagonal covariances: use 0")
    standard = residual * (-0.5 * log_variance).exp()  # (M, 6)
    # U y = r / sigma; log det Sigma = sum log sigma^2 + 2 sum log U_ii
    y = torch.linalg.solve_triangular(factor, standard.unsqueeze(2), upper=False).squeeze(2)
    log_determinant = log_variance.sum(dim=1) + 2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    squared = y.square().sum(dim=1)
    return 0.5 * (squared + log_determinant).mean(), squared


class _SoftBounds(torch.autograd.Function):
    """Clamps; outside, only a gradient that leads back inside passes. See `soft_bounds`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(x < low, x > high)
        return torch.minimum(torch.maximum(x, low), high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0]
        below, above = ctx.saved_tensors
        stuck = (below & (grad > 0)) | (above & (grad < 0))
        return torch.where(stuck, torch.zeros_like(grad), grad), None, None


def soft_bounds(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clamps x, with a gradient that still pulls it back from outside, where clamp's is zero."""
    bounded: Tensor = _SoftBounds.apply(x, low, high)
    return bounded
