"""`report.html`: one file without scripts that loads nothing, for light and dark screens and for paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from robot_vision.charts import svg
from robot_vision.charts.page import page
from robot_vision.charts.tables import html_table
from robot_vision.contract.metrics import Shown
from robot_vision.contract.rows import Scores
from robot_vision.evaluation.measure.metrics import sections_of
from robot_vision.evaluation.report.compare import Change, change_lines
from robot_vision.evaluation.report.headlines import Chapter, Headline, Number, chapters
from robot_vision.evaluation.report.requirements import RequirementVerdict, summary
from robot_vision.evaluation.report.text import (
    association_lines,
    said_lines,
    speed_line,
    summary_line,
    unmeasured,
)

Picture = int | tuple[str, int]
_BETTER = '<span class="bad" title="better than the network">&#9650;</span>'


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        title: of the page.
        metrics: see `metrics.summarise`.
        scores: the rows.
        command: that made it.
        facts: configuration, hashes and versions, a table each by its heading.
        images: pictures of rows by their number, and of the map's by `-1 - number`; those onto which a head's
            answer is drawn by head and number.
        changes: since an earlier evaluation.
        notes: on the comparison.
        verdicts: on what was required.
    """

    title: str
    metrics: Mapping[str, Any]
    scores: Scores
    command: str = ""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: Mapping[Picture, str] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    notes: Sequence[str] = ()
    verdicts: Sequence[RequirementVerdict] = ()


@dataclass(frozen=True)
class Shelf:
    """A gallery of frames.

    Attributes:
        title: of it.
        shown: its frames.
        head: whose answers are drawn onto them; empty for none.
    """

    title: str
    shown: Sequence[Shown]
    head: str = ""


def shown_frames(scores: Scores) -> dict[str, list[Shelf]]:
    """Returns each section's galleries, whose pictures `Report.images` should hold."""
    return {
        key: [
            Shelf(g.title, g.frames(rows), rows.head.name if g.drawn else "")
            for rows, section in given
            for g in section.galleries
        ]
        for key, given in sections_of(scores).items()
    }


def render(report: Report) -> str:
    """Returns the page."""
    metrics = report.metrics
    level = 100 * metrics["bootstrap"]["confidence"]
    out = [f"<h1>{escape(report.title)}</h1>", _verdicts(report.verdicts)]
    out.append(f'<p class="lead">{escape(summary_line(metrics))}</p>')
    galleries, given = shown_frames(report.scores), sections_of(report.scores)
    every = chapters(metrics)
    for chapter in every:
        if not chapter.lines:
            if lacks := unmeasured(chapter):
                out.append(f"{_heading(chapter, metrics)}<p><b>{escape(lacks)}</b></p>")
            continue
        out.append(_headline_table(chapter, level, metrics))
        figures = [
            figure
            for rows, section in given[chapter.key]
            if section.figures
            for figure in section.figures(rows, chapter.numbers)
        ]
        if figures:
            out.append(f'<div class="grid">{"".join(f"<div>{f}</div>" for f in figures)}</div>')
        out += [_gallery(shelf, report) for shelf in galleries[chapter.key] if shelf.shown]
    said = said_lines(report.scores)
    if said:
        items = "".join(f"<li>{escape(line)}</li>" for line in said)
        out.append(f"<h2>What the network said</h2><ul>{items}</ul>")
    out += [_table(chapter, metrics) for chapter in every if chapter.section.table]
    if report.changes:
        out.append(_changes(report))
    out.append(_used(metrics))
    out.append(_speed(metrics))
    for heading, facts in report.facts.items():
        out.append(f"<h2>{escape(heading)}</h2>{_facts(facts)}")
    if report.command:
        out.append(f"<h2>Command</h2><pre>{escape(report.command)}</pre>")
    missed = any(not verdict.kept for verdict in report.verdicts)
    return page(f"{'MISSED: ' if missed else ''}{report.title}", "".join(out))


def _verdicts(verdicts: Sequence[RequirementVerdict]) -> str:
    """What was required comes first, so that nobody has to look for what failed."""
    if not verdicts:
        return ""
    items = "".join(
        f'<li class="{"good" if v.kept else "bad"}">{"✓" if v.kept else "✗"} {escape(str(v))}</li>'
        for v in sorted(verdicts, key=lambda v: v.kept)
    )
    look = "" if all(v.kept for v in verdicts) else " missed"
    return f'<div class="verdict{look}"><b>{escape(summary(verdicts))}</b><ul>{items}</ul></div>'


def _heading(chapter: Chapter, metrics: Mapping[str, Any]) -> str:
    meaning = chapter.section.meaning
    text = meaning if isinstance(meaning, str) else meaning(metrics["settings"], chapter.numbers)
    return f'<h2>{escape(chapter.title)}</h2><p class="quiet">{escape(text)}</p>'


def _headline_table(chapter: Chapter, level: float, metrics: Mapping[str, Any]) -> str:
    numbers, baselines = chapter.numbers, chapter.baselines
    header = [
        escape(chapter.counted),
        f'network <small class="quiet">[{level:g} % interval]</small>',
        *(escape(baseline.words) for baseline in baselines.values()),
    ]
    rows = []
    for row in chapter.lines:
        value = row.number.text(row.metric.unit, interval=False)
        interval = _interval(row.number, row.metric.unit)
        rows.append(
            [
                escape(row.metric.words),
                f"<b>{escape(value)}</b> <small>{escape(interval)}</small>",
                *(_baseline_cell(row, n, b.bound) for n, b in baselines.items()),
            ]
        )
    texts = [f"{b.words}: {numbers['baselines'][n]['text']}" for n, b in baselines.items()]
    if any(_BETTER in cell for row in rows for cell in row):
        texts.append("▲: better than the network")
    return (
        f"{_heading(chapter, metrics)}{html_table(header, rows)}"
        f'<p class="quiet">{escape("; ".join(texts))}</p>'
    )


def _interval(number: Number, unit: str) -> str:
    text = number.text(unit)
    return text[text.index("[") : text.index("]") + 1] if "[" in text else ""


def _baseline_cell(row: Headline, name: str, bound: bool) -> str:
    baseline = row.baselines.get(name)
    if baseline is None or baseline.value is None:
        return ""
    text = escape(baseline.text(row.metric.unit, interval=False))
    # The bound knows the truth; nobody is blamed for not reaching it.
    if bound or row.number.value is None or row.number.value == baseline.value:
        return text
    beaten = (row.number.value > baseline.value) == row.metric.more_is_better
    return text if beaten else f"{text} {_BETTER}"


def _gallery(shelf: Shelf, report: Report) -> str:
    relative = report.scores.relative_s
    owner = report.scores.owner
    out = [f'<h3>{escape(shelf.title)}</h3><div class="frames">']
    some = False
    for item in shelf.shown:
        first = report.images.get(item.row)
        if not first:
            continue
        some = True
        images, kind = _image(first), ""
        key: Picture = (shelf.head, item.row)
        if item.match >= 0:
            start = report.scores.bounds[owner[item.row]][0]
            key = -1 - item.match if report.scores.has_map else start + item.match
        if second := report.images.get(key):
            images, kind = images + _image(second), ' class="pair"'
        lines = "<br>".join(escape(line) for line in item.lines)
        name = report.scores.recordings[owner[item.row]]["name"]
        place = f"{name}, {relative[item.row]:.2f} s"
        out.append(
            f'<figure{kind}><label class="zoom"><input type="checkbox" aria-label="enlarge">{images}'
            f"</label><figcaption>{lines}<br>"
            f'<span class="quiet">{escape(place)}</span></figcaption></figure>'
        )
    return "".join([*out, "</div>"]) if some else ""


def _image(data: str) -> str:
    return f'<img alt="frame" src="{data}">'


def _table(chapter: Chapter, metrics: Mapping[str, Any]) -> str:
    assert chapter.section.table is not None
    header, rows = chapter.section.table(chapter.numbers)
    cells = [[escape(cell) for cell in row] for row in rows]
    table = html_table([escape(cell) for cell in header], cells, sort=True)
    return f"{_heading(chapter, metrics)}{table}"


def _changes(report: Report) -> str:
    lines = change_lines(list(report.changes), list(report.notes))
    looks = {"better": "good", "worse": "bad"}
    rows = []
    for change, cells in zip(report.changes, lines, strict=True):
        look = looks.get(change.verdict, "quiet")
        verdict = f'<span class="{look}">{escape(cells[-1])}</span>'
        rows.append([*(escape(cell) for cell in cells[:-1]), verdict])
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    table = html_table(["number", "old", "new", "difference", "verdict"], rows, sort=True)
    return f"<h2>Since the earlier evaluation</h2>{table}<ul>{notes}</ul>"


def _used(metrics: Mapping[str, Any]) -> str:
    lines = association_lines(metrics)
    boot = metrics["bootstrap"]
    lines.append(
        f"intervals: {boot['method']}, {boot['resamples']} resamples of blocks of "
        f"{boot['block_frames']} frames ({boot['block_s']:.3g} s)"
    )
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>What was used</h2><ul>{items}</ul>"


def _speed(metrics: Mapping[str, Any]) -> str:
    speeds = [r["meta"]["speed"] for r in metrics["recordings"] if r.get("meta", {}).get("speed")]
    if not speeds:
        return ""
    line = escape(speed_line(metrics))
    return (
        f"<h2>Speed</h2><p>{line}</p><div class='grid'><div>{_stage_times(speeds[0])}</div></div>"
    )


def _stage_times(speed: Mapping[str, Any]) -> str:
    """Milliseconds a frame of each stage: median, and 95th percentile."""
    stages = [(n, s) for n, s in speed["stages"].items() if n != "wait"]
    top = max(s["p95_ms"] for _, s in stages) * 1.1 or 1.0
    chart = svg.Chart("Time by stage", "stage", "ms a frame", (0, len(stages)), (0, top))
    chart.x.texts = {i + 0.5: name for i, (name, _) in enumerate(stages)}
    for i, (_, s) in enumerate(stages):
        words = ("median", "95th percentile") if i == 0 else ("", "")
        chart.bars(np.array([i + 0.15, i + 0.5]), np.array([s["p50_ms"]]), "c0", words[0])
        chart.bars(np.array([i + 0.5, i + 0.85]), np.array([s["p95_ms"]]), "c1", words[1])
    return chart.render()


def _facts(facts: Mapping[str, Any]) -> str:
    rows = []
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append(f'<tr><td>{escape(key)}</td><td class="hash">{escape(text)}</td></tr>')
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'
