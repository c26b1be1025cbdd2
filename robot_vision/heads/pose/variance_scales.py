"""Factors that make pose covariances true: two numbers, or one for each axis.

They may grow with the distance from views that were trained on (`fit_view_growth`). Of a region that it was
not taught a head knows nothing, and its variances grow too little there: it learned them from frames between
others that it knows. What is left to go by is how far an image is from all that was
trained on (`known_views`). With C the covariance that the head says and d the distance, it is made

    R C R,  R = diag(sqrt(s (1 + g d^8)))

with a factor s and a growth g for the position and the rotation. Both come from errors on known views (held
out in time) and on regions of the map that were left out of the training in turn, which count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

BOTH = (0, 0, 0, 1, 1, 1)  # one factor for the position, one for the rotation
EACH = (0, 1, 2, 3, 4, 5)
MIN_BLOCKS = 5  # of fewer, each would be judged by too little
_LOWEST, _HIGHEST = 1e-6, 1e6
_STEPS = 100
# Of the distance; chosen on regions of the kitchen: 4 and 6 do as well, 2 grows too early and 12 too late.
_POWER = 8

Array = NDArray[np.float64]


def fit_variance_scales(
    errors: Array,
    covariances: Array,
    groups: Sequence[int] = BOTH,
    blocks: NDArray[np.int64] | None = None,
    fixed: Array | None = None,
) -> Array:
    """Returns factors (6,) of the variances that make the true poses most probable.

    With S = diag(sqrt(s)) the scaled covariance is S Sigma S: variances change and correlations stay. With
    a = 1 / sqrt(s) the mean negative log likelihood is, but for a constant, `a^T M a / 2 - sum(log a)`, where
    M is the mean over poses of e_i e_j (Sigma^-1)_ij. It is convex, and Newton's method finds its minimum.
    There the mean of e^T (S Sigma S)^-1 e is six, whatever the groups: NEES is ideal. For diagonal
    covariances and a factor for each axis, s_i is the mean of e_i^2 / Sigma_ii.

    A part `fixed` F of the covariance is not scaled: S (Sigma - F) S + F. Fisher scoring in log s then finds
    the minimum.

    Errors of neighbouring frames are alike, so a few blocks of time are few independent errors, and factors
    that make these ideal are too small for others. With `blocks` each is judged by the factors that the
    others give; by what its share of e^T (S Sigma S)^-1 e is above the ideal on average, the squared errors
    are multiplied before the factors of all are fitted.

    Args:
        errors: (N, 6), metres and radians, from estimate to truth.
        covariances: (N, 6, 6), positive definite.
        groups: which factor each axis has.
        blocks: (N,), the block of time of each pose; None, or fewer than `MIN_BLOCKS`, for poses that are
            taken as they are.
        fixed: (N, 6, 6), the spread of several answers; None for one answer.

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
    fit: _Whole | _Part
    if fixed is None or not np.any(fixed):
        fit = _Whole(errors, covariances, index)
    else:
        fit = _Part(errors, covariances - fixed, np.asarray(fixed, np.float64), index)
    every = np.ones(len(errors), bool)
    excess = np.ones(int(index.max()) + 1)
    scale = fit.scale(every, excess, excess)
    names = np.zeros(0) if blocks is None else np.unique(blocks)
    if len(names) >= MIN_BLOCKS:
        share = np.zeros(len(excess))
        for name in names:
            own = np.asarray(blocks == name)
            share += own.mean() * fit.share(own, fit.scale(~own, excess, scale))
        scale = fit.scale(every, np.maximum(share, 1.0), scale)
    return np.asarray(np.clip(scale, _LOWEST, _HIGHEST)[index])


class _Whole:
    """The fit where all of the covariance is scaled, by sums over poses."""

    def __init__(self, errors: Array, covariances: Array, index: NDArray[np.int64]) -> None:
        self._each = errors[:, :, None] * errors[:, None, :] * np.linalg.inv(covariances)
        self._index = index
        self._axes = np.bincount(index).astype(np.float64)

    def scale(self, rows: NDArray[np.bool_], excess: Array, start: Array) -> Array:
        """Returns factors (K,) for poses (N,), whose squared errors are multiplied by `excess` (K,)."""
        return np.asarray(excess / _most_probable(self._moment(rows), self._axes) ** 2)

    def share(self, rows: NDArray[np.bool_], scale: Array) -> Array:
        """Returns each factor's share (K,) of the mean of e^T C^-1 e over its ideal."""
        a = 1 / np.sqrt(scale)
        return np.asarray(a * (self._moment(rows) @ a) / self._axes)

    def _moment(self, rows: NDArray[np.bool_]) -> Array:
        grouped = np.zeros((len(self._axes),) * 2)
        at = (self._index[:, None], self._index[None, :])
        np.add.at(grouped, at, self._each[rows].mean(axis=0))
        return grouped


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


class _Part:
    """The fit where a part of the covariance is not scaled; the methods are those of `_Whole`."""

    def __init__(
        self, errors: Array, inside: Array, fixed: Array, index: NDArray[np.int64]
    ) -> None:
        self._errors, self._inside, self._fixed, self._index = errors, inside, fixed, index
        self._masks = (np.arange(int(index.max()) + 1)[:, None] == index).astype(float)  # (K, 6)

    def scale(self, rows: NDArray[np.bool_], excess: Array, start: Array) -> Array:
        """Returns the factors (K,); `start` is where the search begins."""
        errors = self._errors[rows] * np.sqrt(excess)[self._index]
        low, high = np.log(_LOWEST), np.log(_HIGHEST)
        at = np.log(start)
        cost, gradient, fisher = self._look(rows, errors, at)
        for _ in range(_STEPS):
            step, size = np.linalg.solve(fisher, gradient), 1.0
            while True:
                new = np.clip(at - size * step, low, high)
                found = self._look(rows, errors, new)
                if found[0] <= cost or size < 1e-6:
                    break
                size /= 2
            moved = float(np.abs(new - at).max())
            at, (cost, gradient, fisher) = new, found
            if moved < 1e-8:
                break
        return np.asarray(np.exp(at))

    def share(self, rows: NDArray[np.bool_], scale: Array) -> Array:
        """Returns the same as `_Whole.share`, of what the factor changes."""
        slopes, precision = self._parts(rows, np.log(scale))
        weighted = np.einsum("nij,nj->ni", precision, self._errors[rows])
        squares = np.einsum("ni,knij,nj->k", weighted, slopes, weighted)
        return np.asarray(squares / np.einsum("nij,knji->k", precision, slopes))

    def _parts(self, rows: NDArray[np.bool_], log_scale: Array) -> tuple[Array, Array]:
        """Returns the slopes (K, n, 6, 6) of C in log s, and C^-1 (n, 6, 6)."""
        inside = scaled(self._inside[rows], np.exp(log_scale)[self._index])
        masks = self._masks[:, None, :, None] + self._masks[:, None, None, :]
        precision: Array = np.asarray(np.linalg.inv(inside + self._fixed[rows]), np.float64)
        return inside * masks / 2, precision

    def _look(
        self, rows: NDArray[np.bool_], errors: Array, log_scale: Array
    ) -> tuple[float, Array, Array]:
        """Returns the mean negative log likelihood, its gradient (K,) and Fisher's information (K, K)."""
        slopes, precision = self._parts(rows, log_scale)
        weighted = np.einsum("nij,nj->ni", precision, errors)
        squares = np.einsum("ni,ni->n", errors, weighted)
        cost = float((squares - np.linalg.slogdet(precision)[1]).mean()) / 2
        products = precision @ slopes  # (K, n, 6, 6)
        traces = np.trace(products, axis1=2, axis2=3).mean(axis=1)
        pulls = np.einsum("ni,knij,nj->k", weighted, slopes, weighted) / len(errors)
        fisher = np.einsum("knij,lnji->kl", products, products) / (2 * len(errors))
        return cost, (traces - pulls) / 2, fisher + 1e-12 * np.eye(len(fisher))


def scaled(covariances: Array, scale: Array, fixed: Array | None = None) -> Array:
    """Returns covariances (N, 6, 6) with variances times `scale` (6,) or (N, 6), but for the part `fixed`."""
    root = np.sqrt(np.asarray(scale, np.float64))
    inside = covariances if fixed is None else covariances - fixed
    found = inside * root[..., :, None] * root[..., None, :]
    return np.asarray(found if fixed is None else found + fixed)


@dataclass(frozen=True, eq=False)
class Views:
    """Errors at distances from known views.

    Attributes:
        errors: (N, 6), metres and radians.
        covariances: (N, 6, 6), as the head says.
        fixed: (N, 6, 6), the part of them that does not grow: the spread of several answers.
        distance: (N,), to the nearest known view.
    """

    errors: Array
    covariances: Array
    fixed: Array
    distance: Array

    def grown(self, scale: Array, growth: Array) -> Array:
        """Returns the covariances with factors (6,) and growths (6,)."""
        root = np.sqrt(scale * (1 + growth * self.distance[:, None] ** _POWER))  # (N, 6)
        inside = self.covariances - self.fixed
        return np.asarray(inside * root[:, :, None] * root[:, None, :] + self.fixed)


def fit_view_growth(sides: Sequence[Views]) -> tuple[Array, Array]:
    """Returns factors (6,) and growths (6,) that make the errors most probable, all sides counting alike."""
    from scipy.optimize import minimize  # of training: robots need none

    def unpacked(values: Array) -> tuple[Array, Array]:
        each = np.exp(values)[[*BOTH, *(2 + i for i in BOTH)]]
        return each[:6], each[6:]

    def cost(values: Array) -> float:
        total = 0.0
        for side in sides:
            covariances = side.grown(*unpacked(values))
            solved = np.linalg.solve(covariances, side.errors[:, :, None])[:, :, 0]
            squares = (side.errors * solved).sum(axis=1)
            total += float((squares + np.linalg.slogdet(covariances)[1]).mean())
        return total

    box = [(-12.0, 12.0)] * 4
    best = minimize(cost, np.zeros(4), method="Nelder-Mead", bounds=box, options={"maxiter": 1000})
    scale, growth = unpacked(best.x)
    return scale, growth
