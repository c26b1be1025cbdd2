"""`report.html`: one file without scripts that loads nothing, for light and dark screens and for paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from robot_vision.charts import svg
from robot_vision.charts.page import STYLE
from robot_vision.contract.rows import Scores
from robot_vision.evaluation.report import figures as plots
from robot_vision.evaluation.report import pictures
from robot_vision.evaluation.report.compare import Change, change_lines
from robot_vision.evaluation.report.headlines import (
    BASELINES,
    SECTIONS,
    Headline,
    Number,
    baseline_names,
    by_section,
    headlines,
)
from robot_vision.evaluation.report.pictures import Shown
from robot_vision.evaluation.report.text import (
    association_lines,
    said_lines,
    speed_line,
    summary_line,
)
from robot_vision.text.counts import counted

_SHOWN = 6
# Nothing but what the file holds may be shown or run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_MEANINGS = {
    "classification": (
        "How often the most probable class is the true one, and whether probabilities mean what they say. "
        "The class prior always answers with the shares of the classes."
    ),
    "open_set": "Whether the known score tells images of known classes from all others.",
    "uncertainty": (
        "What the model's own threshold calls unknown, and by how much its answers to one image differ where "
        "it answers several times."
    ),
    "pose": (
        "Distance and angle between the estimated and the true camera, in the map's frame, as the robot gets "
        "them. Retrieval answers with the pose of the most similar image."
    ),
    "place": (
        "Whether the most similar image shows the same place: its camera was at most {radius:g} m away and "
        "turned by at most {heading:g} deg. Of {queries} queries {answerable} have such an image in {where}."
    ),
}


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        title: of the page.
        metrics: see `metrics.summarise`.
        scores: the rows.
        command: that made it.
        facts: configuration, hashes and versions, a table each by its heading.
        images: pictures of rows by their number, and of the map's by `-1 - number`.
        changes: since an earlier evaluation.
        notes: on the comparison.
    """

    title: str
    metrics: Mapping[str, Any]
    scores: Scores
    command: str = ""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: Mapping[int, str] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    notes: Sequence[str] = ()


def shown_frames(scores: Scores) -> dict[str, list[Shown]]:
    """Returns the frames of each section's gallery, whose pictures `Report.images` should hold."""
    return {
        "Surest mistakes": pictures.worst_classes(scores, _SHOWN),
        "Furthest off": pictures.worst_poses(scores, _SHOWN),
        "Most confident wrong matches (query left, match right)": pictures.matches(
            scores, _SHOWN, False
        ),
        "Surest right matches": pictures.matches(scores, 2, True),
    }


_GALLERIES = {
    "Surest mistakes": "classification",
    "Furthest off": "pose",
    "Most confident wrong matches (query left, match right)": "place",
    "Surest right matches": "place",
}


def render(report: Report) -> str:
    """Returns the page."""
    metrics = report.metrics
    level = 100 * metrics["bootstrap"]["confidence"]
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(report.title)}</title><style>{STYLE}{svg.STYLE}</style></head><body><main>",
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="lead">{escape(summary_line(metrics))}</p>',
    ]
    figures = plots.figures(report.scores, metrics)
    galleries = shown_frames(report.scores)
    sections = by_section(headlines(metrics))
    for section, rows in sections.items():
        out.append(f"<h2>{escape(SECTIONS[section])}</h2>")
        out.append(f'<p class="quiet">{escape(_meaning(section, metrics))}</p>')
        out.append(_headline_table(rows, level, metrics, section))
        if figures.get(section):
            out.append(
                f'<div class="grid">{"".join(f"<div>{f}</div>" for f in figures[section])}</div>'
            )
        for title, shown in galleries.items():
            if _GALLERIES[title] == section and shown:
                out.append(_gallery(title, shown, report))
    said = said_lines(report.scores)
    if said:
        items = "".join(f"<li>{escape(line)}</li>" for line in said)
        out.append(f"<h2>What the network said</h2><ul>{items}</ul>")
    if metrics.get("trajectory"):
        out.append(_trajectories(metrics["trajectory"]))
    if report.changes:
        out.append(_changes(report))
    out.append(_used(metrics))
    out.append(_speed(metrics))
    for heading, facts in report.facts.items():
        out.append(f"<h2>{escape(heading)}</h2>{_facts(facts)}")
    if report.command:
        out.append(f"<h2>Command</h2><pre>{escape(report.command)}</pre>")
    return "".join([*out, "</main></body></html>\n"])


def _meaning(section: str, metrics: Mapping[str, Any]) -> str:
    text = _MEANINGS[section]
    if section != "place":
        return text
    settings, part = metrics["settings"], metrics["place"]
    return text.format(
        radius=settings["place_radius_m"],
        heading=settings["place_heading_deg"] or 180,
        queries=part["queries"],
        answerable=part["answerable"],
        where=part["looked_up_in"],
    )


def _headline_table(
    rows: list[Headline], level: float, metrics: Mapping[str, Any], section: str
) -> str:
    names = baseline_names(rows)
    part = metrics[section]
    frames = part.get("frames", part.get("queries"))
    if section == "open_set":
        frames = part["known"] + part["unknown"]
    head = "".join(f"<th>{escape(BASELINES.get(n, n))}</th>" for n in names)
    count = "" if frames is None else counted(frames, "frame")
    out = [
        f'<div class="scroll"><table><tr><th>{count}</th><th>network '
        f'<small class="quiet">[{level:g} % interval]</small></th>{head}</tr>'
    ]
    for row in rows:
        cells = "".join(_baseline_cell(row, name) for name in names)
        value = row.number.text(row.unit, interval=False)
        out.append(
            f"<tr><td>{escape(row.words)}</td><td><b>{escape(value)}</b> "
            f"<small>{escape(_interval(row.number, row.unit))}</small></td>{cells}</tr>"
        )
    texts = [
        f"{BASELINES.get(n, n)}: {part['baselines'][n]['text']}"
        for n in names
        if part.get("baselines", {}).get(n, {}).get("text")
    ]
    out.append(f'</table></div><p class="quiet">{escape("; ".join(texts))}</p>')
    return "".join(out)


def _interval(number: Number, unit: str) -> str:
    text = number.text(unit)
    return text[text.index("[") : text.index("]") + 1] if "[" in text else ""


def _baseline_cell(row: Headline, name: str) -> str:
    baseline = row.baselines.get(name)
    if baseline is None or baseline.value is None:
        return "<td></td>"
    text = escape(baseline.text(row.unit, interval=False))
    # The bound knows the truth; nobody is blamed for not reaching it.
    if name == "nearest_pose" or row.number.value is None or row.number.value == baseline.value:
        return f"<td>{text}</td>"
    beaten = (row.number.value > baseline.value) == row.more_is_better
    mark = "" if beaten else ' <span class="bad" title="better than the network">&#9650;</span>'
    return f"<td>{text}{mark}</td>"


def _gallery(title: str, shown: list[Shown], report: Report) -> str:
    relative = report.scores.relative_s
    owner = np.repeat(
        np.arange(len(report.scores.recordings)), [b - a for a, b in report.scores.bounds]
    )
    out = [f'<h3>{escape(title)}</h3><div class="frames">']
    some = False
    for item in shown:
        first = report.images.get(item.row)
        if not first:
            continue
        some = True
        images, kind = _image(first), ""
        if item.match >= 0:
            start = report.scores.bounds[owner[item.row]][0]
            key = -1 - item.match if report.scores.has_map else start + item.match
            second = report.images.get(key)
            images, kind = (
                images + (_image(second) if second else ""),
                ' class="pair"' if second else "",
            )
        lines = "<br>".join(escape(line) for line in item.lines)
        name = report.scores.recordings[owner[item.row]]["name"]
        place = f"{name}, {relative[item.row]:.2f} s"
        out.append(
            f"<figure{kind}>{images}<figcaption>{lines}<br>"
            f'<span class="quiet">{escape(place)}</span></figcaption></figure>'
        )
    return "".join([*out, "</div>"]) if some else ""


def _image(data: str) -> str:
    return f'<img alt="frame" src="{data}">'


def _trajectories(trajectory: Mapping[str, Any]) -> str:
    out = [
        "<h2>Trajectory</h2>",
        '<p class="quiet">Absolute (ATE) and relative (RPE) trajectory errors as evo computes them, root '
        "mean square, after the alignment named. An aligned error says less about a robot than the errors "
        "above.</p>",
        '<div class="scroll"><table><tr><th>recording</th><th>alignment</th><th>ATE, m</th><th>ATE, deg</th>'
        "<th>RPE, m</th><th>RPE, deg</th><th>over</th></tr>",
    ]
    for recording in trajectory["recordings"]:
        for kind, parts in (recording.get("alignments") or {}).items():
            if not parts:
                continue
            for delta in parts.get("rpe") or [{}]:
                cells = [
                    _rmse(parts.get("ate"), "m"),
                    _rmse(parts.get("ate"), "deg"),
                    _rmse(delta, "m"),
                    _rmse(delta, "deg"),
                    f"{delta.get('delta_s', 0):.3g} s" if delta else "",
                ]
                tds = "".join(f"<td>{escape(c)}</td>" for c in cells)
                out.append(
                    f"<tr><td>{escape(recording['name'])}</td><td>{escape(kind)}</td>{tds}</tr>"
                )
    return "".join([*out, "</table></div>"])


def _rmse(part: Mapping[str, Any] | None, unit: str) -> str:
    value = (part or {}).get(f"rmse_{unit}")
    if isinstance(value, Mapping):
        value = value.get("value")
    return "-" if value is None else svg.number(float(f"{value:.4g}"))


def _changes(report: Report) -> str:
    out = [
        "<h2>Since the earlier evaluation</h2>",
        '<div class="scroll"><table><tr><th></th><th>old</th><th>new</th><th>difference</th><th></th></tr>',
    ]
    lines = change_lines(list(report.changes), list(report.notes))
    looks = {"better": "good", "worse": "bad"}
    for change, cells in zip(report.changes, lines, strict=True):
        tds = "".join(f"<td>{escape(c)}</td>" for c in cells[:-1])
        out.append(
            f'<tr>{tds}<td class="{looks.get(change.verdict, "quiet")}">{escape(cells[-1])}</td></tr>'
        )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return "".join([*out, f"</table></div><ul>{notes}</ul>"])


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
    return f"<h2>Speed</h2><p>{line}</p><div class='grid'><div>{plots.stage_times(speeds[0])}</div></div>"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = []
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append(f'<tr><td>{escape(key)}</td><td class="hash">{escape(text)}</td></tr>')
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'
