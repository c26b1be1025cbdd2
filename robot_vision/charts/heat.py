"""Tables of counts as SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray


def heat_table(title: str, rows: Sequence[str], counts: NDArray[np.int64], x: str, y: str) -> str:
    """Returns a square table of counts (K, K), shaded by the share of its row (a confusion matrix)."""
    k = len(rows)
    longest = min(max(len(r) for r in rows), 16)
    totals = counts.sum(1)
    digits = len(str(int(totals.max(initial=0)))) + 3
    title_lines = textwrap.wrap(title, 58) or [""]
    lines = (
        f"rows: {y} (with their frames), columns: {x}",
        "blue: right, orange: wrong; the fuller, the larger the share of its row",
    )
    head = 17 * (len(title_lines) + len(lines))
    left, top = 24 + 6.6 * (longest + digits), head + 24 + 4.6 * longest
    cell = float(np.clip(340 / k, 14, 56))
    width = max(left + cell * k + 12 + 3.4 * longest, 8 + 6.0 * max(map(len, lines)))
    height = top + cell * k + 14
    out = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(title)}">',
    ]
    for i, line in enumerate((*title_lines, *lines)):
        look = "title" if i < len(title_lines) else "quiet"
        out.append(f'<text class="{look}" x="4" y="{16 + 17 * i}">{escape(line)}</text>')
    for i in range(k):
        at = top + cell * i
        name = _short(rows[i], longest)
        out.append(
            f'<text x="{left - 6:.1f}" y="{at + cell / 2 + 4:.1f}" text-anchor="end">'
            f"{escape(name)} ({totals[i]})</text>"
            f'<text transform="translate({left + cell * (i + 0.5) + 4:.1f},{top - 6:.1f}) rotate(-45)">'
            f"{escape(name)}</text>"
        )
        for j in range(k):
            share = counts[i, j] / totals[i] if totals[i] else 0.0
            where = f'x="{left + cell * j:.1f}" y="{at:.1f}" width="{cell - 1:.1f}"'
            tip = f"{rows[i]} taken for {rows[j]}: {counts[i, j]} of {totals[i]}"
            out.append(
                f'<rect class="fill c{0 if i == j else 1}" fill-opacity="{0.03 + 0.9 * share:.3f}" {where} '
                f'height="{cell - 1:.1f}"><title>{escape(tip)}</title></rect>'
            )
            if counts[i, j] and cell >= 20:
                out.append(
                    f'<text {"class=on" if share > 0.55 else ""} x="{left + cell * (j + 0.5):.1f}" '
                    f'y="{at + cell / 2 + 4:.1f}" text-anchor="middle">{counts[i, j]}</text>'
                )
    return "".join([*out, "</svg>"]).replace("class=on", 'class="on"')


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
