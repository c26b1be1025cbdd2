"""Chi squared, the distribution of a normal error's squared length in units of its covariance."""

from __future__ import annotations

import math
from functools import lru_cache


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
