"""The plots of a place head's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.svg import Chart
from robot_vision.contract.rows import Rows


def recall_curve(rows: Rows, places: Mapping[str, Any], most: int = 20) -> str:
    """Share of queries with the same place among the k most similar images."""
    rank = rows["place_rank"][rows["place_positives"] > 0]
    k = np.arange(1, most + 1)
    recall = np.array([(rank < n).mean() if len(rank) else 0.0 for n in k])
    chart = Chart("Recall at k", "k, most similar images looked at", "recall", (1, most), (0, 1))
    chart.line(k, recall, "c0", "network")
    chart.points(k, recall, "c0")
    chance = places.get("baselines", {}).get("chance", {})
    known = [
        (n, chance[f"recall_at_{n}"]["value"]) for n in (1, 5, 10, 20) if f"recall_at_{n}" in chance
    ]
    if known:
        chart.line([n for n, _ in known], [v for _, v in known], "c4", "chance", "dashed")
    return chart.render()


def precision_recall_curve(places: Mapping[str, Any]) -> str:
    """Precision against recall as the similarity that is asked for falls."""
    curve = places["precision_recall"]
    chart = Chart("Precision and recall of places", "recall", "precision", (0, 1), (0, 1))
    chart.line([0, *curve["recall"]], [curve["precision"][0], *curve["precision"]], "c0", "network")
    return chart.render()


def distance_histogram(rows: Rows) -> str:
    """True distance of the most similar image, and of the nearest one that there is."""
    columns = [
        ("c0", "most similar", rows["place_error_m"]),
        ("c2", "nearest", rows["nearest_error_m"]),
    ]
    finite = [c[2][np.isfinite(c[2])] for c in columns]
    top = max((float(np.quantile(f, 0.99)) for f in finite if len(f)), default=1.0) or 1.0
    edges = np.linspace(0, top, 31)
    shares: list[NDArray[Any]] = [
        np.histogram(np.minimum(f, top), edges)[0] / max(len(f), 1) for f in finite
    ]
    most = max(float(s.max()) for s in shares)
    chart = Chart(
        "Distance to the match", "true distance, m", "share of queries", (0, top), (0, most * 1.05)
    )
    for (colour, label, _), share in zip(columns, shares, strict=True):
        if colour == "c0":
            chart.bars(edges, share, colour, label)
        else:
            chart.steps(edges, np.append(share, share[-1]), colour, label)
    return chart.render()


def places(rows: Rows, numbers: Mapping[str, Any]) -> list[str]:
    """Returns the plots of places."""
    return [recall_curve(rows, numbers), precision_recall_curve(numbers), distance_histogram(rows)]
