"""Bundles of variants that a training asks for, by ranges of its own images, and what they are worth."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_vision.bundle.bundle import (
    CARD,
    GRAPH,
    WEIGHTS,
    ModelBundle,
    copy_head_files,
    write_manifest,
)
from robot_vision.engines.base import EngineSettings
from robot_vision.engines.onnx import OnnxEngine
from robot_vision.files.whole import draft_folder
from robot_vision.optimising.quantise import RANGE_IMAGES, variant_graph
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.record import Recorder
from robot_vision.training.samples.data import SampleSet, chunk_of
from robot_vision.training.ship.evaluate import measure

_CHUNK = 32
_TIMED_RUNS = 30


def make_variant(
    bundle: Path, target: Path, variant: str, train: SampleSet, config: TrainingConfig
) -> Path:
    """Writes another bundle with the same network at a lower precision.

    Args:
        bundle: the float32 bundle.
        target: the folder to write; what is there is replaced.
        variant: one of `VARIANTS`.
        train: images to calibrate on.
        config: `name` and `loop.seed`.

    Returns:
        `target`.

    Raises:
        ConfigError: the graph cannot be converted.
    """
    source = ModelBundle.load(bundle)
    generator = torch.Generator().manual_seed(config.loop.seed)
    some = torch.randperm(len(train), generator=generator)[:RANGE_IMAGES]
    images = [train.batch(index)["images"].numpy() for index in some.split(_CHUNK)]
    with draft_folder(target) as part:
        (part / GRAPH).write_bytes(variant_graph(source.graph, variant, images))
        shutil.copy2(bundle / WEIGHTS, part / WEIGHTS)
        card = (bundle / CARD).read_text(encoding="utf-8")
        name = f"{source.name}-{variant}"
        title = f"# {name}\n\nThe {variant} variant of {source.name}, whose card follows.\n\n"
        (part / CARD).write_text(title + card, encoding="utf-8")
        training = {**source.training, "variant": variant, "variant_of": source.sha256}
        copy_head_files(source, part)
        write_manifest(part, name, source.spec, training, source.metrics, source.calibration)
        ModelBundle.load(part)
    return target


def measure_bundle(
    path: Path, train: SampleSet, held_out: SampleSet, config: TrainingConfig, recorder: Recorder
) -> dict[str, Any]:
    """Runs a bundle on ONNX Runtime's CPU: its metrics on a split, and its time for one image.

    Returns:
        `metrics` by head, `ms` (median of single images), `megabytes` of the graph.
    """
    bundle = ModelBundle.load(path)
    engine = OnnxEngine(bundle, EngineSettings("cpu", threads=config.loop.threads))
    recorder.say(f"measuring {path.name}")

    bound = {head.name: head for head, _ in bundle.spec.bound}
    looking = [name for name, trainer in config.trainers.items() if trainer.looks_up]

    def outputs(samples: SampleSet, heads: Iterable[str]) -> dict[str, dict[str, torch.Tensor]]:
        parts: dict[str, dict[str, list[Any]]] = {name: {} for name in heads}
        for index in torch.arange(len(samples)).split(chunk_of(samples.input, torch.device("cpu"))):
            found = engine.run(samples.batch(index)["images"].numpy())
            for name, words in parts.items():
                for word, value in bound[name].own(found).items():
                    words.setdefault(word, []).append(value)
        return {
            name: {word: torch.from_numpy(np.concatenate(v)) for word, v in words.items()}
            for name, words in parts.items()
        }

    stored = (outputs(train, looking), train.truth) if looking else None
    metrics = measure(
        outputs(held_out, config.heads), held_out.truth, stored, bundle.spec.heads, config
    )
    image = held_out.batch(torch.tensor([0]))["images"].numpy()
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.run(image)
        times.append(time.perf_counter() - start)
    engine.close()
    megabytes = (path / GRAPH).stat().st_size / 1e6
    return {
        "metrics": metrics,
        "ms": float(np.median(times)) * 1e3,
        "megabytes": round(megabytes, 2),
    }
