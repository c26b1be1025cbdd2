"""Counters, rates and percentiles over the last seconds; adding to them costs about a microsecond."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

MAX_SAMPLES = 4096  # bounds memory and the work of a percentile at any rate
_LEAST_S = 1.0  # over less, the first event of all would be one of a thousand a second


@dataclass(frozen=True)
class Percentiles:
    """Of the values in a window, in their unit; NaN when there are none."""

    p50: float
    p95: float
    p99: float
    count: int


class SlidingWindow:
    """Values with the time at which they were added; those older than the window are forgotten.

    Args:
        length_s: of the window.
        now: seconds of a steady clock at creation.
    """

    def __init__(self, length_s: float, now: float | None = None) -> None:
        assert length_s > 0
        self._length = length_s
        self._start = time.monotonic() if now is None else now
        self._samples: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)

    def add(self, value: float = 0.0, now: float | None = None) -> None:
        """Adds a value."""
        self._samples.append((time.monotonic() if now is None else now, value))

    def _current(self, now: float) -> list[tuple[float, float]]:
        samples = self._samples
        while samples and samples[0][0] < now - self._length:
            samples.popleft()
        return list(samples)

    def rate(self, now: float | None = None) -> float:
        """Returns values a second, over the window or, while it is younger, over its age from 1 s on."""
        now = time.monotonic() if now is None else now
        samples = self._current(now)
        if len(samples) == MAX_SAMPLES:  # the window was cut short
            return (len(samples) - 1) / max(now - samples[0][0], 1e-9)
        return len(samples) / min(self._length, max(now - self._start, _LEAST_S))

    def percentiles(self, now: float | None = None) -> Percentiles:
        """Returns p50, p95 and p99 of the values in the window."""
        values = [v for _, v in self._current(time.monotonic() if now is None else now)]
        if not values:
            return Percentiles(float("nan"), float("nan"), float("nan"), 0)
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        return Percentiles(float(p50), float(p95), float(p99), len(values))


class Statistics:
    """Counters and windows by name, for one camera or one node; safe to use from several threads.

    Args:
        window_s: length of its windows.
    """

    def __init__(self, window_s: float) -> None:
        self._lock = threading.Lock()
        self._window_s = window_s
        self._counters: Counter[str] = Counter()
        self._windows: dict[str, SlidingWindow] = {}

    def count(self, name: str, amount: int = 1) -> int:
        """Adds to a counter and returns its new value."""
        with self._lock:
            self._counters[name] += amount
            return self._counters[name]

    def mark(self, name: str) -> None:
        """Notes an event whose rate is of interest."""
        self.sample(name, 0.0)

    def sample(self, name: str, value: float) -> None:
        """Adds a value to a window."""
        now = time.monotonic()
        with self._lock:
            window = self._windows.get(name)
            if window is None:
                window = self._windows[name] = SlidingWindow(self._window_s, now)
            window.add(value, now)

    @property
    def counters(self) -> dict[str, int]:
        """Copies the counters."""
        with self._lock:
            return dict(self._counters)

    def recent(self, prefix: str) -> list[str]:
        """Returns what follows a prefix in the names of windows that hold an event."""
        with self._lock:
            return sorted(
                name[len(prefix) :]
                for name, window in self._windows.items()
                if name.startswith(prefix) and window.rate() > 0
            )

    def rate(self, name: str) -> float:
        """Returns events a second of a window; 0 if nothing was ever added."""
        with self._lock:
            return self._windows[name].rate() if name in self._windows else 0.0

    def percentiles(self, name: str) -> Percentiles:
        """Returns the percentiles of a window."""
        with self._lock:
            window = self._windows.get(name)
            return window.percentiles() if window else SlidingWindow(self._window_s).percentiles()
