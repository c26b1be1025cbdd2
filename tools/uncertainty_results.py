"""Measures calibration on data that nothing was fitted on: the tables of docs/uncertainty_results.md.

    python tools/uncertainty_results.py --data DATA --lights BUNDLE --kitchen BUNDLE --work DIR > results.md

The bundles are those that config/training/traffic_lights.yaml and config/training/kitchen_pose.yaml make; the
rooms are the demo's, rendered here. Each is calibrated by what `robot-vision calibrate` calls, and what came
out is loaded again and measured on other images:

    traffic lights   fitted on the validation images, measured on the test folder
    rooms            fitted on three drives (seeds 600 to 602), measured on three others (2 to 4)
    kitchen          each test block of 50 frames measured with a fit on the other three
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle import ModelBundle
from robot_vision.calibration.material import Options
from robot_vision.calibration.measure import class_numbers, pose_numbers, resampler_of
from robot_vision.calibration.predict import predict
from robot_vision.calibration.run import Data, calibrate
from robot_vision.datasets import open_dataset
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.evaluation.bootstrap import Headline, mean
from robot_vision.evaluation.pose import pose_error
from robot_vision.evaluation.settings import EvaluationSettings
from robot_vision.geometry import xyzw_from_matrix
from robot_vision.open_set import make_scorer
from robot_vision.resizing import resize_into
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.home import default_world
from robot_vision.simulation.sensor import Sensor, render_frames

ROOT = Path(__file__).resolve().parents[1]
FIT_SEEDS, TEST_SEEDS = (600, 601, 602), (2, 3, 4)
CLASS_NUMBERS, POSE_NUMBERS = (
    ("ece", "nll", "brier", "top1", "share_kept"),
    (
        "nees",
        "nees_position",
        "nees_rotation",
        "coverage_50",
        "coverage_68",
        "coverage_90",
        "coverage_95",
    ),
)


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image in memory, at the network's size."""

    pixels: NDArray[np.uint8]

    def load(self, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """See `ImageSource`."""
        return self.pixels

    def encoded(self) -> bytes:
        """See `ImageSource`."""
        return self.pixels.tobytes()


def main() -> int:
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real recordings")
    parser.add_argument("--lights", type=Path, help="bundle trained on traffic lights")
    parser.add_argument(
        "--kitchen", type=Path, nargs="*", default=[], help="bundles with a pose head"
    )
    parser.add_argument("--work", type=Path, required=True, help="calibrated bundles are put here")
    parser.add_argument("--no-rooms", action="store_true", help="leave the rendered rooms out")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    if args.lights:
        splits = open_dataset("image_folder", args.data / "traffic_lights")
        data = Data(splits, "validation", "traffic_lights", {})
        before_after("traffic lights", args.lights, data, splits.test, args.work / "lights")
    if not args.no_rooms:
        demo = ModelBundle.load(ROOT / "models" / "demo")
        size = (demo.spec.input.height, demo.spec.input.width)
        fitted = Splits((), tuple(drives(FIT_SEEDS, size)), ())
        data = Data(fitted, "validation", "rooms", {})
        before_after("rooms", demo.path, data, drives(TEST_SEEDS, size), args.work / "rooms")
    for number, path in enumerate(args.kitchen):
        splits = open_dataset("seven_scenes", args.data / "kitchen", split="blocks", validation=0)
        by_block(path, splits, args.work / f"kitchen{number}")
    return 0


def drives(seeds: Sequence[int], size: tuple[int, int]) -> list[Sample]:
    """Renders drives through the demo's world."""
    world, samples = default_world(), []
    for seed in seeds:
        frames = evaluation_drive(world, seed=seed)
        for i, image in enumerate(render_frames(world, frames, Sensor(seed=seed))):
            small = np.empty((*size, 3), np.uint8)
            resize_into(image, small, "squash", 1.0)
            stamp = round(frames[i].stamp_s * 1e9)
            pose = frames[i].T_map_camera
            samples.append(
                Sample(f"{seed}/{i}", frames[i].room, pose, stamp, str(seed), Pixels(small))
            )
    return samples


def before_after(name: str, path: Path, data: Data, test: Sequence[Sample], out: Path) -> None:
    """Calibrates a bundle, and measures it before and after on other images."""
    old = ModelBundle.load(path)
    heads = ("classifier", "open_set", *(("pose",) if old.spec.pose else ()))
    heads += ("place",) if old.spec.place else ()
    new, fitted = calibrate(old, data, Options(heads), out)
    print(f"\n{name}: {len(data.samples)} images fitted on, {len(test)} measured\n")
    print("| number | before | after |\n| --- | --- | --- |")
    rows = [measured(bundle, test) for bundle in (old, new)]
    for key in (*CLASS_NUMBERS, *POSE_NUMBERS):
        if key in rows[1]:
            print(f"| {key} | {text(rows[0].get(key))} | {text(rows[1][key])} |")
    if "place" in fitted.heads:
        place = fitted.heads["place"]
        for key, value in place.after.items():
            print(f"| place probability, {key} | {text(place.before[key])} | {text(value)} |")
        print(f"\nPlace reliability (stated, true, matches): {place.values['reliability']}")
    sys.stdout.flush()


def measured(bundle: ModelBundle, samples: Sequence[Sample]) -> dict[str, Headline]:
    """Measures a bundle as it stands."""
    resampler = resampler_of(samples, EvaluationSettings())
    outputs = predict(bundle, samples, bundle.graph)
    every = np.ones(len(samples), bool)
    found: dict[str, Headline] = {}
    classifier = bundle.spec.classifier
    if classifier is not None:
        labels = np.array([classifier.labels.index(str(s.label)) for s in samples])
        found.update(class_numbers(outputs["probabilities"], labels, resampler, every))
        if classifier.unknown_threshold is not None:
            score = known_scores_of(bundle, outputs)
            kept = score >= classifier.unknown_threshold
            found.update(resampler.headlines({"share_kept": mean(kept.astype(float))}))
    if bundle.spec.pose is not None and samples[0].T_map_camera is not None:
        errors, covariances = pose_errors(outputs, samples)
        poses = pose_numbers(errors, covariances, resampler, every)
        found.update(
            {key: poses[key] for key in POSE_NUMBERS}
        )  # its nll is another than that of classes
    return found


def known_scores_of(bundle: ModelBundle, outputs: Any) -> NDArray[Any]:
    """Returns the known score (N,) as `Pipeline` computes it."""
    classifier = bundle.spec.classifier
    assert classifier is not None
    if bundle.references is None:
        return np.asarray(outputs["known_score"])
    scorer = make_scorer(classifier.score, bundle.references, len(classifier.labels))
    return scorer(outputs["features"])


def pose_errors(outputs: Any, samples: Sequence[Sample]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns errors (N, 6) and covariances (N, 6, 6)."""
    poses = np.array([s.T_map_camera for s in samples])
    xyzw = np.array([xyzw_from_matrix(pose[:3, :3]) for pose in poses])
    position = outputs["position"].astype(np.float64)
    error = pose_error(position, outputs["orientation_xyzw"], poses[:, :3, 3], xyzw)
    return error, outputs["pose_covariance"].astype(np.float64)


def by_block(path: Path, splits: Splits, out: Path) -> None:
    """Calibrates on three of the four test blocks and measures the fourth, in turn."""
    old, size = ModelBundle.load(path), 50
    blocks = [splits.test[i : i + size] for i in range(0, len(splits.test), size)]
    before: list[tuple[NDArray[Any], NDArray[Any]]] = []
    after = list(before)
    for number, block in enumerate(blocks):
        others = [s for i, other in enumerate(blocks) if i != number for s in other]
        data = Data(Splits((), tuple(others), ()), "validation", "kitchen", {})
        new, _ = calibrate(old, data, Options(("pose",)), out / str(number))
        for bundle, found in ((old, before), (new, after)):
            found.append(pose_errors(predict(bundle, block, bundle.graph), block))
    print(
        f"\nkitchen, {old.name} of {path.parent.name}: each block of {size} fitted on the others\n"
    )
    names = [f"block {i}" for i in range(len(blocks))]
    print("| number | before | after | " + " | ".join(f"{n}, after" for n in names) + " |")
    print("| --- " * (3 + len(blocks)) + "|")
    resampler = resampler_of(splits.test, EvaluationSettings())
    whole = [
        pose_numbers(
            np.concatenate([e for e, _ in found]),
            np.concatenate([c for _, c in found]),
            resampler,
            np.ones(len(splits.test), bool),
        )
        for found in (before, after)
    ]
    quick = EvaluationSettings(resamples=0)
    each = [
        pose_numbers(*pair, resampler_of(block, quick), np.ones(len(block), bool))
        for pair, block in zip(after, blocks, strict=True)
    ]
    for key in POSE_NUMBERS:
        cells = [text(whole[0][key]), text(whole[1][key]), *(text(e[key]) for e in each)]
        print(f"| {key} | " + " | ".join(cells) + " |")
    sys.stdout.flush()


def text(value: Headline | None) -> str:
    """Returns a number with its interval."""
    if value is None or value["value"] is None:
        return ""
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.4f} ({value['low']:.3f} to {value['high']:.3f})"


if __name__ == "__main__":
    sys.exit(main())
