"""Factors that make pose covariances true: two numbers, or one for each axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

BOTH = (0, 0, 0, 1, 1, 1)  # one factor for the position, one for the rotation
EACH = (0, 1, 2, 3, 4, 5)
MIN_BLOCKS = 5  # of fewer, each would be judged by too little
_LOWEST, _HIGHEST = 1e-6, 1e6
_STEPS = 100

Array = NDArray[np.float64]


def fit_variance_scales(
    errors: Array,
    covariances: Array,
    groups: Sequence[int] = BOTH,
    blocks: NDArray[np.int64] | None = None,
) -> Array:
    """Returns factors (6,) of the variances that make the true poses most probable.

    With S = diag(sqrt(s)) the scaled covariance is S Sigma S: variances change and correlations stay. With
    a = 1 / sqrt(s) the mean negative log likelihood is, but for a constant, `a^T M a / 2 - sum(log a)`, where
    M is the mean over poses of e_i e_j (Sigma^-1)_ij. It is convex, and Newton's method finds its minimum.
    There the mean of e^T (S Sigma S)^-1 e is six, whatever the groups: NEES is ideal. For diagonal
    covariances and a factor for each axis, s_i is the mean of e_i^2 / Sigma_ii.

    Errors of neighbouring frames are alike, so a few blocks of time are few independent errors, and factors
    that make these ideal are too small for others. With `blocks` each is judged by the factors that the
    others give; by what its share of e^T (S Sigma S)^-1 e is above the ideal on average, the factors of
    all are multiplied.

    Args:
        errors: (N, 6), metres and radians, from estimate to truth.
        covariances: (N, 6, 6), positive definite.
        groups: which factor each axis has.
        blocks: (N,), the block of time of each pose; None, or fewer than `MIN_BLOCKS`, for poses that are
            taken as they are.

    Raises:
        ConfigError: a covariance that is none, or errors that are not finite.
    """
    index = np.asarray(groups)
    if not np.isfinite(errors).all() or not np.isfinite(covariances).all():
        raise ConfigError("Pose errors and covariances must be finite to be calibrated")
    try:
        np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise ConfigError(
            "A predicted pose covariance is not positive definite: the bundle cannot be calibrated"
        ) from None
    each = errors[:, :, None] * errors[:, None, :] * np.linalg.inv(covariances)
    count = int(index.max()) + 1
    axes = np.bincount(index, minlength=count).astype(np.float64)

    def moment(rows: NDArray[np.bool_]) -> Array:
        grouped = np.zeros((count, count))
        np.add.at(grouped, (index[:, None], index[None, :]), each[rows].mean(axis=0))
        return grouped

    a = _most_probable(moment(np.ones(len(each), bool)), axes)
    excess = np.ones(count)
    names = np.zeros(0) if blocks is None else np.unique(blocks)
    if len(names) >= MIN_BLOCKS:
        share = np.zeros(count)
        for name in names:
            own = np.asarray(blocks == name)
            seen = _most_probable(moment(~own), axes)
            share += own.mean() * seen * (moment(own) @ seen) / axes
        excess = np.maximum(share, 1.0)
    return np.asarray(np.clip(excess / a**2, _LOWEST, _HIGHEST)[index])


def _most_probable(grouped: Array, axes: Array) -> Array:
    """Returns the a (K,) that minimises `a^T M a / 2 - axes . log(a)` for M (K, K)."""
    count = len(axes)
    if (np.diag(grouped) <= 0).any():  # no error at all: the lowest factor
        grouped[np.diag_indices(count)] += _LOWEST
    a = np.sqrt(axes / np.diag(grouped))

    def cost(value: Array) -> float:
        return float(value @ grouped @ value / 2 - axes @ np.log(value))

    for _ in range(_STEPS):
        gradient = grouped @ a - axes / a
        step = np.linalg.solve(grouped + np.diag(axes / a**2), gradient)
        size = 1.0
        while (a - size * step <= 0).any() or (cost(a - size * step) > cost(a) and size > 1e-9):
            size /= 2
        a = a - size * step
        if np.abs(size * step).max() < 1e-13 * np.abs(a).max():
            break
    return np.asarray(a)


def scaled(covariances: Array, scale: Array) -> Array:
    """Returns covariances (N, 6, 6) whose variances are multiplied by `scale` (6,) or (N, 6)."""
    root = np.sqrt(np.asarray(scale, np.float64))
    return np.asarray(covariances * root[..., :, None] * root[..., None, :])
