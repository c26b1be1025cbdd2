"""`make bench`: measures every stage and the running node; writes JSON and docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import (
    epistemic,
    inputs,
    machine,
    models,
    node,
    peers,
    places,
    replay,
    report,
    stages,
    steps,
)
from benchmarks.inputs import STREAMS
from benchmarks.limits import limits
from benchmarks.timing import positive
from robot_vision.cli.benchmark import different_conditions, load
from robot_vision.engines.factory import available_engines
from robot_vision.errors import ConfigError

PARTS = (
    "resizing",
    "engines",
    "limits",
    "pipeline",
    "heads",
    "epistemic",
    "replay",
    "steps",
    "node",
    "todays_node",
    "node_engines",
    "cameras",
    "start_up",
    "places",
)
PRECISIONS = ("float32", "bfloat16")
CAMERAS = [1, 2, 4]
ABOUT = ("schema", "date", "command", "machine", "input")
REPETITIONS = 5


def measure(
    parts: list[str], seconds: float, quick: bool, output: Path, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """Runs the parts in their order and returns the report's data, with the rest of an earlier result.

    What is there is written after each part, so that an interrupted run has not measured for nothing.
    """
    images, source = inputs.frames()
    data: dict[str, Any] = {
        "schema": 2,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "machine": machine.describe(),
        "input": {"source": source, "sha256": inputs.sha256(images), "frames": len(images)},
    }
    for name in models.SPECS:
        models.bundle(name, images)
    peers.isolate()
    for number, part in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {part} ...", file=sys.stderr, flush=True)
        data |= _part(part, images, seconds, quick)
        whole = keep(data, earlier or {})
        write(whole, output)
    return whole


def keep(data: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Returns the data with the parts of an earlier result that were not measured now.

    Their date, commit and command are kept, and in what machine, versions or input differ from now.
    """
    whole, kept = dict(data), {}
    if earlier:
        commit = machine.short_commit(earlier["machine"]["commit"], 7)
        origin = f"{earlier['date']}, commit `{commit}`, `{earlier['command']}`"
        names = [line.partition(":")[0] for line in different_conditions(earlier, data)]
        other = f"; not the same: {', '.join(names)}" if names else ""
    for name, found in earlier.items():
        if name not in (*ABOUT, "summary", "kept") and name not in data:
            whole[name] = found
            kept[name] = earlier.get("kept", {}).get(name, origin).removesuffix(other) + other
    if kept:
        whole["kept"] = kept
    whole["summary"] = report.summary(whole)  # each ratio is of one part, so of one run
    return whole


def write(data: dict[str, Any], output: Path) -> None:
    """Writes the JSON, the page and its pictures."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    (output / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")
    (output / "benchmarks.md").write_text(report.markdown(data))
    for name, picture in report.plots(data).items():
        (output / "images" / name).write_text(picture)


def earlier_result(text: str) -> dict[str, Any]:
    """Returns the data of an earlier result's file: an argument's type."""
    try:
        return load(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _part(part: str, images: list[Any], seconds: float, quick: bool) -> dict[str, Any]:
    precisions = PRECISIONS[: 1 if quick else 2]
    if part == "resizing":
        return {part: stages.resizing(images, seconds)}
    if part == "engines":
        return {part: stages.engines(images, 2 * seconds)}
    if part == "limits":
        return {part: limits(images, seconds)}
    if part in ("pipeline", "heads"):
        measured = getattr(stages, part)
        return {f"{part}_{p}": measured(images, seconds, p) for p in PRECISIONS}
    if part == "epistemic":
        return {part: epistemic.cost(images, seconds)}
    if part == "replay":
        return {part: replay.whole_bag(images, quick)}
    if part == "steps":
        return {part: steps.steps(images, seconds)}
    if part == "node":
        repetitions = 1 if quick else REPETITIONS
        found = {}
        for precision in precisions:
            own = own_rates(images, precision, seconds / 2)
            brief = quick or precision != PRECISIONS[0]
            found[f"node_{precision}"] = node.live(
                images, own, seconds, precision, repetitions, brief
            )
            found[f"node_streams_{precision}"] = node.live(
                images, own, seconds, precision, min(repetitions, 3), brief, streams=STREAMS
            )
        return found
    if part == "todays_node":
        return {part: node.todays(images, seconds, 1 if quick else 3)}
    if part == "node_engines":
        names = [name for name in available_engines() if name != "torch" or not quick]
        return {part: node.engines(images, 100.0, seconds, names)}
    if part == "cameras":
        some, ends = CAMERAS[: 2 if quick else 3], [CAMERAS[0], CAMERAS[-1]]
        found = {part: node.many_cameras(images, 100.0, seconds, some, "float32")}
        if not quick:
            found["cameras_bfloat16"] = node.many_cameras(images, 400.0, seconds, ends, "bfloat16")
        return found
    if part == "start_up":
        return {part: node.start_up(images, 2 if quick else 5)}
    assert part == "places", part
    return {part: places.lookups(quick)}


def own_rates(images: list[Any], precision: str, seconds: float) -> Callable[[], dict[str, float]]:
    """Returns what measures the rates (Hz) of the bare engine and of the pipeline at 480p."""

    def measured() -> dict[str, float]:
        times = stages.pipeline(images, seconds, precision)["times"]
        return {
            "engine": 1e3 / times["bare engine"]["p50_ms"],
            "pipeline": 1e3 / times["pipeline 480p"]["p50_ms"],
        }

    return measured


def main() -> int:
    """Parses arguments, measures, writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"some of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--seconds", type=positive, default=8.0, help="time for each comparison")
    parser.add_argument("--quick", action="store_true", help="short, to see that it runs")
    parser.add_argument("--output", type=Path, default=inputs.ROOT / "docs",
                        help="folder for benchmarks.json and benchmarks.md")  # fmt: skip
    parser.add_argument("--keep", type=earlier_result, metavar="JSON",
                        help="earlier result to take from what is not measured now; it is said")  # fmt: skip
    args = parser.parse_args()
    parts = [p for p in PARTS if p in args.only]
    seconds = 2.0 if args.quick else args.seconds
    print(report.markdown(measure(parts, seconds, args.quick, args.output, args.keep)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
