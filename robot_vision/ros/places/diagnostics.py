"""What `/diagnostics` says of the place node: of itself, its map, and mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robot_vision.places.map.base import MapInfo
from robot_vision.places.verification.verifier import REASONS
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import status_message
from robot_vision.ros.places.keyframes import OFF, PAUSED, Mapper
from robot_vision.text.address import shown
from robot_vision.text.counts import counted

OK, WARN, ERROR = 0, 1, 2
# Counters that stand in every message, so that a plot of them starts at 0.
COUNTERS = (
    "received",
    "answered",
    "accepted",
    "loop_closures",
    "replaced",
    "limited",
    "late",
    "stamps_back",
    "refused_encoding",
    "refused_size",
    "refused_data_length",
    "refused_non_finite",
    "refused_dimension",
    "refused_stamp",
    "no_pose",
    "no_image",
    "no_transform",
    "poses_back",
    "odometry_jumps",
    "pose_refused",
    "pose_refused_frame",
    "covariance_unknown",
    "tf_refused",
    "images_refused",
    "camera_info_refused",
    "no_map",
    "recognition_failures",
    "aliased",
    "verified",
    "verification_refused",
    *(f"verification_{reason}" for reason in REASONS if reason and reason != "no_structure"),
    "not_verifiable",
    "matches_against_odometry",
    "incompatible_qos",
    "internal_errors",
)
MAPPING_COUNTERS = (
    "keyframes_added",
    "keyframes_there_already",
    "keyframes_refused",
    "keyframes_lost",
    "keyframes_without_origin",
    "structures",
    "structures_failed",
    "map_full",
    "map_locked",
    "map_read_only",
    "map_unusable",
)


@dataclass(frozen=True)
class Health:
    """What is known of the node besides its statistics.

    Attributes:
        name: full name of the node.
        state: of the lifecycle.
        problem: why the last transition failed; empty if it did not.
        descriptors: topic.
        descriptor_publishers: of it.
        silent_s: since the last descriptor, or since activation.
        seen: whether there was one since activation.
        motion: topic of the robot's motion; empty for none.
        motion_silent_s: since its last pose.
        motion_seen: whether there was one.
        stale_after_s: silence that is reported.
        unverified: why matches cannot be verified though they should be; empty where they can.
        model: name of the model that makes the descriptors; empty while unknown.
    """

    name: str
    state: str
    problem: str
    descriptors: str
    descriptor_publishers: int
    silent_s: float
    seen: bool
    motion: str
    motion_silent_s: float
    motion_seen: bool
    stale_after_s: float
    model: str
    unverified: str = ""


def node_status(health: Health, statistics: Statistics) -> Any:
    """Returns the entry of the node and what it listens to."""
    counters = statistics.counters
    level, text = OK, f"{health.state}, places accepted at {statistics.rate('accepted'):.1f} Hz"
    if health.problem:
        level, text = (ERROR if health.state == "unconfigured" else WARN), health.problem
    elif health.state != "active":
        text = health.state
    else:
        level, text = _of_inputs(health, statistics, level, text)
    work = statistics.percentiles("work")
    values: dict[str, object] = {
        "state": health.state,
        "model": health.model,
        "descriptors": health.descriptors,
        "publishers": health.descriptor_publishers,
        "input_hz": statistics.rate("received"),
        "accepted_hz": statistics.rate("accepted"),
        "refused_hz": statistics.rate("refused"),
        "silent_s": health.silent_s,
        "motion": health.motion,
        "motion_hz": statistics.rate("poses"),
        "motion_silent_s": health.motion_silent_s,
        "work_ms_p50": work.p50 * 1e3,
        "work_ms_p99": work.p99 * 1e3,
        **{name: counters.get(name, 0) for name in COUNTERS},
    }
    return status_message(level, health.name, text, "", values)


def _of_inputs(health: Health, statistics: Statistics, level: int, text: str) -> tuple[int, str]:
    refused = statistics.rate("refused")
    if refused > 0:
        level, text = WARN, f"descriptors refused at {refused:.1f} Hz"
    if health.motion and health.motion_silent_s > health.stale_after_s:
        what = "stopped" if health.motion_seen else "has not started"
        level = WARN
        text = f"{health.motion} {what}: no pose for {health.motion_silent_s:.1f} s"
    if health.unverified:
        level, text = WARN, f"no pose is published: {health.unverified}"
    if health.silent_s > health.stale_after_s:
        level = ERROR
        text = (
            f"no descriptor for {health.silent_s:.1f} s"
            if health.seen
            else f"no descriptor yet on {health.descriptors} "
            f"({counted(health.descriptor_publishers, 'publisher')})"
        )
    return level, text


def map_status(
    name: str, uri: str, info: MapInfo | None, size: int, problem: str, missing: bool, failures: int
) -> Any:
    """Returns the entry of the map.

    Args:
        name: full name of the node.
        uri: of the map; empty for none.
        info: of the open map.
        size: places that can be recognised.
        problem: why it is not open; empty if it is.
        missing: whether that is only because it does not exist.
        failures: to open or read it, so far.
    """
    level, text = OK, counted(size, "place")
    if not uri:
        text = "none"
    elif info is None:
        level, text = (WARN if missing else ERROR), problem or "not open yet"
    elif size == 0:
        level, text = WARN, "empty: nothing can be recognised yet"
    values: dict[str, object] = {"map": shown(uri), "places": size, "failures": failures}
    if info is not None:
        values.update(
            model=info.bundle_name,
            sha256=info.bundle_sha256,
            dimension=info.dimension,
            frame=info.frame_id,
            map_id=info.map_id,
        )
    return status_message(level, f"{name}: map", text, "", values)


def mapping_status(name: str, mapper: Mapper, statistics: Statistics) -> Any:
    """Returns the entry of mapping."""
    counters = statistics.counters
    level, text = OK, mapper.state
    if mapper.state == PAUSED:
        level, text = ERROR, f"paused: {mapper.why}"
    elif mapper.state != OFF:
        text = f"on: {counted(mapper.added, 'keyframe')} added"
    values: dict[str, object] = {
        "state": mapper.state,
        "source": mapper.source,
        "waiting": mapper.waiting,
        **{key: counters.get(key, 0) for key in MAPPING_COUNTERS},
    }
    return status_message(level, f"{name}: mapping", text, "", values)
