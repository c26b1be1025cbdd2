"""How well the known score tells images of known classes from those of classes never trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.bootstrap import Statistic, Weights, group_sums, groups

TRUE_POSITIVE_RATE = 0.95


def separation(score: NDArray[Any], known: NDArray[np.bool_]) -> Statistic:
    """AUROC, AUPR of known, AUPR of unknown, and the false positive rate at 95 % true positives.

    Known is positive and has the higher score. AUROC is the chance that a known frame has a higher score
    than an unknown one, ties counting half. AUPR is the average precision, sum (R_i - R_i-1) P_i.
    FPR at 95 % is that of the highest threshold that keeps at least 95 % of the known frames.
    """
    order, starts = groups(np.asarray(score, np.float64), descending=True)
    is_known = np.asarray(known, np.float64)

    def statistic(w: Weights) -> NDArray[np.float64]:
        positive = group_sums(w * is_known, order, starts)
        negative = group_sums(w * (1 - is_known), order, starts)
        tp, fp = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        P, N = tp[:, -1], fp[:, -1]
        both = np.where((P > 0) & (N > 0), 1.0, np.nan)
        auroc = (positive * (N[:, None] - fp + negative / 2)).sum(axis=1) / (P * N)
        shares = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
        aupr_known = (positive * shares).sum(axis=1) / P
        # The same from the other end: unknown is positive, and low scores come first.
        tn = np.cumsum(negative[:, ::-1], axis=1)
        all_low = tn + np.cumsum(positive[:, ::-1], axis=1)
        shares_low = np.divide(tn, all_low, out=np.zeros_like(tn), where=all_low > 0)
        aupr_unknown = (negative[:, ::-1] * shares_low).sum(axis=1) / N
        reached = (tp >= TRUE_POSITIVE_RATE * P[:, None] - 1e-9).argmax(axis=1)
        fpr = fp[np.arange(len(w)), reached] / N
        return np.stack([auroc, aupr_known, aupr_unknown, fpr], axis=1) * both[:, None]

    return statistic
