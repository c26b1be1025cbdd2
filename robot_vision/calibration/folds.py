"""Which images are alike, which are fitted on together, and how they are resampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.sample import Sample
from robot_vision.messages.stamps import nanoseconds
from robot_vision.statistics.bootstrap import Resampler

FOLD_BLOCK = 50  # neighbouring frames that stay together: in two folds they would flatter the fit
_FRAME_NS = round(1e9 / 30)  # of recordings without stamps


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
