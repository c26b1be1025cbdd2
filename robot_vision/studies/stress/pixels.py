"""What a head that says something of each pixel is worth under one degradation: the numbers of its judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Head
from robot_vision.contract.metrics import image_words, measure
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import Bound, score_recording
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.statistics.bootstrap import Headline, Resampler
from robot_vision.studies.stress.degradations import rolled
from robot_vision.truth.images import ImageTrack, TrueImage
from robot_vision.truth.tracks import Truth

Title = tuple[str, str]


def titles(bound: Bound, truth: Truth) -> dict[str, Title]:
    """Returns title and text of each number of the heads whose true images there are."""
    return {
        f"{head.key(section.key)}.{metric.key}": (
            metric.words,
            _place(head.name, section.title)
            + (f" ({metric.unit})" if metric.unit not in ("", "%") else ""),
        )
        for head in _judged(bound, truth)
        for section in head.judge().sections()
        for metric in section.metrics
    }


def _place(head: str, section: str) -> str:
    """Returns where a number stands, saying nothing twice."""
    return section if section.lower().startswith(head.lower()) else f"of {head}, {section}"


def headlines(bound: Bound, truth: Truth) -> list[str]:
    """Returns the names of the numbers by which evaluations sum these heads up."""
    return [
        f"{head.key(section.key)}.{metric.key}"
        for head in _judged(bound, truth)
        for section in head.judge().sections()
        for metric in section.metrics
        if f"{{{metric.key}}}" in section.headline
    ]


def measure_pixels(
    predictions: Predictions,
    truth: Truth,
    resampler: Resampler,
    settings: EvaluationSettings,
    bound: Bound,
    rolls: Sequence[float] | None = None,
) -> dict[str, Headline]:
    """Returns the numbers of `titles` that there are, with their intervals.

    Args:
        predictions: in the order of their stamps.
        truth: of the recording.
        resampler: over these frames.
        settings: of the judges.
        bound: the model's heads with their settings.
        rolls: degrees by which each frame was turned about the optical axis; the truth is turned with it.
    """
    found: dict[str, Headline] = {}
    for head, spec in bound:
        if head not in _judged(bound, truth):
            continue
        own = Predictions(
            predictions.stamps_ns,
            predictions.log_ns,
            recording=predictions.recording,
            meta=predictions.meta,
            more={n: c for n, c in predictions.more.items() if n in head.columns(spec)},
            image_size=predictions.image_size,
        )
        images = {n: truth.images[n] for n in image_words(head).values() if n in truth.images}
        if rolls is not None:
            images = {n: _turned(track, own.stamps_ns, rolls) for n, track in images.items()}
        scores = score_recording(own, Truth(images=images), settings, bound=[(head, spec)])
        rows = next(rows for rows in scores.each() if rows.head.name == head.name)
        rows = replace(rows, settings=settings.of(head.kind))
        for section in head.judge().sections():
            numbers: Mapping[str, Any] = measure([(rows, section)], resampler) or {}
            for metric in section.metrics:
                if metric.key in numbers:
                    found[f"{head.key(section.key)}.{metric.key}"] = numbers[metric.key]
    return found


def _judged(bound: Bound, truth: Truth) -> list[Head[Any, Any]]:
    return [head for head, _ in bound if truth.images.keys() & set(image_words(head).values())]


def _turned(track: ImageTrack, stamps_ns: NDArray[np.int64], rolls: Sequence[float]) -> ImageTrack:
    which = track.at(stamps_ns)
    rows = np.flatnonzero(which >= 0)
    images = [_Turned(track.images[which[i]], rolls[i]) for i in rows.tolist()]
    return ImageTrack(stamps_ns[rows], images, 0, track.text)


@dataclass(frozen=True, eq=False)
class _Turned:
    """A true image as the turned camera sees it; what comes into view is not known."""

    image: TrueImage
    roll_deg: float

    @property
    def none(self) -> tuple[float, ...]:
        return (*self.image.none, self._filling)

    @property
    def unit(self) -> float:
        return self.image.unit

    @property
    def _filling(self) -> float:
        # Of numbers with a unit 0 is none, and 255 is no class.
        return next(iter(self.image.none), 0.0 if self.image.unit != 1 else 255.0)

    def load(self) -> NDArray[Any]:
        stored = self.image.load()
        filling = np.nan if stored.dtype.kind == "f" else self._filling
        return np.asarray(
            rolled(stored, self.roll_deg, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, filling)
        )
