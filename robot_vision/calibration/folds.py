"""Numbers before and after a calibration, on images that it was not fitted on, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import Sample
from robot_vision.heads.classifier.evaluation import score_classes, statistics
from robot_vision.heads.pose.evaluation import COVERAGES, normalised_squares
from robot_vision.messages.stamps import nanoseconds
from robot_vision.statistics.bootstrap import Headline, Resampler, mean, quantiles
from robot_vision.statistics.judging import Judgement
from robot_vision.statistics.normal import chi_squared_quantile
from robot_vision.statistics.reliability import calibration_error, reliability
from robot_vision.statistics.settings import EvaluationSettings

FOLD_BLOCK = 50  # neighbouring frames that stay together: in two folds they would flatter the fit
_FRAME_NS = round(1e9 / 30)  # of recordings without stamps

Numbers = dict[str, Headline]


def is_video(samples: Sequence[Sample]) -> bool:
    """Whether neighbours are frames of a recording, and not pictures of their own."""
    return any(s.stamp_ns is not None or s.T_map_camera is not None for s in samples)


def recordings(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Returns first sample and end of each run of samples of one recording."""
    starts = [0, *(i for i in range(1, len(samples)) if _starts(samples, i)), len(samples)]
    return [(a, b) for a, b in zip(starts, starts[1:], strict=False) if b > a]


def _starts(samples: Sequence[Sample], i: int) -> bool:
    return samples[i].sequence != samples[i - 1].sequence


def times_of(samples: Sequence[Sample], gap_s: float) -> NDArray[np.int64]:
    """Returns stamps (N,) by which neighbours in time are found, in the samples' order.

    Those of a recording keep their distances; without stamps frames follow each other at a camera's usual
    rate. Recordings follow each other `gap_s` apart, whichever of them is older, so that none is a
    neighbour of another's.
    """
    found, begin = np.zeros(len(samples), np.int64), 0
    for a, b in recordings(samples):
        own = [
            i * _FRAME_NS if s.stamp_ns is None else s.stamp_ns for i, s in enumerate(samples[a:b])
        ]
        found[a:b] = begin + np.array(own, np.int64) - min(own)
        begin = int(found[a:b].max()) + nanoseconds(gap_s) + 1
    return found


def folds_of(samples: Sequence[Sample], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Returns the fold (N,) of each sample: pictures by chance within a class, frames in blocks of time."""
    fold = np.zeros(len(samples), np.int64)
    if not is_video(samples):
        rng = np.random.default_rng(seed)
        names = np.array([s.label or "" for s in samples])
        start = 0
        for name in np.unique(names):
            rows = rng.permutation(np.flatnonzero(names == name))
            # Each class begins where the last one ended, so that folds are alike in size.
            fold[rows] = (start + np.arange(len(rows))) % count
            start += len(rows)
        return fold
    return units_of(samples, count) % count


def units_of(samples: Sequence[Sample], count: int) -> NDArray[np.int64]:
    """Returns which samples (N,) count as one since they are alike: blocks of time, or each for itself.

    Args:
        samples: in the order in which they were recorded.
        count: of the folds that must be filled.
    """
    if not is_video(samples):
        return np.arange(len(samples))
    return blocks_of(samples, max(1, min(FOLD_BLOCK, len(samples) // count)))


def blocks_of(samples: Sequence[Sample], size: int = FOLD_BLOCK) -> NDArray[np.int64]:
    """Returns the block (N,) of this many neighbouring frames that each sample is of, within recordings."""
    found, block = np.zeros(len(samples), np.int64), 0
    for a, b in recordings(samples):
        found[a:b] = block + np.arange(b - a) // size
        block = int(found[b - 1]) + 1
    return found


def resampler_of(samples: Sequence[Sample], settings: EvaluationSettings) -> Resampler:
    """Returns a bootstrap over pictures one by one, or over blocks of time of recordings."""
    if not is_video(samples):
        # So far apart that each is a block of its own.
        far = round(100e9 * settings.block_s)
        return Resampler(np.arange(len(samples)) * far, [(0, len(samples))], settings)
    return Resampler(times_of(samples, 0.0), recordings(samples), settings)


def class_numbers(
    probabilities: NDArray[Any],
    labels: NDArray[np.int64],
    resampler: Resampler,
    rows: NDArray[np.bool_],
) -> Numbers:
    """Returns `ece`, `nll`, `brier` and `top1` of probabilities (n, K) and true labels (n,).

    Args:
        probabilities: of the samples in `rows`.
        labels: of the same samples.
        resampler: over all samples.
        rows: mask over all samples.
    """
    columns = {**score_classes(probabilities, labels), "true_label": labels}
    found = resampler.headlines(statistics(columns), rows)
    return {name: found[name] for name in ("ece", "nll", "brier", "top1")}


def pose_numbers(
    errors: NDArray[np.float64],
    covariances: NDArray[np.float64],
    resampler: Resampler,
    rows: NDArray[np.bool_],
) -> Numbers:
    """Returns NEES over its ideal (`nees`, and of both parts), its median, and the coverages."""
    nees = normalised_squares(errors, covariances)
    parts = np.stack(
        [
            nees / 6,
            normalised_squares(errors[:, :3], covariances[:, :3, :3]) / 3,
            normalised_squares(errors[:, 3:], covariances[:, 3:, 3:]) / 3,
        ],
        axis=1,
    )
    inside = nees[:, None] <= np.array([chi_squared_quantile(p, 6) for p in COVERAGES])
    names = tuple(f"coverage_{round(100 * p)}" for p in COVERAGES)
    return resampler.headlines(
        {
            ("nees", "nees_position", "nees_rotation"): mean(parts),
            "nees_median": quantiles(nees / 6, (0.5,)),
            names: mean(inside),
            "nll": mean(pose_losses(errors, covariances)),
        },
        rows,
    )


def pose_losses(
    errors: NDArray[np.float64], covariances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns minus the log likelihood (n,) of errors (n, 6) under covariances (n, 6, 6)."""
    log_determinant = np.linalg.slogdet(covariances)[1]
    nees = normalised_squares(errors, covariances)
    return np.asarray(0.5 * (nees + log_determinant + 6 * np.log(2 * np.pi)))


def match_numbers(
    probability: NDArray[np.float64],
    right: NDArray[np.bool_],
    resampler: Resampler,
    rows: NDArray[np.bool_],
) -> Numbers:
    """Returns `ece`, `nll` and `brier` of the probabilities (n,) that matches are right."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    of_truth = np.where(right, p, 1 - p)
    return resampler.headlines(
        {
            "ece": calibration_error(np.clip(probability, 0, 1), right),
            ("nll", "brier"): mean(np.stack([-np.log(of_truth), (p - right) ** 2], axis=1)),
        },
        rows,
    )


def left_alone(
    judgement: Judgement,
    numbers: tuple[Numbers, Numbers],
    what: str,
    stays: str,
    sure: bool = False,
) -> str:
    """Returns why what was fitted is not written, with both numbers; nothing where it is.

    Args:
        judgement: by negative log likelihood.
        numbers: before and after.
        what: was fitted.
        stays: what is kept.
        sure: whether what was fitted must be better beyond noise, and not only better.
    """
    if judgement.worse or (sure and not judgement.better):
        return f"{stays}, since {what} gives a negative log likelihood of {judgement}"
    before, after = (n.get("ece") for n in numbers)
    if before and after and before["high"] is not None and after["value"] is not None:
        if after["value"] > before["high"]:
            return (
                f"{stays}, since {what} gives an expected calibration error of {after['value']:.4f} on "
                f"images left out, and without it {before['value']:.4f} ({before['low']:.4f} to "
                f"{before['high']:.4f})"
            )
    return ""


def reliability_rows(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> list[Any]:
    """Returns the filled bins of a reliability diagram: mean probability, share right, images."""
    return [
        [round(row["confidence"], 4), round(row["accuracy"], 4), row["frames"]]
        for row in reliability(np.clip(probability, 0, 1), right)
        if row["frames"]
    ]
