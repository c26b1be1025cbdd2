"""Spans of time in the Trace Event Format, which Perfetto and Chrome's tracing page open.

Format: Google's "Trace Event Format", complete events (`ph: X`), microseconds.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robot_vision.errors import ConfigError


class Trace:
    """Collects spans from any thread; `write` saves them.

    While it is used as a context manager it also notes the runs of Python's garbage collector.

    Args:
        process: the name that the viewer shows.
    """

    def __init__(self, process: str) -> None:
        self._events: list[dict[str, Any]] = []
        # Entered again by the same thread: the collector may run, and note itself, inside any of the blocks.
        self._lock = threading.RLock()
        self._named: set[int] = set()
        self._collection = 0.0
        self._add({"name": "process_name", "ph": "M", "args": {"name": process}})

    @contextmanager
    def span(self, name: str, **args: Any) -> Iterator[None]:
        """Notes how long the block takes, and how much of it this thread was on a core."""
        cpu, start = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            end, used = time.perf_counter(), time.thread_time() - cpu
            self.add(name, start, end - start, cpu_ms=round(used * 1e3, 4), **args)

    def add(self, name: str, start: float, seconds: float, **args: Any) -> None:
        """Notes a span that was measured elsewhere.

        Args:
            name: what it shows as.
            start: of `time.perf_counter()`, seconds.
            seconds: its length.
            args: what the viewer shows with it.
        """
        event: dict[str, Any] = {"name": name, "ph": "X", "ts": start * 1e6, "dur": seconds * 1e6}
        if args:
            event["args"] = args
        self._add(event)

    def write(self, file: str | Path) -> None:
        """Saves the trace as JSON.

        Raises:
            ConfigError: the file cannot be written.
        """
        with self._lock:
            text = json.dumps({"traceEvents": list(self._events), "displayTimeUnit": "ms"})
        try:
            Path(file).write_text(text)
        except OSError as error:
            raise ConfigError(f"trace {file} cannot be written: {error.strerror}") from error

    def durations(self, name: str) -> list[float]:
        """Returns the seconds of all spans of a name, in their order."""
        with self._lock:
            return [
                e["dur"] / 1e6 for e in list(self._events) if e["name"] == name and e["ph"] == "X"
            ]

    def __enter__(self) -> Trace:
        gc.callbacks.append(self._collected)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._collection = time.perf_counter()
        else:
            seconds = time.perf_counter() - self._collection
            self.add("garbage collection", self._collection, seconds, **info)

    def _add(self, event: dict[str, Any]) -> None:
        thread = threading.get_native_id()
        with self._lock:
            if thread not in self._named:
                self._named.add(thread)
                name = {"name": threading.current_thread().name}
                self._events.append(self._placed({"name": "thread_name", "ph": "M", "args": name}))
            self._events.append(self._placed(event))

    @staticmethod
    def _placed(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "pid": os.getpid(), "tid": threading.get_native_id()}
