"""The plots of a report, each from the rows and the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.svg import Chart, heat_table, ramp
from robot_vision.contract.rows import UNKNOWN_LABEL, Scores
from robot_vision.statistics.normal import chi_squared_cdf

MOST_CLASSES = 24


def reliability_diagram(classes: Mapping[str, Any]) -> str:
    """How often the network is right where it says so."""
    bins = classes["reliability"]
    edges = np.array([b["low"] for b in bins] + [1.0])
    chart = Chart(
        "Reliability", "probability of the predicted class", "share right", (0, 1), (0, 1)
    )
    frames = max(sum(b["frames"] for b in bins), 1)
    share = np.array([b["frames"] / frames for b in bins])
    chart.bars(edges, share, "c5", "share of frames", opacity=0.35)
    right = np.array([np.nan if b["accuracy"] is None else b["accuracy"] for b in bins])
    said = np.array([np.nan if b["confidence"] is None else b["confidence"] for b in bins])
    chart.line([0, 1], [0, 1], "c4", "perfect", "dashed")
    for i in range(
        len(bins)
    ):  # as large as its share of the frames: a bin of two frames says little
        radius = 2.5 + 7 * float(np.sqrt(share[i]))
        chart.points(said[i : i + 1], right[i : i + 1], "c0", "" if i else "network", radius=radius)
    return chart.render()


def confusion_matrix(classes: Mapping[str, Any]) -> str:
    """What is taken for what; of many classes those with the most frames."""
    counts = np.array(classes["confusion"]["counts"], np.int64)
    labels = list(classes["labels"])
    title = "Confusion matrix"
    seen = counts.sum(0) + counts.sum(1)
    if len(labels) > MOST_CLASSES:
        keep = np.sort(np.argsort(-seen, kind="stable")[: min(MOST_CLASSES, int((seen > 0).sum()))])
        title += f" (the {len(keep)} of {len(labels)} classes with the most frames)"
        counts, labels = counts[np.ix_(keep, keep)], [labels[i] for i in keep]
    return heat_table(title, labels, counts, "predicted", "true")


def risk_coverage_curve(classes: Mapping[str, Any]) -> str:
    """The error rate of the surest share of the frames."""
    curve = classes["risk_coverage"]
    top = max([0.05, *curve["risk"]])
    chart = Chart(
        "Risk and coverage",
        "share of frames answered, most confident first",
        "error rate",
        (0, 1),
        (0, top),
    )
    chart.line([0, *curve["coverage"]], [curve["risk"][0], *curve["risk"]], "c0", "network")
    whole = curve["risk"][-1]
    chart.line([0, 1], [whole, whole], "c4", "random order", "dashed")
    return chart.render()


def known_score_histogram(scores: Scores) -> str:
    """The known score of frames whose class the model knows, and of all others."""
    label, score = scores["true_label"], scores["known_score"]
    fine = np.isfinite(score)
    parts = [
        ("c0", "known", score[fine & (label >= 0)]),
        ("c1", "unknown", score[fine & (label == UNKNOWN_LABEL)]),
    ]
    both = np.concatenate([part for *_, part in parts])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, 31)
    shares = [np.histogram(part, edges)[0] / max(len(part), 1) for *_, part in parts]
    top = max(float(s.max()) for s in shares) * 1.05
    chart = Chart("Known score", "known score", "share of frames", (edges[0], edges[-1]), (0, top))
    chart.bars(edges, shares[0], "c0", "known", opacity=0.6)
    chart.steps(edges, np.append(shares[1], shares[1][-1]), "c1", "unknown")
    return chart.render()


def error_over_time(scores: Scores, recording: int, unit: str) -> str:
    """Pose error against time, with the error that the network itself expects."""
    a, b = scores.bounds[recording]
    time, error = scores.relative_s[a:b], scores[f"error_{unit}"][a:b]
    sigma = scores[f"sigma_{unit}"][a:b]
    words = {"m": ("Position error", "m"), "deg": ("Rotation error", "deg")}[unit]
    top = float(np.nanmax(error)) * 1.05 or 1.0
    title = f"{words[0]} over time"
    if len(scores.recordings) > 1:
        title += f": {scores.recordings[recording]['name']}"
    chart = Chart(
        title,
        "time, s",
        f"{words[0].lower()}, {words[1]}",
        (0, max(float(time[-1]), 1e-3)),
        (0, top),
    )
    chart.line(time, error, "c0", "error")
    if np.isfinite(sigma).any():
        chart.line(time, sigma, "c1", "predicted sigma", "dashed")
    return chart.render()


def error_distribution(scores: Scores, pose: Mapping[str, Any]) -> str:
    """Share of frames below each position error, with the baselines."""
    rows = np.isfinite(scores["error_m"])
    curves = [("c0", "network", scores["error_m"][rows], "")]
    baselines = pose.get("baselines", {})
    if "most_similar_image" in baselines:
        curves.append(("c1", "most similar image", scores["place_error_m"][rows], ""))
    if "nearest_pose" in baselines:
        curves.append(("c2", "nearest pose", scores["nearest_error_m"][rows], "dashed"))
    values = np.concatenate([c[2][np.isfinite(c[2]) & (c[2] > 0)] for c in curves])
    low = max(float(np.quantile(values, 0.002)), 1e-3) if len(values) else 1e-3
    high = max(float(values.max()), low * 10) if len(values) else 1.0
    chart = Chart(
        "Position errors",
        "position error, m",
        "share of frames below",
        (low, high),
        (0, 1),
        x_log=True,
    )
    for colour, label, errors, style in curves:
        ordered = np.sort(errors[np.isfinite(errors)])
        share = np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
        chart.line(np.maximum(ordered, low), share, colour, label, style)
    return chart.render()


def error_over_map(scores: Scores, recording: int) -> str:
    """The true path, coloured by the position error, and where the network saw each frame."""
    a, b = scores.bounds[recording]
    true, estimate = scores["true_position"][a:b], scores["position"][a:b]
    error = scores["error_m"][a:b]
    rows = np.isfinite(error)
    extent = np.ptp(true[rows], axis=0)
    i, j = sorted(np.argsort(-extent, kind="stable")[:2].tolist())
    both = np.concatenate([true[rows][:, [i, j]], estimate[rows][:, [i, j]]])
    low, high = np.quantile(both, 0.01, axis=0), np.quantile(both, 0.99, axis=0)
    low = np.minimum(low, true[rows][:, [i, j]].min(0))
    high = np.maximum(high, true[rows][:, [i, j]].max(0))
    margin = 0.06 * max(float((high - low).max()), 1e-3)
    worst = max(float(np.quantile(error[rows], 0.95)), 1e-9)
    title = f"Position error over the map (blue 0 to red {worst:.2g} m)"
    if len(scores.recordings) > 1:
        title += f": {scores.recordings[recording]['name']}"
    chart = Chart(
        title,
        f"{'xyz'[i]} in the map, m",
        f"{'xyz'[j]} in the map, m",
        (float(low[0] - margin), float(high[0] + margin)),
        (float(low[1] - margin), float(high[1] + margin)),
        equal=True,
        height=380,
    )
    chart.segments(true[rows][:, [i, j]], estimate[rows][:, [i, j]], "c5", "to the estimate")
    chart.points(
        true[rows][:, i],
        true[rows][:, j],
        "c0",
        "true position",
        fills=[ramp(e / worst) for e in error[rows]],
        radius=2.6,
    )
    return chart.render()


def covariance_coverage(scores: Scores) -> str:
    """How many errors lie within the region that the covariance promises (NEES against chi squared)."""
    chart = Chart(
        "Coverage of the predicted covariance (NEES)",
        "promised share",
        "share inside",
        (0, 1),
        (0, 1),
    )
    chart.line([0, 1], [0, 1], "c4", "perfect", "dashed")
    looks = (
        ("nees", 6, "c0", "pose"),
        ("nees_position", 3, "c1", "position"),
        ("nees_rotation", 3, "c2", "rotation"),
    )
    for name, degrees, colour, label in looks:
        values = scores[name][np.isfinite(scores[name])]
        promised = np.sort([chi_squared_cdf(float(v), degrees) for v in values])
        share = np.arange(1, len(promised) + 1) / max(len(promised), 1)
        chart.line([0, *promised, 1], [0, *share, 1], colour, label)
    return chart.render()


def recall_curve(scores: Scores, places: Mapping[str, Any], most: int = 20) -> str:
    """Share of queries with the same place among the k most similar images."""
    rank = scores["place_rank"][scores["place_positives"] > 0]
    k = np.arange(1, most + 1)
    recall = np.array([(rank < n).mean() if len(rank) else 0.0 for n in k])
    chart = Chart("Recall at k", "k, most similar images looked at", "recall", (1, most), (0, 1))
    chart.line(k, recall, "c0", "network")
    chart.points(k, recall, "c0")
    chance = places.get("baselines", {}).get("chance", {})
    known = [
        (n, chance[f"recall_at_{n}"]["value"]) for n in (1, 5, 10, 20) if f"recall_at_{n}" in chance
    ]
    if known:
        chart.line([n for n, _ in known], [v for _, v in known], "c4", "chance", "dashed")
    return chart.render()


def precision_recall_curve(places: Mapping[str, Any]) -> str:
    """Precision against recall as the similarity that is asked for falls."""
    curve = places["precision_recall"]
    chart = Chart("Precision and recall of places", "recall", "precision", (0, 1), (0, 1))
    chart.line([0, *curve["recall"]], [curve["precision"][0], *curve["precision"]], "c0", "network")
    return chart.render()


def distance_histogram(scores: Scores) -> str:
    """True distance of the most similar image, and of the nearest one that there is."""
    columns = [
        ("c0", "most similar", scores["place_error_m"]),
        ("c2", "nearest", scores["nearest_error_m"]),
    ]
    finite = [c[2][np.isfinite(c[2])] for c in columns]
    top = max((float(np.quantile(f, 0.99)) for f in finite if len(f)), default=1.0) or 1.0
    edges = np.linspace(0, top, 31)
    shares: list[NDArray[Any]] = [
        np.histogram(np.minimum(f, top), edges)[0] / max(len(f), 1) for f in finite
    ]
    most = max(float(s.max()) for s in shares)
    chart = Chart(
        "Distance to the match", "true distance, m", "share of queries", (0, top), (0, most * 1.05)
    )
    for (colour, label, _), share in zip(columns, shares, strict=True):
        if colour == "c0":
            chart.bars(edges, share, colour, label)
        else:
            chart.steps(edges, np.append(share, share[-1]), colour, label)
    return chart.render()


def stage_times(speed: Mapping[str, Any]) -> str:
    """Milliseconds a frame of each stage: median, and 95th percentile."""
    stages = [(n, s) for n, s in speed["stages"].items() if n != "wait"]
    top = max(s["p95_ms"] for _, s in stages) * 1.1 or 1.0
    chart = Chart("Time by stage", "", "ms a frame", (0, len(stages)), (0, top))
    chart.x.ticks = lambda: []  # type: ignore[method-assign]
    for i, (name, s) in enumerate(stages):
        chart.bars(np.array([i + 0.15, i + 0.5]), np.array([s["p50_ms"]]), "c0")
        chart.bars(np.array([i + 0.5, i + 0.85]), np.array([s["p95_ms"]]), "c1")
        chart.note(i + 0.15, top * 0.94, name)
    chart.line([-2, -1], [0, 0], "c0", "median")
    chart.line([-2, -1], [0, 0], "c1", "95th percentile")
    return chart.render()


def figures(scores: Scores, metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the plots of each head for which there is truth."""
    found: dict[str, list[str]] = {}
    classes, pose, places = (metrics.get(n) for n in ("classification", "pose", "place"))
    if classes:
        found["classification"] = [
            confusion_matrix(classes),
            reliability_diagram(classes),
            risk_coverage_curve(classes),
        ]
    if metrics.get("open_set"):
        found["open_set"] = [known_score_histogram(scores)]
    if pose:
        plots = []
        for i, (a, b) in enumerate(scores.bounds[:8]):
            if np.isfinite(scores["error_m"][a:b]).any():
                plots.append(error_over_map(scores, i))
                plots += [error_over_time(scores, i, unit) for unit in ("m", "deg")]
        plots.append(error_distribution(scores, pose))
        if np.isfinite(scores["nees"]).any():
            plots.append(covariance_coverage(scores))
        found["pose"] = plots
    if places:
        found["place"] = [
            recall_curve(scores, places),
            precision_recall_curve(places),
            distance_histogram(scores),
        ]
    return found
