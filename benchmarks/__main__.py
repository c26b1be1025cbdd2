"""`make bench`: measures every stage and the running node; writes JSON and docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import inputs, machine, models, node, places, replay, report, stages

PARTS = (
    "resizing",
    "engines",
    "pipeline",
    "heads",
    "replay",
    "node",
    "todays_node",
    "start_up",
    "places",
)
PRECISIONS = ("float32", "bfloat16")


def measure(parts: list[str], seconds: float, quick: bool) -> dict[str, Any]:
    """Runs the parts in their order and returns the report's data."""
    images, source = inputs.frames()
    data: dict[str, Any] = {
        "schema": 1,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "machine": machine.describe(),
        "input": {"source": source, "sha256": inputs.sha256(images), "frames": len(images)},
    }
    for name in models.SPECS:
        models.bundle(name, images)
    node.isolate()
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        if part == "resizing":
            data[part] = stages.resizing(images, seconds)
        elif part == "engines":
            data[part] = stages.engines(images, 2 * seconds)
        elif part in ("pipeline", "heads"):
            for precision in PRECISIONS:
                data[f"{part}_{precision}"] = getattr(stages, part)(images, seconds, precision)
        elif part == "replay":
            data[part] = replay.whole_bag(images, quick)
        elif part == "node":
            for precision in PRECISIONS[: 1 if quick else 2]:
                rate = pipeline_rate(data, images, precision, seconds)
                data[f"node_{precision}"] = node.live(images, rate, seconds, precision, quick)
        elif part == "todays_node":
            data[part] = node.todays(seconds, 1 if quick else 4)
        elif part == "start_up":
            data[part] = node.start_up(images, 2 if quick else 5)
        elif part == "places":
            data[part] = places.lookups(quick)
    data["summary"] = summary(data)
    return data


def pipeline_rate(data: dict[str, Any], images: list[Any], precision: str, seconds: float) -> float:
    """Returns the pipeline's own rate at 480p, measuring it if its part was left out."""
    name = f"pipeline_{precision}"
    if name not in data:
        data[name] = stages.pipeline(images, seconds, precision)
    return 1e3 / float(data[name]["times"]["pipeline 480p"]["p50_ms"])


def summary(data: dict[str, Any]) -> dict[str, float]:
    """Returns the ratios between parts."""
    result = {}
    rates = {
        precision: data[f"node_{precision}"]["480p raw"]["sustained"]["rate_hz"]
        for precision in PRECISIONS
        if f"node_{precision}" in data
    }
    for precision, rate in rates.items():
        own = 1e3 / data[f"pipeline_{precision}"]["times"]["pipeline 480p"]["p50_ms"]
        key = "node_over_pipeline" + ("" if precision == "float32" else f"_{precision}")
        result[key] = round(rate / own, 3)
        if "todays_node" in data and data["todays_node"]["sustained"]["rate_hz"]:
            key = "node_over_todays" + ("" if precision == "float32" else f"_{precision}")
            result[key] = round(rate / data["todays_node"]["sustained"]["rate_hz"], 2)
    return result


def main() -> int:
    """Parses arguments, measures, writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"some of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each comparison")
    parser.add_argument("--quick", action="store_true", help="short, to see that it runs")
    parser.add_argument("--output", type=Path, default=inputs.ROOT / "docs",
                        help="folder for benchmarks.json and benchmarks.md")  # fmt: skip
    args = parser.parse_args()
    parts = [p for p in PARTS if p in args.only]
    data = measure(parts, 2.0 if args.quick else args.seconds, args.quick)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")
    page = report.markdown(data)
    (args.output / "benchmarks.md").write_text(page)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
