"""How far the class filter should trust its memory: its loss against that trust, on labelled recordings.

A memory makes good frames of bad ones, and late answers at doors. Which weighs more depends on robot,
camera and rooms, so `robot-vision filter --memory-curve` measures it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.sheet import sheet
from robot_vision.charts.svg import Chart
from robot_vision.errors import SourceError
from robot_vision.evaluation.measure.association import associate
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.filters.class_filter import ClassModel
from robot_vision.heads.classifier.evaluation import SMALLEST_PROBABILITY
from robot_vision.studies.filtering.measure import filtered_classes
from robot_vision.truth.tracks import Truth

Array = NDArray[np.float64]

MEMORIES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
_SHOWN = 0.5  # the chart ends there: beyond, the loss soon leaves it


@dataclass(frozen=True, eq=False)
class MemoryCurve:
    """The filter's loss less the classifier's, for each recording and each trust in the memory.

    Attributes:
        names: of the R recordings.
        memories: (M,), increasing from 0.
        raw: (R,), negative log likelihood of the classifier.
        difference: (R, M), that of the filter less `raw`.
    """

    names: tuple[str, ...]
    memories: Array
    raw: Array
    difference: Array

    @property
    def mean(self) -> Array:
        """Over the recordings (M,)."""
        return np.asarray(self.difference.mean(axis=0))

    @property
    def standard_error(self) -> Array:
        """Of the mean, over the recordings (M,); NaN for a single one."""
        count = len(self.difference)
        if count < 2:
            return np.full(len(self.memories), np.nan)
        return np.asarray(self.difference.std(axis=0, ddof=1) / np.sqrt(count))

    def chosen(self) -> float:
        """Returns the least trust whose mean loss is within one standard error of the best.

        The one-standard-error rule of Breiman et al. (Classification and Regression Trees, 1984, 3.4.3) takes
        the simplest model that is as good as the best: here the one that departs least from the classifier.

        Raises:
            SourceError: a single recording, which has no standard error.
        """
        if len(self.difference) < 2:
            raise SourceError("one recording is too few to choose a weight from: give two or more")
        best = int(np.argmin(self.mean))
        allowed = self.mean <= self.mean[best] + self.standard_error[best]
        return float(self.memories[np.flatnonzero(allowed)[0]])


def memory_curve(
    recordings: Sequence[tuple[str, Predictions, Truth]],
    model: ClassModel,
    threshold: float | None,
    memories: Sequence[float] = MEMORIES,
) -> MemoryCurve:
    """Runs the filter with each trust.

    Args:
        recordings: name, predictions of classes and truth of each.
        model: all else that is assumed.
        threshold: see `filtered_classes`.
        memories: what to try; 0 comes first.

    Raises:
        SourceError: a recording without a labelled frame.
    """
    raw, rows = [], []
    for name, predictions, truth in recordings:
        before = _loss(name, predictions, truth)
        raw.append(before)
        rows.append(
            [
                _loss(
                    name,
                    filtered_classes(predictions, replace(model, memory=m), threshold),
                    truth,
                )
                - before
                for m in memories
            ]
        )
    names = tuple(name for name, _, _ in recordings)
    return MemoryCurve(names, np.array(memories, np.float64), np.array(raw), np.array(rows))


def _loss(name: str, predictions: Predictions, truth: Truth) -> float:
    """Returns the mean negative log likelihood over the frames whose true class is known."""
    found = associate(predictions, truth)
    index = {label: i for i, label in enumerate(found.predictions.labels)}
    true = np.array([-1 if n is None else index.get(n, -1) for n in found.labels], np.int64)
    rows = np.flatnonzero(true >= 0)
    if not len(rows) or found.predictions.probabilities is None:
        raise SourceError(f"{name} has no frame whose class is known and predicted")
    p = np.asarray(found.predictions.probabilities, np.float64)[rows, true[rows]]
    return float(-np.log(np.maximum(p, SMALLEST_PROBABILITY)).mean())


def held_out(curve: MemoryCurve) -> Array:
    """Returns for each recording (R,) what the trust gains that is chosen on all others."""
    rows = []
    for i in range(len(curve.names)):
        others = np.arange(len(curve.names)) != i
        rest = replace(curve, raw=curve.raw[others], difference=curve.difference[others])
        rows.append(curve.difference[i, int(np.argmin(np.abs(curve.memories - rest.chosen())))])
    return np.array(rows)


def picture(curves: Mapping[str, MemoryCurve], used: float) -> str:
    """Returns charts side by side as one SVG file.

    Args:
        curves: by the title of their chart.
        used: a trust that is marked in all.
    """
    shown = [(title, curve, curve.memories <= _SHOWN) for title, curve in curves.items()]
    values = np.concatenate([c.difference[:, there].ravel() for _, c, there in shown])
    space = 0.05 * max(float(np.ptp(values)), 1e-6)
    bottom, top = float(values.min()) - space, float(values.max()) + space
    charts = []
    for title, curve, there in shown:
        x = curve.memories[there]
        chart = Chart(
            title, "class_memory", "NLL less the classifier's", (0, _SHOWN), (bottom, top)
        )
        for row in curve.difference:
            chart.line(x, row[there], "c5", style="thin")
        mean, error = curve.mean[there], curve.standard_error[there]
        chart.band(x, mean - error, mean + error, "c0")
        chart.line(x, np.zeros(len(x)), "c1", "classifier", "dashed")
        chart.line(x, mean, "c0", f"mean of {len(curve.names)} bags")
        chart.line([used, used], [bottom, top], "c2", f"in use: {used:g}", "dashed")
        charts.append(chart.render())
    return sheet(charts)


def table_lines(curves: Mapping[str, MemoryCurve]) -> list[list[str]]:
    """Returns rows of a table: the trust, then for each curve the mean, its error, and how many are worse."""
    memories = next(iter(curves.values())).memories
    lines = []
    for i, memory in enumerate(memories):
        cells = [f"{memory:g}"]
        for curve in curves.values():
            change = curve.difference[:, i]
            error = curve.standard_error[i]
            spread = f" ± {error:.4f}" if np.isfinite(error) else ""
            cells += [
                f"{change.mean():+.4f}{spread}",
                f"{int((change > 1e-6).sum())} of {len(change)}",
                f"{change.max():+.4f}",
            ]
        lines.append(cells)
    return lines
