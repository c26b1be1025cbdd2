"""How far an image stands out of the map, in any light: similarities in units of its own spread.

Another light, season or lens lowers all similarities, so that a level that means "here" on the map's own
images means nothing on others. What remains is how much more similar the right place is than the
rest of the map is to the same image. So an image is compared with some keyframes spread evenly over the
map's places; their median is its zero, and the distance from there to their lower tail its unit. The upper
tail is left out, since in a small map it is the place itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_QUANTILE, _SIGMAS = 0.16, 0.9945  # the lower tail of a normal distribution, and where it lies
_LEAST_SIGMA = 1e-3  # of a cosine: descriptors are stored with fewer digits
LEAST_REFERENCES = 20  # fewer have no quantiles
MAX_LOG_RATIO = 5.0  # one image alone is never surer: calibrations rest on hundreds of matches


@dataclass(frozen=True, eq=False)
class View:
    """An image as the map sees it.

    Attributes:
        centre: similarity that is its zero.
        sigma: similarity that is its unit.
    """

    centre: float
    sigma: float

    def standard(self, similarities: Array) -> Array:
        """Returns similarities (k,) in units of the image's spread over the map."""
        return np.asarray((similarities - self.centre) / self.sigma)


@dataclass(frozen=True, eq=False)
class Contrast:
    """What the map's own keyframes say of how far the right place stands out.

    Attributes:
        references: descriptors (R, D), spread evenly over places.
        right: mean and deviation of the best match's standard similarity where it is right.
        wrong: the same where the map does not hold the place.
        sharpness: how much likelier a match is right for each unit of standard similarity more, in logits.
        fineness: the same for the nearest keyframe among all others.
    """

    references: NDArray[np.float32]
    right: tuple[float, float]
    wrong: tuple[float, float]
    sharpness: float
    fineness: float

    def view(self, descriptor: NDArray[np.float32]) -> View:
        """Returns an image by its descriptor (D,)."""
        return standardised(self.references @ descriptor)

    def log_ratio(self, best: float, shares: Array) -> Array:
        """Returns log p(best | right) / p(best | the map does not hold it) for sessions (S,).

        Args:
            best: standard similarity of the best match.
            shares: of the map's own contrast that the sessions have (S,).
        """
        (m1, s1), (m0, s0) = self.right, self.wrong
        mean, sigma = m0 + shares * (m1 - m0), s0 + shares * (s1 - s0)
        # More similar is never less likely right.
        right, wrong = np.minimum(best, mean), max(best, m0)
        log = -(((right - mean) / sigma) ** 2) / 2 - np.log(sigma)
        log += ((wrong - m0) / s0) ** 2 / 2 + np.log(s0)
        return np.asarray(np.clip(log, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def standardised(similarities: NDArray[np.floating]) -> View:
    """Returns an image by its similarities to the references (R,)."""
    s = np.asarray(similarities, np.float64)
    low, centre = np.quantile(s, (_QUANTILE, 0.5))
    sigma = max(float(centre - low) / _SIGMAS, _LEAST_SIGMA)
    return View(float(centre), sigma)
