"""docs/benchmarks.md from the benchmark's JSON: every figure beside its target and the machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def _table(heading: list[str], rows: Iterable[list[Any]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _times(times: dict[str, dict[str, float]]) -> str:
    rows = [[n, t["p50_ms"], t["p95_ms"], t["p99_ms"], t["samples"]] for n, t in times.items()]
    return _table(["what", "p50 ms", "p95 ms", "p99 ms", "samples"], rows)


def targets(data: dict[str, Any]) -> list[list[Any]]:
    """Returns rows of (what, measured, target, verdict)."""
    rows: list[list[Any]] = []

    def row(what: str, value: float | None, bound: float, at_most: bool) -> None:
        if value is not None:
            met = value <= bound if at_most else value >= bound
            verdict = "met" if met else "MISSED"
            rows.append([what, value, f"{'<=' if at_most else '>='} {bound}", verdict])

    if resize := data.get("resizing"):
        row(
            "resize 1080p to 224, one core, p50 ms",
            resize["1080p"]["times"]["ours"]["p50_ms"],
            1,
            True,
        )
        worst = max(size["error_grey_levels"]["ours"] for size in resize.values())
        row("difference to Pillow's antialiased bilinear, grey levels", worst, 2, True)
    for precision in ("float32", "bfloat16"):
        if pipeline := data.get(f"pipeline_{precision}"):
            row(
                f"pipeline / bare engine, 480p, {precision}",
                pipeline["pipeline_over_engine_480p"],
                1.1,
                True,
            )
        if heads := data.get(f"heads_{precision}"):
            row(
                f"three heads / classifier alone, {precision}",
                heads["three_heads_over_one"],
                1.15,
                True,
            )
    if replay := data.get("replay"):
        row(
            "evaluation of a 640x480 JPEG bag / engine's batched rate",
            replay["replay_over_engine"],
            0.9,
            False,
        )
    summary = data.get("summary", {})
    row(
        "node 480p raw / pipeline's own rate, float32",
        summary.get("node_over_pipeline"),
        0.8,
        False,
    )
    row("node / the node people write today", summary.get("node_over_todays"), 4, False)
    row(
        "node / the node people write today, bfloat16",
        summary.get("node_over_todays_bfloat16"), 4, False,
    )  # fmt: skip
    if start := data.get("start_up"):
        row("process start to first result, ONNX engine, s", start["onnx"]["median"], 3, True)
    for size, bound in (("100000", 5), ("1000000", 10)):
        if lookup := data.get("places", {}).get(size):
            what = f"{lookup['places']:,} places"
            row(f"top 10 of {what}, one core, p99 ms", lookup["times"]["robot_vision"]["p99_ms"],
                bound, True)  # fmt: skip
            row(f"recall@1 against exact, {what}", lookup["recall_at_1"], 0.99, False)
    return rows


def _live(results: dict[str, Any]) -> str:
    rows = []
    for case, r in results.items():
        row = [case, r["sustained"]["rate_hz"], r["flood_answered_hz"]]
        for rate in (10, 30):
            trial = r[f"at_{rate}_hz"]
            ages = trial["age_at_reception"] or {}
            shown = " / ".join(str(ages.get(f"p{p}_ms", "-")) for p in (50, 95, 99))
            row += [shown, f"{100 * trial['loss']:.1f} %"]
        rows.append(row)
    heading = ["camera", "sustained Hz (loss < 1 %)", "answered Hz when flooded"]
    for rate in (10, 30):
        heading += [f"age at {rate} Hz, p50 / p95 / p99 ms", f"loss at {rate} Hz"]
    return _table(heading, rows)


def markdown(data: dict[str, Any]) -> str:
    """Returns the whole page."""
    machine = data["machine"]
    parts = [
        "# Benchmarks\n",
        "Written by `make bench` together with [benchmarks.json](benchmarks.json); do not edit by hand. "
        "What is compared ran in turns in one run; times are percentiles, ratios are of medians. "
        "ResNet-18 at 224 x 224 with three heads (classifier, PoseNet, NetVLAD with 16 clusters whitened "
        "to 512), random weights.\n",
        f"Machine: {machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['cpu_extensions'])}), "
        f"{machine['memory_gib']} GiB, governor {machine['governor']}, GPU {machine['gpu']}; "
        f"{machine['system']}, Python {machine['python']}; "
        + ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
        + f"; commit `{machine['commit'][:19]}`; {data['date']}.\n",
        f"Command: `{data['command']}`.\n",
        f"Input: {data['input']['source']}, sha256 `{data['input']['sha256'][:16]}`.\n",
        "## Targets\n",
        _table(["what", "measured", "target", ""], targets(data)),
    ]
    if data.get("resizing"):
        parts.append("## Resize to 224 x 224, one core\n")
        for size, result in data["resizing"].items():
            errors = result["error_grey_levels"]
            listed = ", ".join(f"{k} {v}" for k, v in errors.items())
            parts += [
                f"{size}; mean absolute difference to Pillow, worst image, grey levels: {listed}.\n",
                _times(result["times"]),
            ]
    if engines := data.get("engines"):
        parts += [
            "## Bare engines\n",
            "Batch 1:\n",
            _times(engines["batch_1"]),
            "Batch 4:\n",
            _times(engines["batch_4"]),
        ]
        parts.append(
            "Left out here: " + "; ".join(sorted(set(engines["left_out"].values()))) + "\n"
        )
    for precision in ("float32", "bfloat16"):
        if pipeline := data.get(f"pipeline_{precision}"):
            parts += [f"## Pipeline, {pipeline['engine']}\n", _times(pipeline["times"])]
        if heads := data.get(f"heads_{precision}"):
            parts += [f"## Heads, {heads['engine']}\n", _times(heads["times"])]
    if replay := data.get("replay"):
        stages = {
            name: {**{k: round(v, 4) for k, v in times.items()}, "samples": replay["frames"]}
            for name, times in replay["stages"].items()
        }
        parts += [
            "## Evaluation of a recording\n",
            f"`robot-vision evaluate` replays a bag of {replay['frames']} JPEG frames of 640x480 at "
            f"{replay['replay_hz']} frames a second; {replay['engine']} alone runs ready batches of "
            f"{replay['batch']} at {replay['engine_hz']}. By stage, a frame (image and resize run in other "
            "threads, wait is the network's):\n",
            _times(stages),
        ]
    for precision in ("float32", "bfloat16"):
        if live := data.get(f"node_{precision}"):
            parts += [
                f"## The running node, {precision}\n",
                "Camera, node and listener in three processes on the same cores. Age: from the image's stamp "
                "to the reception of its pose by the listener.\n",
                _live(live),
            ]
    if todays := data.get("todays_node"):
        parts += [
            "## The node that people write today\n",
            "convert, PIL, torchvision transforms, one torch model for each of the three tasks "
            "(`benchmarks/todays_node.py`), 480p raw, same run: "
            f"{todays['sustained']['rate_hz']} Hz sustained, "
            f"{todays['flood_answered_hz']} Hz when flooded. That is the best of the starts, which "
            f"sustained {', '.join(map(str, todays['all_starts_hz']))} Hz.\n",
        ]
    if start := data.get("start_up"):
        parts += [
            "## Start-up\n",
            "Process start to the first result at a listener, seconds: "
            + "; ".join(f"{e} {r['seconds']}, median {r['median']}" for e, r in start.items()) + ".\n",
        ]  # fmt: skip
    for lookup in data.get("places", {}).values():
        loaded = (
            f"; from its cache it loads in {lookup['load_s']} s and takes {lookup['resident_mb']} MB"
            if "load_s" in lookup
            else f"; it takes {lookup['memory_mb']} MB"
        )
        adds = {
            "add to the index": lookup["add_to_index"],
            "add to the map, synced": lookup["add_to_map"],
        }
        parts += [
            f"## Finding one of {lookup['places']:,} places\n",
            "Top 10 of descriptors with 512 numbers, one query at a time on one core; made-up descriptors "
            "that lie as real ones do, and how they are made is told in `benchmarks/place_world.py`. "
            f"The index is {lookup['kind']}, looks into {lookup['probes']} cells a query and was built in "
            f"{lookup['build_s']} s on all cores{loaded}. Recall@1 against exact {lookup['recall_at_1']}, "
            f"of the ten {lookup['recall_of_10']}.\n",
            _times({**lookup["times"], **adds}),
        ]
    return "\n".join(parts)
