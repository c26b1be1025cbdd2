"""Numbers on class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import UNKNOWN_LABEL, Scores
from robot_vision.statistics.bootstrap import (
    Resampler,
    Statistic,
    Weights,
    group_sums,
    groups,
    mean,
    plain,
)
from robot_vision.statistics.reliability import (
    area_under_risk_coverage,
    calibration_error,
    reliability,
    risk_coverage,
)
from robot_vision.statistics.separation import TRUE_POSITIVE_RATE, separation

# A true class of probability 0 would make the mean infinite, whatever the other frames say.
SMALLEST_PROBABILITY = 1e-12
_CHUNK_NUMBERS = 2_000_000


def score_classes(
    probabilities: NDArray[Any], true_label: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Returns the columns of `scores.COLUMNS` on classes.

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


def measure_classes(scores: Scores, resampler: Resampler) -> dict[str, Any] | None:
    """Returns plain data on classes; None where no frame has a known true label and a prediction."""
    rows = (scores["true_label"] >= 0) & (scores["predicted_label"] >= 0)
    if not rows.any():
        return None
    names = (
        "true_label",
        "predicted_label",
        "label_rank",
        "confidence",
        "true_probability",
        "brier",
    )
    c = {name: scores[name][rows] for name in names}
    right = c["predicted_label"] == c["true_label"]
    count = len(scores.labels)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (c["true_label"], c["predicted_label"]), 1)
    prior = np.bincount(c["true_label"], minlength=count) / len(right)
    classes, which = np.unique(c["true_label"], return_inverse=True)
    each = score_classes(np.tile(prior, (len(classes), 1)), classes)
    constant = {name: values[which] for name, values in {**each, "true_label": classes}.items()}
    return {
        "frames": len(right),
        "labels": list(scores.labels),
        **resampler.headlines(statistics(c), rows),
        "per_class": _per_class(scores.labels, confusion),
        "confusion": {"rows": "true", "columns": "predicted", "counts": confusion.tolist()},
        "reliability": reliability(c["confidence"], right),
        "risk_coverage": risk_coverage(c["confidence"], right),
        "baselines": {
            "class_prior": {
                "text": "always the shares of the classes in these very frames",
                **resampler.headlines(statistics(constant), rows),
            }
        },
    }


def _per_class(labels: Sequence[str], confusion: NDArray[np.int64]) -> list[dict[str, Any]]:
    true, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    return [
        {
            "label": label,
            "frames": int(true[i]),
            "predicted": int(predicted[i]),
            "recall": plain(hits[i] / true[i]) if true[i] else None,
            "precision": plain(hits[i] / predicted[i]) if predicted[i] else None,
        }
        for i, label in enumerate(labels)
    ]


def measure_open_set(scores: Scores, resampler: Resampler) -> dict[str, Any] | None:
    """Returns plain data; None where there are no known or no unknown frames, or no score."""
    label, score = scores["true_label"], scores["known_score"]
    rows = np.isfinite(score) & ((label >= 0) | (label == UNKNOWN_LABEL))
    known = label[rows] >= 0
    if known.all() or not known.any():
        return None
    names = ("auroc", "aupr_known", "aupr_unknown", "fpr_at_95_tpr")
    share = float(known.mean())
    chance = dict(zip(names, (0.5, share, 1 - share, TRUE_POSITIVE_RATE), strict=True))
    confidence = scores["confidence"][rows]
    return {
        "known": int(known.sum()),
        "unknown": int((~known).sum()),
        **resampler.headlines({names: separation(score[rows], known)}, rows),
        "baselines": {
            "chance": {
                "text": "a score that knows nothing",
                **{n: {"value": v, "low": None, "high": None} for n, v in chance.items()},
            },
            "max_probability": {
                "text": "the probability of the predicted class as the score (Hendrycks and Gimpel 2017)",
                **resampler.headlines({names: separation(confidence, known)}, rows),
            },
        },
    }
