"""The path of a frame after decoding: resize, one run of the network, results.

The live node, the command line and the evaluation of bags all use this object, so what is measured on a
recording is what the robot gets.
"""

from __future__ import annotations

import copy
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.programs import FLOAT32, PRECISIONS
from robot_vision.contract.prediction import Prediction
from robot_vision.engines import create_engine
from robot_vision.engines.base import Engine, EngineSettings
from robot_vision.errors import EngineError, ImageError, is_whole, path_text, refuse_fork
from robot_vision.images.resizing import resize_into


@dataclass
class StageTimes:
    """Seconds that the last batch spent in each stage."""

    preprocess: float = 0.0
    inference: float = 0.0
    decode: float = 0.0


class Pipeline:
    """RGB images in, `Prediction`s out. Threads that call one take turns; `another` lets them run at once.

    Args:
        bundle: the verified model bundle.
        engine: runs the bundle's graph.
        max_batch: larger batches are split; it bounds the memory on the device. It becomes less when
            the device runs out of it.
        said: why this program and no other runs, in a line for people; empty where there was no choice.
    """

    def __init__(
        self, bundle: ModelBundle, engine: Engine, max_batch: int = 16, said: str = ""
    ) -> None:
        if not is_whole(max_batch, 1):
            raise EngineError(f"max_batch is {max_batch!r}: it must be a whole number, 1 or more")
        self.bundle = bundle
        self.engine = engine
        self.max_batch = max_batch
        self.said = said
        self.times = StageTimes()
        self._turn = threading.Lock()
        self._process = os.getpid()
        self._closed = threading.Event()  # of all pipelines on this engine
        self._decoders = {
            head.name: head.decoder(spec, bundle.spec.epistemic, bundle.material[head.name])
            for head, spec in bundle.spec.bound
        }
        size = bundle.spec.input
        self._batch = np.empty((0, size.height, size.width, 3), np.uint8)

    @classmethod
    def load(
        cls,
        path: str | Path,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        max_batch: int = 16,
        streams: int = 1,
    ) -> Pipeline:
        """Loads a bundle and an engine for it.

        Args:
            path: the bundle's directory.
            engine: `auto`, `onnx`, `openvino` or `torch`.
            device: `auto`, or a device of the engine such as `cpu`, `cuda:0`, `tensorrt:0`.
            precision: `auto` takes the fastest of the bundle's programs that are certified for this machine,
                and float32 where none is; or the name of one; or `float32`, `float16` or `bfloat16`,
                where the engine has it.
            threads: CPU threads; 0 leaves the choice to the engine.
            max_batch: larger batches are split.
            streams: pipelines (see `another`) that will run at the same time on the one engine; 0 for as many
                as pay, which `engine.streams` says after `warm_up`.

        Raises:
            ConfigError: `path` is no path.
            BundleError: the bundle is absent or damaged.
            EngineError: the engine, device or program is not there, and the message lists those that are; or
                a number is out of range.
        """
        bundle, device = ModelBundle.load(path_text(path, "path")), str(device)
        if bundle.programs or precision not in ("auto", *PRECISIONS):
            from robot_vision.engines.choice import start_program  # others start sooner without it

            asked = EngineSettings(device, FLOAT32, threads, streams, max_batch)
            started = start_program(bundle, precision, asked, engine)
            return cls(started.bundle, started.engine, max_batch, started.said)
        precision = FLOAT32 if precision == "auto" else precision
        created = create_engine(bundle, engine, device, precision, threads, streams, max_batch)
        return cls(bundle, created, max_batch)

    @property
    def program(self) -> str:
        """What runs: the program's name, or the precision in which the engine computes the bundle's graph."""
        return self.engine.precision if self.bundle.program == FLOAT32 else self.bundle.program

    def another(self) -> Pipeline:
        """Returns a pipeline for another thread on the same engine; closing one of them closes it."""
        other = copy.copy(self)
        other.times = StageTimes()
        other._turn = threading.Lock()
        other._batch = self._batch[:0].copy()
        return other

    @overload
    def __call__(self, images: NDArray[np.uint8]) -> Prediction: ...
    @overload
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]: ...
    def __call__(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    ) -> Prediction | list[Prediction]:
        """Predicts one image, or several of any sizes.

        Args:
            images: RGB uint8 (H, W, 3), or a sequence of such.

        Returns:
            The image's prediction; of a sequence, a list in its order.

        Raises:
            ImageError: an array of another shape or type, such as a grey or a float image, or no array.
            EngineError: the network could not be run.
        """
        if getattr(images, "ndim", 4) != 4:
            return self([cast("NDArray[np.uint8]", images)])[0]
        if not isinstance(images, Iterable):
            raise _no_image(type(images).__name__)
        batch = list(images)
        for image in batch:
            _require_rgb(image)
        times = StageTimes()
        results: list[Prediction] = []
        self._require_usable()  # a fork may hold the lock for ever
        with self._turn:  # the buffer that images are resized into is one
            while len(results) < len(batch):  # max_batch may become less meanwhile
                results += self._predict(batch[len(results) :][: self.max_batch], times)
            self.times = times
        return results

    def _predict(self, images: Sequence[NDArray[np.uint8]], times: StageTimes) -> list[Prediction]:
        start = time.perf_counter()
        batch = self.preprocess(images)
        times.preprocess += time.perf_counter() - start
        return self._infer(batch, times)

    def infer(self, batch: NDArray[np.uint8]) -> list[Prediction]:
        """Predicts images that were resized before, in other threads: what `__call__` does after it.

        Args:
            batch: RGB uint8 (N, height, width, 3) of the network's input size, C-contiguous.
        """
        times = StageTimes()
        results: list[Prediction] = []
        while len(results) < len(batch):
            results += self._infer(batch[len(results) :][: self.max_batch], times)
        self.times = times
        return results

    def _run(self, batch: NDArray[np.uint8]) -> list[dict[str, NDArray[Any]]]:
        """Runs the engine; a batch that it fails on is halved, until it is one image.

        What fails on many images and works on fewer is the device's memory, which others may share: from
        then on `max_batch` is what worked.

        Returns:
            The outputs of each part: joining them would take memory again.
        """
        self._require_usable()
        try:
            return [self.engine.run(batch)]
        except EngineError:
            if len(batch) == 1:
                raise
            half = (len(batch) + 1) // 2
            parts = self._run(batch[:half]) + self._run(batch[half:])
            self.max_batch = min(self.max_batch, half)
            return parts

    def _require_usable(self) -> None:
        refuse_fork(self._process, "a model that was loaded", EngineError)
        if self._closed.is_set():
            raise EngineError(f"{self.bundle.name} was closed: load it again")

    def _infer(self, batch: NDArray[np.uint8], times: StageTimes) -> list[Prediction]:
        start = time.perf_counter()
        parts = self._run(batch)
        inferred = time.perf_counter()
        results = [prediction for outputs in parts for prediction in self.decode(outputs)]
        times.inference += inferred - start
        times.decode += time.perf_counter() - inferred
        return results

    def preprocess(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Resizes images into the network's input.

        Returns:
            RGB uint8 (N, height, width, 3); a reused buffer, overwritten by the next call.
        """
        spec = self.bundle.spec.input
        if len(self._batch) < len(images):
            self._batch = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
        batch = self._batch[: len(images)]
        for image, target in zip(images, batch, strict=True):
            resize_into(image, target, spec.resize, spec.crop_fraction)
        return batch

    def decode(self, outputs: dict[str, NDArray[Any]]) -> list[Prediction]:
        """Turns an engine's arrays (N, ...) into N predictions."""
        answers = [decode(outputs) for decode in self._decoders.values()]
        rows = zip(*answers, strict=True)
        return [Prediction(dict(zip(self._decoders, row, strict=True))) for row in rows]

    def warm_up(self, batch_sizes: Sequence[int] = (1,)) -> None:
        """Runs the network for each batch size, so that the first frame is not the slow one."""
        spec = self.bundle.spec.input
        for size in batch_sizes:
            # At least twice, since a first run is slow, and an engine that may overlap frames times them.
            for _ in range(max(2, self.engine.streams)):
                # As a frame's run does, so that what the memory cannot hold is found out here.
                if size <= self.max_batch:
                    self._run(np.zeros((size, spec.height, spec.width, 3), np.uint8))
        # What loading and compiling the network left in the heap goes back to the system: 16 to 39 MiB of
        # OpenVINO's MobileNetV2. Other C libraries than glibc have no such call.
        if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
            trim(0)

    def close(self) -> None:
        """Frees the engine's device memory."""
        self._closed.set()
        # In a fork ONNX Runtime would wait for threads that are not there.
        if self._process == os.getpid():
            self.engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _no_image(said: str) -> ImageError:
    return ImageError(
        "encoding", f"An image is {said}: give RGB uint8 (height, width, 3), a NumPy array"
    )


def _require_rgb(image: NDArray[np.uint8]) -> None:
    """Raises `ImageError` for what is no image."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        said = type(image).__name__ if shape is None else f"{dtype} {tuple(shape)}"
        raise _no_image(said)
    if 0 in shape:
        raise ImageError("size", f"An image of {shape[1]} x {shape[0]} pixels is empty")
