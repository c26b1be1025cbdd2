"""One number that makes class probabilities true: the temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.judging import Judgement, cross_fit, judge, log_loss

_LOWEST, _HIGHEST = 0.05, 20.0  # of what is tried
_GOLDEN = (math.sqrt(5) - 1) / 2


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Returns log probabilities (..., K) of logits (..., K)."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def log_probabilities(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Returns log probabilities (N, K) at a temperature.

    Args:
        logits: (N, K), before any temperature; or of several answers (N, S, K), whose probabilities are
            averaged.
        temperature: above 0.
    """
    each = log_softmax(np.asarray(logits, np.float64) / temperature)
    if each.ndim == 2:
        return each
    largest = each.max(axis=1, keepdims=True)
    return np.asarray(largest[:, 0] + np.log(np.exp(each - largest).mean(axis=1).clip(min=1e-300)))


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.int64], now: float = 1.0) -> float:
    """Returns the temperature that minimises the negative log likelihood (Guo et al. 2017, section 4.2).

    As in Platt (1999) there are two images more, one classified rightly and one wrongly. Without, images that
    are all classified rightly would drive T to zero and every answer to certainty. The right one is like the
    images on average. The wrong one shows the runner-up, and is like those of which the model doubts, in
    proportion to its doubt: where it expects errors, one more hardly moves a temperature that is true. The
    likelihood is convex in 1 / T; golden-section search from 0.05 to 20.

    Args:
        logits: (N, K) before any temperature, or of several answers (N, S, K).
        labels: (N,).
        now: the temperature at which the model doubts.
    """
    z = np.asarray(logits, np.float64)
    present = log_probabilities(z, now)
    rows = np.arange(len(z))
    order = np.argsort(-present, axis=1, kind="stable")
    best, second = order[:, 0], order[:, min(1, order.shape[1] - 1)]
    others = present.copy()
    others[rows, best] = -np.inf
    doubt = np.exp(others).sum(axis=1)
    doubt = doubt / doubt.sum() if doubt.sum() > 0 else np.full(len(z), 1 / len(z))

    def loss(log_t: float) -> float:
        each = log_probabilities(z, math.exp(log_t))
        more = each[rows, best].mean() + doubt @ each[rows, second]
        return -float(each[rows, labels].sum() + more)

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


def cross_fitted(
    logits: NDArray[Any], labels: NDArray[np.int64], folds: NDArray[np.int64], now: float = 1.0
) -> NDArray[np.float64]:
    """Returns log probabilities (N, K), each by the temperature that fits the other folds.

    Args:
        logits: as in `fit_temperature`, which gets `labels` and `now` too.
        labels: (N,).
        folds: (N,).
        now: the present temperature.
    """
    z = np.asarray(logits, np.float64)
    every = np.ones(len(z), bool)
    found = np.zeros((len(z), z.shape[-1]))
    for asked, t in cross_fit(
        folds, every, lambda seen: fit_temperature(z[seen], labels[seen], now)
    ):
        found[asked] = log_probabilities(z[asked], t)
    return found


def judged_temperature(
    logits: NDArray[Any],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    units: NDArray[np.int64],
    before: NDArray[np.float64],
    now: float = 1.0,
) -> tuple[float, NDArray[np.float64], Judgement]:
    """Returns the temperature, probabilities (N, K) cross-fitted, and whether they are better than before.

    Args:
        logits: as in `fit_temperature`, which gets `labels` and `now` too.
        labels: (N,).
        folds: (N,), for cross-fitting.
        units: (N,), which images are alike and so count as one.
        before: probabilities (N, K) as they are.
        now: the present temperature.
    """
    at = np.arange(len(labels)), labels
    after = np.exp(cross_fitted(logits, labels, folds, now))
    judgement = judge(log_loss(before[at]), log_loss(after[at]), units)
    return fit_temperature(logits, labels, now), after, judgement


def changed_classes(logits: NDArray[Any], before: float, after: float) -> int:
    """Returns how many images (N, S, K) another temperature gives another class; of one answer none."""
    if logits.ndim == 2:
        return 0
    classes = [log_probabilities(logits, t).argmax(axis=1) for t in (before, after)]
    return int((classes[0] != classes[1]).sum())


def at_limit(temperature: float) -> str:
    """Returns what a temperature at the end of the search says of the images; empty for any other."""
    if temperature > 0.99 * _HIGHEST:
        return ", the highest that is tried: the answers say next to nothing about these labels"
    if temperature < 1.01 * _LOWEST:
        return ", the lowest that is tried: nearly every answer is right"
    return ""
