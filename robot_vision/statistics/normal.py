"""The normal distribution, and chi squared, that of an error's squared length over its covariance.

SciPy has both, but is not on a robot.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Half of the interval that holds 90 percent, in standard deviations.
REACH_90 = 1.6448536269514722
# Of a polynomial in 1 / (1 + x / 2): "Numerical Recipes in C" (Press et al. 1992), section 6.2, erfcc.
_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)


def normal_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the standard normal's distribution function, with a relative error below 2e-7."""
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + z / 2)
    exponent = np.full_like(z, _ERFC[-1])
    for coefficient in _ERFC[-2::-1]:
        exponent = exponent * t + coefficient
    tail = t * np.exp(exponent - z * z) / 2  # beyond |x|
    return np.where(x < 0, tail, 1 - tail)


def chi_squared_cdf(x: float, degrees: int) -> float:
    """Returns the distribution function of chi squared with 3 or 6 degrees of freedom."""
    half = max(x, 0.0) / 2
    if degrees == 6:
        return 1 - math.exp(-half) * (1 + half + half * half / 2)
    assert degrees == 3, degrees
    return math.erf(math.sqrt(half)) - 2 * math.sqrt(half / math.pi) * math.exp(-half)


@lru_cache(maxsize=64)
def chi_squared_quantile(probability: float, degrees: int) -> float:
    """Returns its quantile, by bisection to the last digits."""
    assert 0 < probability < 1, probability
    low, high = 0.0, 1000.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (
            (middle, high) if chi_squared_cdf(middle, degrees) < probability else (low, middle)
        )
