"""Log lines that may come with every frame: the first at once, then one a period that says how many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from robot_vision.text.counts import counted


class ThrottledLog:
    """Logs by key. Safe to use from several threads.

    Args:
        log: takes the line.
        period_s: returns the seconds between two lines of one key.
    """

    def __init__(self, log: Callable[[str], object], period_s: Callable[[], float]) -> None:
        self._log = log
        self._period_s = period_s
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._since: dict[str, int] = {}

    def __call__(self, key: str, text: str, now: float | None = None) -> None:
        """Logs `text`, or counts it if a line of this key was logged less than a period ago."""
        now = time.monotonic() if now is None else now
        with self._lock:
            count = self._since.get(key, 0) + 1
            last = self._last.get(key)
            if last is not None and now - last < self._period_s():
                self._since[key] = count
                return
            self._last[key] = now
            self._since[key] = 0
        more = (
            f" ({counted(count, 'time')} in {now - last:.0f} s)"
            if last is not None and count > 1
            else ""
        )
        self._log(text + more)
