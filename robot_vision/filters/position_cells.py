"""What probabilities of cells say of a pose: a likelihood with any number of peaks, in a Gaussian filter.

A softmax over cells says where the camera may be, with as many peaks as there are places that look alike,
and nothing of its orientation. Cells hold about as many training images each, so that with K of them the
likelihood of being in cell c is, up to a factor, K p_c: 1 where the answer says no more than that one place
of the map is as probable as any other. With the share `WRONG` the answer is of something that the network
does not know, and says nothing:

    L(x) = (1 - WRONG) K p_c(x) + WRONG

Between two cells it passes from one to the other over a quarter of their side.

The belief of the position along the cells' two axes is a Gaussian N(m, V). The mean of L under it is the
agreement: how much more probable the answer is at the estimate than anywhere. The posterior, L N over the
agreement, is replaced by the Gaussian with its mean and covariance (assumed density filtering): a belief
within one cell stays as it is, one that is wider than a peak narrows to it, and one that holds two peaks gets
both, and the width of both. Peaks that the belief does not reach count nothing, as behind a gate.

An answer whose error is like the last one's counts with the power (1 - rho) / (1 + rho), as for poses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.squares import distances

Array = NDArray[np.float64]

WRONG = 0.05
_REACH = 3.5  # standard deviations that are looked at
_ACROSS = 17  # points along each axis of the belief
_SMALLEST = 1e-12  # variance, m^2
_BLUR = 6.0  # parts of a cell's side: about a Gaussian blur by a quarter of it

_STEPS = np.linspace(-_REACH, _REACH, _ACROSS)
_POINTS = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(-1, 2)
_WEIGHTS = np.exp(-0.5 * (_POINTS**2).sum(axis=1))
_WEIGHTS /= _WEIGHTS.sum()
_SCALE = float(np.sqrt(1 / (_WEIGHTS @ _POINTS[:, 0] ** 2)))  # so that the points' variance is 1


@dataclass(frozen=True, eq=False)
class PositionCells:
    """Where the camera is, as probabilities of squares.

    Attributes:
        corners: (K, 4), metres: low and high corner along two axes of the map.
        probabilities: (K,), sums to 1.
        axes: the two, as numbers of x, y and z.
    """

    corners: Array
    probabilities: Array
    axes: tuple[int, int]

    def holds(self, mean: Array, covariance: Array) -> bool:
        """Says whether a position (2,) is where there are cells: elsewhere they say nothing.

        Beyond the nearest cell it may be that cell's side, or two standard deviations, off.
        """
        away = distances(mean[None], self.corners)[0]
        nearest = int(away.argmin())
        side = self.corners[nearest, 2] - self.corners[nearest, 0]
        sigma = float(np.sqrt(max(0.0, np.linalg.eigvalsh(covariance)[-1])))
        return bool(away[nearest] <= max(side, 2 * sigma))

    def weighed(self, mean: Array, covariance: Array, share: float) -> tuple[float, Array, Array]:
        """Returns what a belief N(mean (2,), covariance (2, 2)) becomes.

        Args:
            mean: metres.
            covariance: m^2.
            share: of an independent answer that this one is worth, from 0 to 1.

        Returns:
            The agreement, of the whole answer; mean (2,) and covariance (2, 2) of the posterior.
        """
        variances, axes = np.linalg.eigh(covariance)
        root = axes * np.sqrt(np.maximum(variances, _SMALLEST))
        offsets = _SCALE * _POINTS @ root.T  # (S, 2)
        likelihood = self._likelihood(mean, offsets, float(np.sqrt(max(variances[-1], _SMALLEST))))
        weights = _WEIGHTS * likelihood**share
        weights /= weights.sum()
        moved = weights @ offsets
        rest = offsets - moved
        return float(_WEIGHTS @ likelihood), mean + moved, (weights * rest.T) @ rest

    def _likelihood(self, mean: Array, offsets: Array, sigma: float) -> Array:
        """Returns L (S,) at the mean + offsets (S, 2)."""
        sides = self.corners[:, 2] - self.corners[:, 0]
        between = _SCALE * sigma * (_STEPS[1] - _STEPS[0])  # points see nothing smaller
        blur = np.maximum(sides / _BLUR, between / 2)
        away = distances(mean[None], self.corners)[0]
        near = away <= _SCALE * _REACH * 2**0.5 * sigma + 4 * blur
        near[away.argmin()] = True
        far = distances(offsets, self.corners[near] - np.tile(mean, 2)) / blur[near]  # (S, near)
        logs = -0.5 * far**2
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        mixed = shares @ self.probabilities[near] / shares.sum(axis=1)
        return np.asarray((1 - WRONG) * len(self.corners) * mixed + WRONG)
