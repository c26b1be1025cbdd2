"""The gate of measured poses: quantiles of chi squared with the six degrees of freedom of a pose."""

from __future__ import annotations

import math
from functools import lru_cache


@lru_cache(maxsize=16)
def chi_squared_6(probability: float) -> float:
    """Returns the quantile of chi squared with 6 degrees of freedom, e.g. 16.8 for 0.99, by bisection."""
    assert 0 < probability < 1, probability
    low, high = 0.0, 1000.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        half = middle / 2
        below = 1 - math.exp(-half) * (1 + half + half * half / 2) < probability
        low, high = (middle, high) if below else (low, middle)
