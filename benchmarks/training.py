"""The rate of the training loop beside the bare network on data in memory: `python -m benchmarks.training`.

Both do forward, backward and an AdamW update of the same network. The bare one repeats one batch that is
ready; the loop decodes image files beforehand, draws batches in random order, averages the weights, clips
gradients, logs, and with `--augment` changes every image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from robot_vision.training import loop
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import parse
from robot_vision.training.data import SampleSet
from robot_vision.training.evaluate import Views
from robot_vision.training.model import Trainee, build_network
from robot_vision.training.objectives import make_augment, make_losses
from robot_vision.training.optimiser import make_optimiser
from robot_vision.training.record import Recorder
from robot_vision.training.run import make_fabric, open_splits, resolved


def main() -> None:
    """Prints JSON: images a second of both, and their ratio (the best of some rounds each)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--augment", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    print(json.dumps(found))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Returns the rates."""
    rng = np.random.default_rng(0)
    for i in range(args.images):
        place = folder / "data" / "train" / str(i % 2)
        place.mkdir(parents=True, exist_ok=True)
        picture = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), (640, 480))
        cv2.imwrite(str(place / f"{i}.jpg"), picture)
    data = {
        "heads": ["classifier"],
        "data": {
            "kind": "image_folder",
            "path": str(folder / "data"),
            "options": {"validation": 0},
        },
        "network": {
            "backbone": args.backbone,
            "weights": None,
            "input": {"height": args.side, "width": args.side},
        },
        "loop": {"batch_size": args.batch, "precision": args.precision, "checkpoint_seconds": 1e6},
        "augmentation": {"name": "labels" if args.augment else "none"},
    }
    config = resolved(parse(TrainingConfig, "", data))
    fabric = make_fabric(config)
    fabric.launch()
    splits = open_splits(config)
    network = build_network(config, splits.labels)
    samples = SampleSet.of(splits.train, splits.labels, network.spec.input)
    samples.load(config.data.threads)
    losses = make_losses(config, network.spec, samples.targets)
    bare_rates, loop_rates = [], []
    for number in range(args.rounds + 1):  # the first warms up
        trainee = Trainee(network, losses, {"classifier": 1.0}, False)
        bare_rates.append(bare(trainee, samples, config, fabric))
        augment = make_augment(config, network.spec)
        start = time.perf_counter()
        timed = replace(config, loop=replace(config.loop, epochs=1))
        stage = loop.Stage("all", 1, augment)
        # An epoch without its end: the checkpoint is written to a folder in memory where there is one.
        state = loop.fit(
            trainee,
            Views(samples),
            None,
            timed,
            stage,
            folder / str(number),
            fabric,
            Recorder(None, True),
        )
        loop_rates.append(state.step * args.batch / (time.perf_counter() - start))
    return {
        "what": f"{args.backbone} {args.side} batch {args.batch} {args.precision}",
        "device": str(fabric.device),
        "bare_images_per_s": round(max(bare_rates[1:]), 1),
        "loop_images_per_s": round(max(loop_rates[1:]), 1),
        "ratio": round(max(loop_rates[1:]) / max(bare_rates[1:]), 3),
    }


def bare(trainee: Trainee, samples: SampleSet, config: TrainingConfig, fabric: object) -> float:
    """Returns images a second of forward, backward and update on one batch in memory."""
    device = next(trainee.parameters()).device
    network = trainee.network
    optimiser = make_optimiser(network.backbone, [network.heads], config.optimiser)
    size = config.loop.batch_size
    batch = {k: v.to(device) for k, v in samples.batch(torch.arange(size)).items()}
    trainee.train()
    steps = len(samples) // size
    start = time.perf_counter()
    for _ in range(steps):
        kind = torch.bfloat16 if config.loop.precision == "bfloat16" else torch.float32
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            total, _ = trainee(batch)
        total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return steps * size / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
