"""The threads that turn waiting frames into results: one batch for all cameras that wait."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.prediction import Prediction
from robot_vision.errors import ImageError, RobotVisionError
from robot_vision.images.decode import image_size, to_rgb
from robot_vision.images.resizing import source_size
from robot_vision.pipeline import Pipeline
from robot_vision.ros.node.mailbox import Mailbox
from robot_vision.ros.node.statistics import Statistics

STAGES = ("wait", "image", "preprocess", "inference", "decode", "publish")


@dataclass(frozen=True)
class CameraFrame:
    """A message as it came: serialised, with the steady time of its arrival."""

    serialized: bytes
    received: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Request:
    """What the listeners of a camera want of its next frame."""

    wanted: bool
    full_image: bool


@dataclass(frozen=True)
class FrameResult:
    """A frame's answer, with what is needed to publish it.

    Attributes:
        size: (height, width) of the image as its message says.
        full_image: RGB uint8 (H, W, 3) in full size, if it was asked for.
    """

    camera: str
    header: Any
    size: tuple[int, int]
    prediction: Prediction
    full_image: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Decoded:
    camera: str
    header: Any
    size: tuple[int, int]
    image: NDArray[np.uint8]
    full_image: NDArray[np.uint8] | None


class Turns:
    """Lets threads that drew numbers do something in the order of the numbers."""

    def __init__(self) -> None:
        self._next_number = 0
        self._changed = threading.Condition()
        self._next_turn = 0

    def draw(self) -> int:
        """Returns the next number; its holder must take the turn. By one thread at a time."""
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Waits until all earlier turns are over."""
        with self._changed:
            self._changed.wait_for(lambda: self._next_turn == number)
        try:
            yield
        finally:
            with self._changed:
                self._next_turn += 1
                self._changed.notify_all()


class Worker:
    """Runs the pipelines on the newest frames until it is stopped; no bad frame or failure ends it.

    Each pipeline has a thread. While one is busy with a frame the next one takes the frame after it;
    results are published in the order of their frames all the same.

    Args:
        pipelines: of one bundle, each used by one thread only, while they run.
        cameras: names to statistics.
        statistics: those of the node.
        read: serialised bytes to an image message.
        request: says what a camera's listeners want.
        publish: takes one result.
        warn: throttled log: a key and a line.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        cameras: Mapping[str, Statistics],
        statistics: Statistics,
        read: Callable[[bytes], Any],
        request: Callable[[str], Request],
        publish: Callable[[FrameResult], bool],
        warn: Callable[[str, str], None],
    ) -> None:
        self.mailbox: Mailbox[CameraFrame] = Mailbox(cameras)
        self.failures_in_a_row = 0
        self._counting = threading.Lock()
        self._taking = threading.Lock()
        self._turns = Turns()
        self._cameras = cameras
        self._statistics = statistics
        self._read = read
        self._request = request
        self._publish = publish
        self._warn = warn
        self._min_size = source_size(pipelines[0].bundle.spec.input)
        self._threads = [
            threading.Thread(
                target=self._run, args=(pipeline,), name=f"perception_worker_{i}", daemon=True
            )
            for i, pipeline in enumerate(pipelines)
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 60.0) -> bool:
        """Ends the threads after the batches that they work on; says whether they ended in time."""
        self.mailbox.close()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, pipeline: Pipeline) -> None:
        while not self.mailbox.closed:
            with self._taking:  # one waits at a time, so that turns are in the order of the frames
                frames = self.mailbox.take()
                number = self._turns.draw()
            results: list[FrameResult] = []
            with self._reported():
                results = self._answers(pipeline, frames)
            with self._turns.turn(number), self._reported():
                self._publish_all(results)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._statistics.count("internal_errors")
            self._warn("internal", f"Internal error, please report it:\n{traceback.format_exc()}")

    def _answers(self, pipeline: Pipeline, frames: Mapping[str, CameraFrame]) -> list[FrameResult]:
        taken = time.monotonic()
        decoded: list[_Decoded] = []
        for camera, frame in frames.items():
            request = self._request(camera)
            if not request.wanted:
                self._cameras[camera].count("idle")
                continue
            self._statistics.sample("wait", taken - frame.received)
            found = self._decode(camera, frame, request.full_image)
            if found is not None:
                decoded.append(found)
        if not decoded:
            return []
        self._statistics.sample("image", time.monotonic() - taken)
        predictions = self._infer(pipeline, [d.camera for d in decoded], [d.image for d in decoded])
        if not predictions:
            return []
        return [
            FrameResult(d.camera, d.header, d.size, prediction, d.full_image)
            for d, prediction in zip(decoded, predictions, strict=True)
        ]

    def _decode(self, camera: str, frame: CameraFrame, full_image: bool) -> _Decoded | None:
        statistics = self._cameras[camera]
        try:
            message = self._read(frame.serialized)
            image = to_rgb(message, self._min_size)
            size, full = image_size(message), None
            if full_image:
                # The network sees the same pixels whether somebody watches or not, so a JPEG that
                # was decoded at a reduced size is decoded once more.
                full = image if size == image.shape[:2] else to_rgb(message)
            return _Decoded(camera, message.header, size, image, full)
        except ImageError as error:
            reason, text = error.reason, str(error)
        except Exception as error:
            # A decoder failed in a way that nobody foresaw: the next frame may be fine.
            reason, text = "corrupt", f"{type(error).__name__}: {error}"
        total = statistics.count(f"refused_{reason}")
        statistics.mark("refused")
        self._warn(
            f"{camera} {reason}",
            f"Camera {camera}: frame refused ({reason}, {total} so far): {text}",
        )
        return None

    def _infer(
        self, pipeline: Pipeline, cameras: list[str], images: list[NDArray[np.uint8]]
    ) -> list[Prediction]:
        """Returns the answers; none if the network failed."""
        most = pipeline.max_batch
        try:
            predictions = pipeline(images)
        except Exception as error:
            with self._counting:
                self.failures_in_a_row += 1
            self._statistics.mark("engine_failed")
            total = self._statistics.count("engine_failures")
            for camera in cameras:
                self._cameras[camera].count("engine_failed")
            expected = isinstance(error, RobotVisionError)
            detail = str(error) if expected else traceback.format_exc()
            self._warn("engine", f"The network failed on a batch ({total} so far): {detail}")
            return []
        self.failures_in_a_row = 0
        if pipeline.max_batch < most:
            self._statistics.count("batch_reduced")
            self._warn(
                "batch",
                f"The engine failed on a batch of {min(most, len(images))} and works with "
                f"{pipeline.max_batch}, which is the most from now on: is its memory shared?",
            )
        times = pipeline.times
        for stage in ("preprocess", "inference", "decode"):
            self._statistics.sample(stage, getattr(times, stage))
        return predictions

    def _publish_all(self, results: Sequence[FrameResult]) -> None:
        if not results:
            return
        start = time.monotonic()
        for result in results:
            self._publish_one(result)
        self._statistics.sample("publish", time.monotonic() - start)
        self._statistics.sample("batch", len(results))

    def _publish_one(self, result: FrameResult) -> None:
        statistics = self._cameras[result.camera]
        try:
            if self._publish(result):
                statistics.mark("published")
                statistics.count("published")
        except ValueError as error:  # the network gave what no message may hold
            total = statistics.count("refused_result")
            self._warn(
                f"{result.camera} result",
                f"Camera {result.camera}: result refused ({total} so far): {error}",
            )
