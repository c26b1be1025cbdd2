"""The plots of an evaluation of cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_vision.charts.svg import Chart
from robot_vision.contract.rows import Rows
from robot_vision.heads.classifier.figures import reliability_diagram

FURTHEST_M, FURTHEST_KM = 10.0, 2500.0


def share_over_distance(rows: Rows) -> str:
    """Which share of the frames is within a distance, from the network, and always in the fullest cell."""
    known = np.isfinite(rows["cell_error_m"])
    errors = [rows[word][known] for word in ("cell_error_m", "prior_error_m")]
    unit, furthest = "m", FURTHEST_M
    if np.isfinite(rows["cell_error_km"]).any():
        errors, unit, furthest = [e / 1000 for e in errors], "km", FURTHEST_KM
    far = float(np.clip(max(np.max(e, initial=0.0) for e in errors), 0.1, furthest))
    chart = Chart(
        "Share of frames within a distance",
        f"distance, {unit}",
        "share of frames",
        (0, far),
        (0, 1),
    )
    for error, colour, name, style in zip(
        errors, ("c0", "c4"), ("network", "fullest cell"), ("", "dashed"), strict=True
    ):
        at = np.linspace(0, far, 200)
        share = np.searchsorted(np.sort(error), at, side="right") / max(len(error), 1)
        chart.line(at, share, colour, name, style)
    return chart.render()


def cells(rows: Rows, numbers: Mapping[str, Any]) -> list[str]:
    """Returns the plots of cells."""
    return [share_over_distance(rows), reliability_diagram(numbers)]
