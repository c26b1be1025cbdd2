"""Runs the node's pipeline over a recording: decoding and resizing ahead of the network, in other threads."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import plain
from robot_vision.errors import ImageError, SourceError
from robot_vision.evaluation.predict.columns import Gathered, Predictions
from robot_vision.evaluation.predict.known_images import KnownImages
from robot_vision.images.decode import image_size, to_rgb
from robot_vision.images.resizing import resize_into, source_size
from robot_vision.pipeline import Pipeline, StageTimes
from robot_vision.recordings import Frame, Source

CPU_DECODERS = 2
GPU_DECODERS = 8
CPU_BATCH = 8
GPU_BATCH = 16
_NAMED_PROBLEMS = 20

Progress = Callable[[int], None]


def default_batch(device: str) -> int:
    """Returns how many frames one run of the network takes: a GPU needs many to be busy, a CPU few."""
    return CPU_BATCH if device.partition(":")[0].lower().startswith("cpu") else GPU_BATCH


def default_decoders(device: str) -> int:
    """Returns how many threads decode: with a GPU all cores are free for it."""
    if default_batch(device) == CPU_BATCH:
        return CPU_DECODERS
    return max(CPU_DECODERS, min(GPU_DECODERS, len(os.sched_getaffinity(0))))


@dataclass
class Speed:
    """Seconds of each stage, a number a frame.

    `wait` is the time in which the network had nothing to do, because frames were not yet there.

    Attributes:
        frames: predicted.
        seconds: from the first frame asked for to the last prediction.
        stages: name to a list with one entry a frame.
        batch: frames in one run of the network.
    """

    frames: int = 0
    seconds: float = 0.0
    stages: dict[str, list[float]] = field(
        default_factory=lambda: {n: [] for n in ("image", "resize", "wait", "inference", "decode")}
    )
    batch: int = 1

    def add(self, item: _Resized, times: StageTimes, batch: int) -> None:
        """Notes a frame of a batch that was just predicted."""
        self.stages["image"].append(item.image_s)
        self.stages["resize"].append(item.resize_s)
        self.stages["inference"].append(times.inference / batch)
        self.stages["decode"].append(times.decode / batch)

    def summary(self) -> dict[str, Any]:
        """Returns plain data: rates a second and milliseconds a frame."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        busy = sum(self.stages["inference"])
        stages = {}
        for name, values in self.stages.items():
            if values:
                ms = 1e3 * np.asarray(values)
                p50, p95, p99 = np.percentile(ms, (50, 95, 99))
                stages[name] = {
                    "mean_ms": float(ms.mean()),
                    "p50_ms": float(p50),
                    "p95_ms": float(p95),
                    "p99_ms": float(p99),
                }
        return {
            "frames": self.frames,
            "seconds": self.seconds,
            "frames_per_second": rate,
            "network_frames_per_second": self.frames / busy if busy else 0.0,
            "batch": self.batch,
            "stages": stages,
        }


def replay(
    pipeline: Pipeline,
    source: Source,
    limit: int | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Predictions:
    """Predicts every frame of a source.

    A JPEG is decoded no larger than the network needs, as the node does it. A frame that cannot be
    decoded is left out and counted, and so is one of which the network says what is not finite.

    Args:
        pipeline: the node's.
        source: one camera's frames.
        limit: stop after this many frames.
        batch: frames in one run of the network; None chooses by the engine's device.
        progress: is called with the number of frames that were done since.
        folder: on whose disk answers of the size of images lie until they are saved.

    Returns:
        Columns in the order in which the frames were recorded. `meta` holds `topic`, `frame_id`,
        `refused` (reasons and how many), `problems` (a line each) and `speed`.

    Raises:
        SourceError: not one frame could be predicted; the message says why.
    """
    size = min(batch or default_batch(pipeline.engine.device), pipeline.max_batch)
    pipeline.warm_up((size,))
    speed = Speed(batch=size)
    known = KnownImages(pipeline.bundle)
    refused: Counter[str] = Counter()
    named: list[str] = []
    frames: list[Frame] = []
    sizes: list[tuple[int, int]] = []
    gathered = Gathered(pipeline.bundle.spec.bound, folder)
    begin = time.perf_counter()
    decoders = default_decoders(pipeline.engine.device)
    with _Ahead(itertools.islice(source, limit), pipeline, size, decoders, known) as ahead:
        for group in _groups(ahead, size, speed):
            good: list[tuple[Frame, _Resized]] = []
            for frame, result in group:
                if isinstance(result, ImageError):
                    refused[result.reason] += 1
                    if len(named) < _NAMED_PROBLEMS:
                        named.append(f"{frame.name}: {result}")
                else:
                    good.append((frame, result))
            if good:
                said = pipeline.infer(_batch([item for _, item in good]))
                for (frame, item), prediction in zip(good, said, strict=True):
                    speed.add(item, pipeline.times, len(good))
                    if prediction.not_finite():  # the node would not publish it
                        refused["result"] += 1
                        continue
                    # Without its pixels: a bag must not have to fit into memory.
                    frames.append(replace(frame, message=None))
                    if gathered.streams:
                        sizes.append(image_size(frame.message))
                    gathered.add(prediction)
            if progress:
                progress(len(group))
    speed.seconds, speed.frames = time.perf_counter() - begin, len(frames)
    if not frames:
        why = "; ".join(list(source.problems) + named) or "it holds no image"
        raise SourceError(
            f"{source.name}: no frame of {', '.join(source.topics)} can be used: {why}"
        )
    meta = {
        "topic": frames[0].topic,
        "frame_id": frames[0].frame_id,
        "refused": dict(refused),
        "problems": _first([*known.notes(), *source.problems, *source.notes, *named]),
        "speed": speed.summary(),
    }
    stamps, logged = [f.stamp_ns for f in frames], [f.log_ns for f in frames]
    columns = gathered.finish()
    if gathered.streams:
        columns["image_size"] = np.array(sizes, np.int32)
        meta["input"] = plain(pipeline.bundle.spec.input)
    return Predictions.of_columns(stamps, logged, columns, Path(source.name).name, meta)


def _first(problems: list[str]) -> list[str]:
    more = len(problems) - _NAMED_PROBLEMS
    return problems[:_NAMED_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])


@dataclass(frozen=True)
class _Resized:
    """A frame of the network's size: row `row` of `block`, the memory of one batch."""

    block: NDArray[np.uint8]
    row: int
    image_s: float
    resize_s: float


def _batch(items: list[_Resized]) -> NDArray[np.uint8]:
    """Returns the frames (N, height, width, 3) of one block, which is copied only if one was refused."""
    block = items[0].block
    return block if len(items) == len(block) else block[[item.row for item in items]]


_Result = Union[_Resized, ImageError]  # noqa: UP007 (evaluated in Python 3.10 too)
_Item = tuple[Frame, "Future[_Result]"]


class _Ahead:
    """Reads in one thread, decodes and resizes in others, some two batches ahead; keeps the order.

    OpenCV works without Python's lock, and so do the engines. Each frame is resized into its row of its
    batch's memory.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        pipeline: Pipeline,
        batch: int,
        decoders: int,
        known: KnownImages,
    ) -> None:
        self._known = known
        self._frames = frames
        self._size = batch
        spec = pipeline.bundle.spec.input
        self._spec = spec
        self._least = source_size(spec)
        self._queue: queue.Queue[_Item | BaseException | None] = queue.Queue(2 * batch + decoders)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._reader = threading.Thread(target=self._read, name="read", daemon=True)

    def __enter__(self) -> _Ahead:
        # Several images are decoded at once already: threads for the parts of one only wait for each other.
        self._threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        cv2.setNumThreads(self._threads)
        self._stop.set()
        while self._reader.is_alive():  # it may wait for room in the queue
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._reader.join(0.01)
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Frame, _Result]]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0], item[1].result()

    def _read(self) -> None:
        last: BaseException | None = None
        try:
            spec = self._spec
            for i, frame in enumerate(self._frames):
                if self._stop.is_set():
                    return
                row = i % self._size
                if row == 0:
                    block = np.empty((self._size, spec.height, spec.width, 3), np.uint8)
                self._queue.put(
                    (frame, self._pool.submit(self._prepare, frame.message, block, row))
                )
        except BaseException as error:  # is raised where the frames are used
            last = error
        self._queue.put(last)

    def _prepare(self, message: Any, block: NDArray[np.uint8], row: int) -> _Result:
        start = time.perf_counter()
        try:
            image = to_rgb(message, self._least)
        except ImageError as error:
            return error
        self._known.see(message)
        decoded = time.perf_counter()
        spec = self._spec
        resize_into(image, block[row], spec.resize, spec.crop_fraction)
        return _Resized(block, row, decoded - start, time.perf_counter() - decoded)


def _groups(items: Iterable[Any], size: int, speed: Speed) -> Iterator[list[Any]]:
    """Yields lists of this many items, and notes how long the network had to wait for each."""
    iterator = iter(items)
    while True:
        start = time.perf_counter()
        group = list(itertools.islice(iterator, size))
        if not group:
            return
        waited = time.perf_counter() - start
        speed.stages["wait"] += [waited / len(group)] * len(group)
        yield group
