"""What a stress test leaves: tables, charts, and a page that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from robot_vision.charts.page import page as whole_page
from robot_vision.charts.sheet import sheet
from robot_vision.charts.svg import Chart, number
from robot_vision.charts.tables import html_table
from robot_vision.studies.stress.degradations import DEGRADATIONS
from robot_vision.studies.stress.measure import METRICS
from robot_vision.text.counts import counted

Document = Mapping[str, Any]

# A chart's metrics with their colours; those that there are not are left out.
_SHARES = (("accuracy", "c0"), ("ece", "c1"), ("kept", "c2"), ("auroc_clean", "c3"))
_UNKNOWN = ("auroc_unknown", "c3")
_POSE = (("median_m", "c0"), ("sigma_m", "c1"), ("spread_m", "c2"))


def by_degradation(document: Document, what: str = "numbers") -> dict[str, list[dict[str, Any]]]:
    """Returns degradation to its numbers, or `intervals`, at index 0 (good) to 5."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in document["conditions"][1:]:
        rows = found.setdefault(entry["degradation"], [dict(document["conditions"][0][what])])
        rows.append(dict(entry[what]))
    return found


def titles_of(document: Document) -> dict[str, Sequence[str]]:
    """Returns title and text of every metric, in the order of tables."""
    return {**METRICS, **document.get("metrics", {})}


def tables(
    document: Document, metrics: Sequence[str] | None = None, intervals: bool = True
) -> list[str]:
    """Returns one Markdown table for each metric that there is: degradations by strength.

    Args:
        document: of `stress`.
        metrics: names out of `titles_of`; None for all.
        intervals: whether numbers come with theirs.
    """
    lines: list[str] = []
    rows, bounds = by_degradation(document), by_degradation(document, "intervals")
    good = document["conditions"][0]["numbers"]
    known = titles_of(document)
    for name in metrics or known:
        if not any(name in numbers for numbers in [good, *(n for r in rows.values() for n in r)]):
            continue
        title, text = known[name]
        lines += ["", f"{title}: {text}.", ""]
        lines += ["| degradation | strengths | good | 1 | 2 | 3 | 4 | 5 |", "| --- " * 8 + "|"]
        for degradation, numbers in rows.items():
            kind = DEGRADATIONS[degradation]
            strengths = ", ".join(f"{s:g}" for s in kind.strengths)
            ends = bounds[degradation] if intervals else [{}] * len(numbers)
            cells = [_cell(n.get(name), b.get(name)) for n, b in zip(numbers, ends, strict=True)]
            lines.append(f"| {degradation} | {strengths} {kind.unit} | {' | '.join(cells)} |")
    return lines[1:]


def _cell(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def charts(document: Document) -> list[str]:
    """Returns SVG elements: for each degradation what there is of classes, poses and pixels."""
    rows, bounds = by_degradation(document), by_degradation(document, "intervals")
    has_unknown = any("auroc_unknown" in n for r in rows.values() for n in r)
    shares = (*_SHARES[:3], _UNKNOWN) if has_unknown else _SHARES
    found = []
    # One axis for all, so that they can be compared
    most = max((n.get("median_m", 0.0) for r in rows.values() for n in r[:5]), default=0.0)
    of_pixels = tuple((m, f"c{i % 4}") for i, m in enumerate(document.get("headlines", ())))
    highest = max(
        (n.get(m, 0.0) for r in rows.values() for n in r for m, _ in of_pixels), default=0
    )
    kinds = (
        (shares, "classes", "share or probability", 1.0),
        (_POSE, "pose", "metres, median", 1.3 * most),
        (of_pixels, "pixels", "as the legend says", max(1.0, highest)),
    )
    for chosen, what, label, top in kinds:
        for name, numbers in rows.items():
            there = [(m, c) for m, c in chosen if any(m in n for n in numbers)]
            if there and top > 0:
                chart = _chart(f"{name}: {what}", name, label, top)
                _draw(chart, numbers, bounds[name], there, titles_of(document))
                found.append(chart.render())
    return found


def _chart(title: str, name: str, label: str, top: float) -> Chart:
    kind = DEGRADATIONS[name]
    chart = Chart(title, f"strength ({kind.unit})", label, (0, 5), (0, top))
    chart.x.texts = dict(enumerate(["good", *(number(s) for s in kind.strengths)]))
    return chart


def _draw(
    chart: Chart,
    numbers: Sequence[Mapping[str, float]],
    bounds: Sequence[Mapping[str, Sequence[float]]],
    lines: Sequence[tuple[str, str]],
    titles: Mapping[str, Sequence[str]],
) -> None:
    x = np.arange(len(numbers))
    for metric, colour in lines:
        ends = np.array([b.get(metric, (np.nan, np.nan)) for b in bounds], np.float64)
        chart.band(x, ends[:, 0], ends[:, 1], colour)
    for metric, colour in lines:
        y = np.array([n.get(metric, np.nan) for n in numbers])
        chart.line(x, y, colour, titles[metric][0])
        chart.points(x, y, colour)


def picture(document: Document) -> str:
    """Returns all charts as one SVG file, for light and dark pages."""
    return sheet(charts(document))


def page(document: Document) -> str:
    """Returns `report.html`."""
    model, recording = document["model"], document["recording"]
    title = f"Stress test of {model['name']}"
    facts = {
        "command": document.get("command", ""),
        "model": f"{model['name']} sha256 {model['sha256']}",
        "engine": document["engine"],
        "recording": f"{recording['name']}, {recording['frames']} frames, sha256 {recording['sha256']}",
        "unknown frames": (document["unknown"] or {}).get("name", "none"),
        "unknown threshold": document["threshold"],
        "plan": document["plan"],
        "problems": "; ".join(document["problems"]) or "none",
    }
    figures = "".join(f"<div>{chart}</div>" for chart in charts(document))
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="hash">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    lead = (
        f"{recording['name']}, made worse in {len(by_degradation(document))} ways at five strengths. Each "
        f"number is of {counted(recording['frames'], 'frame')}; bands and brackets are 95 % intervals."
    )
    return whole_page(
        title,
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><div class="grid">{figures}</div>'
        f"{_html_tables(document)}"
        f'<h2>Facts</h2><div class="scroll"><table>{rows}</table></div>',
    )


def _html_tables(document: Document) -> str:
    """What the strengths are, and a table a metric."""
    rows, bounds = by_degradation(document), by_degradation(document, "intervals")
    strengths = [
        [name, *(f"{s:g}" for s in DEGRADATIONS[name].strengths), DEGRADATIONS[name].unit]
        for name in rows
    ]
    names = ["degradation", "good", *map(str, range(1, 6))]
    cells = [[escape(cell) for cell in row] for row in strengths]
    out = ["<h2>Strengths</h2>", html_table([names[0], *names[2:], "unit"], cells)]
    out.append("<h2>Numbers</h2>")
    drawn = {metric for metric, _ in (*_SHARES, *_POSE)} | set(document.get("headlines", ()))
    for metric, (title, text) in titles_of(document).items():
        lines = [
            [escape(name), *(_cell(n.get(metric), b.get(metric)) for n, b in pairs)]
            for name, numbers in rows.items()
            if (pairs := list(zip(numbers, bounds[name], strict=True)))
        ]
        if any(cell for line in lines for cell in line[1:]):
            out.append(
                f"<details{' open' if metric in drawn else ''}><summary><b>{escape(title)}</b>: "
                f"{escape(text)}</summary>{html_table(names, lines, sort=True)}</details>"
            )
    return "".join(out)
