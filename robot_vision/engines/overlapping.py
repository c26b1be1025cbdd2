"""An engine for frames that may overlap: one alone has all cores, several at a time a share each."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.engines.base import Engine
from robot_vision.errors import EngineError

# At a time, on any number of cores: two are computed and one is read, resized or published.
STREAMS = 3
# Frames of a camera of 30 Hz must not overlap: then none is answered later than it would be alone.
ALONE_S = 0.8 / 30
# For this long after frames have overlapped the next ones will too, and one that took all cores would hold
# them up. The next frame of a camera of 30 Hz comes later.
SHORTLY_S = 0.02

_log = logging.getLogger(__name__)


class OverlappingEngine:
    """Two engines of one graph: what runs alone takes the first, what overlaps with another the second.

    The second is made when it is first needed, in a thread of its own, so that slow cameras cost neither its
    memory nor its time; until it is there, runs wait for each other.

    Args:
        alone: has all cores for one run.
        make: makes the other, for as many runs at the same time as its argument says.
    """

    def __init__(self, alone: Engine, make: Callable[[int], Engine]) -> None:
        self.name = alone.name
        self.device = alone.device
        self.precision = alone.precision
        self._alone = alone
        self._make = make
        self._shared: Engine | None = None
        self._making: threading.Thread | None = None
        self._lock = threading.Lock()
        self._running = 0
        self._overlapped = -math.inf  # when runs last did
        self._seconds: dict[int, float] = {}  # of the shortest run alone, by size of the batch
        self._shape: tuple[int, ...] = ()

    @property
    def streams(self) -> int:
        """How many threads may call `run` at the same time.

        It is 1 until batches have been run, and stays so where one of them takes longer than `ALONE_S`: a
        camera of 30 Hz would then have frames in work all the time, each of which is answered later.
        """
        return STREAMS if self._seconds and max(self._seconds.values()) <= ALONE_S else 1

    def run(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        with self._lock:
            self._note()
            alone = time.monotonic() - self._overlapped > SHORTLY_S
            self._running += 1
            self._shape = batch.shape[1:]
            if not alone and self._making is None:
                self._making = threading.Thread(target=self._make_shared, name="second_engine")
                self._making.start()
            engine = self._alone if alone else self._shared or self._alone
        start = time.perf_counter()
        try:
            return engine.run(batch)
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self._running -= 1
                self._note()
                if alone:
                    best = self._seconds.get(len(batch), seconds)
                    self._seconds[len(batch)] = min(best, seconds)

    def _note(self) -> None:
        if self._running:
            self._overlapped = time.monotonic()

    def _make_shared(self) -> None:
        _log.info("frames overlap: a second engine is made for them")
        try:
            made = self._make(STREAMS)
            for size in list(self._seconds):  # else the first of each size would wait for its graph
                made.run(np.zeros((size, *self._shape), np.uint8))
        except EngineError as error:
            _log.warning("Frames do not overlap, since there is no second engine: %s", error)
        else:
            self._shared = made

    def close(self) -> None:
        if self._making is not None:
            self._making.join()
        if self._shared is not None:
            self._shared.close()
        self._alone.close()
