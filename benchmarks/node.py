"""The running node between a camera and a planner, each in its own process, over real DDS."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import models, peers
from benchmarks.inputs import ROOT, STREAMS
from benchmarks.peers import (
    Bench,
    bench,
    camera_peer,
    listener_peer,
    perception,
    running,
)
from benchmarks.quiet import WATCH
from benchmarks.timing import percentiles
from robot_vision.engines.factory import available_engines

LOSS = 0.01  # a rate is sustained if fewer frames than this stay unanswered
FIXED_RATES = (10, 30, 60)
CASES = (("480p", "raw"), ("1080p", "compressed"), ("1080p", "raw"))
_DIAGNOSTICS_S = 1.1  # the node reports its counters once a second
_LAST_FRAMES_S = 0.3

# Precision, streams, and a rate (Hz) that is above what the node can do.
BESIDE_TODAYS = {
    "float32": ("float32", 1, 100.0),
    "overlapping_float32": ("float32", STREAMS, 100.0),
    "overlapping_int8": ("int8", STREAMS, 400.0),
}


def trial(peer: Bench, rate: float, seconds: float, wait: float = _DIAGNOSTICS_S) -> dict[str, Any]:
    """Publishes at a rate and returns what came of it; again where the machine was disturbed.

    Jitter is the standard deviation of the time between results; drops are the node's own counters.

    Args:
        peer: who is asked.
        rate: Hz.
        seconds: how long.
        wait: seconds after the last frame; with less than the default drops and stages may be older.
    """
    return WATCH.trial(lambda: one_trial(peer, rate, seconds, wait))


def one_trial(
    peer: Bench, rate: float, seconds: float, wait: float = _LAST_FRAMES_S
) -> dict[str, Any]:
    """See `trial`; the machine is not watched."""
    processes = peer.processes()
    before = _counters(peer.listener.ask()["diagnostics"])
    used = peers.cpu_seconds(processes)
    sent = peer.camera.ask(rate=rate, seconds=seconds)
    time.sleep(wait)
    after = peers.cpu_seconds(processes)
    taken = peer.listener.ask()
    published = sent["published"] * peer.cameras
    answered = {name: len(ages) for name, ages in taken["ages_ns"].items()}
    worst = min(answered.values())
    ages = [age / 1e9 for age in list(taken["ages_ns"].values())[-1]]
    times = taken["received_ns"]
    gaps = [(b - a) / 1e6 for a, b in zip(times, times[1:], strict=False)]
    drops = {k: v - before.get(k, 0) for k, v in _counters(taken["diagnostics"]).items()}
    return {
        "rate_hz": round(sent["published"] / sent["seconds"], 2),
        "published": published,
        "answered": answered,
        "loss": round(1 - worst / published, 4),
        "answered_hz": round(worst / sent["seconds"], 2),
        "age_at_reception": {**percentiles(ages), "max_ms": round(max(ages) * 1e3, 4)} if ages else None,
        "jitter_ms": round(statistics.pstdev(gaps), 3) if gaps else None,
        "drops": {k: v for k, v in drops.items() if v},
        "cpu_ms_a_frame": {k: round(1e3 * (after[k] - used[k]) / max(worst, 1), 2) for k in used},
        "memory_mib": peers.memory_mib(processes),
        "stages_ms": _stages(taken["diagnostics"]),
    }  # fmt: skip


def _stages(diagnostics: dict[str, str]) -> dict[str, float]:
    """Returns the medians of the node's own stages in its window of 2 s, the end of the trial."""
    from robot_vision.ros.perception.worker import STAGES

    values = {key.rpartition("/")[2]: value for key, value in diagnostics.items()}
    found = {stage: float(values.get(f"{stage}_ms_p50", "nan")) for stage in STAGES}
    return {stage: value for stage, value in found.items() if value == value}


def _counters(diagnostics: dict[str, str]) -> dict[str, int]:
    """Sums the drop counters of all cameras."""
    from robot_vision.ros.perception.diagnostics import DROPS

    sums: dict[str, int] = {}
    for key, value in diagnostics.items():
        name = key.rpartition("/")[2]
        if name in DROPS:
            sums[name] = sums.get(name, 0) + int(value)
    return sums


def median_of(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns one trial's form with the median of every number over several."""
    result: dict[str, Any] = {}
    for key in trials[0]:
        values = [t[key] for t in trials if t[key] is not None]
        if any(isinstance(v, dict) for v in values):
            names = {name for v in values for name in v}
            result[key] = {
                n: round(statistics.median(v.get(n, 0) for v in values), 4) for n in sorted(names)
            }
        else:
            result[key] = round(statistics.median(values), 4) if values else None
    return {**result, "repetitions": len(trials)}  # fmt: skip


def loses(peer: Bench, rate: float, seconds: float) -> bool:
    """Says whether frames at a rate stay unanswered: more than `LOSS` of the median of up to three trials.

    A disturbance that `trial` did not see costs some 1 percent of a trial, which is the whole margin, so
    that one trial decides where nothing is lost or several times that.
    """
    losses: list[float] = []
    while len(losses) < 3:
        losses.append(trial(peer, rate, seconds, _LAST_FRAMES_S)["loss"])
        if losses[0] <= 0 or losses[0] > 4 * LOSS:
            break
        if len(losses) == 2 and (losses[0] < LOSS) == (losses[1] < LOSS):
            break
    return statistics.median_high(losses) >= LOSS


def sustained(peer: Bench, top: float, seconds: float, quick: bool = False) -> dict[str, Any]:
    """Searches the highest rate of a camera with less than 1 percent loss, to 1.5 percent.

    Args:
        peer: who is asked.
        top: a rate (Hz) that is above what is expected; a node that answers all of it is asked for more.
        seconds: a trial.
        quick: search to 5 percent.
    """
    flood = trial(peer, top * 1.3, seconds, _LAST_FRAMES_S)
    # Else the search would end at its own limit, and who answers all is not flooded.
    while flood["loss"] < LOSS and flood["rate_hz"] > 0.9 * top * 1.3:
        top *= 2
        flood = trial(peer, top * 1.3, seconds, _LAST_FRAMES_S)
    low, high = 0.0, top * 1.3
    # A node may answer nothing while it is flooded.
    rate = max(min(flood["answered_hz"] / peer.cameras, top), top / 50)
    for _ in range(8):
        if loses(peer, rate, seconds):
            high = rate
        else:
            low = rate
        if low and high - low < (0.05 if quick else 0.015) * high:
            break
        rate = min((low + high) / 2, 1.1 * low) if low else rate * 0.9
    best = trial(peer, low, seconds) if low else {"rate_hz": 0.0}
    return {"sustained": best, "flood_answered_hz": flood["answered_hz"]}


def live(
    images: list[Any],
    own: Callable[[], dict[str, float]],
    seconds: float,
    precision: str,
    repetitions: int,
    quick: bool,
    streams: int,
) -> dict[str, Any]:
    """The perception node: sustained rates, and what happens at fixed ones.

    Args:
        images: to export the bundle with, if need be.
        own: measures the rates (Hz) of the bare engine and of the pipeline, while the node idles. It is
            asked before and after each search, so that both see the same state of the machine.
        seconds: a trial.
        precision: of the engine.
        repetitions: of each fixed rate; medians are returned.
        quick: search less closely, and only 480p raw.
        streams: batches in work at the same time.
    """
    path, computed = _path(precision, images)
    results: dict[str, Any] = {}
    # Raw 1080p says the least: once is enough.
    most = 1 if quick else 3 if (precision, streams) == ("float32", 1) else 2
    for size, transport in CASES[:most]:
        command = perception(path, transport, computed, streams=streams)
        with bench(command, size=size, transport=transport) as peer:
            before = own()
            case = sustained(peer, before["pipeline"], seconds, quick)
            after = own()
            case["own_hz"] = {k: round((before[k] + after[k]) / 2, 2) for k in before}
            for rate in FIXED_RATES if (precision, streams) == ("float32", 1) else (30,):
                trials = [trial(peer, rate, seconds) for _ in range(repetitions)]
                case[f"at_{rate}_hz"] = median_of(trials)
        results[f"{size} {transport}"] = case
    return results


def _path(precision: str, images: list[Any]) -> tuple[str, str]:
    bundle, computed = models.ready("three_heads", precision, images)
    return str(bundle.path), computed


def engines(images: list[Any], top: float, seconds: float, quick: bool) -> dict[str, Any]:
    """The perception node at 480p raw, float32, with each engine but torch, and the int8 bundle.

    Quick: ONNX Runtime and the int8 bundle alone.
    """
    names = [
        name for name in available_engines() if name == "onnx" or not (quick or name == "torch")
    ]
    path = str(models.bundle("three_heads", images).path)
    commands = {name: perception(path, "raw", "float32", name) for name in names}
    int8 = str(models.variant("int8", images).path)
    commands["int8 bundle"] = perception(int8, "raw", "float32")
    if not quick:
        commands[f"int8 bundle, streams:={STREAMS}"] = perception(
            int8, "raw", "float32", streams=STREAMS
        )
    results = {}
    for name, command in commands.items():
        with bench(command) as peer:
            results[name] = sustained(peer, top * (4 if "int8" in name else 1), seconds, quick)
    return results


def many_cameras(
    images: list[Any], top: float, seconds: float, counts: list[int], precision: str, quick: bool
) -> dict[str, Any]:
    """The perception node with several synchronised 480p cameras: one batch for all that wait."""
    path, computed = _path(precision, images)
    results = {}
    for count in counts:
        command = perception(path, "raw", computed, cameras=count)
        with bench(command, cameras=count) as peer:
            results[str(count)] = sustained(peer, top / count, seconds, quick)
    return results


def todays(images: list[Any], seconds: float, turns: int) -> dict[str, Any]:
    """The node that people write today and ours in turns, at 480p raw.

    The machine's rate changes within minutes, and today's node's from start to start (torch's threads wait
    actively and get into each other's way on few cores), so both are started several times and the best
    of ours is compared with the best of theirs. One turn is a quick one, with one of ours.
    """
    theirs = [sys.executable, "-m", "benchmarks.todays_node"]
    nodes = {"todays": (theirs, peers.TODAYS, 40.0)}
    for name, (precision, streams, top) in list(BESIDE_TODAYS.items())[: 1 if turns == 1 else None]:
        path, computed = _path(precision, images)
        command = perception(path, "raw", computed, streams=streams)
        nodes[name] = (command, peers.PERCEPTION, top)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in nodes}
    for turn in range(turns):
        # There and back: the one that is always first would gain or lose by a machine that warms up.
        for name in list(nodes)[:: -1 if turn % 2 else 1]:
            command, node, top = nodes[name]
            with bench(command, node) as peer:
                results[name].append(sustained(peer, top, seconds, turns == 1))
    rates = {
        name: [float(r["sustained"]["rate_hz"]) for r in found] for name, found in results.items()
    }
    best = max(results["todays"], key=lambda r: float(r["sustained"]["rate_hz"]))
    return {
        **best,
        "all_starts_hz": rates,
        "over": over(rates),
    }


def over(rates: dict[str, list[float]]) -> dict[str, float]:
    """Returns our best rates over the best of today's node; nothing if that sustained none."""
    best = max(rates["todays"])
    ours = [name for name in rates if name != "todays"]
    return {name: round(max(rates[name]) / best, 2) for name in ours} if best else {}


def start_up(images: list[Any], repetitions: int) -> dict[str, Any]:
    """Seconds from the start of the node's process to its first result at a subscriber.

    Once with the ONNX engine, once with the fastest; torch must not be loaded by either.
    """
    path = str(models.bundle("three_heads", images).path)
    results = {}
    for engine in ("onnx", "auto"):
        command = perception(path, "raw", "float32", engine)
        times = []
        for _ in range(repetitions):
            times.append(WATCH.trial(partial(first_result_s, command)))
        results[engine] = {
            "seconds": [round(t, 2) for t in times],
            "median": round(sorted(times)[len(times) // 2], 2),
        }
    return results


def first_result_s(
    command: list[str],
    limit_s: float = 11.0,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
) -> float:
    """Returns the seconds from the start of a node (in `cwd`, with `env`) to its first result.

    Raises:
        RuntimeError: there is none within the limit.
    """
    with (
        closing(camera_peer(env=env)) as camera,
        closing(listener_peer("/perception/camera", env=env)) as listener,
    ):
        camera.send(rate=30, seconds=limit_s + 1)
        time.sleep(0.5)
        started = time.time_ns()
        with running(command, cwd, env):
            while time.time_ns() < started + limit_s * 1e9:
                time.sleep(0.05)
                if first := listener.ask()["first_ns"]:
                    return float(first - started) / 1e9
    raise RuntimeError(f"no result within {limit_s:g} s")
