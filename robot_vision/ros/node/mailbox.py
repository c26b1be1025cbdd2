"""The newest item of each camera, waiting for the worker: old ones are replaced and counted, never queued."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One slot for each key, filled by any thread and emptied by the worker, which takes all at once.

    Args:
        keys: the cameras.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._slots: dict[str, T] = {}
        self._replaced = {key: 0 for key in keys}
        self._closed = False

    def put(self, key: str, item: T) -> bool:
        """Puts an item into a camera's slot.

        Returns:
            Whether an older item, which nobody took, was replaced. After `close` items are discarded.
        """
        with self._changed:
            if self._closed:
                return False
            replaced = key in self._slots
            # Taking and adding again moves the key to the end: `take` yields the longest waiting first.
            self._slots.pop(key, None)
            self._slots[key] = item
            self._replaced[key] += replaced
            self._changed.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> dict[str, T]:
        """Waits for items and takes all that are there, oldest arrival first.

        Returns:
            One item for each camera that has one; empty after `close` or when the time is up.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._closed, timeout_s)
            taken, self._slots = self._slots, {}
            return taken

    def close(self) -> None:
        """Discards what waits and wakes the worker; `closed` is true from now on."""
        with self._changed:
            self._closed = True
            self._slots = {}
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def replaced(self) -> dict[str, int]:
        """How many items of each camera were replaced by newer ones."""
        with self._changed:
            return dict(self._replaced)


@dataclass
class RateLimiter:
    """Lets through at most this many events per second, on average over neighbouring events.

    A limiter that only compares with the last event let through turns 30 Hz limited to 20 into 15; this one
    keeps a schedule and so reaches 20.
    """

    due: float = 0.0

    def allows(self, rate_hz: float, now: float | None = None) -> bool:
        """Says whether an event may pass now.

        Args:
            rate_hz: the limit; 0 is unlimited. It may differ from call to call.
            now: seconds of a steady clock, which no jump of ROS time touches.
        """
        if rate_hz <= 0:
            return True
        now = time.monotonic() if now is None else now
        period = 1.0 / rate_hz
        if now < self.due:
            if self.due - now <= period:
                return False
            self.due = now  # the limit was raised, the old schedule is void
        # At most one period behind: a pause must not be made up for with a burst.
        self.due = max(self.due, now - period) + period
        return True
