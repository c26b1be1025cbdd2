#!/usr/bin/env python3
"""Trains the bundle of the demo on rendered frames and writes it to models/demo.

    python tools/train_demo_bundle.py --weights mobilenet_v2_imagenet1k.pth

The first fourteen stages of MobileNetV2 keep their ImageNet weights, so each frame runs through them once.
The pose and the place head work on what comes out; two more stages are trained for the classifier, whose
features should forget where in the room the camera is. About ten minutes on two cores.
Ctrl-C stops at once; the bundle is written at the very end, or not at all.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo_card import card_text  # noqa: E402

from robot_vision.contract.spec import NetworkSpec
from robot_vision.demo.scoring import PLACE_HEADING_DEG, PLACE_RADIUS_M  # noqa: E402
from robot_vision.errors import ConfigError, RobotVisionError  # noqa: E402
from robot_vision.geometry.rigid import xyzw_from_matrix  # noqa: E402
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import resize_into  # noqa: E402
from robot_vision.networks.export import export_bundle  # noqa: E402
from robot_vision.networks.network import MultiHeadNetwork  # noqa: E402
from robot_vision.simulation.drive import (  # noqa: E402
    DriveFrame,
    evaluation_drive,
    mapping_drive,
    random_frames,
)
from robot_vision.simulation.world.home import default_world  # noqa: E402
from robot_vision.simulation.world.sensor import Sensor, render_frames  # noqa: E402

Item = TypeVar("Item")
ROOT = Path(__file__).resolve().parents[1]
FROZEN = 14  # stages features.0 to features.13 keep their ImageNet weights
BATCH = 64
LAST = 15  # features.14 and features.15 are trained, for the classifier; nothing later is used
# Seeds of drives. The demo drives evaluation seed 2: neither training nor calibration may see these.
CALIBRATION_SEEDS = (500, 501, 502)
TEST_SEEDS = (2, 3, 4)
TRAINING_SEEDS = tuple(range(1000, 1006))


@dataclass
class Data:
    """Frames, what the frozen stages made of them, and what should come out.

    Attributes:
        features: float16 (N, C, h, w), output of the last frozen stage.
        rooms: int64 (N,).
        positions: float32 (N, 3), metres in the map.
        quaternions: float32 (N, 4), xyzw, w >= 0.
    """

    features: Tensor
    rooms: Tensor
    positions: Tensor
    quaternions: Tensor

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.rooms)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, calibrates, measures, exports."""
    args = parse(argv)
    try:
        return run(args)
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
    except RobotVisionError as error:
        print(f"train_demo_bundle: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "models" / "demo", help="bundle directory"
    )
    parser.add_argument(
        "--weights", default="torchvision", help="ImageNet weights: torchvision or a file"
    )
    parser.add_argument("--random", type=int, default=5500, help="training frames at random places")
    parser.add_argument("--epochs", type=int, default=5, help="of the classifier")
    parser.add_argument("--pose-epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads and rendering processes"
    )
    parser.add_argument(
        "--cache", type=Path, help="keep rendered features in this file between runs"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Does the work of `main`."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    network = MultiHeadNetwork(demo_spec(), backbone_weights=args.weights)
    sets = load_data(network, args)
    for name, data in sets.items():
        print(f"{name:12} {len(data):6} frames")
    train_classifier(network, sets["training"], args)
    train_pose(network, sets["training"], args)
    for key, value in scores(predict(network, sets["calibration"]), sets["calibration"]).items():
        print(f"held out: {key:32} {value:.3f}")
    initialise_place(network, sets["training"], args.seed)
    calibrate(network, sets["calibration"])
    metrics = measure(network, sets)
    for key, value in metrics.items():
        print(f"{key:42} {value}")
    export(network, args, sets, metrics)
    return 0


def demo_spec() -> NetworkSpec:
    """Returns what the demo's network is."""
    world = default_world()
    middle = f"features.{FROZEN - 1}"
    return NetworkSpec(
        backbone="mobilenet_v2",
        input=InputSpec(height=120, width=160),
        heads={
            "classifier": ClassifierSpec(world.labels, tap=f"features.{LAST}", dropout=0.1),
            "pose": PoseSpec(tap=middle, reduce_channels=32, hidden=512, dropout=0.1),
            "place": PlaceSpec(tap=middle, clusters=16, whitened_size=128),
        },
    )


class Stages(nn.Module):
    """The backbone's stages in two parts, which share their tensors with the network."""

    def __init__(self, network: MultiHeadNetwork) -> None:
        super().__init__()
        full = models.mobilenet_v2().features[: LAST + 1]
        own = dict(network.backbone.body.named_parameters())
        own.update(network.backbone.body.named_buffers())
        for name, module in full.named_modules():
            for kind in (module._parameters, module._buffers):
                for key in kind:
                    if kind[key] is not None:
                        kind[key] = own[f"features.{name}.{key}"]
        self.frozen, self.trained = full[:FROZEN], full[FROZEN:]
        self.frozen.requires_grad_(False)
        self.eval()  # batch norm keeps ImageNet's statistics: batches here are too alike to estimate them


def load_data(network: MultiHeadNetwork, args: argparse.Namespace) -> dict[str, Data]:
    """Renders all frames and runs them through the frozen stages, or reads that from the cache."""
    if args.cache and args.cache.is_file():
        stored = torch.load(args.cache, weights_only=True)
        if stored.pop("random") == args.random:
            return {name: Data(*tensors) for name, tensors in stored.items()}
    world, seed = default_world(), args.seed
    varied = Sensor(seed=seed + 11, lamps=0.2, exposure=0.12, balance=0.06, noise=5.0, vary=True)
    training = random_frames(world, args.random, seed + 7)
    for i in TRAINING_SEEDS:
        training += evaluation_drive(world, seed=i, rate_hz=7.0)
        training += mapping_drive(world, seed=i)
    plans: dict[str, list[tuple[list[DriveFrame], Sensor]]] = {
        "training": [(training, varied)],
        "mapping": [(mapping_drive(world), Sensor(seed=1))],
        "calibration": [
            (evaluation_drive(world, seed=i), Sensor(seed=i)) for i in CALIBRATION_SEEDS
        ],
        "test": [(evaluation_drive(world, seed=i), Sensor(seed=i)) for i in TEST_SEEDS],
    }
    stages = Stages(network)
    sets = {
        name: extract(network, stages, plan, name, args.threads) for name, plan in plans.items()
    }
    if args.cache:
        stored = {name: list(vars(data).values()) for name, data in sets.items()}
        torch.save({**stored, "random": args.random}, args.cache)
    return sets


@torch.no_grad()
def extract(
    network: MultiHeadNetwork,
    stages: Stages,
    plan: list[tuple[list[DriveFrame], Sensor]],
    name: str,
    workers: int,
) -> Data:
    """Renders frames and runs the frozen stages on them."""
    world, size = default_world(), network.spec.input
    frames = [frame for part, _ in plan for frame in part]
    images = (
        i
        for part, sensor in plan
        for i in render_frames(world, part, sensor, workers=workers if len(part) > 2000 else 1)
    )
    run = frozen_runner(network, stages, workers)
    features, batch = [], []
    for n, image in enumerate(progress(images, name, len(frames))):
        small = np.empty((size.height, size.width, 3), np.uint8)
        resize_into(image, small, size.resize, size.crop_fraction)
        batch.append(small)
        if len(batch) == 64 or n == len(frames) - 1:
            pixels = network.normalise(torch.from_numpy(np.stack(batch)))
            features.append(run(pixels).half())
            batch = []
    poses = np.stack([frame.T_map_camera for frame in frames])
    return Data(
        torch.cat(features),
        torch.tensor([world.labels.index(frame.room) for frame in frames]),
        torch.from_numpy(poses[:, :3, 3]).float(),
        torch.from_numpy(np.stack([xyzw_from_matrix(pose[:3, :3]) for pose in poses])).float(),
    )


def frozen_runner(
    network: MultiHeadNetwork, stages: Stages, threads: int
) -> Callable[[Tensor], Tensor]:
    """Returns the frozen stages as ONNX Runtime runs them: five times as fast as torch on a CPU."""
    size = network.spec.input
    graph = io.BytesIO()
    example = (torch.zeros(2, 3, size.height, size.width),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            stages.frozen,
            example,
            graph,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(graph.getvalue(), options, providers=providers)

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"x": pixels.contiguous().numpy()})[0])

    return run


def progress(items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
    """Passes items on and says how far it is: on one line of a terminal, or a line every tenth."""
    started, shown = time.monotonic(), -1
    for n, item in enumerate(items, 1):
        yield item
        share = 10 * n // total
        if sys.stdout.isatty() or share != shown:
            end = "\r" if sys.stdout.isatty() and n < total else "\n"
            took = time.monotonic() - started
            print(f"{name:12} {n:6} of {total} frames  {took:5.0f} s", end=end, flush=True)
            shown = share


def rotation_error(predicted: Tensor, true: Tensor) -> Tensor:
    """Returns the rotation (N, 3), in radians about the map's axes, from prediction to truth."""
    p = F.normalize(predicted, dim=1)
    flip = torch.where((p * true).sum(1, keepdim=True) < 0, -1.0, 1.0)
    pv, pw, tv, tw = -flip * p[:, :3], flip * p[:, 3:], true[:, :3], true[:, 3:]
    vector = tw * pv + pw * tv + torch.linalg.cross(tv, pv)  # of true * conj(predicted)
    scalar = (tw * pw - (tv * pv).sum(1, keepdim=True)).clamp(-1, 1)
    sine = vector.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    return vector / sine * 2 * torch.atan2(sine, scalar)


def heads(
    network: MultiHeadNetwork, stages: Stages, middle: Tensor, place: bool = False
) -> dict[str, Tensor]:
    """Runs the heads on the output (N, C, h, w) of the frozen stages."""
    features = {"classifier": stages.trained(middle), "pose": middle}
    if place:
        features["place"] = middle
    raw = network.raw_from_features({name: [value] for name, value in features.items()})
    return {word: value for own in raw.values() for word, value in own.items()}


def train_classifier(network: MultiHeadNetwork, data: Data, args: argparse.Namespace) -> None:
    """Trains the last stages together with the classifier."""
    stages, head = Stages(network), network.heads["classifier"]
    groups = [
        {"params": list(stages.trained.parameters()), "lr": 6e-4},
        {"params": list(head.parameters()), "lr": 2e-3},
    ]

    def loss(index: Tensor) -> Tensor:
        logits = head(stages.trained(data.features[index].float()))["logits"]
        return F.cross_entropy(logits, data.rooms[index], label_smoothing=0.02)

    head.train()
    fit("classifier", groups, loss, len(data), args.epochs, args.seed)


def train_pose(network: MultiHeadNetwork, data: Data, args: argparse.Namespace) -> None:
    """Trains the pose head.

    The loss is the distance plus the angle, each weighted by a learned scale (Kendall and Cipolla 2017),
    which outliers pull less than squares do. The variances learn from the residuals as they are.
    """
    head = network.heads["pose"]
    head.set_position_statistics(data.positions)
    scales = nn.Parameter(torch.tensor([0.0, -1.0]))  # log of the typical error, in m and rad
    groups = [
        {"params": list(head.parameters()), "lr": 2e-3},
        {"params": [scales], "lr": 1e-2, "weight_decay": 0.0},
    ]

    def loss(index: Tensor) -> Tensor:
        raw = head(data.features[index].float())
        away = data.positions[index] - raw["position"]
        turn = rotation_error(raw["quaternion_xyzw"], data.quaternions[index])
        means = torch.stack([away.norm(dim=1).mean(), turn.norm(dim=1).mean()])
        squares = torch.cat([away, turn], 1).detach().square()
        log_variance = raw["log_variance"].clamp(-12, 6)
        likelihood = 0.5 * (squares * (-log_variance).exp() + log_variance).mean()
        return (means * (-scales).exp() + scales).sum() + 0.1 * likelihood

    head.train()
    fit("pose", groups, loss, len(data), args.pose_epochs, args.seed)


def fit(
    name: str,
    groups: list[dict[str, Any]],
    loss: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    seed: int,
) -> None:
    """Minimises a loss of the frames with given indices: AdamW, one cycle of the learning rate."""
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = epochs * -(-count // BATCH)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(count, generator=generator).split(BATCH):
            value = loss(index)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            total += value.item() * len(index)
        took = time.monotonic() - started
        print(
            f"{name} epoch {epoch + 1:2}/{epochs}  {took:4.0f} s  loss {total / count:.3f}",
            flush=True,
        )


@torch.no_grad()
def predict(network: MultiHeadNetwork, data: Data, place: bool = False) -> dict[str, Tensor]:
    """Returns the network's raw outputs for all frames, in evaluation mode."""
    network.eval()
    stages = Stages(network)
    parts = [
        heads(network, stages, x, place)
        for x in (part.float() for part in data.features.split(128))
    ]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


@torch.no_grad()
def initialise_place(network: MultiHeadNetwork, data: Data, seed: int) -> None:
    """Sets NetVLAD's clusters by k-means and its whitening by PCA, from training frames."""
    head = network.heads["place"]
    generator = torch.Generator().manual_seed(seed)
    some = data.features[torch.randperm(len(data), generator=generator)[:1500]].float()
    columns = some.permute(0, 2, 3, 1).flatten(0, 2)
    head.initialise(columns[torch.randperm(len(columns), generator=generator)[:50000]], seed)
    parts = [head.aggregate(x.float()) for x in data.features.split(256)]
    head.fit_whitening(torch.cat(parts))


@torch.no_grad()
def calibrate(network: MultiHeadNetwork, data: Data) -> None:
    """Fits temperature, the open-set threshold and the scale of the variances on held-out drives."""
    raw = predict(network, data)
    grid = torch.logspace(-1, 1, 200)
    losses = torch.stack([F.cross_entropy(raw["logits"] / t, data.rooms) for t in grid])
    temperature = float(grid[losses.argmin()])
    network.heads["classifier"].constants["temperature"].fill_(temperature)
    known = network.heads["classifier"].decode(raw)["known_score"]
    threshold = round(float(known.quantile(0.02)), 3)  # keeps 98 of 100 frames of known rooms
    assert "classifier" in network.spec.heads
    classifier = replace(
        network.spec.heads["classifier"], temperature=temperature, unknown_threshold=threshold
    )
    network.spec = network.spec.with_heads(classifier=classifier)
    away = data.positions - raw["position"]
    turn = rotation_error(raw["quaternion_xyzw"], data.quaternions)
    squares = torch.cat([away, turn], 1).square()
    ratio = (squares / raw["log_variance"].exp()).mean(0)  # 1 where the variances are honest
    network.heads["pose"].log_variance.bias.add_(ratio.log())


def scores(raw: dict[str, Tensor], data: Data) -> dict[str, float]:
    """Returns room accuracy and the median errors of the pose."""
    turn = rotation_error(raw["quaternion_xyzw"], data.quaternions)
    return {
        "room_accuracy": float((raw["logits"].argmax(1) == data.rooms).float().mean()),
        "median_position_error_m": float((raw["position"] - data.positions).norm(dim=1).median()),
        "median_rotation_error_deg": float(turn.norm(dim=1).rad2deg().median()),
    }


@torch.no_grad()
def measure(network: MultiHeadNetwork, sets: dict[str, Data]) -> dict[str, float]:
    """Measures the test drives, and simple baselines."""
    test, mapping = sets["test"], sets["mapping"]
    raw, mapped = predict(network, test, place=True), predict(network, mapping, place=True)
    found = scores(raw, test)
    final: dict[str, Tensor] = {}
    for head in network.heads.values():
        final |= head.decode(raw)
    away = (raw["position"] - test.positions).norm(dim=1)
    found["p90_position_error_m"] = float(away.quantile(0.9))
    residual = torch.cat(
        [
            test.positions - raw["position"],
            rotation_error(raw["quaternion_xyzw"], test.quaternions),
        ],
        1,
    )
    variance = final["pose_covariance"].diagonal(dim1=1, dim2=2)
    nees = (residual.square() / variance).sum(1)
    found["mean_nees_of_6"] = float(nees.mean())
    found["share_within_95_percent_ellipsoid"] = float(
        (nees < 12.592).float().mean()
    )  # chi2, 6 dof
    confidence, answer = final["probabilities"].max(1)
    found["mean_probability_of_best_room"] = float(confidence.mean())
    assert (
        "classifier" in network.spec.heads
        and network.spec.heads["classifier"].unknown_threshold is not None
    )
    kept = final["known_score"] >= network.spec.heads["classifier"].unknown_threshold
    found["share_kept_as_known"] = float(kept.float().mean())
    nearest = (raw["descriptor"] @ mapped["descriptor"].T).argmax(1)
    there = (mapping.positions[nearest] - test.positions).norm(dim=1)
    turned = rotation_error(mapping.quaternions[nearest], test.quaternions).norm(dim=1).rad2deg()
    right = (there <= PLACE_RADIUS_M) & (turned <= PLACE_HEADING_DEG)
    found["place_radius_m"], found["place_heading_deg"] = PLACE_RADIUS_M, PLACE_HEADING_DEG
    found["recall_at_1"] = float(right.float().mean())
    distance = torch.cdist(test.positions, mapping.positions)
    apart = torch.stack([rotation_error(mapping.quaternions, q.expand(len(mapping), 4)).norm(dim=1)
                         for q in test.quaternions]).rad2deg()  # fmt: skip
    possible = ((distance <= PLACE_RADIUS_M) & (apart <= PLACE_HEADING_DEG)).any(1)
    found["recall_at_1_possible"] = float(possible.float().mean())
    prior = torch.bincount(test.rooms).max() / len(test)
    mean = sets["training"].positions.mean(0)
    found["baseline_most_frequent_room_accuracy"] = float(prior)
    found["baseline_mean_pose_median_error_m"] = float((test.positions - mean).norm(dim=1).median())
    found["baseline_nearest_image_median_error_m"] = float(there.median())
    found["baseline_nearest_image_median_error_deg"] = float(turned.median())
    found["baseline_nearest_image_room_accuracy"] = float(
        (mapping.rooms[nearest] == test.rooms).float().mean()
    )
    return {key: round(value, 4) for key, value in found.items()}


def export(
    network: MultiHeadNetwork,
    args: argparse.Namespace,
    sets: dict[str, Data],
    metrics: dict[str, float],
) -> None:
    """Writes the bundle with its model card; export compares torch with ONNX on test frames."""
    world = default_world()
    frames = evaluation_drive(world, seed=TEST_SEEDS[0])[::20]
    images = list(render_frames(world, frames, Sensor(seed=TEST_SEEDS[0])))
    source = "torchvision" if args.weights == "torchvision" else Path(args.weights).name
    command = f"python tools/train_demo_bundle.py --weights {source} --seed {args.seed}"
    training = {
        "data": "frames rendered by robot_vision.demo (world: home.default_world)",
        "frames": {name: len(data) for name, data in sets.items()},
        "backbone_weights": source,
        "seed": args.seed,
        "classifier_epochs": args.epochs,
        "pose_epochs": args.pose_epochs,
        "command": command,
    }
    seeds = {"training": TRAINING_SEEDS, "calibration": CALIBRATION_SEEDS, "test": TEST_SEEDS}
    card = card_text(metrics, training, seeds)
    export_bundle(network, args.out, "demo", images, training, metrics, card, force=True)
    total = sum(f.stat().st_size for f in args.out.iterdir() if f.is_file())
    print(f"wrote {args.out} ({total / 1e6:.1f} MB)")
    if total > 24e6:
        raise ConfigError(
            f"{args.out} has {total / 1e6:.1f} MB: the demo's bundle must stay below 24"
        )


if __name__ == "__main__":
    sys.exit(main())
