"""Makes the uncertainty of depth true: nine tenths of the true depths lie within their intervals."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers
from robot_vision.heads.depth.answer import INTERVAL, REACH
from robot_vision.heads.depth.evaluation import HALF
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.statistics.bootstrap import Resampler, mean
from robot_vision.statistics.judging import Judgement, cross_fit, judge

MIN_IMAGES = 20  # pixels of an image err alike, so images count
_BINS = np.geomspace(1e-3, 1e3, 2001)  # of |error| / sigma: 0.7 percent apart

_LOGS = np.log(_BINS)
_HIGHEST = 0.99  # level that few blocks may ask for: beyond it single pixels decide

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class DepthFitter(Fitter[DepthSpec]):
    """See `Fitter`. All images count the same, however many of their pixels have a truth.

    The factor of sigma is a quantile of |error| / sigma over that of a normal distribution. Pixels of a block
    of time err alike. Pooling the blocks (CDF pooling, Dunn, Wasserman and Ramdas 2018, "Distribution-Free
    Prediction Sets for Two-Layer Hierarchical Models") is right for many of them; of few, the 90 percent
    quantile holds less of a further block. So the level of the quantile is raised until it holds 90 percent
    of each block where the other blocks set it, on average. It is judged by the score of the 90 percent
    quantile (Koenker and Bassett 1978): 0.9 times what |error| / sigma is above it, or 0.1 times what it is
    below.
    """

    parts: ClassVar[tuple[str, ...]] = ("depth",)
    titles: ClassVar[dict[str, str]] = {
        "coverage_90": "within the 90 % interval",
        "coverage_50": "within the 50 % interval",
        "quantile_score": "score of the 90 % quantile",
    }

    def truth(self, part: str) -> str:
        return f"image:{self.head.name}"

    def fit(self, part: str, material: Fit[DepthSpec], options: Any) -> Fitted:
        asked = _Asked(self, material)
        self.require("depth", len(asked.images), MIN_IMAGES, "images with true depths")
        scale, scores, judgement = asked.scaled()
        before, after = (asked.numbers(s, material.resampler) for s in scores)
        left = ""
        if judgement.worse:
            left = (
                f"it stays as it is, since sigma times {scale:.3g} gives a score of the 90 % quantile (less "
                f"is better) of {judgement}"
            )
        found = Fitted({"scale": float(f"{scale:.6g}")}, before, after, len(asked.images), left)
        found.constants = asked.constant(scale)
        key = self.key("depth_sigma")
        found.expected = {key: material.outputs[key].astype(np.float64) * scale}
        where = "" if self.head.name == self.head.kind else f"{self.head.name}: "
        found.said = [f"{where}sigma of depth times {scale:.3g}"]
        return found

    def tune(self, material: Fit[DepthSpec]) -> Fitted:
        asked = _Asked(self, material)
        if not asked.images:
            nothing = "no image has a true depth within the head's range"
            return Fitted({"frames": 0}, {}, {}, 0, nothing)
        scale = asked.scale(np.ones(len(asked.images), bool))
        found = Fitted({"frames": len(asked.images), "scale": scale}, {}, {}, len(asked.images))
        found.constants = asked.constant(scale)
        return found


class _Asked:
    """The images with true depths: how often |error| / sigma falls into each bin, a row of shares each."""

    def __init__(self, fitter: DepthFitter, material: Fit[DepthSpec]) -> None:
        self._depth = material.outputs[fitter.key("depth")]
        self._sigma = material.outputs[fitter.key("depth_sigma")]
        self._truth, self._spec = material.truth, material.spec
        self.images: list[int] = []
        rows = []
        for i, true in enumerate(material.truth):
            if true is not None and len(ratio := self._ratio(i)):
                self.images.append(i)
                which = np.searchsorted(_BINS, ratio)
                rows.append(np.bincount(which, minlength=len(_BINS) + 1) / len(ratio))
        self._shares = np.array(rows).reshape(-1, len(_BINS) + 1)
        self._units, self._folds, self._blocks = (
            v[self.images] for v in (material.units, material.folds, material.blocks)
        )
        self._now = material.constants["scale"]

    def _ratio(self, i: int) -> Array:
        """Returns |error| / sigma (n,) of an image's pixels with truth."""
        true = np.asarray(self._truth[i], np.float64)
        with np.errstate(invalid="ignore"):
            known = (true >= self._spec.minimum) & (true <= self._spec.maximum)
        off = np.abs(np.log(self._depth[i][known].astype(np.float64)) - np.log(true[known]))
        return np.asarray(off / self._sigma[i][known].astype(np.float64))

    def scale(self, rows: Mask) -> float:
        """Returns the factor of sigma for these images."""
        _, block = np.unique(self._blocks[rows], return_inverse=True)
        sums = np.zeros((block.max() + 1, len(_BINS)))
        np.add.at(sums, block, np.cumsum(self._shares[rows], axis=1)[:, :-1])
        images = np.bincount(block)
        at = np.interp(_level(sums, images), sums.sum(axis=0) / images.sum(), _LOGS)
        return float(np.exp(at) / REACH)

    def scaled(self) -> tuple[float, tuple[Array, Array], Judgement]:
        """Returns the factor, scores without it and with the other folds', and whether it is better."""
        every = np.ones(len(self.images), bool)
        scales = np.ones(len(self.images))
        before = self._scores(scales)
        for asked, scale in cross_fit(self._folds, every, self.scale):
            scales[asked] = scale
        after = self._scores(scales)
        return self.scale(every), (before, after), judge(before[:, 2], after[:, 2], self._units)

    def _scores(self, scales: Array) -> Array:
        """Returns for each image the shares within the 90 and 50 percent intervals, and the score (n, 3)."""
        found = []
        for i, scale in zip(self.images, scales, strict=True):
            ratio = self._ratio(i)
            above = ratio - REACH * scale
            score = np.maximum(INTERVAL * above, (INTERVAL - 1) * above)
            inside = [(ratio <= reach * scale).mean() for reach in (REACH, HALF)]
            found.append([*inside, score.mean()])
        return np.array(found).reshape(-1, 3)

    def numbers(self, scores: Array, resampler: Resampler) -> Numbers:
        """Returns the numbers before or after, of their scores (n, 3)."""
        return resampler.headlines(
            {("coverage_90", "coverage_50", "quantile_score"): mean(scores)}, np.array(self.images)
        )

    def constant(self, scale: float) -> dict[str, NDArray[np.float32]]:
        """Returns the head's constant: what it was, times the factor."""
        return {"scale": np.array(self._now * scale, np.float32)}


def _level(sums: Array, images: NDArray[np.int64]) -> float:
    """Returns which quantile of blocks holds INTERVAL of one more block, as each says of the others.

    Args:
        sums: (blocks, bins), shares of |error| / sigma below each of `_BINS`, summed over a block's images.
        images: (blocks,), how many there are.
    """
    if len(sums) < 2:
        return INTERVAL
    others = (sums.sum(axis=0) - sums) / (images.sum() - images)[:, None]
    own = sums / images[:, None]

    def held(level: float) -> float:
        each = [
            np.interp(np.interp(level, o, _LOGS), _LOGS, mine)
            for o, mine in zip(others, own, strict=True)
        ]
        return float(np.average(each, weights=images))

    low, high = INTERVAL, _HIGHEST
    if held(low) >= INTERVAL:
        return low
    if held(high) < INTERVAL:
        return high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) >= INTERVAL else (middle, high)
    return high
