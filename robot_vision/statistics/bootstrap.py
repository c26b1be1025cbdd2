"""Confidence intervals of what is measured on video, whose frames are not independent.

Moving-block bootstrap (Kuensch 1989): a resample is made of blocks of consecutive frames, drawn with
replacement until it is as long as the original. No block crosses from one recording into another. A
recording is drawn in proportion to its frames over the block's length, so that each frame counts the same
on average, also in recordings shorter than a block. The interval is that of the percentiles.

A statistic is a function of how often each frame counts: it gets weights (b, n), one row a resample, and
returns (b,) or, for several numbers at once, (b, k). Weights of ones give the value itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.settings import BootstrapSettings

Weights: TypeAlias = "NDArray[np.floating[Any]]"  # as text: NumPy before 1.22 cannot say it
Statistic = Callable[[Weights], NDArray[np.float64]]
Headline = dict[str, "float | None"]

_MIN_BLOCKS = 5
_CHUNK_NUMBERS = 2_000_000
_CACHE_NUMBERS = 40_000_000


class Resampler:
    """Draws resamples of some frames.

    Args:
        stamps_ns: int64 (N,), of the frames.
        bounds: first row and end of each recording.
        settings: resamples, block length, confidence and seed.

    Attributes:
        block_frames: length of the blocks. It is `block_s` over the median interval of frames, and at most
            a fifth of all frames, so that there is something to draw from.
    """

    def __init__(
        self,
        stamps_ns: NDArray[np.int64],
        bounds: Sequence[tuple[int, int]],
        settings: BootstrapSettings,
    ) -> None:
        self.count = len(stamps_ns)
        self.settings = settings
        self._bounds = [(a, b) for a, b in bounds if b > a]
        steps = [np.diff(stamps_ns[a:b]) for a, b in self._bounds]
        all_steps = np.concatenate([*steps, np.zeros(0)])
        interval_s = float(np.median(all_steps)) / 1e9 if len(all_steps) else 0.0
        wanted = settings.block_s / interval_s if interval_s > 0 else 1.0
        self.block_frames = max(1, min(round(min(wanted, 1e9)), self.count // _MIN_BLOCKS))
        self._interval_s = interval_s
        self._cache: list[NDArray[np.uint16]] | None = None

    def describe(self) -> dict[str, Any]:
        """Returns plain data on the method."""
        return {
            "method": "moving-block bootstrap over time, percentile interval",
            "confidence": self.settings.confidence,
            "resamples": self.settings.resamples,
            "seed": self.settings.seed,
            "block_s_asked": self.settings.block_s,
            "block_frames": self.block_frames,
            "blocks": self.count // self.block_frames,
            "block_s": self.block_frames * self._interval_s,
        }

    def weights(self) -> Iterator[Weights]:
        """Yields how often each frame counts, float32 (b, N), the same at every call."""
        if self._cache is None and self.count * self.settings.resamples <= _CACHE_NUMBERS:
            self._cache = list(self._draw())
        # float32 holds counts exactly and is half as much to move; sums are made in float64.
        for counts in self._draw() if self._cache is None else self._cache:
            yield counts.astype(np.float32)

    def _draw(self) -> Iterator[NDArray[np.uint16]]:
        if self.count == 0:
            return
        rng = np.random.default_rng(self.settings.seed)
        lengths = np.array([min(self.block_frames, b - a) for a, b in self._bounds])
        starts = np.array([a for a, _ in self._bounds])
        choices = np.array([b - a for a, b in self._bounds]) - lengths + 1
        share = np.array([b - a for a, b in self._bounds]) / lengths
        # Blocks differ in length only where recordings are shorter than a block.
        draws = math.ceil(self.count / int(lengths.min()))
        rows = max(1, _CHUNK_NUMBERS // (self.count + draws))
        left, width = self.settings.resamples, self.count + 1
        while left > 0:
            b = min(rows, left)
            left -= b
            which = rng.choice(len(lengths), (b, draws), p=share / share.sum())
            first = starts[which] + (rng.random((b, draws)) * choices[which]).astype(np.int64)
            size = lengths[which]
            # The last block is cut off where the resample is full.
            before = np.cumsum(size, axis=1) - size
            size = np.clip(self.count - before, 0, size)
            # A block raises the count where it begins and lowers it where it ends.
            begin = first + np.arange(b)[:, None] * width
            steps = np.bincount(begin[size > 0], minlength=b * width)
            steps -= np.bincount((begin + size)[size > 0], minlength=b * width)
            counts = np.cumsum(steps.reshape(b, width)[:, :-1], axis=1)
            yield np.minimum(counts, 65535).astype(np.uint16)

    def headlines(
        self,
        statistics: dict[str | tuple[str, ...], Statistic],
        rows: NDArray[Any] | None = None,
    ) -> dict[str, Headline]:
        """Returns each statistic's value with its interval.

        Args:
            statistics: by name; by several names where one gives several numbers.
            rows: frames that the statistics are about, as an index or mask; None for all. Their weights
                alone are given to them.

        Returns:
            By name `value`, `low` and `high`; None where there is no such number, and for the interval of
            fewer than ten rows. Resamples without any frame that a statistic needs do not count for it.
        """
        index = np.arange(self.count) if rows is None else np.arange(self.count)[rows]
        names = list(statistics)
        values = [_numbers(statistics[n], np.ones((1, len(index)))) for n in names]
        samples: list[list[NDArray[np.float64]]] = [[] for _ in names]
        if len(index):
            for weights in self.weights():
                chosen = weights if len(index) == self.count else weights[:, index]
                for name, collected in zip(names, samples, strict=True):
                    collected.append(_numbers(statistics[name], chosen))
        found: dict[str, Headline] = {}
        for name, value, collected in zip(names, values, samples, strict=True):
            each = (name,) if isinstance(name, str) else name
            drawn = np.concatenate([*collected, np.zeros((0, len(each)))])
            for column, part in enumerate(each):
                low, high = self._interval(drawn[:, column], len(index))
                found[part] = {"value": plain(value[0, column]), "low": low, "high": high}
        return found

    def _interval(
        self, drawn: NDArray[np.float64], frames: int
    ) -> tuple[float | None, float | None]:
        drawn = drawn[np.isfinite(drawn)]
        # One frame, or one that is drawn over and over, says nothing about others.
        if len(drawn) == 0 or frames < 2 * _MIN_BLOCKS:
            return None, None
        tail = (1 - self.settings.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return float(low), float(high)


def _numbers(statistic: Statistic, weights: Weights) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.asarray(statistic(weights), np.float64)
    return result.reshape(len(weights), -1)


def values(statistics: dict[Any, Statistic], count: int) -> dict[str, float]:
    """Returns statistics by name without intervals, of `count` frames that all count once."""
    found: dict[str, float] = {}
    for names, statistic in statistics.items():
        each = (names,) if isinstance(names, str) else names
        row = _numbers(statistic, np.ones((1, count), np.float32))[0]
        found.update(zip(each, row.tolist(), strict=True))
    return found


def plain(value: Any) -> float | None:
    """Returns a float that JSON can hold: None for what is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None


def mean(values: NDArray[Any]) -> Statistic:
    """The mean of (n,), or of each column of (n, k)."""
    numbers = np.asarray(values, np.float64)

    def statistic(w: Weights) -> NDArray[np.float64]:
        total = w.sum(axis=1, dtype=np.float64)
        average: NDArray[np.float64] = (w @ numbers) / (
            total if numbers.ndim == 1 else total[:, None]
        )
        return average

    return statistic


def root_mean_square(values: NDArray[Any]) -> Statistic:
    """The root of the mean square of (n,)."""
    inner = mean(np.asarray(values, np.float64) ** 2)
    return lambda w: np.sqrt(inner(w))


def difference(ours: Statistic, theirs: Statistic) -> Statistic:
    """Ours minus theirs, of the same frames."""

    def statistic(w: Weights) -> NDArray[np.float64]:
        return np.asarray(ours(w)) - np.asarray(theirs(w))

    return statistic


def quantiles(values: NDArray[Any], levels: Sequence[float]) -> Statistic:
    """Quantiles with linear interpolation, as `numpy.quantile` of each value repeated by its weight."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]

    def statistic(w: Weights) -> NDArray[np.float64]:
        cumulative = np.cumsum(w[:, order], axis=1)
        result = np.full((len(w), len(levels)), np.nan)
        for i, row in enumerate(cumulative):
            if len(row) and row[-1] > 0:
                at = (row[-1] - 1) * np.asarray(levels)
                low, high = (
                    ordered[np.searchsorted(row, part(at), side="right")]
                    for part in (np.floor, np.ceil)
                )
                result[i] = low + (high - low) * (at - np.floor(at))
        return result

    return statistic


def group_sums(w: Weights, order: NDArray[Any], starts: NDArray[Any]) -> NDArray[np.float64]:
    """Returns sums (b, g) of weights over groups: `order` brings them together, each begins at `starts`."""
    if len(starts) == 0:
        return np.zeros((len(w), 0))
    return np.asarray(np.add.reduceat(w[:, order], starts, axis=1), np.float64)


def groups(values: NDArray[Any], descending: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the order (n,) that sorts values, and where each distinct one begins in it (g,)."""
    keys = -values if descending else values
    order = np.argsort(keys, kind="stable")
    if len(order) == 0:
        return order, order
    change = np.diff(keys[order]) != 0
    return order, np.concatenate([[0], np.flatnonzero(change) + 1])
