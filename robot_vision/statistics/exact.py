"""Exact one-sided bounds of a share: what a count of rare events proves (Clopper and Pearson 1934).

A bootstrap of images of which none was lost says that none ever is; the binomial distribution says how many
still may be. SciPy has it, but is not on a robot.
"""

from __future__ import annotations

import numpy as np


def upper_share(hits: int, count: int, confidence: float = 0.95) -> float:
    """Returns the largest share at which `hits` or fewer of `count` are not yet too few to believe.

    It is the p with P(X <= hits) = 1 - confidence for X of the binomial distribution: a true share above it
    gives as few as were seen in at most 1 - confidence of all cases. 1 where all are hits, or there is none.
    """
    assert 0 <= hits <= count and 0 < confidence < 1, (hits, count, confidence)
    if hits == count:
        return 1.0
    k = np.arange(hits + 1, dtype=np.float64)
    # Logarithms of the binomial coefficients: each follows from the one before.
    log_ways = np.concatenate([[0.0], np.cumsum(np.log((count - k[:-1]) / (k[:-1] + 1)))])
    low, high = hits / count, 1.0
    while True:
        p = (low + high) / 2
        if p in (low, high):
            return p
        logs = log_ways + k * np.log(p) + (count - k) * np.log1p(-p)
        most = float(logs.max())
        too_few = most + float(np.log(np.exp(logs - most).sum())) < np.log(1 - confidence)
        low, high = (low, p) if too_few else (p, high)


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the exact two-sided interval of the mean of a Poisson variable of which a count was seen.

    Garwood (1936): means below the first, or above the second, give as many, or as few, in at most
    (1 - confidence) / 2 of all cases.
    """
    assert count >= 0 and 0 < confidence < 1, (count, confidence)
    tail = (1 - confidence) / 2

    def at_most(k: int, mean: float) -> float:
        """P(X <= k)."""
        if k < 0 or mean == 0:
            return float(k >= 0)
        i = np.arange(k + 1, dtype=np.float64)
        logs = i * np.log(mean) - mean - np.concatenate([[0.0], np.cumsum(np.log(i[1:]))])
        return float(min(np.exp(logs).sum(), 1.0))

    def mean_where(k: int, probability: float) -> float:
        """The mean at which P(X <= k) falls to a probability."""
        low, high = 0.0, 2.0 * k + 20.0
        while True:
            mean = (low + high) / 2
            if mean in (low, high):
                return mean
            low, high = (mean, high) if at_most(k, mean) > probability else (low, mean)

    return (0.0 if count == 0 else mean_where(count - 1, 1 - tail)), mean_where(count, tail)


def count_needed(share: float, limit: float, confidence: float = 0.95) -> int:
    """Returns how many must be counted until a share that goes on as it was is bounded by a limit.

    Args:
        share: that was seen.
        limit: that the upper bound must not pass.
        confidence: of the bound.

    Returns:
        The count, or 0 where the share is not below the limit or more than a million would be needed.
    """

    def enough(count: int) -> bool:
        return upper_share(int(np.ceil(share * count - 1e-9)), count, confidence) <= limit

    if share >= limit:
        return 0
    high = 1
    while not enough(high):
        high *= 2
        if high > 1 << 20:
            return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
