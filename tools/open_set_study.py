"""How well each open-set score tells images of classes that a classifier never saw.

    python tools/open_set_study.py --lights BUNDLE > table.md

Three questions, all answered on test images:

1. Traffic lights, each class held out in turn: a linear classifier is trained on the other two classes'
   training images; known are their test images, unknown are all images of the class that was held out.
2. The demo's rooms, in the same way: known and unknown are frames of drives that were not trained on.
3. Kitchen photographs put to a classifier of traffic lights: the bundle that
   config/training/traffic_lights.yaml makes, all of it trained, and the linear classifier.

The linear classifiers work on features of a backbone with ImageNet weights, which saw neither data set, so
that nothing of a held-out class went into them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.predict import predict
from robot_vision.contract.spec import NetworkSpec
from robot_vision.datasets import open_dataset
from robot_vision.heads.classifier.known_scores import fit_references, logit_score, make_scorer
from robot_vision.heads.classifier.spec import FEATURE_SCORES, KNOWN_SCORES, ClassifierSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import resize_into
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.simulation.drive import evaluation_drive, mapping_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.statistics.separation import separation

TRAIN_SEEDS, TEST_SEEDS = (1000, 1001, 1002), (2, 3)


@dataclass
class Part:
    """Features (N, C), their labels (N,) as text, and logits (N, K) where a bundle gave them."""

    features: NDArray[np.float32]
    labels: NDArray[Any]
    logits: NDArray[np.float32] | None = None

    def of(self, labels: Iterable[str]) -> Part:
        """Returns the images of some classes."""
        return Part(self.features[rows := np.isin(self.labels, list(labels))], self.labels[rows])


@dataclass
class Row:
    """One line of the table: what was unknown, and for each score the four numbers."""

    name: str
    known: int
    unknown: int
    accuracy: float
    numbers: dict[str, NDArray[np.float64]]


def main() -> int:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real recordings")
    parser.add_argument("--lights", type=Path, help="bundle that was trained on traffic lights")
    parser.add_argument("--rate", type=float, default=2.0, help="frames a second of the drives")
    parser.add_argument("--cache", type=Path, help="keep features in this folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = str(args.data / "weights" / "mobilenet_v2_imagenet1k.pth")
    lights = {
        name: cached(
            args.cache, f"lights_{name}", lambda n=name: lights_part(args.data, weights, n)
        )
        for name in ("train", "test")
    }
    kitchen = cached(args.cache, "kitchen", lambda: kitchen_part(args.data, weights))
    rooms = {
        name: cached(args.cache, f"rooms_{name}", lambda s=seeds: rooms_part(weights, s, args.rate))
        for name, seeds in (("train", TRAIN_SEEDS), ("test", TEST_SEEDS))
    }
    groups = [
        ("lights", held_out(lights["train"], lights["test"])),
        ("rooms", held_out(rooms["train"], rooms["test"])),
    ]
    others = [measure("kitchen, linear classifier", lights["train"], lights["test"], kitchen)]
    if args.lights:
        others.append(measure_bundle(args.lights, args.data))
    print_table(groups, others)
    return 0


def cached(folder: Path | None, name: str, make: Any) -> Part:
    """Returns what was kept, or makes and keeps it."""
    file = folder / f"{name}.npz" if folder else None
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            return Part(kept["features"], kept["labels"])
    part: Part = make()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, features=part.features, labels=part.labels)
    return part


def extract(
    images: Iterable[NDArray[np.uint8]], weights: str, size: tuple[int, int]
) -> NDArray[Any]:
    """Returns the pooled features (N, 1280) of a MobileNetV2 with ImageNet weights."""
    spec = NetworkSpec(
        "mobilenet_v2", InputSpec(*size), heads={"classifier": ClassifierSpec(("a", "b"))}
    )
    network = MultiHeadNetwork(spec, weights).eval()
    found, batch = [], []

    def flush() -> None:
        if batch:
            with torch.inference_mode():
                value = network.forward_features(torch.from_numpy(np.stack(batch)))["classifier"][0]
            found.append((value.mean(dim=(2, 3)) if value.dim() == 4 else value).numpy())
            batch.clear()

    for image in images:
        small = np.empty((*size, 3), np.uint8)
        resize_into(image, small, "squash", 1.0)
        batch.append(small)
        if len(batch) == 32:
            flush()
    flush()
    return np.concatenate(found)


def lights_part(data: Path, weights: str, name: str) -> Part:
    """The crops of traffic lights, those of the training folder or those of the test folder."""
    splits = open_dataset("image_folder", data / "traffic_lights")
    samples = splits.test if name == "test" else splits.train + splits.validation
    features = extract((s.source.load() for s in samples), weights, (128, 128))
    return Part(features, np.array([s.label for s in samples]))


def kitchen_part(data: Path, weights: str) -> Part:
    """The kitchen's photographs."""
    samples = open_dataset("seven_scenes", data / "kitchen").samples
    features = extract((s.source.load((128, 128)) for s in samples), weights, (128, 128))
    return Part(features, np.array(["kitchen"] * len(samples)))


def rooms_part(weights: str, seeds: tuple[int, ...], rate: float) -> Part:
    """Frames of drives through the demo's world."""
    world = default_world()
    labels: list[str] = []

    def images() -> Iterable[NDArray[np.uint8]]:
        for seed in seeds:
            plans = [evaluation_drive(world, seed=seed, rate_hz=rate)]
            plans += [mapping_drive(world, seed=seed)] if seed >= 1000 else []
            for frames in plans:
                labels.extend(frame.room for frame in frames)
                yield from render_frames(world, frames, Sensor(seed=seed))

    features = extract(images(), weights, (120, 160))
    return Part(features, np.array(labels))


def held_out(train: Part, test: Part) -> list[Row]:
    """Holds out each class in turn."""
    rows = []
    for label in sorted(set(train.labels)):
        others = sorted(set(train.labels) - {label})
        unknown = np.concatenate([train.of([label]).features, test.of([label]).features])
        nothing = np.array([label] * len(unknown))
        rows.append(measure(label, train.of(others), test.of(others), Part(unknown, nothing)))
    return rows


def measure(name: str, train: Part, known: Part, unknown: Part) -> Row:
    """Trains a linear classifier and scores known and unknown images."""
    probe = LogisticRegression(C=1.0, max_iter=3000)
    probe.fit(train.features, train.labels)
    classes = list(probe.classes_)

    def logits(part: Part) -> NDArray[np.float64]:
        z = probe.decision_function(part.features)
        # With two classes scikit-learn gives the difference of the logits alone.
        return np.stack([-z / 2, z / 2], axis=1) if z.ndim == 1 else z

    indices = np.array([classes.index(label) for label in train.labels])
    accuracy = float((probe.predict(known.features) == known.labels).mean())
    known.logits, unknown.logits = logits(known), logits(unknown)
    return compare(name, train.features, indices, len(classes), known, unknown, accuracy)


def measure_bundle(path: Path, data: Path) -> Row:
    """Puts the kitchen's photographs to a bundle."""
    bundle = ModelBundle.load(path)
    assert "classifier" in bundle.spec.heads
    labels = list(bundle.spec.heads["classifier"].labels)
    splits = open_dataset("image_folder", data / "traffic_lights")
    parts = []
    for samples in (
        splits.train,
        splits.test,
        open_dataset("seven_scenes", data / "kitchen").samples,
    ):
        found = predict(bundle, samples)
        parts.append(
            Part(found["features"], np.array([s.label or "" for s in samples]), found["logits"])
        )
    train, known, unknown = parts
    indices = np.array([labels.index(label) for label in train.labels])
    assert known.logits is not None
    accuracy = float((np.array(labels)[known.logits.argmax(1)] == known.labels).mean())
    name = "kitchen, trained bundle"
    return compare(name, train.features, indices, len(labels), known, unknown, accuracy)


def compare(
    name: str,
    train: NDArray[Any],
    indices: NDArray[Any],
    classes: int,
    known: Part,
    unknown: Part,
    accuracy: float,
) -> Row:
    """Returns AUROC, both AUPR and FPR at 95 % of every score."""
    truth = np.r_[np.ones(len(known.features), bool), np.zeros(len(unknown.features), bool)]
    numbers = {}
    for score in KNOWN_SCORES:
        if score in FEATURE_SCORES:
            scorer = make_scorer(score, fit_references(score, train, indices, classes), classes)
            values = np.r_[scorer(known.features), scorer(unknown.features)]
        else:
            assert known.logits is not None and unknown.logits is not None
            values = np.r_[logit_score(score, known.logits), logit_score(score, unknown.logits)]
        numbers[score] = separation(values, truth)(np.ones((1, len(truth))))[0]
    return Row(name, len(known.features), len(unknown.features), accuracy, numbers)


def print_table(groups: list[tuple[str, list[Row]]], others: list[Row]) -> None:
    """Prints a line for each unknown and score, with the means of each group."""
    print(
        "| unknown | known / unknown images | accuracy on known | score | AUROC | AUPR known | ",
        end="",
    )
    print("AUPR unknown | FPR at 95 % |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in groups:
        for row in rows:
            print_row(row, f"{name}: {row.name}")
        mean = {s: np.mean([row.numbers[s] for row in rows], axis=0) for s in KNOWN_SCORES}
        accuracy = float(np.mean([row.accuracy for row in rows]))
        print_row(Row("", 0, 0, accuracy, mean), f"**{name}: mean**")
    for row in others:
        print_row(row, row.name)


def print_row(row: Row, name: str) -> None:
    """Prints one row's lines."""
    counts = f"{row.known} / {row.unknown}" if row.known else ""
    for i, (score, values) in enumerate(row.numbers.items()):
        first = [name, counts, f"{row.accuracy:.3f}"] if i == 0 else ["", "", ""]
        cells = [*first, score, *(f"{v:.3f}" for v in values)]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
