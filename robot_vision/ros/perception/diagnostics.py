"""What `/diagnostics` says of the node and of each camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import status_message
from robot_vision.ros.perception.worker import STAGES
from robot_vision.text.counts import counted

OK, WARN, ERROR = 0, 1, 2
# Counters that stand in every message, so that a plot of them starts at 0.
DROPS = (
    "lost",
    "replaced",
    "limited",
    "idle",
    "engine_failed",
    "refused_encoding",
    "refused_size",
    "refused_data_length",
    "refused_corrupt",
    "refused_non_finite",
    "refused_result",
    "no_transform",
    "no_camera_info",
    "camera_info_refused",
    "no_frame_id",
    "frame_taken",
    "unknown_view",
    "stamps_back",
    "stamps_ahead",
)

WITHHELD = "withheld "  # before the reason, in the name of a window


@dataclass(frozen=True)
class CameraHealth:
    """What is known of a camera besides its statistics.

    Attributes:
        name: of the camera.
        topic: that is subscribed.
        publishers: of that topic.
        silent_s: since the last frame, or since activation if there was none.
        seen: whether there was a frame since activation.
        idle: whether nobody listens to its results.
        advice: what is wrong with the topic, where that is known.
    """

    name: str
    topic: str
    publishers: int
    silent_s: float
    seen: bool
    idle: bool
    advice: str = ""


def camera_status(
    node: str, device: str, health: CameraHealth, statistics: Statistics, stale_after_s: float
) -> Any:
    """Returns the entry of an active camera."""
    counters = statistics.counters
    received, published = statistics.rate("received"), statistics.rate("published")
    refused, left_out = statistics.rate("refused"), statistics.rate("left_out")
    level, text = OK, f"{published:.1f} Hz"
    if health.idle:
        text = "idle: no subscribers"
    if withheld := statistics.recent(WITHHELD):  # what is seen is new: no fault of the robot
        rate = sum(statistics.rate(f"{WITHHELD}{reason}") for reason in withheld)
        what = ", ".join(withheld).replace("_", " ")
        level, text = WARN, f"{what}: withheld at {rate:.1f} Hz, published {published:.1f} Hz"
    if left_out > 0:
        level = WARN if published > 0 else ERROR
        text = f"answers left out at {left_out:.1f} Hz, published {published:.1f} Hz"
    if refused > 0:
        level = WARN if published > 0 else ERROR
        text = f"frames refused at {refused:.1f} Hz, published {published:.1f} Hz"
    if health.silent_s > stale_after_s:
        level = ERROR
        text = (
            f"no frame for {health.silent_s:.1f} s"
            if health.seen
            else f"no frame yet on {health.topic} ({counted(health.publishers, 'publisher')})"
        )
        text += health.advice
    values: dict[str, object] = {
        "topic": health.topic,
        "publishers": health.publishers,
        "input_hz": received,
        "output_hz": published,
        "refused_hz": refused,
        "silent_s": health.silent_s,
        **_percentiles(statistics, "age", "age_at_publication_ms"),
        "received": counters.get("received", 0),
        "published": counters.get("published", 0),
        **{name: counters.get(name, 0) for name in DROPS},
        # Why answers of some heads were left out, where that has happened.
        **{name: count for name, count in sorted(counters.items()) if name not in DROPS},
    }
    return status_message(level, f"{node}: camera {health.name}", text, device, values)


def node_status(
    node: str,
    state: str,
    about: Mapping[str, object],
    statistics: Statistics,
    failures_in_a_row: int,
    max_failures: int,
    problem: str,
) -> Any:
    """Returns the entry of the node: its state, model, engine and the time that each stage takes.

    Args:
        node: its full name.
        state: of the lifecycle.
        about: model, engine and device.
        statistics: of the node.
        failures_in_a_row: of the network.
        max_failures: from this many on, the level is ERROR.
        problem: why the last transition failed; empty if it did not.
    """
    level, text = OK, state
    if state == "unconfigured" and problem:
        level, text = ERROR, problem
    elif problem:
        level, text = WARN, problem
    if statistics.rate("engine_failed") > 0:
        level, text = WARN, "the network failed on some batches"
    if failures_in_a_row >= max_failures:
        level, text = ERROR, f"the network failed {counted(failures_in_a_row, 'time')} in a row"
    values: dict[str, object] = {"state": state, **about}
    for stage in STAGES:
        values.update(_percentiles(statistics, stage, f"{stage}_ms"))
    batch = statistics.percentiles("batch")
    values["batches_hz"] = statistics.rate("batch")
    values["batch_size_p50"] = batch.p50
    for name in ("engine_failures", "batch_reduced", "internal_errors", "incompatible_qos"):
        values[name] = statistics.counters.get(name, 0)
    return status_message(level, node, text, str(about.get("device", "")), values)


def _percentiles(statistics: Statistics, name: str, key: str) -> dict[str, object]:
    p = statistics.percentiles(name)
    return {f"{key}_p50": p.p50 * 1e3, f"{key}_p95": p.p95 * 1e3, f"{key}_p99": p.p99 * 1e3}
