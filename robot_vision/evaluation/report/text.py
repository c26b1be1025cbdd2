"""An evaluation for the terminal and for a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from rich.console import Console
from rich.table import Table

from robot_vision.contract.rows import Scores, model_of
from robot_vision.evaluation.report.compare import Change, change_lines
from robot_vision.evaluation.report.headlines import Chapter, chapters, heads
from robot_vision.text.counts import agreeing, counted

_PROBLEMS = 5  # of each recording that are shown


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Returns the one sentence that says it all."""
    count = len(metrics["recordings"])
    frames = metrics["frames"]
    words = [f"{counted(frames, 'frame')} of {counted(count, 'recording')}"]
    for chapter in chapters(metrics):
        texts = {line.key: line.number.text(line.metric.unit) for line in chapter.lines}
        asked = [key for _, key, _, _ in Formatter().parse(chapter.section.headline) if key]
        if asked and all(key in texts for key in asked):
            counts = chapter.counted not in ("", counted(frames, "frame"))
            note = f" ({chapter.counted})" if counts else ""
            words.append(chapter.section.headline.format(**texts) + note)
    if len(words) == 1:
        words.append(_why_not(metrics))
    return "; ".join(words)


def _why_not(metrics: Mapping[str, Any]) -> str:
    """Returns why nothing was scored."""
    counts = metrics["association"].items()
    truth = {k.partition(":")[0] for k, v in counts if isinstance(v, Mapping) and v.get("found")}
    if not truth:
        return "no truth was found, so nothing could be scored"
    for head in heads(metrics):
        why = head.judge().why_not(metrics["settings"]) if head.name in metrics["heads"] else ""
        if why and head.judge().truth & truth:
            return why
    names = ", ".join(metrics["heads"])
    return f"nothing could be scored: the model ({names}) predicts nothing that the truth covers"


def unmeasured(chapter: Chapter) -> str:
    """Returns that nothing of a chapter could be measured, and of how much; empty where something was."""
    if chapter.lines or not chapter.section.metrics:
        return ""
    counts = [f"{k.replace('_', ' ')} {v}" for k, v in chapter.numbers.items() if type(v) is int]
    return "Nothing of this could be measured" + (f" ({', '.join(counts)})." if counts else ".")


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
    for key in [k for k, v in total.items() if isinstance(v, Mapping) and "missing" in v]:
        words = f"no true {key}"
        missing = {k: v for k, v in total.get(key, {}).get("missing", {}).items() if v}
        if missing:
            reasons = ", ".join(f"{n} {reason}" for reason, n in missing.items())
            lines.append(
                f"{(n := sum(missing.values()))} of {counted(total['frames'], 'frame')} "
                f"{agreeing(n, 'have')} {words}: {reasons}"
            )
    for chapter in chapters(metrics):
        if lacks := unmeasured(chapter):
            lines.append(f"{chapter.title}: {lacks[0].lower()}{lacks[1:].rstrip('.')}")
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


def said_lines(scores: Scores) -> list[str]:
    """Returns lines on the answers where there is no truth to judge them by."""
    return [line for rows in scores.each() for line in rows.head.judge().said(rows)]


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
    for chapter in chapters(metrics):
        if chapter.lines:
            _print_table(console, chapter.title, *chapter.rows())
    if changes:
        header = ["", "old", "new", "difference", ""]
        _print_table(
            console,
            "Since the earlier evaluation",
            header,
            change_lines(list(changes), list(notes)),
        )
    for line in (*association_lines(metrics), *notes):
        console.print(f"- {line}", soft_wrap=True)
    if speed_line(metrics):
        console.print(speed_line(metrics))


def _print_table(console: Console, title: str, header: list[str], cells: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i < 2)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def markdown(
    metrics: Mapping[str, Any], changes: Sequence[Change] = (), notes: Sequence[str] = ()
) -> str:
    """Returns the tables for a pull request."""
    lines = [f"**{summary_line(metrics)}**", ""]
    level = 100 * metrics["bootstrap"]["confidence"]
    for chapter in chapters(metrics):
        header, cells = chapter.rows()
        if cells:
            of = f" ({header[0]})" if header[0] else ""
            lines += [*_markdown_table([chapter.title + of, *header[1:]], cells), ""]
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
