"""docs/benchmarks.md from the benchmark's JSON: every figure with its target and the machine."""

from __future__ import annotations

from typing import Any

from benchmarks.machine import short_commit
from benchmarks.report_node import NODES, limit_section, node_sections, plots
from benchmarks.tables import percentile_table, table

__all__ = ["markdown", "plots", "summary", "targets"]


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
    for precision in ("float32", "bfloat16", "int8"):
        if pipeline := data.get(f"pipeline_{precision}"):
            row(
                f"pipeline / bare engine, 480p, {precision}",
                pipeline["pipeline_over_engine_480p"],
                1.1 if precision == "float32" else 1.15,
                True,
            )
        if heads := data.get(f"heads_{precision}"):
            row(
                f"three heads / classifier alone, {precision}",
                heads["three_heads_over_one"],
                1.15,
                True,
            )
        for name, found in data.get(f"dense_heads_{precision}", {}).items():
            if name != "demo":
                row(
                    f"six heads, two of them dense, with messages / classifier alone, {name}, {precision}",
                    found["all_over_one"]["pipeline 480p and messages"],
                    1.25,
                    True,
                )
    for engine, found in (data.get("epistemic") or {}).items():
        row(
            f"8 passes of Monte Carlo dropout / one answer, {engine}, float32",
            found.get("passes_over_one"),
            1.25,
            True,
        )
    if replay := data.get("replay"):
        row(
            "evaluation of a 640x480 JPEG bag / engine's batched rate",
            replay["replay_over_engine"],
            0.9,
            False,
        )
    ratios = data.get("summary", {})
    for key, title in NODES.items():
        low = key.endswith("int8")
        for what, ratio, bound in (
            ("node 480p raw / pipeline's own rate", "node_over_pipeline", 0.8),
            (
                "node 480p raw / the node people write today",
                "node_over_todays",
                _over_todays(data) if low else 4,
            ),
            ("node 480p raw / bare engine", "node_480p_raw_over_engine", 0.85 if low else 0.9),
            (
                "node 1080p JPEG / bare engine",
                "node_1080p_compressed_over_engine",
                0.7 if low else 0.85,
            ),
        ):
            row(f"{what}, {title}", ratios.get(f"{ratio}_{key}"), bound, False)
        at_30 = ratios.get(f"p99_over_p50_at_30_hz_{key}")
        row(f"age at 30 Hz, p99 / p50, {title}", at_30, 1.3, True)
    for precision in ("float32", "int8"):
        found = ratios.get(f"one_batch_over_single_runs_{precision}")
        most = ratios.get("cameras")
        row(f"frames a second of {most} cameras in one batch / of one camera, {precision}",
            found, 1.6, False)  # fmt: skip
    if start := data.get("start_up"):
        row("process start to first result, ONNX engine, s", start["onnx"]["median"], 3, True)
    for size, bound in (("100000", 5), ("1000000", 10)):
        if lookup := data.get("places", {}).get(size):
            what = f"{lookup['places']:,} places"
            row(f"top 10 of {what}, one core, p99 ms", lookup["times"]["robot_vision"]["p99_ms"],
                bound, True)  # fmt: skip
            row(f"recall@1 against exact, {what}", lookup["recall_at_1"], 0.99, False)
    return rows


def _over_todays(data: dict[str, Any]) -> int:
    """Returns how many times today's node's rate int8 must reach, by what the processor computes it with."""
    has = data["machine"]["cpu_extensions"]
    return 10 if "amx_int8" in has else 9 if "avx512_vnni" in has else 6


def summary(data: dict[str, Any]) -> dict[str, float]:
    """Returns the ratios between parts that ran alongside each other."""
    result: dict[str, float] = {}
    for name, over in data.get("todays_node", {}).get("over", {}).items():
        result[f"node_over_todays_{name}"] = over
    for name in NODES:
        for case, found in data.get(f"node_{name}", {}).items():
            rate, key = found["sustained"]["rate_hz"], case.replace(" ", "_")
            result[f"node_{key}_over_engine_{name}"] = round(rate / found["own_hz"]["engine"], 3)
            if case != "480p raw":
                continue
            result[f"node_over_pipeline_{name}"] = round(rate / found["own_hz"]["pipeline"], 3)
            at_30 = found["at_30_hz"]["age_at_reception"]
            result[f"p99_over_p50_at_30_hz_{name}"] = round(at_30["p99_ms"] / at_30["p50_ms"], 2)
    for part, precision in (("cameras", "float32"), ("cameras_int8", "int8")):
        if cameras := data.get(part):
            one, most = min(cameras, key=int), max(cameras, key=int)
            rates = {n: cameras[n]["flood_answered_hz"] for n in (one, most)}
            result["cameras"] = int(most)
            result[f"one_batch_over_single_runs_{precision}"] = round(rates[most] / rates[one], 3)
    return result


def _dense_section(data: dict[str, Any]) -> list[str]:
    parts = ["## Dense heads\n"]
    measured = [found for p in ("float32", "bfloat16") if (found := data.get(f"dense_heads_{p}"))]
    for name, found in (pair for one in measured for pair in one.items()):
        what = "The demo's bundle" if name == "demo" else f"`{name}`"
        over = ", ".join(f"{stage} {ratio}" for stage, ratio in found["all_over_one"].items())
        parts += [
            f"{what}, {found['engine']}: {', '.join(found['heads'])}, against the network with its "
            "classifier alone. Messages are all topics of a calibrated and mounted camera, as bytes. "
            f"All heads over one: {over}.\n",
            percentile_table(found["times"]),
        ]
    if not measured:
        parts.append("Not measured yet: `python -m benchmarks --only dense_heads`.\n")
    return parts


def _kept(data: dict[str, Any]) -> list[str]:
    runs: dict[str, list[str]] = {}
    for part, origin in data.get("kept", {}).items():
        runs.setdefault(origin, []).append(part)
    return [f"Of an earlier run ({o}): {', '.join(parts)}.\n" for o, parts in runs.items()]


def _quiet(data: dict[str, Any]) -> list[str]:
    if not (quiet := data.get("quiet")):
        return []
    parts = quiet["parts"].values()
    trials, worst = sum(p["trials"] for p in parts), max((p["others"] for p in parts), default=0)
    stayed = sum(p["disturbed"] for p in parts)
    count = f" and {stayed} stayed disturbed" if stayed else ""  # shown, never written
    return [
        f"Of {trials + quiet['repeated']} trials {quiet['repeated']} were disturbed and repeated{count}; in "
        f"those that count, other processes used at most {100 * worst:.1f} % of the cores "
        "(`benchmarks/quiet.py`).\n"
    ]


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
        + f"; commit `{short_commit(machine['commit'], 19)}`; {data['date']}.\n",
        f"Command: `{data['command']}`.\n",
        *_quiet(data),
        *_kept(data),
        f"Input: {data['input']['source']}, sha256 `{data['input']['sha256'][:16]}`.\n",
        "## Targets\n",
        table(["what", "measured", "target", ""], targets(data)),
    ]
    if data.get("resizing"):
        parts.append("## Resize to 224 x 224, one core\n")
        for size, result in data["resizing"].items():
            errors = result["error_grey_levels"]
            listed = ", ".join(f"{k} {v}" for k, v in errors.items())
            parts += [
                f"{size}; mean absolute difference to Pillow, worst image, grey levels: {listed}.\n",
                percentile_table(result["times"]),
            ]
    if engines := data.get("engines"):
        parts += [
            "## Bare engines\n",
            table(
                ["what", "batch 1, p50 ms", "p99 ms", "batch 4, p50 ms", "p99 ms"],
                [
                    [name, *(engines[b].get(name, {}).get(p, "-") for b in ("batch_1", "batch_4")
                             for p in ("p50_ms", "p99_ms"))]
                    for name in engines["batch_1"]
                ],
            ),
            "Left out here: " + "; ".join(sorted(set(engines["left_out"].values()))) + "\n",
        ]  # fmt: skip
    parts += limit_section(data)
    for precision in ("float32", "bfloat16", "int8"):
        if pipeline := data.get(f"pipeline_{precision}"):
            parts += [f"## Pipeline, {pipeline['engine']}\n", percentile_table(pipeline["times"])]
        if heads := data.get(f"heads_{precision}"):
            parts += [f"## Heads, {heads['engine']}\n", percentile_table(heads["times"])]
    parts += _dense_section(data)
    for engine, found in (data.get("epistemic") or {}).items():
        if times := found.get("times"):
            parts += [
                f"## Several answers of the heads, {engine} cpu float32\n",
                "Dropout passes and ensembles of classifier and pose head; the backbone runs once. The "
                f"ensemble costs {found['ensemble_over_one']} times the single heads.\n",
                percentile_table(times),
            ]
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
            percentile_table(stages),
        ]
    if found := data.get("steps"):
        parts += [
            "## Each step, compared with the usual code\n",
            "Usual: `deserialize_message`, whole JPEGs, PIL and torchvision's transforms, `tobytes` into "
            "messages, free batches, the collector as it is.\n",
            table(
                ["step", "usual p50 ms", "ours p50 ms", "usual / ours"],
                [
                    [name, *(step["times"][who]["p50_ms"] for who in ("usual", "ours")),
                     step["usual_over_ours"]]
                    for name, step in found.items()
                ],
            ),
        ]  # fmt: skip
    parts += node_sections(data)
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
            "with the distribution of real ones; `benchmarks/place_world.py` explains how they are made. "
            f"The index is {lookup['kind']}, looks into {lookup['probes']} cells a query and was built in "
            f"{lookup['build_s']} s on all cores{loaded}. Recall@1 against exact {lookup['recall_at_1']}, "
            f"of the ten {lookup['recall_of_10']}.\n",
            percentile_table({**lookup["times"], **adds}),
        ]
    return "\n".join(parts)
