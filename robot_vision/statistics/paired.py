"""What the same images prove of a program against float32: one-sided bounds, each with its limit.

Counts of rare events (an answer that was right is lost) have exact bounds, in which neighbouring frames of a
recording count as one; measures (errors, IoU) have those of a bootstrap over blocks of time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.bootstrap import Resampler, Statistic
from robot_vision.statistics.exact import count_needed, upper_share

CONFIDENCE = 0.95  # one-sided
LEAST = 300  # images: none that is lost of these means at most one percent
LEAST_BLOCKS = 30  # of a bootstrap, which otherwise draws the same few over and over
LEAST_RESAMPLES = 100  # of a bootstrap: the bound by fewer is left to chance
_SLACK = 1e-9  # of a sum of shares

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Bound:
    """One number of a program against float32, and the bound of what it truly is.

    Attributes:
        value: as measured.
        bound: that the truth does not pass, with `CONFIDENCE`.
        limit: that the bound must keep.
        at_least: whether the limit is a lower one.
        count: images that count as one each: pictures, or blocks of a recording.
        needed: about how many are; 0 where there are enough, or where more of the same would not help.
        words: for people, with a place for the value.
    """

    value: float
    bound: float
    limit: float
    at_least: bool
    count: int
    needed: int = 0
    words: str = ""

    @property
    def text(self) -> str:
        """What was measured, for people; empty where there are no words for it."""
        return self.words.format(self.value)

    @property
    def passed(self) -> bool:
        """Whether enough images prove that the limit is kept."""
        kept = self.bound >= self.limit if self.at_least else self.bound <= self.limit
        return kept and not self.needed

    def why(self, name: str) -> str:
        """Returns why it did not pass; empty where it did."""
        if self.passed:
            return ""
        if self.needed:
            return (
                f"not enough images: {name} needs about {self.needed}, and there are {self.count}"
            )
        if not math.isfinite(self.value):
            return f"{name} cannot be measured on {self.count} images"
        side = "at least" if self.at_least else "at most"
        return f"{name} is {self.value:.4g}, bounded by {self.bound:.3g}: it must be {side} {self.limit:g}"


class PairedEvidence:
    """N images on which two programs are compared, and which of them are alike.

    Args:
        blocks: (N,), which images count as one.
        resampler: over the images.
    """

    def __init__(self, blocks: NDArray[np.int64], resampler: Resampler) -> None:
        self.blocks, self.resampler = blocks, resampler

    def at_most(self, hits: Mask, of: Mask, limit: float, words: str = "") -> Bound:
        """Bounds the share of images (N,) that are hit among those that count.

        In a block of several the hits are a share of one; the sum of shares is rounded up.
        """
        _, which = np.unique(self.blocks[of], return_inverse=True)
        sizes = np.bincount(which.reshape(-1))
        shares = np.bincount(which.reshape(-1), weights=hits[of].astype(np.float64)) / sizes
        count, total = len(sizes), float(shares.sum())
        if not count:
            return Bound(
                math.nan, 1.0, limit, False, 0, max(LEAST, count_needed(0.0, limit)), words
            )
        share = total / count
        bound = upper_share(min(count, math.ceil(total - _SLACK)), count, CONFIDENCE)
        needed = 0
        if count < LEAST or bound > limit:
            more = count_needed(share, limit, CONFIDENCE)
            needed = max(LEAST, more) if more else 0
        return Bound(share, bound, limit, False, count, needed if needed > count else 0, words)

    def at_least(self, misses: Mask, of: Mask, limit: float, words: str = "") -> Bound:
        """Bounds from below the share of images that are not missed; see `at_most`."""
        inner = self.at_most(misses, of, 1 - limit)
        return Bound(
            1 - inner.value, 1 - inner.bound, limit, True, inner.count, inner.needed, words
        )

    def ratio(
        self, measures: Sequence[Statistic], of: Mask, limit: float, words: str = ""
    ) -> Bound:
        """Bounds a measure of the program over that of float32, both of the images of a mask, from above.

        Args:
            measures: of the program and of float32.
            of: images (N,) that they are of.
            limit: that the bound must keep.
            words: for people, with a place for the value.
        """
        program, float32 = measures
        return self._drawn(
            lambda w: np.asarray(program(w)) / np.asarray(float32(w)), of, limit, words
        )

    def lost(self, measures: Sequence[Statistic], of: Mask, limit: float, words: str = "") -> Bound:
        """Bounds by how much a measure of the program is below that of float32; see `ratio`."""
        program, float32 = measures
        return self._drawn(
            lambda w: np.asarray(float32(w)) - np.asarray(program(w)), of, limit, words
        )

    def _drawn(self, statistic: Statistic, of: Mask, limit: float, words: str) -> Bound:
        images = int(of.sum())
        blocks = len(np.unique(self.blocks[of]))
        if not images:
            return Bound(math.nan, math.inf, limit, False, 0, LEAST, words)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.asarray(statistic(np.ones((1, images)))).reshape(-1)[0])
            drawn = np.concatenate(
                [
                    np.asarray(statistic(weights[:, of])).reshape(-1)
                    for weights in self.resampler.weights()
                ]
            )
        drawn = drawn[~np.isnan(drawn)]
        # A ratio to an error of zero is infinite, and no reason to leave the draw out.
        bound = float(np.quantile(drawn, CONFIDENCE, method="higher")) if len(drawn) else math.inf
        needed = 0
        if blocks < LEAST_BLOCKS:
            needed = math.ceil(images * LEAST_BLOCKS / blocks)
        if bound > limit > value and math.isfinite(bound):
            # The width of an interval goes with the root of the number.
            needed = max(needed, math.ceil(images * ((bound - value) / (limit - value)) ** 2))
        needed = max(needed, LEAST) if images < LEAST or needed else 0
        if not value <= limit:  # more of the same would not help
            needed = 0
        return Bound(value, bound, limit, False, images, needed, words)


def number_of(statistics: Mapping[Any, Any], key: str) -> Statistic:
    """Returns the statistic of one number out of those by key, or by several keys."""
    for names, statistic in statistics.items():
        if key == names:
            return statistic  # type: ignore[no-any-return]
        if key in names and not isinstance(names, str):
            column = names.index(key)
            return lambda w: np.asarray(statistic(w))[:, column]
    raise AssertionError(key)
