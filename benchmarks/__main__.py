"""`make bench`: measures every stage and the running node; writes JSON and docs/benchmarks.md."""

from __future__ import annotations

# Before the imports below, which take seconds in which Ctrl-C may come.
if __name__ == "__main__":
    from benchmarks.interrupts import end_quietly

    end_quietly()

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import (
    dense,
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
from benchmarks.quiet import WATCH
from benchmarks.timing import positive
from robot_vision.cli.benchmark import different_conditions, load
from robot_vision.errors import ConfigError

PARTS = (
    "resizing",
    "engines",
    "limits",
    "pipeline",
    "heads",
    "dense_heads",
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
PRECISIONS = ("float32", "bfloat16", "int8")
NODE_PRECISIONS = ("float32", "int8")
CAMERAS = [1, 2, 4]
ABOUT = ("schema", "date", "command", "machine", "input")
NOT_QUICK = ("epistemic", "node_engines", "cameras", "places")
REPETITIONS = 2
SECONDS, QUICK_SECONDS = 2.0, 1.0
# Together with what the parts take: 25 minutes for a whole run, 4 for a quick one.
REPEATS_S, QUICK_REPEATS_S = 120.0, 20.0


def measure(
    parts: list[str], seconds: float, quick: bool, output: Path, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """Runs the parts in their order and returns the report's data, with the rest of an earlier result.

    What is there is written to `unfinished(output)` after each part, so that an interrupted run has not
    measured for nothing.
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
    begun = time.monotonic()
    since: dict[str, int] = {}
    figures: dict[str, list[str]] = {}
    WATCH.repeats_s = QUICK_REPEATS_S if quick else REPEATS_S
    for number, part in enumerate(parts, 1):
        minutes = (time.monotonic() - begun) / 60
        print(f"[{number}/{len(parts)}] {part} (after {minutes:.1f} min) ...", file=sys.stderr)
        since[part] = len(WATCH.trials)
        found = _part(part, images, seconds, quick)
        figures[part] = list(found)
        data |= found
        # Of all parts again: a faster moment says that an earlier one was slow.
        ends = [*list(since.values())[1:], len(WATCH.trials)]
        data["quiet"] = {
            "repeated": WATCH.repeated,
            "parts": {
                name: {"figures": figures[name], **WATCH.found(s, e)}
                for (name, s), e in zip(since.items(), ends, strict=True)
            },
        }
        whole = keep(data, earlier or {})
        output.mkdir(parents=True, exist_ok=True)
        unfinished(output).write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def unfinished(output: Path) -> Path:
    """Returns where a run keeps what it has measured until it is over."""
    return output / "benchmarks.unfinished.json"


def finish(data: dict[str, Any], output: Path) -> None:
    """Writes JSON, page and pictures; of a disturbed run the JSON alone, in a file of its own.

    Raises:
        ConfigError: trials stayed disturbed; it says how to repeat their parts alone.
    """
    parts = data["quiet"]["parts"]
    disturbed = {name: found for name, found in parts.items() if found["disturbed"]}
    if not disturbed:
        write(data, output)
        unfinished(output).unlink(missing_ok=True)
        return
    aside = unfinished(output).replace(output / "benchmarks.disturbed.json")
    trials = sum(found["trials"] for found in parts.values())
    stayed = sum(found["disturbed"] for found in disturbed.values())
    reason = next(iter(disturbed.values()))["reasons"][0]
    settings = re.sub(r" --(only|keep)( (?!--)\S+)+", "", data["command"]).split()[3:]
    again = " ".join([*settings, "--only", *disturbed, "--keep", str(aside)])
    raise ConfigError(
        f"the machine was disturbed in {stayed} of {trials} trials, as {reason}: no page is written. End "
        f"other programs and repeat the parts of these trials alone: make bench BENCH_ARGS='{again}'"
    )


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
        if name not in (*ABOUT, "quiet", "summary", "kept") and name not in data:
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
    """Returns the data of an earlier result's file: an argument's type; of disturbed parts nothing."""
    try:
        data = load(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    for found in data.get("quiet", {}).get("parts", {}).values():
        for name in found["figures"] if found["disturbed"] else ():
            del data[name]
    return data


def _part(part: str, images: list[Any], seconds: float, quick: bool) -> dict[str, Any]:
    if part == "resizing":
        return {part: stages.resizing(images, seconds)}
    if part == "engines":
        return {part: stages.engines(images, 2 * seconds)}
    if part == "limits":
        return {part: limits(images, seconds)}
    if part in ("pipeline", "heads"):
        measured = getattr(stages, part)
        return {f"{part}_{p}": measured(images, seconds, p) for p in PRECISIONS}
    if part == "dense_heads":
        return {
            f"{part}_{p}": dense.dense_heads(images, seconds, p)
            for p in PRECISIONS[: 1 if quick else 2]
        }
    if part == "epistemic":
        return {part: epistemic.cost(images, seconds)}
    if part == "replay":
        return {part: replay.whole_bag(images, quick)}
    if part == "steps":
        return {part: steps.steps(images, seconds)}
    if part == "node":
        repetitions = 1 if quick else REPETITIONS
        found = {}
        for precision in NODE_PRECISIONS[: 1 if quick else 2]:
            own = own_rates(images, precision, seconds / 2)
            for name, streams in (("node", 1), ("node_overlapping", STREAMS)):
                found[f"{name}_{precision}"] = node.live(
                    images, own, seconds, precision, repetitions, quick, streams
                )
        return found
    if part == "todays_node":
        return {part: node.todays(images, seconds, 1 if quick else 2)}
    if part == "node_engines":
        return {part: node.engines(images, 100.0, seconds, quick)}
    if part == "cameras":
        some, ends = CAMERAS[: 2 if quick else 3], [CAMERAS[0], CAMERAS[-1]]
        found = {part: node.many_cameras(images, 100.0, seconds, some, "float32", quick)}
        if not quick:
            found["cameras_int8"] = node.many_cameras(images, 400.0, seconds, ends, "int8", quick)
        return found
    if part == "start_up":
        return {part: node.start_up(images, 1 if quick else 5)}
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
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART",
                        help=f"some of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--seconds", type=positive, help="time for each comparison "
                        f"(default: {SECONDS:g}, quick: {QUICK_SECONDS:g})")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="under 4 minutes, to see that it runs; fewer comparisons, and without "
                        f"{', '.join(NOT_QUICK)}")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder for benchmarks.json and benchmarks.md (default: docs, quick: "
                        "build/benchmarks)")  # fmt: skip
    parser.add_argument("--keep", type=earlier_result, metavar="JSON",
                        help="earlier result to take from what is not measured now; it is said")  # fmt: skip
    args = parser.parse_args()
    wanted = args.only or [p for p in PARTS if not (args.quick and p in NOT_QUICK)]
    parts = [p for p in PARTS if p in wanted]
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    output = args.output or inputs.ROOT / ("build/benchmarks" if args.quick else "docs")
    try:
        data = measure(parts, seconds, args.quick, output, args.keep)
        print(report.markdown(data))
        finish(data, output)
    except KeyboardInterrupt:
        left = unfinished(output)
        kept = f"; {left} has the parts that were finished" if left.is_file() else ""
        print(f"interrupted{kept}", file=sys.stderr)
        return 130
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        peers.end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
