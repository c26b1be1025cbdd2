"""What dense heads cost, with their messages: all heads against the classifier alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import serialize_message

from benchmarks import inputs, models
from benchmarks.timing import ratio, side_by_side
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.topics import LeftOut, Shot
from robot_vision.engines import create_engine
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.window import Window
from robot_vision.messages.making import rclpy_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.pipeline import Pipeline

STAGES = ("network", "pipeline 480p", "pipeline 480p and messages")
ALL, ONE = "all heads", "classifier alone"
# A camera that looks forward from half a metre above the floor, so that points, scans and ranges are written.
_CAMERA = Intrinsics.of_matrix(np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]]), 640, 480)
_T_BASE_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])


def dense_heads(images: list[NDArray[np.uint8]], seconds: float, precision: str) -> dict[str, Any]:
    """Times network, pipeline at 480p, and pipeline with all messages, with all heads and one in turns.

    Returns:
        For each network of `models.dense_pairs` its `engine`, `heads`, `times`, and of the medians the
        ratio of all heads to one as `all_over_one`.
    """
    pairs = models.dense_pairs(images)
    return {name: _compared(pair, images, seconds, precision) for name, pair in pairs.items()}


def _compared(
    pair: tuple[ModelBundle, ModelBundle],
    images: list[NDArray[np.uint8]],
    seconds: float,
    precision: str,
) -> dict[str, Any]:
    engines = [create_engine(bundle, precision=precision) for bundle in pair]
    runs: dict[str, Callable[[], object]] = {}
    for what, bundle, engine in zip((ALL, ONE), pair, engines, strict=True):
        pipeline, batch = Pipeline(bundle, engine), inputs.network_batch(bundle, images[:1])
        # An engine may use its buffers again.
        outputs = {key: np.array(values) for key, values in engine.run(batch).items()}
        (said,) = pipeline.decode(outputs)
        write = _writer(bundle)
        runs[f"network, {what}"] = lambda e=engine, b=batch: e.run(b)
        runs[f"decode, {what}"] = lambda p=pipeline, o=outputs: p.decode(o)
        runs[f"messages, {what}"] = lambda w=write, s=said: w(s)
        runs[f"pipeline 480p, {what}"] = lambda p=pipeline: p(images[:1])
        runs[f"pipeline 480p and messages, {what}"] = lambda p=pipeline, w=write: w(
            p(images[:1])[0]
        )
    times = side_by_side(runs, 2 * seconds)
    for engine in engines:
        engine.close()
    return {
        "engine": f"{engines[0].name} {engines[0].device} {engines[0].precision}",
        "heads": list(pair[0].spec.heads),
        "times": times,
        "all_over_one": {s: ratio(times, f"{s}, {ALL}", f"{s}, {ONE}") for s in STAGES},
    }


def _writer(bundle: ModelBundle) -> Callable[[Prediction], int]:
    """Returns what writes every message about an image as bytes, as for subscribers of all topics."""
    shot = Shot(
        Stamp(1, 0),
        "camera_optical",
        "camera",
        "base_link",
        lambda frame: _T_BASE_CAMERA,
        Window.of((480, 640), bundle.spec.input),
        lambda: _CAMERA,
    )
    heads = []
    for head, spec in bundle.spec.bound:
        options = head.resolve(head.options({}), spec, bundle.material[head.name])
        topics = [topic for topic in head.topics(spec) if topic.wanted(options)]
        heads.append((head, spec, options, [topic.writer(rclpy_maker) for topic in topics]))

    def write(prediction: Prediction) -> int:
        size = 0
        for head, spec, options, writers in heads:
            shown = head.published(prediction.answers[head.name], shot, spec, options)
            for writer in writers if not isinstance(shown, LeftOut) else ():
                message = writer(shot, shown, options)
                if not isinstance(message, LeftOut):
                    size += len(serialize_message(message))
        return size

    return write
