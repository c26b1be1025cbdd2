"""Several charts as one SVG file, for light and dark pages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from robot_vision.charts.page import STYLE as PAGE_STYLE
from robot_vision.charts.svg import STYLE, WIDTH

_GAP = 12


def sheet(charts: Sequence[str], columns: int = 2) -> str:
    """Returns charts of the usual width, row by row.

    Args:
        charts: of `Chart.render`.
        columns: in a row.
    """
    variables = re.search(r":root \{.*?\n(?=\* )", PAGE_STYLE, re.DOTALL)
    assert variables is not None
    heights = [int(float(re.findall(r' height="([^"]+)"', chart)[0])) for chart in charts]
    rows = [max(heights[i : i + columns]) + _GAP for i in range(0, len(charts), columns)]
    width, height = columns * (WIDTH + _GAP), sum(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><style>{variables.group(0)}{STYLE}</style>'
        f'<rect width="{width}" height="{height}" style="fill: var(--page)"/>'
    ]
    for i, chart in enumerate(charts):
        x, y = i % columns * (WIDTH + _GAP), sum(rows[: i // columns])
        parts.append(chart.replace("<svg ", f'<svg x="{x}" y="{y}" ', 1))
    return "".join([*parts, "</svg>\n"])
