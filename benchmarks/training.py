"""The rate of the training loop against the bare network on data in memory: `python -m benchmarks.training`.

All do forward, backward and an AdamW update of the same network. *bare* repeats one batch that is ready.
*memory* is the loop as `robot-vision train` runs it by default, on images that were decoded before: it draws
batches in random order, averages the weights, clips gradients, and logs. *augmented* also changes every
image. *files* does all of that and decodes every image again from a 640x480 JPEG, as the loop does with data
that do not fit into memory.

They run in turns, and what is compared is the median time of a step, and the fastest one, which a machine
that others use too spoils least. Writing a checkpoint is no part of a
step, it happens every `loop.checkpoint_seconds`; it is reported separately.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric

from robot_vision.training.config import TrainingConfig, resolved
from robot_vision.training.config_file import parse
from robot_vision.training.fit import loop
from robot_vision.training.fit.model import Trainee, build_network, make_losses
from robot_vision.training.fit.optimiser import make_optimiser
from robot_vision.training.fit.record import Bar, Recorder
from robot_vision.training.samples.augmentation import make_augment
from robot_vision.training.samples.data import SampleSet
from robot_vision.training.setup import facts_of, make_fabric, open_splits
from robot_vision.training.ship.evaluate import Views

WAYS = ("bare", "memory", "augmented", "files")
_QUALITY = 95


def main() -> None:
    """Prints JSON: milliseconds a step and images a second of each way, and ratios to the bare network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    print(json.dumps(found, indent=2))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns the rates."""
    write_pictures(folder / "data", args.steps * args.batch)
    config = resolved(parse(TrainingConfig, "", configuration(args, folder)))
    fabric = make_fabric(config)
    fabric.launch()
    splits = open_splits(config)
    network = build_network(config, facts_of(config, splits))
    fabric.to_device(network)
    kept, uncached = (
        SampleSet.of(splits.train, splits.labels, network.spec.input) for _ in range(2)
    )
    kept.load(config.data.threads)
    losses = make_losses(config, network.spec, kept.targets)
    augment = make_augment(config, network.spec)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    checkpoints: list[float] = []
    for number in range(args.rounds + 1):  # the first warms up
        for way in WAYS:
            trainee = Trainee(network, losses, {"classifier": 1.0}, False)
            if way == "bare":
                found = bare(trainee, kept, config, fabric)
            else:
                clock = Clock()
                loop.fit(
                    trainee,
                    Views(uncached if way == "files" else kept),
                    None,
                    replace(config, loop=replace(config.loop, epochs=1)),
                    loop.Stage("all", 1, None if way == "memory" else augment),
                    folder / f"{way}{number}",
                    fabric,
                    clock,
                )
                found = clock.steps
                checkpoints.append(clock.checkpoint)
            seconds[way] += found if number else []
    step = {way: statistics.median(found) for way, found in seconds.items()}
    fastest = {way: min(found) for way, found in seconds.items()}
    return {
        "what": f"{args.backbone} {args.side} batch {args.batch} {args.precision}",
        "device": str(fabric.device),
        "steps": len(seconds["bare"]),
        "step_ms": {way: round(1e3 * value, 1) for way, value in step.items()},
        "images_per_s": {way: round(args.batch / value, 1) for way, value in step.items()},
        "rate_over_bare": {way: round(step["bare"] / step[way], 3) for way in WAYS[1:]},
        "fastest_step_ms": {way: round(1e3 * value, 1) for way, value in fastest.items()},
        "fastest_over_bare": {way: round(fastest["bare"] / fastest[way], 3) for way in WAYS[1:]},
        "checkpoint_s": round(statistics.median(checkpoints), 2),
    }


def write_pictures(folder: Path, count: int) -> None:
    """Writes JPEG files of 640x480 with texture of every size, of two classes."""
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = np.full((480, 640, 3), 128.0)
        for side in (8, 32, 128):
            noise = rng.normal(0, 20, (480 // side, 640 // side, 3))
            picture += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
        picture += rng.normal(0, 4, picture.shape)
        place = folder / "train" / str(i % 2)
        place.mkdir(parents=True, exist_ok=True)
        pixels = picture.clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(place / f"{i}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    # Only so that the training images are not divided.
    for label in "01":
        place = folder / "test" / label
        place.mkdir(parents=True)
        cv2.imwrite(str(place / "test.jpg"), pixels)


def configuration(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns the run's configuration: the defaults, from nothing."""
    size = {"height": args.side, "width": args.side}
    options = {"validation": 0}
    return {
        "heads": ["classifier"],
        "data": {"kind": "image_folder", "path": str(folder / "data"), "options": options},
        "network": {"backbone": args.backbone, "weights": None, "input": size},
        "loop": {"batch_size": args.batch, "precision": args.precision, "checkpoint_seconds": 1e6},
    }


class Clock(Recorder):
    """Says nothing, writes nothing, and takes times.

    Attributes:
        steps: seconds of each step after the first.
        checkpoint: seconds from the last step's end to the epoch's: the checkpoint, nothing else.
    """

    def __init__(self) -> None:
        super().__init__(None, quiet=True)
        self.steps: list[float] = []
        self.last = self.checkpoint = 0.0

    def progress(self, name: str, epochs: int, images: int) -> Bar:
        """Returns a bar that also takes the time."""
        return _TimedBar(self, name, epochs, images)

    def epoch(self, history: Sequence[Mapping[str, Any]], bar: Bar) -> None:
        """Takes the time of the checkpoint."""
        self.checkpoint = time.perf_counter() - self.last


class _TimedBar(Bar):
    def __init__(self, clock: Clock, name: str, epochs: int, images: int) -> None:
        super().__init__(clock.console, name, epochs, images)
        self._clock = clock

    def advance(self, images: int) -> None:
        super().advance(images)
        now = time.perf_counter()
        if self._clock.last:
            self._clock.steps.append(now - self._clock.last)
        self._clock.last = now


def bare(
    trainee: Trainee, samples: SampleSet, config: TrainingConfig, fabric: Fabric
) -> list[float]:
    """Returns the seconds of each step after the first: forward, backward and update on one batch."""
    network, size = trainee.network, config.loop.batch_size
    optimiser = make_optimiser(network.backbone, [network.heads], config.optimiser)
    batch = {k: v.to(fabric.device) for k, v in samples.batch(torch.arange(size)).items()}
    trainee.train()
    found = []
    pending: torch.Tensor | None = None
    for _ in range(len(samples) // size):
        start = time.perf_counter()
        with fabric.autocast():
            total, _ = trainee(batch)
        total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if pending is not None:  # a step late, as the loop does: a GPU goes on meanwhile
            pending.item()
        pending = total.detach()
        found.append(time.perf_counter() - start)
    return found[1:]


if __name__ == "__main__":
    main()
