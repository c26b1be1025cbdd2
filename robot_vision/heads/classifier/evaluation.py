"""Numbers on class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.bootstrap import Statistic, Weights, group_sums, groups, mean
from robot_vision.statistics.reliability import area_under_risk_coverage, calibration_error

# A true class of probability 0 would make the mean infinite, whatever the other frames say.
SMALLEST_PROBABILITY = 1e-12
_CHUNK_NUMBERS = 2_000_000


def score_classes(
    probabilities: NDArray[Any], true_label: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Returns the columns of `judging.ROWS` on classes.

    Of classes with the same probability the first one counts as more probable.

    Args:
        probabilities: (N, K); rows that are not finite have no prediction.
        true_label: (N,).
    """
    size = max(1, _CHUNK_NUMBERS // max(1, probabilities.shape[1]))
    parts = [
        _score(probabilities[i : i + size], true_label[i : i + size])
        for i in range(0, max(1, len(true_label)), size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _score(probabilities: NDArray[Any], true_label: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    p = np.asarray(probabilities, np.float64)
    n = len(p)
    said = np.asarray(np.isfinite(p).all(axis=1))
    p = np.where(said[:, None], p, 0.0)
    known = said & (true_label >= 0)
    target = np.where(known, true_label, 0)
    of_true = p[np.arange(n), target]
    before = (p > of_true[:, None]) | (
        (p == of_true[:, None]) & (np.arange(p.shape[1]) < target[:, None])
    )
    brier = (p**2).sum(axis=1) - 2 * of_true + 1
    return {
        "predicted_label": np.where(said, p.argmax(axis=1), -1),
        "label_rank": np.where(known, before.sum(axis=1), -1),
        "confidence": np.where(said, p.max(axis=1), np.nan),
        "true_probability": np.where(known, of_true, np.nan),
        "brier": np.where(known, brier, np.nan),
    }


def _macro(true: NDArray[Any], predicted: NDArray[Any]) -> Statistic:
    """Recall and precision, each the mean over the classes that occur; never predicted is precision 0."""
    classes, target = np.unique(true, return_inverse=True)
    hit = predicted == true
    by_true, true_starts = groups(target)
    at = np.searchsorted(classes, predicted)
    is_class = (
        classes[np.minimum(at, max(len(classes) - 1, 0))] == predicted if len(classes) else at
    )
    guesses = np.where(is_class, at, len(classes))
    by_guess, guess_starts = groups(guesses)
    guessed_class = guesses[by_guess][guess_starts]

    def statistic(w: Weights) -> NDArray[np.float64]:
        occurs = group_sums(w, by_true, true_starts)
        hits = group_sums(w * hit, by_true, true_starts)
        guessed = np.zeros((len(w), len(classes) + 1))
        guessed[:, guessed_class] = group_sums(w, by_guess, guess_starts)
        guessed = guessed[:, :-1]
        there = occurs > 0
        recall = np.divide(hits, occurs, out=np.zeros_like(hits), where=there)
        precision = np.divide(hits, guessed, out=np.zeros_like(hits), where=guessed > 0)
        return np.stack([recall.sum(axis=1), precision.sum(axis=1)], 1) / there.sum(axis=1)[:, None]

    return statistic


def statistics(c: dict[str, NDArray[Any]]) -> dict[str | tuple[str, ...], Statistic]:
    """Returns the headline numbers of columns, all of whose frames have a known true label."""
    right = c["predicted_label"] == c["true_label"]
    nll = -np.log(np.maximum(c["true_probability"], SMALLEST_PROBABILITY))
    together = np.stack([right, c["label_rank"] < 5, nll, c["brier"]], axis=1)
    return {
        ("top1", "top5", "nll", "brier"): mean(together),
        ("macro_recall", "macro_precision"): _macro(c["true_label"], c["predicted_label"]),
        "ece": calibration_error(c["confidence"], right),
        "aurc": area_under_risk_coverage(c["confidence"], right),
    }
