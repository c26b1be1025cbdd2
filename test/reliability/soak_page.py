"""The page and the picture of `make soak`, from its JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from fault_maps import MAP_SCENARIOS
from fault_scenarios import SCENARIOS
from fault_steady import RATES

from benchmarks.machine import short_commit
from robot_vision.charts.sheet import sheet
from robot_vision.charts.svg import Chart

TEXTS = {
    name: (scenario.__doc__ or "").strip() for name, scenario in {**SCENARIOS, **MAP_SCENARIOS}.items()
}  # fmt: skip
PICTURE = "soak.svg"
HEAD = """# Faults tried on the running nodes

Written by `make soak`; do not edit by hand. Real processes over real DDS: a perception node with the demo's
network, a camera that is broken, a listener that counts; for the map's faults a place node, fed with
descriptors and poses. Survived: the same process answers good frames again (`healed_s` later), without an
internal error or a traceback.
[reliability.md](reliability.md) says more, and where further faults are tested.
"""


def page(data: dict[str, Any]) -> str:
    """Returns the tables as Markdown."""
    machine = data["machine"]
    lines = [
        HEAD,
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"commit `{short_commit(machine['commit'], 19)}`, {data['date']}; command `{data['command']}`.",
        "",
    ]
    rows = {name: row for name, row in data["rows"].items() if name in TEXTS}
    if "nodes" in rows.get("steady", {}).get("lost", {}):
        lines += _steady(rows["steady"])
    lines += [
        "## Faults" if "steady" in rows else "",
        "",
        "| fault | what is done | for s | survived | what was lost or measured |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for name, row in rows.items():
        if name == "steady" and "nodes" in row.get("lost", {}):
            continue
        lost = row.get("skipped") or row.get("error") or "; ".join(
            f"{key} {value}" for key, value in row["lost"].items()
        )  # fmt: skip
        survived = "left out" if "skipped" in row else "NO" if "error" in row else "yes"
        lines.append(f"| {name} | {TEXTS[name]} | {row['seconds']:.0f} | {survived} | {lost} |")
    return "\n".join(lines) + "\n"


def _steady(row: dict[str, Any]) -> list[str]:
    found = row["lost"]
    lines = [
        "## Steady",
        "",
        *([f"**Not flat: {row['error']}**", ""] if "error" in row else []),
        f"{row['seconds'] / 60:.0f} minutes of 640x480 at {found['rate_hz']} Hz: of {_list(list(RATES))} "
        "Hz the highest at which at most 1 % got no answer in a trial, or the lowest "
        f"({found['rate_above']}). "
        f"{found['sent']:,} frames, "
        f"{found['answered_percent']} % answered, {found['replaced_percent']} % replaced by newer ones. Mean "
        f"load of the machine {found['load']}. From image stamp to reception, in each sixth of the time: "
        f"p50 {_list(found['p50_ms'])} ms, p99 {_list(found['p99_ms'])} ms.",
        "",
        f"![Memory, latency and threads over time](images/{PICTURE})",
        "",
        "| node | MiB, first sixth | last sixth | growth | open files, first and last | threads | CPU % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, node in found["nodes"].items():
        first, last = node["memory_mib"]
        lines.append(
            f"| {name} | {first} | {last} | {node['memory_growth_mib']} | {_list(node['files'])} | "
            f"{_list(node['threads'])} | {node['cpu_percent']} |"
        )
    return [*lines, ""]


def _list(values: list[float]) -> str:
    return ", ".join(str(value) for value in values)


def picture(row: dict[str, Any]) -> str:
    """Returns charts of a steady run as one SVG file, for light and dark pages."""
    series = row["lost"]["series"]
    minutes = np.array([sample["minute"] for sample in series], float)

    def values(node: str, what: str) -> np.ndarray:
        return np.array([sample["nodes"][node][what] for sample in series], float)

    nodes = list(series[0]["nodes"])
    p50 = np.array([sample["p50_ms"] for sample in series], float)
    p99 = np.array([sample["p99_ms"] for sample in series], float)
    load = np.array([sample["load"] for sample in series], float)
    charts = []
    each = {
        what: [(node, values(node, what)) for node in nodes]
        for what in ("memory_mib", "files", "threads", "cpu_percent")
    }
    for title, unit, lines in (
        ("Memory", "MiB", each["memory_mib"]),
        ("From stamp to reception", "ms", [("p50", p50), ("p99", p99)]),
        ("Open files", "", each["files"]),
        ("Threads", "", each["threads"]),
        ("Processor time", "% of a core", each["cpu_percent"]),
        ("Load of the machine", "", [("load", load)]),
    ):
        top = 1.15 * max(float(y.max()) for _, y in lines)
        chart = Chart(title, "minutes", unit, (0, float(minutes[-1])), (0, max(top, 1)))
        for i, (label, y) in enumerate(lines):
            chart.line(minutes, y, f"c{i % 6}", label)
        charts.append(chart.render())
    return sheet(charts, 2)
