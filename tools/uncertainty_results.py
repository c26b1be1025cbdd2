r"""Measures calibration on data that nothing was fitted on: the tables of docs/uncertainty_results.md.

    python tools/uncertainty_results.py --data DATA --work DIR --lights BUNDLE --kitchen BUNDLE BUNDLE \
        --kitchen-place BUNDLE --images docs/images > results.md

The bundles are those that config/training/traffic_lights.yaml, kitchen_pose.yaml (as it is, and with
`epistemic.passes=8`) and kitchen_place.yaml make; the rooms are the demo's, rendered here. Each is calibrated
by what `robot-vision calibrate` calls, and what came out is loaded again and measured on other images:

    traffic lights   fitted on the validation images, measured on the test folder
    rooms            fitted on three drives (seeds 600 to 602), measured on three others (2 to 4)
    kitchen poses    as trained, with variances that cross-fitting over the training blocks gave; and each
                     test block of 50 frames measured with a fit on the other three
    kitchen places   fitted on training blocks, each looked up in the others; measured on the test blocks
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uncertainty_charts as charts
from numpy.typing import NDArray
from scipy.stats import binomtest

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.folds import FOLD_BLOCK, resampler_of
from robot_vision.calibration.predict import predict
from robot_vision.calibration.run import Data, calibrate
from robot_vision.charts.sheet import sheet
from robot_vision.contract.calibration import Options
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets import open_dataset
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.geometry.rotations import pose_error
from robot_vision.heads.classifier.fitting import class_numbers
from robot_vision.heads.classifier.head import REFERENCES
from robot_vision.heads.classifier.known_scores import make_scorer
from robot_vision.heads.place.evaluation import PlaceViews, SamePlace, score_places
from robot_vision.heads.place.fitting import match_numbers
from robot_vision.heads.place.probability import fit as fit_place_probability
from robot_vision.heads.pose.evaluation import normalised_squares
from robot_vision.heads.pose.fitting import pose_numbers
from robot_vision.images.resizing import resize_into
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.statistics.bootstrap import Headline, Resampler, mean

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
        "pose_nll",
    ),
)
# What kitchen_place.yaml calls the same place. Of the usual 1 m and 45 degrees one room holds too few.
SAME_PLACE = SamePlace(place_radius_m=0.25, place_heading_deg=20.0)

PLACE_BINS = (0.7, 0.9)

Poses = tuple[NDArray[Any], NDArray[Any]]  # errors (N, 6) and covariances (N, 6, 6)


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
    parser.add_argument("--kitchen-place", type=Path, help="bundle with a place head")
    parser.add_argument("--images", type=Path, help="folder for the charts")
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
    drawn: list[str] = []
    if args.kitchen or args.kitchen_place:
        splits = open_dataset("seven_scenes", args.data / "kitchen", split="blocks", validation=0)
    if args.kitchen:
        drawn += kitchen_poses(args.kitchen, splits, args.work)
    if args.kitchen_place:
        drawn.append(kitchen_places(args.kitchen_place, splits))
    if drawn and args.images:
        (args.images / "uncertainty_kitchen.svg").write_text(sheet(drawn))
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
    heads = ("classifier", "open_set", *(("pose",) if "pose" in old.spec.heads else ()))
    heads += ("place",) if "place" in old.spec.heads else ()
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
    """Measures an unchanged bundle."""
    resampler = resampler_of(samples, EvaluationSettings())
    outputs = predict(bundle, samples, bundle.graph)
    every = np.ones(len(samples), bool)
    found: dict[str, Headline] = {}
    classifier = bundle.spec.heads.get("classifier")
    if classifier is not None:
        labels = np.array([classifier.labels.index(str(s.label)) for s in samples])
        found.update(class_numbers(outputs["probabilities"], labels, resampler, every))
        if classifier.unknown_threshold is not None:
            score = known_scores_of(bundle, outputs)
            kept = score >= classifier.unknown_threshold
            found.update(resampler.headlines({"share_kept": mean(kept.astype(float))}))
    if "pose" in bundle.spec.heads and samples[0].T_map_camera is not None:
        errors, covariances = pose_errors(outputs, samples)
        found.update(poses_measured(errors, covariances, resampler, every))
    return found


def poses_measured(*given: Any) -> dict[str, Headline]:
    """Returns `POSE_NUMBERS` of what `pose_numbers` takes."""
    poses = pose_numbers(*given)
    poses["pose_nll"] = poses.pop("nll")  # another than that of classes
    return {key: poses[key] for key in POSE_NUMBERS}


def known_scores_of(bundle: ModelBundle, outputs: Any) -> NDArray[Any]:
    """Returns the known score (N,) as `Pipeline` computes it."""
    classifier = bundle.spec.heads["classifier"]
    references = bundle.material["classifier"].files.get(REFERENCES)
    if references is None:
        return np.asarray(outputs["known_score"])
    scorer = make_scorer(classifier.score, references, len(classifier.labels))
    return scorer(outputs["features"])


def pose_errors(outputs: Any, samples: Sequence[Sample]) -> Poses:
    """Returns errors (N, 6) and covariances (N, 6, 6)."""
    poses = np.array([s.T_map_camera for s in samples])
    xyzw = np.array([xyzw_from_matrix(pose[:3, :3]) for pose in poses])
    position = outputs["position"].astype(np.float64)
    error = pose_error(position, outputs["orientation_xyzw"], poses[:, :3, 3], xyzw)
    return error, outputs["pose_covariance"].astype(np.float64)


def kitchen_poses(paths: Sequence[Path], splits: Splits, work: Path) -> list[str]:
    """Prints a table for each bundle, and returns charts of all."""
    resampler = over_blocks(splits.test)
    each = [by_block(path, splits, work / f"kitchen{i}") for i, path in enumerate(paths)]
    nees = {
        answers(path): normalised_squares(*joined(found))
        for path, found in zip(paths, each, strict=True)
    }
    coverage, numbers = charts.coverage(nees, resampler)
    print("\nkitchen, nominal share and share inside with its interval\n")
    print("| nominal, % | " + " | ".join(numbers) + " |\n" + "| --- " * (1 + len(numbers)) + "|")
    for nominal in next(iter(numbers.values())):
        rows = [found[nominal] for found in numbers.values()]
        cells = [f"{v:.3f} ({low:.2f} to {high:.2f})" for v, low, high in rows]
        print(f"| {nominal} | " + " | ".join(cells) + " |")
    sys.stdout.flush()
    parts = (
        ("position", "m", slice(0, 3), 1.0),
        ("rotation", "deg", slice(3, 6), 180 / np.pi),
    )
    drawn = [coverage]
    for title, unit, part, factor in parts:
        error = [factor * np.linalg.norm(e[:, part], axis=1) for e, _ in each[0]]
        sigma = [factor * np.sqrt(np.trace(c[:, part, part], axis1=1, axis2=2)) for _, c in each[0]]
        names = block_names(len(error))
        title = f"Kitchen, {title} errors, {answers(paths[0])}"
        drawn.append(charts.errors_of_blocks(title, unit, error, sigma, names))
    return drawn


def answers(path: Path) -> str:
    """Returns how often the bundle's heads answer."""
    epistemic = ModelBundle.load(path).spec.epistemic
    return f"{epistemic.passes} passes" if epistemic and epistemic.passes else "one answer"


def joined(found: Sequence[Poses]) -> Poses:
    """Returns the errors and covariances of all blocks."""
    return np.concatenate([e for e, _ in found]), np.concatenate([c for _, c in found])


class WholeBlocks(Resampler):
    """A bootstrap that draws whole test blocks, which do not follow each other in time."""

    def _draw(self) -> Iterator[NDArray[np.uint16]]:
        names = np.arange(self.count) // FOLD_BLOCK
        count = int(names[-1]) + 1
        rng = np.random.default_rng(self.settings.seed)
        drawn = rng.multinomial(count, np.full(count, 1 / count), self.settings.resamples)
        yield drawn[:, names].astype(np.uint16)


def over_blocks(samples: Sequence[Sample]) -> Resampler:
    """Returns a bootstrap over whole blocks of the samples."""
    return WholeBlocks(np.arange(len(samples)), [(0, len(samples))], EvaluationSettings())


def block_names(count: int) -> list[str]:
    """Returns the names of the test blocks: every fourth of the recording."""
    return [f"block {4 * i + 3}" for i in range(count)]


def by_block(path: Path, splits: Splits, out: Path) -> list[Poses]:
    """Measures each test block as the bundle is, and with a calibration on the other three.

    Returns:
        Errors and covariances of each block of the bundle as it is.
    """
    old, size = ModelBundle.load(path), FOLD_BLOCK
    blocks = [splits.test[i : i + size] for i in range(0, len(splits.test), size)]
    before: list[Poses] = []
    after = list(before)
    for number, block in enumerate(blocks):
        others = [s for i, other in enumerate(blocks) if i != number for s in other]
        data = Data(Splits((), tuple(others), ()), "validation", "kitchen", {})
        new, _ = calibrate(old, data, Options(("pose",)), out / str(number))
        for bundle, found in ((old, before), (new, after)):
            found.append(pose_errors(predict(bundle, block, bundle.graph), block))
    print(f"\nkitchen, {answers(path)}: as trained, and each block calibrated on the others\n")
    header = ["number", "as trained", *block_names(len(blocks)), "calibrated on other blocks"]
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|")
    resampler = over_blocks(splits.test)
    every = np.ones(len(splits.test), bool)
    whole = [poses_measured(*joined(found), resampler, every) for found in (before, after)]
    quick = EvaluationSettings(resamples=0)
    each = [
        poses_measured(*pair, resampler_of(block, quick), np.ones(len(block), bool))
        for pair, block in zip(before, blocks, strict=True)
    ]
    for key in POSE_NUMBERS:
        cells = [text(whole[0][key]), *(text(e[key]) for e in each), text(whole[1][key])]
        print(f"| {key} | " + " | ".join(cells) + " |")
    sys.stdout.flush()
    return before


def kitchen_places(path: Path, splits: Splits) -> str:
    """Fits the probability of a match on training blocks, prints it on the test blocks, returns a chart.

    A training block is looked up in the other ones; a block whose neighbours in time are in the map, as
    every test block too.
    """
    bundle = ModelBundle.load(path)
    train = views_of(bundle, splits.train)
    block = np.arange(len(splits.train)) // FOLD_BLOCK
    parts = [best_matches(taken(train, block == b), taken(train, block != b)) for b in set(block)]
    fitted = [np.concatenate(column) for column in zip(*parts, strict=True)]
    curve = fit_place_probability(*fitted)
    similarity, right = best_matches(views_of(bundle, splits.test), train)
    probability = curve(similarity)
    resampler = over_blocks(splits.test)
    every = np.ones(len(right), bool)
    before = match_numbers(np.clip(similarity, 0, 1), right, resampler, every)
    after = match_numbers(probability, right, resampler, every)
    print(
        f"\nkitchen, places: {len(fitted[1])} matches fitted on, {int((~fitted[1]).sum())} of them wrong; "
        f"{len(right)} measured, {int((~right).sum())} wrong\n"
    )
    print("| number | before | after |\n| --- | --- | --- |")
    for key, value in after.items():
        print(f"| place probability, {key} | {text(before[key])} | {text(value)} |")
    print("\n| stated | right | matches |\n| --- | --- | --- |")
    rows = []
    bins = np.digitize(probability, PLACE_BINS)
    for b in np.unique(bins):
        inside = bins == b
        count, hits = int(inside.sum()), int(right[inside].sum())
        share = binomtest(hits, count).proportion_ci()
        rows.append((float(probability[inside].mean()), hits / count, share.low, share.high, count))
        stated, value, low, high, _ = rows[-1]
        print(f"| {stated:.3f} | {value:.3f} ({low:.3f} to {high:.3f}) | {count} |")
    sys.stdout.flush()
    return charts.matches(rows)


def views_of(bundle: ModelBundle, samples: Sequence[Sample]) -> PlaceViews:
    """Returns descriptors and poses."""
    outputs = predict(bundle, samples, bundle.graph)
    poses = np.array([s.T_map_camera for s in samples])
    xyzw = np.array([xyzw_from_matrix(pose[:3, :3]) for pose in poses])
    return PlaceViews(outputs["descriptor"], poses[:, :3, 3], xyzw, np.arange(len(samples)))


def taken(views: PlaceViews, rows: NDArray[np.bool_]) -> PlaceViews:
    """Returns some of them."""
    return PlaceViews(
        views.descriptor[rows], views.position[rows], views.xyzw[rows], views.stamps_ns[rows]
    )


def best_matches(queries: PlaceViews, stored: PlaceViews) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Returns the similarity of each query's best match, and whether it shows the same place."""
    columns = score_places(queries, stored, SAME_PLACE, same_recording=False)
    right = columns["place_error_m"] <= SAME_PLACE.place_radius_m
    right &= columns["place_error_deg"] <= SAME_PLACE.place_heading_deg
    return columns["place_similarity"], right


def text(value: Headline | None) -> str:
    """Returns a number with its interval."""
    if value is None or value["value"] is None:
        return ""
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.4f} ({value['low']:.3f} to {value['high']:.3f})"


if __name__ == "__main__":
    sys.exit(main())
