"""The measures of depth, as sums over the pixels of a frame: metrics are functions of these.

AbsRel, SqRel, RMSE, RMSE log, log10 and the shares within 1.25, 1.25^2 and 1.25^3 are those of Eigen et al.
(2014), over all pixels of all frames. Whether the uncertainty knows where the depth errs is said by the
sparsification curve of Ilg et al. (2018): AbsRel of the pixels that are left when the least sure ones are
taken away, and the same in the order of the errors themselves, the best that there could be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.depth.answer import REACH
from robot_vision.statistics.bootstrap import Statistic, Weights

Numbers = NDArray[np.float64]

SUMS = (
    "pixels",
    "abs_rel",
    "sq_rel",
    "square",
    "log_square",
    "log10",
    "delta_1",
    "delta_2",
    "delta_3",
    "log_true",
    "log_true_square",
)
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta_1", "delta_2", "delta_3")
HALF = 0.6744897501960817  # of a normal distribution: half of the interval that holds one half
BINS = 64
# Of sigma, and of relative errors: a seventh wider each, from a thousandth to four. Pixels of a bin count as
# if they came in random order.
EDGES = np.geomspace(1e-3, 4.0, BINS - 1)
REMOVED = np.linspace(0.0, 0.95, 20)  # shares of the pixels that are taken away
SUREST = 0.7


def error_sums(said: Numbers, true: Numbers) -> Numbers:
    """Returns the sums (11,) of `SUMS` over n pixels.

    Args:
        said: (n,), metres, positive.
        true: (n,), metres, positive.
    """
    error, logs = said - true, np.log(said) - np.log(true)
    ratio = np.exp(np.abs(logs))
    log_true = np.log(true)
    each = (
        np.ones(len(true)),
        np.abs(error) / true,
        error**2 / true,
        error**2,
        logs**2,
        np.abs(logs) / np.log(10),
        *(ratio < 1.25**k for k in (1, 2, 3)),
        log_true,
        log_true**2,
    )
    return np.array([values.sum() for values in each], np.float64)


def scale_of(said: Numbers, true: Numbers) -> float:
    """Returns what a frame's depths are multiplied by before they count as median-scaled."""
    return float(np.median(true) / np.median(said))


def order_sums(errors: Numbers, keys: Numbers) -> tuple[Numbers, Numbers]:
    """Returns how many pixels (64,) there are in each bin of the keys, and the sum (64,) of their errors."""
    which = np.searchsorted(EDGES, keys)
    return (
        np.bincount(which, minlength=BINS).astype(np.float64),
        np.bincount(which, weights=errors, minlength=BINS).astype(np.float64),
    )


def inside_sums(said: Numbers, sigma: Numbers, true: Numbers) -> Numbers:
    """Returns how many pixels (2,) lie within the intervals of one half and of nine tenths."""
    off = np.abs(np.log(said) - np.log(true))
    return np.array([(off <= reach * sigma).sum() for reach in (HALF, REACH)], np.float64)


def statistics(sums: Numbers) -> dict[tuple[str, ...], Statistic]:
    """Returns the eight metrics of frames with these sums (n, 11)."""

    def measured(w: Weights) -> Numbers:
        total = w @ sums
        means = total[:, 1:9] / total[:, :1]
        for root in (METRICS.index("rmse"), METRICS.index("rmse_log")):
            means[:, root] = np.sqrt(means[:, root])
        return np.asarray(means, np.float64)

    return {METRICS: measured}


def always_one_depth(sums: Numbers) -> dict[str, Statistic]:
    """Returns `rmse_log` of the one depth that makes it least: the geometric mean of the true ones."""

    def spread(w: Weights) -> Numbers:
        total = w @ sums
        means = total[:, 9:11] / total[:, :1]
        return np.asarray(np.sqrt(np.maximum(means[:, 1] - means[:, 0] ** 2, 0)), np.float64)

    return {"rmse_log": spread}


def coverages(pixels: Numbers, inside: Numbers) -> dict[tuple[str, ...], Statistic]:
    """Returns which share of the true depths lies within the intervals."""

    def share(w: Weights) -> Numbers:
        return np.asarray((w @ inside) / (w @ pixels)[:, None], np.float64)

    return {("coverage_50", "coverage_90"): share}


def left(counts: Numbers, errors: Numbers, kept: Numbers) -> Numbers:
    """Returns the mean error (k,) of the first shares (k,) of the pixels, in the order of their 64 bins."""
    total = counts.sum()
    if not total:
        return np.full(len(kept), np.nan)
    upto = np.concatenate([[0.0], np.cumsum(counts)])
    summed = np.concatenate([[0.0], np.cumsum(errors)])
    wanted = kept * total
    return np.asarray(np.interp(wanted, upto, summed) / wanted, np.float64)


def sparsification(order: Numbers, best: Numbers) -> dict[tuple[str, ...], Statistic]:
    """Returns `ause` and `surest_70`.

    AUSE is the mean distance between the curve and the best one over the removed shares, and `surest_70`
    is what the surest 70 percent have, both as shares of the AbsRel of all pixels.

    Args:
        order: (n, 128), counts and sums of errors of `order_sums` by sigma.
        best: (n, 128), by the errors themselves.
    """

    def measured(w: Weights) -> Numbers:
        found = []
        for by_sigma, by_error in zip(w @ order, w @ best, strict=True):
            curve = left(by_sigma[:BINS], by_sigma[BINS:], 1 - REMOVED)
            least = left(by_error[:BINS], by_error[BINS:], 1 - REMOVED)
            sure = left(by_sigma[:BINS], by_sigma[BINS:], np.array([SUREST]))[0]
            found.append([(curve - least).mean() / curve[0], sure / curve[0]])
        return np.array(found, np.float64).reshape(-1, 2)

    return {("ause", "surest_70"): measured}
