"""How fast a recording is evaluated: the replay of a JPEG bag against the bare engine on ready batches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import inputs, models
from benchmarks.quiet import WATCH
from robot_vision.engines import create_engine
from robot_vision.evaluation.predict.replay import default_batch, replay
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import open_source
from robot_vision.recordings.writing import RecordingWriter

FRAMES = 240
ROUNDS = 5


def jpeg_bag(path: Path, images: list[NDArray[np.uint8]], frames: int) -> Path:
    """Writes the images, again and again, as JPEG of 640 x 480."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, inputs.JPEG_QUALITY]
    data = [cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes() for image in images]
    with RecordingWriter(path, "mcap") as bag:
        for i in range(frames):
            stamp = 1_700_000_000_000_000_000 + i * 33_333_333
            bag.compressed_image(
                "/camera/image_raw/compressed", stamp, "c", data[i % len(data)], "jpeg"
            )
    return path


def whole_bag(images: list[NDArray[np.uint8]], quick: bool) -> dict[str, Any]:
    """Frames a second of `robot-vision evaluate`'s replay and of the engine alone, in turns."""
    bundle = models.bundle("three_heads", images)
    engine = create_engine(bundle)
    pipeline = Pipeline(bundle, engine)
    size = default_batch(engine.device)
    batch = inputs.network_batch(bundle, [images[i % len(images)] for i in range(size)])
    frames = FRAMES // 4 if quick else FRAMES
    rates: dict[str, list[float]] = {"replay": [], "engine": []}
    stages: dict[str, Any] = {}

    def turn(path: Path) -> tuple[float, float, dict[str, Any]]:
        for _ in range(3):
            engine.run(batch)
        start = time.perf_counter()
        for _ in range(frames // size):
            engine.run(batch)
        engine_hz = frames // size * size / (time.perf_counter() - start)
        with open_source(path) as source:
            speed = replay(pipeline, source).meta["speed"]
        return engine_hz, speed["frames_per_second"], speed["stages"]

    with tempfile.TemporaryDirectory() as folder:
        path = jpeg_bag(Path(folder) / "bag", images, frames)
        for _ in range(2 if quick else ROUNDS):
            engine_hz, replay_hz, stages = WATCH.trial(lambda: turn(path))
            rates["engine"].append(engine_hz)
            rates["replay"].append(replay_hz)
    pipeline.close()
    ratios = np.array(rates["replay"]) / np.array(rates["engine"])
    return {
        "engine": f"{engine.name} {engine.device} {engine.precision}",
        "batch": size,
        "frames": frames,
        "replay_hz": round(float(np.median(rates["replay"])), 1),
        "engine_hz": round(float(np.median(rates["engine"])), 1),
        "replay_over_engine": round(float(np.median(ratios)), 3),
        "stages": stages,
    }
