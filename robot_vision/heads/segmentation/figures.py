"""The plots of a segmentation's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.svg import Chart


def class_bars(labels: Sequence[str], iou: NDArray[np.float64]) -> str:
    """IoU (K,) of each class; none where it is NaN."""
    chart = Chart("IoU of each class", "class", "IoU", (0, len(labels)), (0, 1))
    chart.x.texts = {i + 0.5: label[:9] for i, label in enumerate(labels)}
    edges = np.arange(len(labels) + 1, dtype=np.float64)
    titles = [f"{label}: {value:.3f}" for label, value in zip(labels, iou, strict=True)]
    chart.bars(edges, iou, titles=titles)
    return chart.render()


def reliability_diagram(bins: list[Mapping[str, Any]]) -> str:
    """How often the class of a pixel is right where the network says so."""
    chart = Chart("Reliability of pixels", "confidence", "share right", (0, 1), (0, 1))
    edges = np.array([b["low"] for b in bins] + [1.0])
    pixels = np.array([b["pixels"] for b in bins], np.float64)
    chart.bars(edges, pixels / max(pixels.sum(), 1), "c5", "share of pixels", opacity=0.35)
    chart.line([0, 1], [0, 1], "c4", "perfect", "dashed")
    said, right = (
        np.array([np.nan if b[key] is None else b[key] for b in bins])
        for key in ("confidence", "accuracy")
    )
    chart.line(said, right, "c0", "network")
    chart.points(said, right, "c0")
    return chart.render()
