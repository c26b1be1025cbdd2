"""One number that makes class probabilities true: the temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOWEST, _HIGHEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Returns log probabilities (N, K) of logits (N, K)."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Returns the temperature that minimises the negative log likelihood (Guo et al. 2017, section 4.2).

    Targets are Platt's (1999): as if there were one more image of each class for every label, wrongly
    labelled ones among them. Without, images that are all classified rightly would drive T to zero and every
    answer to certainty. The likelihood is convex in 1 / T; golden-section search from 0.05 to 20.

    Args:
        logits: (N, K), before any temperature.
        labels: (N,).
    """
    z = np.asarray(logits, np.float64)
    n, classes = z.shape
    share = classes / (n + classes)  # of the images that are added

    def loss(log_t: float) -> float:
        each = log_softmax(z / math.exp(log_t))
        right = each[np.arange(n), labels].mean()
        return -float((1 - share) * right + share * each.mean())

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(50):  # to 1e-10 of the range
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = loss(b)
    return math.exp((low + high) / 2)
