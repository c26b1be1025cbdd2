"""The steady run: a perception, a place and a filter node at full rate, watched for what grows."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from fault_rig import NODE, Rig
from ros_helpers import NodeProcess, wait_until

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map

# Hz, of cameras; hardly one gives more, and three nodes then have two cores to share.
RATES = (30, 60)
MOST_LOST = 0.01  # share of frames without an answer, as in ros2_benchmark
SAMPLE_S = 60.0
PLACES = 500
Sample = dict[str, Any]


class GrewError(AssertionError):
    """Something was not flat; `lost` has what was measured."""

    def __init__(self, text: str, lost: dict[str, Any]) -> None:
        super().__init__(text)
        self.lost = lost


def steady(rig: Rig, seconds: float) -> dict[str, Any]:
    """Perception, place and filter node at full rate: memory, open files, threads and latency stay flat."""
    rig.heal()
    beside = attach(rig)
    try:
        rate, above = full_rate(rig, seconds)
        rig.camera.tell(rate=rate)
        time.sleep(min(5.0, seconds / 4))  # buffers and caches grow to their size first
        nodes = {"perception": rig.node, **beside}
        sent, answers, replaced = rig.camera.tell(), rig.answers, rig.counters()["replaced"]
        series, ages = watch(rig, nodes, seconds)
        sent, answers = rig.camera.tell() - sent, rig.answers - answers
        replaced = rig.counters()["replaced"] - replaced
        for name in beside:
            found = rig.client.diagnostics(f"/{name}")
            assert found and float(found[2].get("internal_errors", 0)) == 0, found
    finally:
        rig.camera.tell(rate=20)
        statuses = {name: node.stop() for name, node in beside.items()}
    for name, node in beside.items():
        assert statuses[name] == 0 and "Traceback" not in node.output, node.output[-3000:]
    bounds = [round(i * len(ages) / 6) for i in range(7)]
    sixths = [sorted(itertools.chain(*ages[a:b])) for a, b in itertools.pairwise(bounds)]
    p50 = [1e3 * part[len(part) // 2] for part in sixths]
    p99 = [1e3 * part[int(0.99 * len(part))] for part in sixths]
    watched = {name: taken([sample["nodes"][name] for sample in series]) for name in nodes}
    found = {
        "rate_hz": rate,
        "rate_above": above,
        "sent": sent,
        "answered_percent": round(100 * answers / sent, 2),
        "replaced_percent": round(100 * replaced / sent, 2),
        "p50_ms": [round(value, 1) for value in p50],
        "p99_ms": [round(value, 1) for value in p99],
        "load": round(statistics.fmean(sample["load"] for sample in series), 2),
        "nodes": watched,
        "series": series,
    }
    grown = [f"{name}: {text}" for name, row in watched.items() for text in grew(row)]
    # A shorter run says nothing of it under other load on the machine.
    if seconds >= 60 and p50[-1] >= 2 * min(p50):
        grown.append(f"latency grew: {found['p50_ms']} ms")
    if grown:
        raise GrewError("; ".join(grown), found)
    return found


def attach(rig: Rig) -> dict[str, NodeProcess]:
    """Starts a place node, with a map that has what the camera shows, and a filter node; both at work."""
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from vision_msgs.msg import Classification, Detection3D

    path = _map(rig)
    common = ("-p", "diagnostics_period_s:=0.2")
    nodes = {
        "places": NodeProcess(
            rig.folder / f"places_{rig.starts}.txt", "robot_vision.ros.places.node", "--ros-args",
            *("-p", "camera:=front", "-p", f"map:={path}"), *common,
        ),
        "filters": NodeProcess(
            rig.folder / f"filters_{rig.starts}.txt", "robot_vision.ros.filters.node", "--ros-args",
            *("-p", "cameras:=[front]", "-p", "odometry_source:=none"), *common,
        ),
    }  # fmt: skip
    heard = {
        "/places/places": Detection3D,
        "/filters/front/classification": Classification,
        "/filters/pose": PoseWithCovarianceStamped,
    }
    lists = {topic: rig.client.listen(kind, topic) for topic, kind in heard.items()}
    for topic, messages in lists.items():
        said = "\n".join(node.output[-1000:] for node in nodes.values())
        wait_until(lambda: len(messages) >= 10, 60, f"messages on {topic}:\n{said}")  # noqa: B023
    for topic in heard:
        rig.client.ignore(topic)  # who listens here must not grow
    return nodes


def _map(rig: Rig) -> Path:
    """Returns a map with the place that the camera shows and others that look different."""
    from sensor_msgs.msg import Image

    from robot_vision.ros.places.messages import read_descriptor

    topic = f"{NODE}/front/descriptor"
    messages = rig.client.listen(Image, topic)
    wait_until(lambda: messages, 30, f"a message on {topic}")
    seen = read_descriptor(messages[-1])
    rig.client.ignore(topic)
    bundle = ModelBundle.load(rig.bundle)
    path = rig.folder / f"steady_{rig.starts}.map"
    others = np.random.default_rng(0).normal(size=(PLACES, len(seen)))
    with create_map(
        path, bundle_name=bundle.name, bundle_sha256=bundle.sha256, dimension=len(seen),
        frame_id="map",
    ) as places:  # fmt: skip
        for i, other in enumerate(others):
            T = np.eye(4)
            T[0, 3] = 2.0 * i
            descriptor = seen if i == 0 else (other / np.linalg.norm(other)).astype(np.float32)
            places.add(
                Keyframe.checked(
                    stamp_ns=i, camera="front", source="before", T_map_camera=T, descriptor=descriptor
                )
            )  # fmt: skip
    return path


def full_rate(rig: Rig, seconds: float) -> tuple[int, str]:
    """Returns the highest of `RATES` at which hardly a frame is lost, or the lowest, and what is above it."""
    best, trial = RATES[0], min(10.0, seconds / 20)
    for rate in RATES:
        # Twice: other work on the machine costs frames, too.
        lost = min(_lost(rig, rate, trial), _lost(rig, rate, trial))
        if lost > MOST_LOST:
            return best, f"{lost:.1%} lost at {rate} Hz"
        best = rate
    return best, "no more was tried"


def _lost(rig: Rig, rate: int, seconds: float) -> float:
    rig.camera.tell(rate=rate)
    time.sleep(min(1.0, seconds))
    sent, answers = rig.camera.tell(), rig.answers
    time.sleep(seconds)
    sent, answers = rig.camera.tell() - sent, rig.answers - answers
    return max(0, sent - answers - 2) / max(
        1, sent
    )  # so many more may be on their way than were before


def watch(
    rig: Rig, nodes: dict[str, NodeProcess], seconds: float
) -> tuple[list[Sample], list[list[float]]]:
    """Returns a sample a minute, at least twelve, and the ages (s) of the answers in each."""
    every = min(SAMPLE_S, seconds / 12)
    processes = {name: psutil.Process(node.process.pid) for name, node in nodes.items()}
    for process in processes.values():
        process.cpu_percent()  # from here on
    series: list[Sample] = []
    ages: list[list[float]] = []
    rig.take_ages()
    due = start = time.monotonic()
    for _ in range(max(12, round(seconds / every))):
        due = max(
            due + every, time.monotonic() + every / 2
        )  # this process may have been held up, too
        time.sleep(due - time.monotonic())
        ages.append(sorted(rig.take_ages()))
        assert ages[-1], f"no answer for {every:.0f} s:\n{rig.node.output[-3000:]}"
        now = ages[-1]
        series.append(
            {
                "minute": round((time.monotonic() - start) / 60, 2),
                "answers": len(now),
                "p50_ms": round(1e3 * now[len(now) // 2], 2),
                "p99_ms": round(1e3 * now[int(0.99 * len(now))], 2),
                "load": round(os.getloadavg()[0], 2),
                "nodes": {name: _resources(process) for name, process in processes.items()},
            }
        )
        if every >= 10:
            print(f"  {series[-1]}", flush=True)
    return series, ages


def _resources(process: psutil.Process) -> dict[str, float]:
    with process.oneshot():
        return {
            "memory_mib": round(process.memory_info().rss / 2**20, 1),
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "cpu_percent": process.cpu_percent(),
        }


def taken(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Returns what a node took in the first sixth of the run and in the last (files, threads: at the end)."""
    part = max(1, len(samples) // 6)
    first, last = samples[:part], samples[-part:]
    memory = [statistics.median(s["memory_mib"] for s in some) for some in (first, last)]
    return {
        "memory_mib": [round(value, 1) for value in memory],
        "memory_growth_mib": round(memory[1] - memory[0], 1),
        **{what: [max(s[what] for s in first), samples[-1][what]] for what in ("files", "threads")},
        "cpu_percent": round(statistics.fmean(s["cpu_percent"] for s in samples)),
    }


def grew(row: dict[str, Any]) -> list[str]:
    """Returns in what a node grew; nothing if it stayed flat."""
    found = []
    if row["memory_growth_mib"] >= max(8.0, 0.02 * row["memory_mib"][0]):
        found.append(f"memory grew by {row['memory_growth_mib']} MiB")
    for what in ("files", "threads"):
        first, last = row[what]
        if last > first:
            found.append(f"{what} grew from {first} to {last}")
    return found
