"""The plots of DroNet's evaluation."""

from __future__ import annotations

import numpy as np

from robot_vision.charts.svg import Chart
from robot_vision.contract.rows import Rows


def over_time(rows: Rows, word: str, low: float) -> list[str]:
    """Returns for each recording that has a truth what was said and what is true, against time."""
    charts = []
    for recording, (a, b) in zip(rows.scores.recordings, rows.scores.bounds, strict=True):
        true = rows[f"true_{word}"][a:b]
        if not np.isfinite(true).any():
            continue
        time = rows.scores.relative_s[a:b]
        title = f"{word.capitalize()} over time"
        if len(rows.scores.recordings) > 1:
            title += f": {recording['name']}"
        span = (0.0, max(float(time[-1]), 1e-3))
        chart = Chart(title, "time, s", word, span, (low, 1.0))
        chart.line(time, true, "c4", "true", "dashed")
        chart.line(time, rows[word][a:b], "c0", "network")
        charts.append(chart.render())
    return charts
