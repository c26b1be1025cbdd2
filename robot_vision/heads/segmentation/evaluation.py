"""A frame's sums over pixels, and the measures that follow from sums over frames.

Every measure is a function of sums, so that recordings are merged exactly and frames can be resampled.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.segmentation.answer import NONE
from robot_vision.statistics.bootstrap import Statistic, Weights
from robot_vision.statistics.reliability import BINS, bin_of

Numbers = NDArray[np.float64]
Ids = NDArray[np.uint8]
TOLERANCE = 0.0075  # of the image's diagonal: how near a boundary has to be (Csurka et al. 2013)
_EDGES = ("said_edge", "said_near", "true_edge", "true_near")
COUNTS = ("hit", "said", "true", *_EDGES)  # K numbers each
BIN_SUMS = ("bin_pixels", "bin_confidence", "bin_right")  # BINS numbers each


def frame_sums(said: Ids, true: Ids, count: int) -> dict[str, Any]:
    """Counts the pixels of a frame.

    Args:
        said: ids (H, W); from `count` on nothing was said, which is wrong where there is a truth.
        true: ids (H, W); those from `count` on are of no class of the model, and 255 is none.
        count: number of classes, K.

    Returns:
        `hit`, `said` and `true` (K,), of the pixels with a true class of the model; `said_edge`, `said_near`,
        `true_edge` and `true_near` (K,), see `boundary_sums`; `pixels`, and `other_pixels` of other classes.
    """
    known = true < count
    both = true[known].astype(np.int64) * (count + 1) + np.minimum(said[known], count)
    confusion = np.bincount(both, minlength=count * (count + 1)).reshape(count, count + 1)
    sums: dict[str, Any] = {
        "hit": np.diag(confusion),
        "said": confusion[:, :count].sum(axis=0),
        "true": confusion.sum(axis=1),
        "pixels": int(known.sum()),
        "other_pixels": int(((true >= count) & (true != NONE)).sum()),
    }
    return sums | boundary_sums(said, true, count)


def boundary_sums(said: Ids, true: Ids, count: int) -> dict[str, NDArray[np.int64]]:
    """Counts the pixels of boundaries, and those that are near one of the other image.

    A pixel is on the boundary of its class where one of its four neighbours has another known class.

    Args:
        said: ids (H, W); where the truth is none, nothing counts.
        true: ids (H, W).
        count: number of classes, K.

    Returns:
        `said_edge` (K,), of them `said_near` within `TOLERANCE` of the class's true boundary; `true_edge`,
        and of them `true_near` within it of the boundary that was said.
    """
    reach = max(1, round(TOLERANCE * math.hypot(*true.shape)))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    known = true < count
    maps = [np.where(known & (image < count), image, NONE) for image in (said, true)]
    edges = [np.where(_on_boundary(image), image, NONE) for image in maps]
    sums = {name: np.zeros(count, np.int64) for name in _EDGES}
    for k in np.unique(np.concatenate([edge[edge != NONE] for edge in edges])).tolist():
        a, b = ((edge == k).astype(np.uint8) for edge in edges)
        sums["said_edge"][k], sums["true_edge"][k] = a.sum(), b.sum()
        sums["said_near"][k] = (a & cv2.dilate(b, near)).sum()
        sums["true_near"][k] = (b & cv2.dilate(a, near)).sum()
    return sums


def _on_boundary(ids: Ids) -> NDArray[np.bool_]:
    found = np.zeros(ids.shape, bool)
    for one, other in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        differ = (ids[one] != ids[other]) & (ids[one] != NONE) & (ids[other] != NONE)
        found[one] |= differ
        found[other] |= differ
    return found


def confidence_sums(confidence: Ids, said: Ids, true: Ids, count: int) -> dict[str, Numbers]:
    """Returns what calibration errors are made of, by bins of confidence.

    Args:
        confidence: (H, W), 255 times the probability.
        said: ids (H, W).
        true: ids (H, W); those from `count` on do not count.
        count: number of classes.

    Returns:
        `bin_pixels`, `bin_confidence` (sum of the probabilities) and `bin_right` (BINS,).
    """
    known = true < count
    levels = np.arange(256) / 255
    which = bin_of(levels)
    pixels = np.bincount(confidence[known], minlength=256)
    right = np.bincount(confidence[known & (said == true)], minlength=256)
    weights = (pixels, pixels * levels, right)
    return {
        name: np.bincount(which, weights=weight, minlength=BINS).astype(np.float64)
        for name, weight in zip(BIN_SUMS, weights, strict=True)
    }


def _divided(a: Numbers, b: Numbers) -> Numbers:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b > 0)


def _mean(values: Numbers) -> Numbers:
    """Returns the mean (b,) over what is known of (b, K)."""
    known = np.isfinite(values)
    return _divided(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def _iou(hit: Numbers, said: Numbers, true: Numbers) -> Numbers:
    return _divided(hit, said + true - hit)


def _boundary(edges: list[Numbers]) -> Numbers:
    """Returns F scores (b, K); 0 where a class has a boundary in one image alone."""
    said, said_near, true, true_near = edges
    precision, recall = _divided(said_near, said), _divided(true_near, true)
    score = _divided(2 * precision * recall, precision + recall)
    return np.where((said + true > 0) & ~np.isfinite(score), 0.0, score)


def statistics(sums: dict[str, Numbers]) -> dict[tuple[str, ...], Statistic]:
    """Returns the measures of all classes together.

    Args:
        sums: `COUNTS` of n frames, (n, K).

    Returns:
        `mean_iou`, `pixel_accuracy`, `mean_accuracy` and `frequency_weighted_iou` (Long et al. 2015, section
        5), and `boundary_f`. Means are over the classes that occur or are said; those of accuracy over
        the classes that occur.
    """

    def statistic(w: Weights) -> Numbers:
        hit, said, true, *edges = (np.asarray(w, np.float64) @ sums[name] for name in COUNTS)
        iou, share = _iou(hit, said, true), _divided(true, true.sum(axis=1, keepdims=True))
        found = (
            _mean(iou),
            _divided(hit.sum(axis=1), true.sum(axis=1)),
            _mean(_divided(hit, true)),
            (share * np.where(np.isfinite(iou), iou, 0)).sum(axis=1),
            _mean(_boundary(edges)),
        )
        return np.stack(found, axis=1)

    names = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "boundary_f")
    return {names: statistic}


def class_statistics(sums: dict[str, Numbers]) -> dict[str | tuple[str, ...], Statistic]:
    """Returns for each class k `iou.k`, `recall.k`, `precision.k` and `boundary_f.k`."""

    def statistic(w: Weights) -> Numbers:
        hit, said, true, *edges = (np.asarray(w, np.float64) @ sums[name] for name in COUNTS)
        found = (_iou(hit, said, true), _divided(hit, true), _divided(hit, said), _boundary(edges))
        return np.concatenate(found, axis=1)

    words = ("iou", "recall", "precision", "boundary_f")
    return {tuple(f"{word}.{k}" for word in words for k in range(sums["hit"].shape[1])): statistic}


def calibration_error(sums: dict[str, Numbers]) -> Statistic:
    """Expected calibration error over pixels (Guo et al. 2017, eq. 3), of `BIN_SUMS` (n, BINS)."""

    def statistic(w: Weights) -> Numbers:
        pixels, confidence, right = (np.asarray(w, np.float64) @ sums[name] for name in BIN_SUMS)
        return _divided(np.abs(confidence - right).sum(axis=1), pixels.sum(axis=1))

    return statistic


def class_iou(sums: dict[str, Numbers]) -> Numbers:
    """Returns the IoU (n, K) of the classes in each of n sums; NaN of one that neither occurs nor is said."""
    hit, said, true = (np.asarray(sums[name], np.float64) for name in ("hit", "said", "true"))
    return _iou(hit, said, true)


def frame_iou(sums: dict[str, Numbers]) -> Numbers:
    """Returns the mean IoU (n,) of each frame alone; NaN where nothing is known."""
    return _mean(class_iou(sums))
