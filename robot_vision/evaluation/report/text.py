"""An evaluation for the terminal and for a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from robot_vision.contract.rows import Scores, model_of
from robot_vision.evaluation.report.compare import Change, change_lines
from robot_vision.evaluation.report.headlines import (
    BASELINES,
    SECTIONS,
    Headline,
    baseline_names,
    by_section,
    headlines,
)
from robot_vision.text.counts import agreeing, counted

_PROBLEMS = 5  # of each recording that are shown


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Returns the one sentence that says it all."""
    count = len(metrics["recordings"])
    frames = metrics["frames"]
    words = [f"{counted(frames, 'frame')} of {counted(count, 'recording')}"]
    found = {(h.section, h.key): h for h in headlines(metrics)}
    top1, recall = found.get(("classification", "top1")), found.get(("place", "recall_at_1"))
    metres, degrees = found.get(("pose", "median_m")), found.get(("pose", "median_deg"))
    if top1:
        words.append(f"top-1 {top1.number.text('%')}")
    if metres and degrees:
        words.append(
            f"median pose error {metres.number.text('m')} and {degrees.number.text('deg')}"
        )
    if recall:
        words.append(f"recall@1 {recall.number.text('%')}")
    if len(words) == 1:
        words.append(_why_not(metrics))
    return "; ".join(words)


def _why_not(metrics: Mapping[str, Any]) -> str:
    """Returns why nothing was scored."""
    truth = [k for k in ("label", "pose") if metrics["association"].get(k, {}).get("found")]
    if not truth:
        return "no truth was found, so nothing could be scored"
    if "place" in metrics["heads"] and "pose" in truth:
        gap = metrics["settings"]["place_exclude_s"]
        return (
            f"nothing could be scored: beyond {gap:g} s around each image there is none to look it up in "
            "(lower --place-exclude, or give --map-bag)"
        )
    heads = ", ".join(metrics["heads"])
    return f"nothing could be scored: the model ({heads}) predicts nothing that the truth covers"


def table_rows(section: str, rows: Sequence[Headline]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the cells of a section's table."""
    names = baseline_names(list(rows))
    header = ["", "network", *(BASELINES.get(n, n) for n in names)]
    cells = [
        [
            row.words,
            row.number.text(row.unit),
            *(
                row.baselines[n].text(row.unit, interval=False) if n in row.baselines else ""
                for n in names
            ),
        ]
        for row in rows
    ]
    return header, cells


def association_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Returns of which model it is, what could not be used and why, over all recordings."""
    models = {model_of(recording)[1] for recording in metrics["recordings"]} - {""}
    lines = [f"model: {name}" for name in sorted(models)]
    total = metrics["association"]
    for key, words in (
        (
            "unsorted_stamps",
            "had a stamp before that of the frame before (they were sorted)",
        ),
        ("duplicate_stamps", "had a stamp that another one has (the first of each counts)"),
    ):
        if total.get(key):
            lines.append(f"{counted(total[key], 'frame')} {words}")
    for key, words in (("label", "no true label"), ("pose", "no true pose")):
        missing = {k: v for k, v in total.get(key, {}).get("missing", {}).items() if v}
        if missing:
            reasons = ", ".join(f"{n} {reason}" for reason, n in missing.items())
            lines.append(
                f"{(n := sum(missing.values()))} of {counted(total['frames'], 'frame')} "
                f"{agreeing(n, 'have')} {words}: {reasons}"
            )
    for what, count in total.get("truth_refused", {}).items():
        lines.append(
            f"{counted(count, 'entry of the truth was', 'entries of the truth were')} left out: "
            f"{what}"
        )
    for recording in metrics["recordings"]:
        meta, name = recording.get("meta", {}), recording["name"]
        for reason, count in meta.get("refused", {}).items():
            lines.append(
                f"{name}: {counted(count, 'frame could', 'frames could')} not be used ({reason})"
            )
        problems = meta.get("problems", [])
        lines += [f"{name}: {line}" for line in problems[:_PROBLEMS]]
        if len(problems) > _PROBLEMS:
            lines.append(
                f"{name}: {counted(len(problems) - _PROBLEMS, 'more problem is', 'more problems are')} in "
                "metrics.json"
            )
        # Of one bag, what the images lack and what the truth lacks is said once.
        truth = [t for t in recording.get("truth", []) if t.removeprefix("truth: ") not in problems]
        lines += [f"{name}: {line}" for line in truth]
    return lines


def said_lines(scores: Scores, most: int = 8) -> list[str]:
    """Returns which classes the network saw most often, where no labels tell whether it was right."""
    said = scores["predicted_label"][scores["predicted_label"] >= 0]
    if len(said) == 0 or (scores["true_label"] >= 0).any():
        return []
    classes, counts = np.unique(said, return_counts=True)
    lines = []
    for i in np.argsort(-counts, kind="stable")[:most]:
        mean = float(scores["confidence"][scores["predicted_label"] == classes[i]].mean())
        share = 100 * counts[i] / len(said)
        lines.append(
            f"{scores.labels[classes[i]]}: {share:.1f} % of the frames, mean probability {mean:.2f}"
        )
    return lines


def speed_line(metrics: Mapping[str, Any]) -> str:
    """Returns how fast the recordings were replayed; empty if they were not."""
    speeds = [r["meta"]["speed"] for r in metrics["recordings"] if r.get("meta", {}).get("speed")]
    if not speeds:
        return ""
    frames, seconds = sum(s["frames"] for s in speeds), sum(s["seconds"] for s in speeds)
    busy = sum(s["frames"] / s["network_frames_per_second"] for s in speeds)
    return (
        f"{frames / seconds:.1f} frames per second with decoding, {frames / busy:.1f} of the network alone "
        f"(batch {speeds[0]['batch']})"
    )


def print_tables(
    console: Console,
    metrics: Mapping[str, Any],
    changes: Sequence[Change] = (),
    notes: Sequence[str] = (),
) -> None:
    """Prints the headline tables, what could not be used, and what changed."""
    for section, rows in by_section(headlines(metrics)).items():
        header, cells = table_rows(section, rows)
        _print_table(console, SECTIONS[section], header, cells)
    if changes:
        header = ["", "old", "new", "difference", ""]
        _print_table(
            console,
            "Since the earlier evaluation",
            header,
            change_lines(list(changes), list(notes)),
        )
    for line in (*association_lines(metrics), *notes):
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    if speed_line(metrics):
        console.print(speed_line(metrics), highlight=False)


def _print_table(console: Console, title: str, header: list[str], cells: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i < 2)
    for row in cells:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    console.print(table)


def markdown(
    metrics: Mapping[str, Any], changes: Sequence[Change] = (), notes: Sequence[str] = ()
) -> str:
    """Returns the tables for a pull request."""
    lines = [f"**{summary_line(metrics)}**", ""]
    level = 100 * metrics["bootstrap"]["confidence"]
    for section, rows in by_section(headlines(metrics)).items():
        header, cells = table_rows(section, rows)
        lines += [*_markdown_table([SECTIONS[section], *header[1:]], cells), ""]
    if changes:
        header = ["Since the earlier evaluation", "old", "new", "difference", "verdict"]
        lines += [*_markdown_table(header, change_lines(list(changes), list(notes))), ""]
    lines += [f"- {line}" for line in (*association_lines(metrics), *notes)]
    lines.append(
        f"- in brackets: {level:g} % confidence, block bootstrap over time "
        f"(blocks of {metrics['bootstrap']['block_s']:.2g} s)"
    )
    return "\n".join(lines) + "\n"


def _markdown_table(header: list[str], cells: list[list[str]]) -> list[str]:
    rows = [header, ["---", *(["---:"] * (len(header) - 1))], *cells]
    return [f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows]
