"""The plots of a classifier's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_vision.charts.heat import heat_table
from robot_vision.charts.svg import Chart
from robot_vision.contract.rows import UNKNOWN_LABEL, Rows

MOST_CLASSES = 24


def reliability_diagram(classes: Mapping[str, Any]) -> str:
    """How often the network is right where it says so."""
    bins = classes["reliability"]
    edges = np.array([b["low"] for b in bins] + [1.0])
    chart = Chart(
        "Reliability", "probability of the predicted class", "share right", (0, 1), (0, 1)
    )
    frames = max(sum(b["frames"] for b in bins), 1)
    share = np.array([b["frames"] / frames for b in bins])
    chart.bars(edges, share, "c5", "share of frames", opacity=0.35)
    right = np.array([np.nan if b["accuracy"] is None else b["accuracy"] for b in bins])
    said = np.array([np.nan if b["confidence"] is None else b["confidence"] for b in bins])
    chart.line([0, 1], [0, 1], "c4", "perfect", "dashed")
    # As large as its share of the frames: a bin of two frames says little
    for i in range(len(bins)):
        radius = 2.5 + 7 * float(np.sqrt(share[i]))
        label = "" if i else "network (the larger, the more frames)"
        chart.points(said[i : i + 1], right[i : i + 1], "c0", label, radius=radius)
    return chart.render()


def confusion_matrix(classes: Mapping[str, Any]) -> str:
    """What is taken for what; of many classes those with the most frames."""
    counts = np.array(classes["confusion"]["counts"], np.int64)
    labels = list(classes["labels"])
    title = "Confusion matrix"
    seen = counts.sum(0) + counts.sum(1)
    if len(labels) > MOST_CLASSES:
        keep = np.sort(np.argsort(-seen, kind="stable")[: min(MOST_CLASSES, int((seen > 0).sum()))])
        title += f" (the {len(keep)} of {len(labels)} classes with the most frames)"
        counts, labels = counts[np.ix_(keep, keep)], [labels[i] for i in keep]
    return heat_table(title, labels, counts, "predicted", "true")


def risk_coverage_curve(classes: Mapping[str, Any]) -> str:
    """The error rate of the surest share of the frames."""
    curve = classes["risk_coverage"]
    top = max([0.05, *curve["risk"]])
    chart = Chart(
        "Risk and coverage",
        "share of frames answered, most confident first",
        "error rate",
        (0, 1),
        (0, top),
    )
    chart.line([0, *curve["coverage"]], [curve["risk"][0], *curve["risk"]], "c0", "network")
    whole = curve["risk"][-1]
    chart.line([0, 1], [whole, whole], "c4", "random order", "dashed")
    return chart.render()


def known_score_histogram(rows: Rows) -> str:
    """The known score of frames whose class the model knows, and of all others."""
    label, score = rows["true_label"], rows["known_score"]
    fine = np.isfinite(score)
    parts = [
        ("c0", "known", score[fine & (label >= 0)]),
        ("c1", "unknown", score[fine & (label == UNKNOWN_LABEL)]),
    ]
    both = np.concatenate([part for *_, part in parts])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, 31)
    shares = [np.histogram(part, edges)[0] / max(len(part), 1) for *_, part in parts]
    top = max(float(s.max()) for s in shares) * 1.05
    chart = Chart("Known score", "known score", "share of frames", (edges[0], edges[-1]), (0, top))
    chart.bars(edges, shares[0], "c0", "known", opacity=0.6)
    chart.steps(edges, np.append(shares[1], shares[1][-1]), "c1", "unknown")
    return chart.render()


def classes(rows: Rows, numbers: Mapping[str, Any]) -> list[str]:
    """Returns the plots of classes."""
    return [confusion_matrix(numbers), reliability_diagram(numbers), risk_coverage_curve(numbers)]
