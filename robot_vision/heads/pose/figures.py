"""The plots of a pose head's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_vision.charts.svg import Chart, ramp
from robot_vision.contract.rows import Rows
from robot_vision.statistics.normal import chi_squared_cdf


def error_over_time(rows: Rows, recording: int, unit: str) -> str:
    """Pose error against time, with the error that the network itself expects."""
    a, b = rows.scores.bounds[recording]
    time, error = rows.scores.relative_s[a:b], rows[f"error_{unit}"][a:b]
    sigma = rows[f"sigma_{unit}"][a:b]
    words = {"m": ("Position error", "m"), "deg": ("Rotation error", "deg")}[unit]
    top = float(np.nanmax(error)) * 1.05 or 1.0
    title = f"{words[0]} over time"
    if len(rows.scores.recordings) > 1:
        title += f": {rows.scores.recordings[recording]['name']}"
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


def error_distribution(rows: Rows, pose: Mapping[str, Any]) -> str:
    """Share of frames below each position error, with the baselines."""
    mask = np.isfinite(rows["error_m"])
    curves = [("c0", "network", rows["error_m"][mask], "")]
    baselines = pose.get("baselines", {})
    if "most_similar_image" in baselines:
        curves.append(("c1", "most similar image", rows["place_error_m"][mask], ""))
    if "nearest_pose" in baselines:
        curves.append(("c2", "nearest position", rows["nearest_error_m"][mask], "dashed"))
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


def error_over_map(rows: Rows, recording: int) -> str:
    """The true path, coloured by the position error, and where the network saw each frame."""
    a, b = rows.scores.bounds[recording]
    true, estimate = rows["true_position"][a:b], rows["position"][a:b]
    error = rows["error_m"][a:b]
    mask = np.isfinite(error)
    extent = np.ptp(true[mask], axis=0)
    i, j = sorted(np.argsort(-extent, kind="stable")[:2].tolist())
    both = np.concatenate([true[mask][:, [i, j]], estimate[mask][:, [i, j]]])
    low, high = np.quantile(both, 0.01, axis=0), np.quantile(both, 0.99, axis=0)
    low = np.minimum(low, true[mask][:, [i, j]].min(0))
    high = np.maximum(high, true[mask][:, [i, j]].max(0))
    margin = 0.06 * max(float((high - low).max()), 1e-3)
    worst = max(float(np.quantile(error[mask], 0.95)), 1e-9)
    title = "Position error over the map"
    if len(rows.scores.recordings) > 1:
        title += f": {rows.scores.recordings[recording]['name']}"
    chart = Chart(
        title,
        f"{'xyz'[i]} in the map, m",
        f"{'xyz'[j]} in the map, m",
        (float(low[0] - margin), float(high[0] + margin)),
        (float(low[1] - margin), float(high[1] + margin)),
        equal=True,
        height=380,
    )
    chart.colours("0", f"{worst:.2g} m or more", "error at the true position")
    chart.segments(true[mask][:, [i, j]], estimate[mask][:, [i, j]], "c5", "to the estimate")
    chart.points(
        true[mask][:, i],
        true[mask][:, j],
        fills=[ramp(e / worst) for e in error[mask]],
        radius=2.6,
    )
    return chart.render()


def covariance_coverage(rows: Rows) -> str:
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
        values = rows[name][np.isfinite(rows[name])]
        promised = np.sort([chi_squared_cdf(float(v), degrees) for v in values])
        share = np.arange(1, len(promised) + 1) / max(len(promised), 1)
        chart.line([0, *promised, 1], [0, *share, 1], colour, label)
    return chart.render()


def poses(rows: Rows, numbers: Mapping[str, Any]) -> list[str]:
    """Returns the plots of poses: three of each of the first recordings, and two of all."""
    plots = []
    for i, (a, b) in enumerate(rows.scores.bounds[:8]):
        if np.isfinite(rows["error_m"][a:b]).any():
            plots.append(error_over_map(rows, i))
            plots += [error_over_time(rows, i, unit) for unit in ("m", "deg")]
    plots.append(error_distribution(rows, numbers))
    if np.isfinite(rows["nees"]).any():
        plots.append(covariance_coverage(rows))
    return plots
