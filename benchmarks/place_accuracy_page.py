"""docs/places_accuracy.md, from the numbers of `benchmarks.place_accuracy`."""

from __future__ import annotations

from typing import Any

from benchmarks import place_regions
from benchmarks.place_frames import HEADING_DEG, RADIUS_M, SEED


def _cell(headline: dict[str, Any], digits: int = 3) -> str:
    text = f"{headline['value']:.{digits}f}"
    if headline["low"] is not None:
        text += f" ({headline['low']:.{digits}f} to {headline['high']:.{digits}f})"
    return text


def text(report: dict[str, Any], command: str) -> str:
    """Returns the page."""
    lines = [
        "# Places on real data: how often, how sure, how exact",
        "",
        f"Made by `{command}`, after `robot-vision train config/training/kitchen_place.yaml` (seed 0; "
        f"the bundle's sha256 begins {report['bundle']}). Do not edit the numbers by hand.",
        "",
        "Data: 800 frames of 7-Scenes *RedKitchen*, one hand-held walk at 30 frames a second. The split is "
        f"`blocks`: every fourth block of 50 frames is asked for ({report['queries']} queries), the others "
        f"are the map ({report['map']} keyframes, on which NetVLAD was trained too). A match is right within "
        f"{RADIUS_M:g} m and {HEADING_DEG:g} degrees; {report['answerable']} queries have a right keyframe. "
        "Queries come in their order in time, and nothing sees a later one. No odometry: the filter knows "
        "how fast the camera was while the map was made. In brackets: 95 percent intervals, by a block "
        f"bootstrap over time (blocks of 1 s, seed {SEED}).",
        "",
        "| descriptor | recall@1 | area under precision-recall | recall at 100 % precision | Brier | "
        "accepted at 0.95: right / all |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in report["rows"].items():
        lines.append(
            f"| {name} | {_cell(row['recall_at_1'], 4)} | {_cell(row['area'])} | "
            f"{_cell(row['recall_at_100_precision'])} | {row['brier']:.3f} | "
            f"{row['accepted_right']} / {row['accepted']} |"
        )
    lines += [
        "",
        "Thresholds of the curve are on the similarity for single images, on the probability with the "
        "filter. The probability is calibrated on the map's own keyframes (no query was seen); Brier is "
        "the mean squared difference between it and what was right, over all queries.",
        "",
        "| pose, NetVLAD, answerable queries | frames | median m | 90 % m | median deg | 90 % deg | "
        "worst |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in report["poses"]["rows"].items():
        lines.append(
            f"| {name} | {row['frames']} | {_cell(row['median_m'])} | {row['p90_m']['value']:.3f} | "
            f"{_cell(row['median_deg'], 2)} | {row['p90_deg']['value']:.2f} | "
            f"{row['max_m']:.2f} m, {row['max_deg']:.1f} deg |"
        )
    p = report["poses"]
    refused = {k: v for k, v in p["reasons_answerable"].items() if k}
    others = p["reasons_unanswerable"]
    found = p["unanswerable_errors_m"]
    lines += [
        "",
        f"Verification uses SIFT and {report['structure_kb']:.0f} kB of structure a keyframe, triangulated "
        "from the keyframes' own poses (no depth). Of the answerable queries it refused "
        f"{sum(refused.values())} of {report['answerable']}"
        + (f" ({', '.join(f'{v} {k}' for k, v in refused.items())})" if refused else "")
        + f". Of the {sum(others.values())} that are further than {RADIUS_M:g} m or {HEADING_DEG:g} degrees "
        f"from every keyframe it accepted {others.get('', 0)}"
        + (f", at errors up to {max(found):.3f} m" if found else "")
        + ": they see the same things from further away. Of "
        f"{report['elsewhere'][1]} pairs of a frame of another recording (three bags) and a keyframe it "
        f"accepted {report['elsewhere'][0]}. "
        f"Median inliers {p['inliers_median']:.0f}. The covariance's NEES over its ideal is "
        f"{p['nees']['mean']:.2f} in the mean and {p['nees']['median']:.2f} in the median. CPU time: "
        f"{report['build_s'] * 1e3:.0f} ms for a keyframe's structure, {p['verify_s'] * 1e3:.0f} ms for a "
        "query (two shared cores, busy).",
        "",
        "All settings are the package's defaults, chosen by reasoning and on parts of the kitchen (below), "
        f"except what the same place is (`radius_m` {RADIUS_M:g}, `heading_deg` {HEADING_DEG:g}). Earlier "
        "versions of the calibration on the map were run on these queries too. The filter's gain is "
        "certainty, not recall@1, whose few errors are views of the right spot just beyond the limits.",
        "",
        *place_regions.text(report["regions"], report["regions_held_out"], report["simulated"]),
    ]
    return "\n".join(lines)
