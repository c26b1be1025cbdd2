"""How far a camera is from the keyframe that its image is most like: by how similar the two are.

Similarity falls by the same share with each step away, with a scatter. Both are fitted on the map's own
keyframes, each hidden with all within a reach, and every distance counts alike, since a map whose keyframes
lie 0.2 m apart has next to no pairs in between. At what distances a drive passes the keyframes no map can
tell: the drive's own images do, one by one, as the shares of a mixture (online EM; Cappe and Moulines 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.heads.place.probability import MIN_MATCHES

Array = NDArray[np.float64]

BESIDE = 2.0  # radii: what images of a sequence can tell apart is further
_BINS = 8  # of distance, up to there
_BEFORE = 20.0  # images that the assumption of any distance is worth
_LEAST = 1e-3  # of a similarity or its deviation: descriptors are stored with fewer digits


@dataclass(frozen=True, eq=False)
class Nearness:
    """A fit; `start` is what a drive has passed before its first image.

    Attributes:
        level: similarity (bins,) expected at each distance.
        sigma: its standard deviation there.
    """

    level: Array
    sigma: float

    @classmethod
    def fit(cls, away: ArrayLike, similarities: ArrayLike) -> Nearness | None:
        """Returns a fit on pairs, or None where they are too few on either side of a place's edge.

        Args:
            away: distances (N,), 1 being a place's radius or its heading, up to `BESIDE`.
            similarities: (N,).
        """
        a, s = np.asarray(away, np.float64), np.asarray(similarities, np.float64)
        within = int((a <= 1).sum())
        if len(a) < MIN_MATCHES or min(within, len(a) - within) < MIN_MATCHES // 2:
            return None
        bins = np.minimum((a / BESIDE * _BINS).astype(np.intp), _BINS - 1)
        root = 1 / np.sqrt(np.bincount(bins, minlength=_BINS)[bins])
        slope, log = np.polyfit(a, np.log(np.maximum(s, _LEAST)), 1, w=root)
        middle = (np.arange(_BINS) + 0.5) * BESIDE / _BINS
        expected, level = (np.exp(log + min(slope, 0.0) * x) for x in (a, middle))
        sigma = float(np.sqrt(np.average((s - expected) ** 2, weights=root**2)))
        return cls(level, max(sigma, _LEAST))

    @property
    def start(self) -> Array:
        """Counts (bins,) of images at each distance: any is as likely."""
        return np.full(_BINS, _BEFORE / _BINS)

    def shares(self, similarities: ArrayLike, passed: Array) -> Array:
        """Returns the probabilities (n, bins) of each distance, of a drive that has `passed` (bins,)."""
        units = (np.asarray(similarities, np.float64)[:, None] - self.level) / self.sigma
        log = np.log(passed) - units**2 / 2
        found = np.exp(log - log.max(axis=1, keepdims=True))
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    def within(self, shares: Array) -> Array:
        """Returns the probability (n,) of being within a place's radius."""
        return np.asarray(shares[:, : int(_BINS / BESIDE)].sum(axis=1))
