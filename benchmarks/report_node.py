"""The page's sections about the running node and the physical limit, and their plot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.tables import percentile_table, table
from robot_vision.charts.svg import Chart

PICTURED = ("float32",)
RATES = (10, 30, 60)
NODES = {
    "float32": "float32, streams:=1",
    "overlapping_float32": "float32",
    "int8": "int8-vnni, streams:=1",
    "overlapping_int8": "int8-vnni",
}


def _sustained(results: dict[str, Any]) -> str:
    rows = []
    for case, r in results.items():
        best, cpu = r["sustained"], r["sustained"].get("cpu_ms_a_frame", {})
        rows.append(
            [
                case,
                best["rate_hz"],
                r["flood_answered_hz"],
                *(cpu.get(name, "-") for name in ("node", "camera", "listener")),
                best.get("memory_mib", {}).get("node", "-"),
            ]
        )
    heading = ["camera", "sustained Hz (loss < 1 %)", "answered Hz when flooded"]
    heading += [f"CPU ms a frame, {name}" for name in ("node", "camera", "listener")]
    return table([*heading, "memory of the node, MiB"], rows)


def _stages(results: dict[str, Any]) -> str:
    found = {case: r["sustained"].get("stages_ms") or {} for case, r in results.items()}
    stages = list(dict.fromkeys(stage for times in found.values() for stage in times))
    rows = [[case, *(times.get(stage, "-") for stage in stages)] for case, times in found.items()]
    return table(["camera", *stages], rows)


def _fixed(results: dict[str, Any]) -> str:
    rows = []
    for case, r in results.items():
        for rate, at in ((rate, r.get(f"at_{rate}_hz")) for rate in RATES):
            if at is None:
                continue
            ages = at["age_at_reception"] or {}
            drops = ", ".join(f"{k} {v:g}" for k, v in at["drops"].items()) or "none"
            rows.append(
                [
                    case,
                    rate,
                    *(ages.get(key, "-") for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
                    at["jitter_ms"],
                    f"{100 * at['loss']:.1f} %",
                    drops,
                ]
            )
    heading = ["camera", "Hz", "age p50 ms", "p95", "p99", "max", "jitter ms", "loss", "drops"]
    return table(heading, rows)


def node_sections(data: dict[str, Any]) -> Iterator[str]:
    """Yields the paragraphs about the node: rates and ages, engines, cameras, today's node."""
    for key, title in NODES.items():
        if live := data.get(f"node_{key}"):
            own = "; ".join(
                f"{case}: engine {r['own_hz']['engine']}, pipeline {r['own_hz']['pipeline']}"
                for case, r in live.items()
            )
            yield f"## The running node, {title}\n"
            yield (
                "Camera, node and listener in three processes on the same cores. A rate is sustained if the "
                "median trial of up to three loses less than 1 percent. The engine's and the pipeline's own "
                f"rates at 480p, Hz, measured before and after each search: {own}.\n"
            )
            yield _sustained(live)
            yield (
                "Where the node's thread spends a frame at the sustained rate, p50 ms by its own diagnostics "
                "(wait: until the thread takes the frame; image: from bytes to RGB).\n"
            )
            yield _stages(live)
            yield (
                "At fixed rates; medians of the repetitions. Age: from the image's stamp to the reception "
                "of its pose by the listener. Jitter: standard deviation of the time between results. "
                "Drops: by the node's own counters (replaced: a newer frame came first).\n"
            )
            yield _fixed(live)
            if key in PICTURED:
                yield f"![Age of results by rate](images/benchmarks_age_{key}.svg)\n"
    for name, title in (
        ("node_engines", "The running node with each engine, 480p raw, float32"),
        ("cameras", "Several synchronised cameras, 480p raw, float32 (Hz is of each camera)"),
        ("cameras_int8", "The same in int8-vnni"),
    ):
        if found := data.get(name):
            yield f"## {title}\n"
            yield _sustained(found)
    if todays := data.get("todays_node"):
        yield "## The node that people write today\n"
        yield (
            "convert, PIL, torchvision transforms, one torch model for each of the three tasks "
            "(`benchmarks/todays_node.py`), 480p raw, started in turns with ours. The best start of each is "
            "compared, since the machine and that node change from one to the next.\n"
        )
        rows = [
            ["today's node" if name == "todays" else NODES.get(name, name), max(rates),
             1 if name == "todays" else todays["over"].get(name, "-"),
             ", ".join(map(str, rates))]
            for name, rates in todays["all_starts_hz"].items()
        ]  # fmt: skip
        yield table(["node", "sustained Hz, best", "over today's", "all starts"], rows)


def limit_section(data: dict[str, Any]) -> Iterator[str]:
    """Yields how far the engine is from what the machine could do."""
    if not (found := data.get("limits")):
        return
    yield "## Distance from the physical limit\n"
    yield (
        f"The network takes {found['giga_operations']} billion operations an image (2 a multiply-add; "
        f"convolutions and products). A float32 matrix product of NumPy's BLAS reached "
        f"{found['peak_gflops']} GFLOP/s on the same cores in the same minutes, so {found['engine']} could "
        f"take {found['engine_limit_ms']} ms; it takes {found['engine_over_limit']} times that. Copies "
        f"at {found['bandwidth_gb_s']} GB/s (reads and writes): reading the weights once takes "
        f"{found['weights_once_ms']} ms, moving a 480p frame {found['frame_480p_ms']} ms and a 1080p frame "
        f"{found['frame_1080p_ms']} ms. A ratio below 1 means that the engine's convolutions (Winograd) need "
        "fewer operations than are counted.\n"
    )
    yield percentile_table(found["times"])


def plots(data: dict[str, Any]) -> dict[str, str]:
    """Returns SVG pictures by file name: the age of results over the rate."""
    pictures = {}
    for precision in PICTURED:
        if not (live := data.get(f"node_{precision}")):
            continue
        ages = {
            case: [[r[f"at_{rate}_hz"]["age_at_reception"][p] for rate in RATES]
                   for p in ("p50_ms", "p99_ms")]
            for case, r in live.items()
        }  # fmt: skip
        top = 1.1 * max(max(p99) for _, p99 in ages.values())
        chart = Chart(
            f"Age of results, {precision}", "frames a second", "ms from stamp to reception",
            (0, 65), (0, top),
        )  # fmt: skip
        for i, (case, (p50, p99)) in enumerate(ages.items()):
            chart.line(np.array(RATES, float), np.array(p50), f"c{i}", f"{case}, p50")
            chart.line(np.array(RATES, float), np.array(p99), f"c{i}", f"{case}, p99", "dashed")
        pictures[f"benchmarks_age_{precision}.svg"] = chart.render()
    return pictures
