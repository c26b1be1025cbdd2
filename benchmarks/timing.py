"""Side-by-side timing: what is compared is run in turns, so that a noisy machine hits all alike."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.quiet import WATCH

ROUND_S = 1.0  # what a disturbance costs; less is too short to say who used the cores


def positive(text: str) -> float:
    """Returns a time to measure for, which is above zero: an argument's type."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Returns p50, p95, p99 and the mean in milliseconds, and the number of samples."""
    ms = np.asarray(seconds) * 1e3
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    values = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "mean_ms": ms.mean()}
    return {**{name: round(float(v), 4) for name, v in values.items()}, "samples": len(ms)}


def side_by_side(
    runs: Mapping[str, Callable[[], object]], seconds: float, turn: int = 5
) -> dict[str, dict[str, float]]:
    """Times callables in turns of `turn` calls until each had its share of `seconds`.

    That time is divided into rounds; one in which the machine was disturbed is repeated.

    Returns:
        For each name its `percentiles`.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    rounds = max(1, round(seconds / ROUND_S))
    for _ in range(rounds):
        found = WATCH.trial(lambda: _round(runs, seconds / rounds, turn, math.ceil(10 / rounds)))
        for name, values in found.items():
            samples[name] += values
    return {name: percentiles(values) for name, values in samples.items()}


def _round(
    runs: Mapping[str, Callable[[], object]], seconds: float, turn: int, least: int
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, samples.values())) < least:
        for name, run in runs.items():
            for _ in range(turn):
                start = time.perf_counter()
                run()
                samples[name].append(time.perf_counter() - start)
    return samples


def ratio(results: Mapping[str, Mapping[str, float]], over: str, under: str) -> float:
    """Returns the ratio of two medians."""
    return round(results[over]["p50_ms"] / results[under]["p50_ms"], 3)
