"""Whether the machine was left alone while something was measured; what was disturbed is measured again.

Two signs of it. Others used the cores: what /proc/stat counts as busy, less what this process and its
children used, or what the hypervisor took (steal). And the machine was slower: a fixed matrix product, just
before and just after, took longer than it does at best in this run, or got less of the processor.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

T = TypeVar("T")

# A trial is disturbed above one of the first three, or below the last.
OTHERS = 0.05  # share of all cores that other processes used
STEAL = 0.02  # share of all cores that the hypervisor gave to others
SLOWER = 1.25  # time of the matrix product over the best of the run
WAITED = 0.85  # processor time over time of the product, over the best of the run

REPEATS = 3
_MATRIX = 768
_PRODUCTS = 8
_IDLE_S = 0.05  # a BLAS whose threads wait actively lets go of the cores within that time
_FRESH_S = 0.3  # a product that was timed so long ago says how the machine is now
_SETTLE_S = (
    2.0  # the longest wait for what a trial has started: its last frames, processes that end
)
_WINDOW_S = 0.1


@dataclass(frozen=True)
class Product:
    """A probe: the median product's seconds, its processor time over them, and when it was."""

    seconds: float
    share: float
    at: float


@dataclass(frozen=True)
class Trial:
    """How the machine was in one trial that counts."""

    others: float
    steal: float
    before: Product
    after: Product


@dataclass
class Watch:
    """Runs trials, repeats those that were disturbed, and knows what it has repeated.

    Args:
        repeats_s: seconds that repeated trials may take together; after that a disturbed trial counts,
            and `disturbed` says so.
    """

    repeats_s: float = 60.0
    repeated: int = 0
    trials: list[Trial] = field(default_factory=list)
    _spent: float = 0.0
    _last: Product | None = None
    _products: list[Product] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        self._a, self._b = (random.random((_MATRIX, _MATRIX), np.float32) for _ in range(2))
        self._out = np.empty_like(self._a)

    def trial(self, measure: Callable[[], T]) -> T:
        """Returns what `measure` does in a quiet time, or in the last of the times that are allowed."""
        for attempt in range(1 + REPEATS):
            started = time.monotonic()
            before = self._probe(fresh=True)
            start = _used()
            result = measure()
            others, steal = _shares(start, _used())
            trial = Trial(others, steal, before, self._probe())
            if not self._why(trial) or attempt == REPEATS or self._spent > self.repeats_s:
                break
            self.repeated += 1
            self._spent += time.monotonic() - started
        self.trials.append(trial)
        return result

    def found(self, start: int = 0, stop: int | None = None) -> dict[str, Any]:
        """Returns what the trials of these numbers were like: how many were disturbed, and how.

        A trial is judged by the best product of the whole run, so that this may say more later.
        """
        trials = self.trials[start:stop]
        why = [text for text in map(self._why, trials) if text]
        return {
            "trials": len(trials),
            "disturbed": len(why),
            "reasons": sorted(set(why))[:3],
            "others": round(max((t.others for t in trials), default=0.0), 3),
            "steal": round(max((t.steal for t in trials), default=0.0), 3),
            "product_ms": [round(1e3 * t.after.seconds, 2) for t in trials],
        }

    def _why(self, trial: Trial) -> str:
        """Returns what disturbed a trial, empty if nothing did."""
        if trial.others > OTHERS:
            return f"other processes used {_percent(trial.others)} of the cores"
        if trial.steal > STEAL:
            return f"the hypervisor took {_percent(trial.steal)} of the cores"
        best = min(p.seconds for p in self._products)
        slowest = max(trial.before.seconds, trial.after.seconds) / best
        if slowest > SLOWER:
            return f"a matrix product took {slowest:.1f} times its best"
        share = min(trial.before.share, trial.after.share) / max(p.share for p in self._products)
        if share < WAITED:
            return f"a matrix product got {_percent(share)} of its processor time"
        return ""

    def _probe(self, fresh: bool = False) -> Product:
        """Times the product; with `fresh` one that was just timed serves again."""
        if fresh and self._last and time.monotonic() - self._last.at < _FRESH_S:
            return self._last
        _settle()
        seconds = []
        start, used = time.perf_counter(), time.process_time()
        for _ in range(_PRODUCTS):
            began = time.perf_counter()
            np.matmul(self._a, self._b, out=self._out)
            seconds.append(time.perf_counter() - began)
        share = (time.process_time() - used) / (time.perf_counter() - start)
        time.sleep(_IDLE_S)
        self._last = Product(statistics.median(seconds), share, time.monotonic())
        self._products.append(self._last)
        return self._last


def _settle() -> None:
    """Waits until the cores are idle, so that what our own trial leaves behind is not taken for others'."""
    until = time.monotonic() + _SETTLE_S
    start = _busy()
    while time.monotonic() < until:
        time.sleep(_WINDOW_S)
        end = _busy()
        if end[0] - start[0] <= OTHERS * _WINDOW_S * (os.cpu_count() or 1):
            return
        start = end


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class _Used:
    """Seconds of the processor until now: of all cores together, and of us."""

    busy: float
    steal: float
    ours: float
    at: float


def _busy() -> tuple[float, float]:
    """Returns the seconds that all cores were busy, and that the hypervisor took."""
    fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    # What interrupts take (irq, softirq) is left out: frames between our own processes cause it.
    return sum(fields[:3]) / tick, fields[7] / tick


def _used() -> _Used:
    busy, steal = _busy()
    ours = sum(os.times()[:4])  # children that have ended are in it
    for child in psutil.Process().children(recursive=True):
        try:
            ours += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return _Used(busy, steal, ours, time.monotonic())


def _shares(start: _Used, end: _Used) -> tuple[float, float]:
    """Returns the shares of all cores that other processes and the hypervisor took."""
    cores = (os.cpu_count() or 1) * max(end.at - start.at, 1e-3)
    others = (end.busy - start.busy) - (end.ours - start.ours)
    return max(0.0, others / cores), (end.steal - start.steal) / cores


WATCH = Watch()  # of the run: what measures anything asks it
