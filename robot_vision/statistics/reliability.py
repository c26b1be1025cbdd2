"""Whether stated uncertainty is true: of probabilities, and of pose covariances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.bootstrap import Statistic, Weights, group_sums, groups, plain

BINS = 15


def bin_of(confidence: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the bin (n,) of each confidence: 15 of equal width, [low, high), the last one closed."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    return np.asarray(
        np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1), np.int64
    )


def calibration_error(confidence: NDArray[Any], right: NDArray[Any]) -> Statistic:
    """Expected calibration error (Guo et al. 2017, eq. 3): sum over bins of n_b / n |acc_b - conf_b|."""
    order, starts = groups(bin_of(confidence))
    gap = np.asarray(right, np.float64) - confidence

    def statistic(w: Weights) -> NDArray[np.float64]:
        error: NDArray[np.float64] = np.abs(group_sums(w * gap, order, starts)).sum(axis=1) / w.sum(
            axis=1
        )
        return error

    return statistic


def reliability(confidence: NDArray[Any], right: NDArray[Any]) -> list[dict[str, Any]]:
    """Returns for each bin its edges, frames, mean confidence and accuracy (None in an empty one)."""
    which = bin_of(confidence)
    weights = (None, confidence, np.asarray(right, np.float64))
    return bin_rows("frames", *(np.bincount(which, w, BINS) for w in weights))


def bin_rows(
    counted: str, count: NDArray[Any], confidence: NDArray[Any], right: NDArray[Any]
) -> list[dict[str, Any]]:
    """Returns for each bin its edges, count, mean confidence and accuracy (None in an empty one).

    Args:
        counted: name of the count.
        count: (BINS,).
        confidence: (BINS,), sums.
        right: (BINS,), of them those that are right.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            counted: int(count[b]),
            "confidence": plain(confidence[b] / count[b]) if count[b] else None,
            "accuracy": plain(right[b] / count[b]) if count[b] else None,
        }
        for b in range(BINS)
    ]


def harmonic(count: int) -> NDArray[np.float64]:
    """Returns the harmonic numbers H_0 .. H_count."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, count + 1))])


def area_under_risk_coverage(confidence: NDArray[Any], right: NDArray[Any]) -> Statistic:
    """AURC (Geifman and El-Yaniv 2017): the mean over k of the error rate of the k surest frames.

    Frames of equal confidence come in random order; this is the expectation over it, in closed form: in a
    group of w frames with e errors after W frames with E errors, frame k has (E + (k - W) e / w) / k.
    """
    order, starts = groups(np.asarray(confidence), descending=True)
    wrong = 1.0 - np.asarray(right, np.float64)

    def statistic(w: Weights) -> NDArray[np.float64]:
        count, errors = group_sums(w, order, starts), group_sums(w * wrong, order, starts)
        end, end_errors = np.cumsum(count, axis=1), np.cumsum(errors, axis=1)
        table = harmonic(int(end[:, -1].max()) if end.size else 0)
        rate = np.divide(errors, count, out=np.zeros_like(errors), where=count > 0)
        begin = end - count
        steps = table[np.rint(end).astype(int)] - table[np.rint(begin).astype(int)]
        areas = errors + (end_errors - errors - begin * rate) * steps
        area: NDArray[np.float64] = areas.sum(axis=1) / w.sum(axis=1)
        return area

    return statistic


def risk_coverage(confidence: NDArray[Any], right: NDArray[Any]) -> dict[str, list[float]]:
    """Returns the curve, thinned to about 200 points: coverage, risk, and their thresholds."""
    order, starts = groups(np.asarray(confidence), descending=True)
    ends = np.append(starts[1:], len(order))[: len(starts)]
    if len(ends) > 200:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, 200).round().astype(int))]
    errors = np.cumsum(1.0 - np.asarray(right, np.float64)[order])
    return {
        "coverage": (ends / max(len(order), 1)).tolist(),
        "risk": (errors[ends - 1] / ends).tolist() if len(ends) else [],
        "threshold": np.asarray(confidence, np.float64)[order][ends - 1].tolist()
        if len(ends)
        else [],
    }
