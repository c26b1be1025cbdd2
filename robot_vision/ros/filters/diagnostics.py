"""What `/diagnostics` says of filtered classes and of the filtered pose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_vision.filters.class_model import ClassBelief
from robot_vision.filters.pose_settings import (
    CELLS_AGAINST,
    CELLS_EARLY,
    CELLS_ELSEWHERE,
    CELLS_USED,
    CONTRADICTED,
    INITIALISING,
    LOCALISED,
    UNCERTAIN,
    WAITING,
    PoseEstimate,
)
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import status_message
from robot_vision.ros.perception.diagnostics import ERROR, OK, WARN

# Counters that stand in every message of the diagnostics, so that a plot of them starts at 0.
CLASS_COUNTERS = (
    "received",
    "published",
    "refused_non_finite",
    "refused_shape",
    "refused_out_of_order",
    "refused_stamp",
    "refused_stamps_ahead",
    "refused_no_labels",
    "resets",
)
POSE_COUNTERS = (
    "poses_received",
    "accepted",
    "rejected",
    "initialised",
    "reinitialised",
    "refused_non_finite",
    "refused_out_of_range",
    "refused_quaternion",
    "refused_covariance",
    "refused_stamp",
    "refused_out_of_order",
    "refused_frame",
    "refused_no_transform",
    "refused_pose_of",
    "held_back",
    "tf_refused",
    "refused_too_old",
    "refused_stamps_ahead",
    "refused_shape",
    "cells_received",
    CELLS_USED,
    CELLS_AGAINST,
    CELLS_ELSEWHERE,
    CELLS_EARLY,
    "odometry_received",
    "odometry_non_finite",
    "odometry_out_of_range",
    "odometry_quaternion",
    "odometry_stamp",
    "odometry_out_of_order",
    "odometry_frame",
    "odometry_stamps_ahead",
    "odometry_jumps",
    "odometry_distrusted",
    "published",
    "replays",
    "without_odometry",
    "resets",
)

# What a planner reads, by the filter's condition.
UNKNOWN, STALE, DISTRUSTED = "unknown", "stale", "odometry distrusted"
REASONS = {
    WAITING: UNKNOWN,
    INITIALISING: UNKNOWN,
    LOCALISED: LOCALISED,
    UNCERTAIN: UNCERTAIN,
    CONTRADICTED: CONTRADICTED,
}


def belief_message(node: str, reason: str, text: str, estimate: PoseEstimate | None) -> Any:
    """Returns what a planner reads: level OK to drive on, WARN by poses alone, ERROR to stop.

    Args:
        node: its full name.
        reason: one of `REASONS`, or stale, or odometry distrusted.
        text: more of it.
        estimate: judged; None without any.
    """
    level = {LOCALISED: OK, DISTRUSTED: WARN}.get(reason, ERROR)
    values: dict[str, object] = {
        "localised": level != ERROR,
        "text": text,
        "position_sigma_m": estimate.sigma_m if estimate else math.nan,
        "rotation_sigma_deg": estimate.sigma_deg if estimate else math.nan,
        "stamp_ns": estimate.stamp_ns if estimate else 0,
    }
    return status_message(level, f"{node}: belief", reason, "", values)


def height_words(estimate: PoseEstimate | None) -> str:
    """Says that the height alone makes a pose uncertain, as it does where cells are all that is measured."""
    if estimate is None:
        return ""
    plane_m = math.sqrt(max(0.0, float(np.linalg.eigvalsh(estimate.covariance[:2, :2])[-1])))
    height_m = math.sqrt(max(0.0, float(estimate.covariance[2, 2])))
    if height_m < 2 * plane_m:
        return ""
    return (
        f"the height is known to {height_m:.2f} m and the position in the plane to {plane_m:.2f} m: cells do "
        "not measure it, poses do"
    )


def _refusals(statistics: Statistics) -> str:
    """Says of late refusals why, by the names of their counters."""
    reasons = statistics.recent("refused_")
    return f" (refused: {', '.join(reasons)})" if reasons else ""


def class_status(
    node: str,
    camera: str,
    p: FilterParameters,
    silent_s: float,
    belief: ClassBelief | None,
    problem: str,
    statistics: Statistics,
) -> Any:
    """Returns the entry of a camera's classes.

    Args:
        node: its full name.
        camera: the name.
        p: the current parameters.
        silent_s: since the last classification, or since activation if there was none.
        belief: the newest; None without any.
        problem: why the classes cannot be filtered; empty if they can.
        statistics: of the camera.
    """
    level, text = OK, f"{statistics.rate('published'):.1f} Hz"
    if statistics.rate("refused") > 0:
        level, text = WARN, f"refused at {statistics.rate('refused'):.1f} Hz"
    refusals = _refusals(statistics)
    if silent_s > p.stale_after_s:
        level, text = WARN, f"no classification for {silent_s:.1f} s"
    text += refusals
    if problem:
        level, text = ERROR, problem
    counters = statistics.counters
    values: dict[str, object] = {
        "topic": p.classification_topic(camera),
        "silent_s": silent_s,
        "input_hz": statistics.rate("received"),
        **{name: counters.get(name, 0) for name in CLASS_COUNTERS},
    }
    if belief is not None:
        best = belief.top_k(1)[0]
        values["class"], values["probability"] = best.label, best.score
    return status_message(level, f"{node}: classes of {camera}", text, "", values)


@dataclass(frozen=True)
class PoseHealth:
    """How the pose filter does.

    Attributes:
        localised: as published.
        condition: `localised`, or why not.
        estimate: of the newest data; None without any.
        refused_in_a_row: poses since the last one that was accepted.
        replays: how often measurements were used again, because an older one came late.
        pose_silent_s: since the last measured pose, or since activation.
        odometry_silent_s: since the last odometry, in the same way.
        odometry_fault: in what it differs from the poses while it is not trusted; empty while it is.
    """

    localised: bool
    condition: str
    estimate: PoseEstimate | None
    refused_in_a_row: int
    replays: int
    pose_silent_s: float
    odometry_silent_s: float
    odometry_fault: str


def pose_status(node: str, p: FilterParameters, health: PoseHealth, statistics: Statistics) -> Any:
    """Returns the entry of the pose."""
    counters = {**statistics.counters, "replays": health.replays}
    level, text = (OK, "localised") if health.localised else (WARN, health.condition)
    if health.localised and statistics.rate("refused") > 0:
        level, text = WARN, "localised, but some input is refused"
    if health.condition == UNCERTAIN and counters.get(CELLS_USED, 0):
        text = ": ".join(filter(None, (text, height_words(health.estimate))))
    text += _refusals(statistics)
    if health.odometry_fault:
        level, text = WARN, f"{text}; odometry distrusted: {health.odometry_fault}"
    if p.odometry_source != "none" and health.odometry_silent_s > p.stale_after_s:
        level, text = WARN, f"{text}; no odometry for {health.odometry_silent_s:.1f} s"
    if health.pose_silent_s > p.stale_after_s:
        text = f"{text}; no measured pose for {health.pose_silent_s:.1f} s"
    estimate = health.estimate
    values: dict[str, object] = {
        "localised": health.localised,
        "condition": health.condition,
        "position_sigma_m": estimate.sigma_m if estimate else math.nan,
        "rotation_sigma_deg": estimate.sigma_deg if estimate else math.nan,
        "rejected_in_a_row": health.refused_in_a_row,
        "pose_silent_s": health.pose_silent_s,
        "odometry_fault": health.odometry_fault,
        "odometry_silent_s": health.odometry_silent_s,
        "odometry_hz": statistics.rate("odometry"),
        "accepted_hz": statistics.rate("accepted"),
        "published_hz": statistics.rate("published"),
        "pose_topics": " ".join(p.poses()),
        "cell_topics": " ".join(p.cells()),
        **{name: counters.get(name, 0) for name in POSE_COUNTERS},
    }
    return status_message(level, f"{node}: pose", text, "", values)
