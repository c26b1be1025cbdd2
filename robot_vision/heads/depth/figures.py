"""The plots of a depth head's evaluation."""

from __future__ import annotations

from typing import Any

from robot_vision.charts.svg import Chart


def sparsification_chart(curve: Any) -> list[str]:
    """Returns AbsRel of the pixels that are left against the share that was taken away."""
    if not curve:
        return []
    removed = [100 * share for share in curve["removed"]]
    top = 1.05 * max(curve["abs_rel"] + curve["best"]) or 1.0
    chart = Chart(
        "Errors of the surest pixels",
        "least sure pixels taken away, %",
        "AbsRel of the others",
        (0, removed[-1]),
        (0, top),
    )
    chart.line(removed, curve["abs_rel"], "c0", "by the head's sigma")
    chart.line(removed, curve["best"], "c4", "by the errors themselves", "dashed")
    return [chart.render()]
