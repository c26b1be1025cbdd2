"""Makes the confidence of pixels true: the temperature of their softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers, left_alone
from robot_vision.heads.segmentation.evaluation import BIN_SUMS, calibration_error
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.statistics.bootstrap import Statistic, Weights
from robot_vision.statistics.judging import Judgement, judge, log_loss
from robot_vision.statistics.reliability import BINS, bin_of
from robot_vision.statistics.temperature import (
    at_limit,
    cross_fitted,
    fit_temperature,
    log_probabilities,
)

# Pixels of one image are alike, so that few images say little, however many pixels they have.
MIN_IMAGES = 20
_MOST_PIXELS = 60_000  # that the temperature is fitted on

Array = NDArray[np.float64]
Ids = NDArray[np.int64]


def thinned(image: Any, step: int) -> Any:
    """Returns one pixel of `step` each way, of (..., h, w)."""
    return image[..., step // 2 :: step, step // 2 :: step]


def thinning(size: tuple[int, int]) -> int:
    """Returns the step by which a calibration looks at pixels: neighbours say the same again."""
    return max(1, round((size[0] * size[1] / 1024) ** 0.5))


class SegmentationFitter(Fitter[SegmentationSpec]):
    """See `Fitter`. Truth is an image of ids of the answer's size, 255 for none."""

    parts: ClassVar[tuple[str, ...]] = ("segmentation",)
    inner: ClassVar[tuple[str, ...]] = ("thin_logits",)
    titles: ClassVar[dict[str, str]] = {
        "ece": "expected calibration error of pixels",
        "nll": "negative log likelihood of pixels",
    }

    def truth(self, part: str) -> str:
        return f"image:{self.head.name}"

    def knows(self, spec: SegmentationSpec, value: Any) -> bool:
        """Whether there is a truth, and a confidence to make true."""
        return value is not None and spec.confidence

    def fit(self, part: str, material: Fit[SegmentationSpec], options: Any) -> Fitted:
        pixels = _Pixels(material, self.key("thin_logits"))
        self.require(part, int(pixels.images.sum()), MIN_IMAGES, "images with true classes")
        now = float(material.constants["temperature"])
        fitted, before, after, judgement = pixels.fitted(now)
        numbers = pixels.numbers(before), pixels.numbers(after)
        left = left_alone(
            judgement, numbers, f"temperature {fitted:.4g}", f"it stays {now:.4g}", sure=True
        )
        values = {"temperature": float(f"{fitted:.6g}")}
        found = Fitted(values, *numbers, int(pixels.images.sum()), left)
        found.said = [f"{self.key('temperature')}: {fitted:.4f}{at_limit(fitted)}"]
        return found.with_temperature(fitted)

    def tune(self, material: Fit[SegmentationSpec]) -> Fitted:
        pixels = _Pixels(material, self.key("thin_logits"))
        if not pixels.images.any():
            return Fitted({"temperature": 1.0}, {}, {}, 0, "no image has a true class of the model")
        fitted, _, _, judgement = pixels.fitted(1.0)
        return Fitted.tuned(fitted, judgement, int(pixels.images.sum()))


class _Pixels:
    """Some pixels of the images that have a truth.

    Args:
        material: of the fit.
        key: of the logits in its outputs, (N, K, h, w), thinned.

    Attributes:
        images: (N,), which have a pixel with a truth.
    """

    def __init__(self, material: Fit[SegmentationSpec], key: str) -> None:
        step = thinning(material.spec.size)
        logits = material.outputs[key]
        self._material = material
        owner, labels, scores = list[Ids](), list[Ids](), list[NDArray[Any]]()
        for i, truth in enumerate(material.truth):
            if truth is None:
                continue
            true = thinned(np.asarray(truth, np.uint8), step)
            known = true < len(material.spec.labels)
            scores.append(logits[i][:, known].T)
            labels.append(true[known].astype(np.int64))
            owner.append(np.full(int(known.sum()), i, np.int64))
        self._owner, self._labels = _joined(owner), _joined(labels)
        self._logits = np.concatenate([*scores, np.zeros((0, len(material.spec.labels)))])
        self.images = np.bincount(self._owner, minlength=len(material.truth)) > 0

    def fitted(self, now: float) -> tuple[float, Array, Array, Judgement]:
        """Returns the temperature, log probabilities before it and cross-fitted, and whether it helps."""
        every = max(1, -(-len(self._labels) // _MOST_PIXELS))
        z, true = self._logits[::every], self._labels[::every]
        temperature = fit_temperature(z, true, now)
        before = log_probabilities(self._logits, now)
        folds = self._material.folds[self._owner]
        after = cross_fitted(self._logits, self._labels, folds, now)
        was, now_is = (self._of_images(log_loss(np.exp(p)[self._at])) for p in (before, after))
        return temperature, before, after, judge(was, now_is, self._material.units[self.images])

    @property
    def _at(self) -> tuple[Ids, Ids]:
        return np.arange(len(self._labels)), self._labels

    def _of_images(self, values: Array) -> Array:
        """Returns the mean of each image that has pixels."""
        size = len(self.images)
        total = np.bincount(self._owner, weights=values, minlength=size)
        count = np.bincount(self._owner, minlength=size)
        return np.asarray(total[self.images] / count[self.images])

    def numbers(self, log_p: Array) -> Numbers:
        """Returns `ece` and `nll` of log probabilities, with intervals over images."""
        n = len(self.images)
        best = log_p.argmax(axis=1)
        confidence = np.exp(log_p.max(axis=1))
        cell = self._owner * BINS + bin_of(confidence)
        weights = (None, confidence, (best == self._labels).astype(np.float64))
        sums = {
            name: np.bincount(cell, weights=weight, minlength=n * BINS)
            .astype(np.float64)
            .reshape(n, BINS)[self.images]
            for name, weight in zip(BIN_SUMS, weights, strict=True)
        }
        loss = np.bincount(self._owner, weights=-log_p[self._at], minlength=n)[self.images]
        pixels = np.asarray(sums["bin_pixels"].sum(axis=1), np.float64)

        def likelihood(w: Weights) -> Array:
            return np.asarray((w @ loss) / (w @ pixels), np.float64)

        asked: dict[str | tuple[str, ...], Statistic] = {
            "ece": calibration_error(sums),
            "nll": likelihood,
        }
        return self._material.resampler.headlines(asked, self.images)


def _joined(parts: Sequence[Ids]) -> Ids:
    return np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
