"""How well places are recognised on real data: `python -m benchmarks.place_accuracy --bundle BUNDLE`.

The kitchen's training blocks are the map, its test blocks the queries, in their order in time. Compared are
descriptors without training (average and GeM pooling) and the bundle's NetVLAD, each by single images and
with the sequence filter, which sees no later frame; then the pose of the best match and what verification
makes of it. Writes docs/places_accuracy.md and, with --json, all numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import place_regions, place_simulated
from benchmarks.place_accuracy_page import text
from benchmarks.place_frames import HEADING_DEG, RADIUS_M, SEED, Views, right_matches
from benchmarks.place_verified import (
    CANDIDATES,
    build_structure,
    elsewhere,
    pose_error,
    query_features,
    refine,
)
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.registry import open_dataset
from robot_vision.datasets.sample import Splits
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.heads.place.evaluation import matching
from robot_vision.pipeline import Pipeline
from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map
from robot_vision.places.recognition.recogniser import Odometry, Recogniser, RecogniserOptions
from robot_vision.statistics.bootstrap import Resampler, mean, quantiles

ROOT = Path(__file__).resolve().parent.parent
POOLINGS = ("average pooling", "GeM pooling")
CACHED = ("pooled", "trained")


def cached(file: Path | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns arrays by name, from a file of an earlier run where there is one."""
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    arrays = make()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)
    return arrays


def kept(cache: Path | None, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns numbers by name, from an interrupted run of the same code where there is one."""
    if cache is None:
        return make()
    sources = sha256()
    for source in sorted([*ROOT.glob("robot_vision/**/*.py"), *ROOT.glob("benchmarks/*.py")]):
        sources.update(source.read_bytes())
    file = cache / f"{name}_{sources.hexdigest()[:12]}.json"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make()))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def pooled_descriptors(bundle: Path, stored: Views, queries: Views) -> dict[str, Any]:
    """Returns descriptors without training, of map and queries, by name."""
    import torch

    from robot_vision.contract.pooling import poolings
    from robot_vision.networks.checkpoint import load_network
    from robot_vision.training.samples.data import SampleSet
    from robot_vision.training.samples.features import FeatureCache

    torch.set_num_threads(1)
    network = load_network(bundle / "weights.safetensors")
    pooled = []
    for views in (stored, queries):
        samples = SampleSet.of(views.samples, (), network.spec.input)
        cache = FeatureCache.compute(network, samples, ("place",), torch.device("cpu"), 1)
        pooled.append(poolings(cache.features["place"][0].float()))
    return {
        f"{part} {name}": values[name].numpy()
        for part, values in zip(("map", "queries"), pooled, strict=True)
        for name in POOLINGS
    }


def trained_descriptors(bundle: Path, stored: Views, queries: Views) -> dict[str, Any]:
    """Returns the bundle's descriptors, of map and queries, as the robot computes them."""
    found = {}
    with Pipeline.load(bundle, precision="float32", threads=1) as pipeline:
        for part, views in (("map", stored), ("queries", queries)):
            rows: list[Any] = []
            for i in range(0, len(views.samples), 16):
                images = [s.source.load() for s in views.samples[i : i + 16]]
                rows += [prediction["place"].values for prediction in pipeline(images)]
            found[f"{part} NetVLAD"] = np.stack(rows)
    return found


def fill_map(folder: Path, name: str, stored: Views, vectors: NDArray[np.float32]) -> Any:
    """Returns a map of the stored frames, their ids, and an index."""
    dimension = vectors.shape[1]
    places = create_map(
        folder / f"{name.replace(' ', '_')}.map",
        bundle_name=name,
        bundle_sha256="0" * 64,
        dimension=dimension,
    )
    ids = places.add_many(
        Keyframe.checked(
            stamp_ns=int(t), camera="camera", source="kitchen", T_map_camera=T, descriptor=d
        )
        for t, T, d in zip(stored.stamps_ns, stored.T_map_camera, vectors, strict=True)
    )
    index = PlaceIndex(dimension)
    index.add(ids, vectors)
    return places, ids, index


def recognise(
    places: Any,
    ids: list[int],
    index: PlaceIndex,
    vectors: Any,
    queries: Views,
    sequence: bool,
    odometry: bool = False,
) -> dict[str, Any]:
    """Returns what the recogniser said of each query, in their order in time; odometry is the true motion."""
    options = RecogniserOptions(radius_m=RADIUS_M, heading_deg=HEADING_DEG, sequence=sequence)
    recogniser = Recogniser(places, index, options)
    row = {keyframe_id: i for i, keyframe_id in enumerate(ids)}
    order = np.argsort(queries.stamps_ns, kind="stable")
    said = []
    for i in order:
        stamp_ns = int(queries.stamps_ns[i])
        motion = Odometry(stamp_ns, queries.T_map_camera[i]) if odometry else None
        said.append(recogniser.observe(vectors[i], stamp_ns, motion))
    found: dict[str, Any] = {
        "match": np.zeros(len(order), int),
        "similarity": np.zeros(len(order)),
        "probability": np.zeros(len(order)),
        "accepted": np.zeros(len(order), bool),
        "ranked": [[] for _ in order],
    }
    for i, one in zip(order, said, strict=True):
        found["match"][i] = row[one.candidates[0].keyframe_id]
        found["similarity"][i] = one.candidates[0].similarity
        found["probability"][i] = one.probability
        found["accepted"][i] = one.accepted
        found["ranked"][i] = [c.keyframe_id for c in one.candidates]
    return found


def filtered_in(folder: Path) -> place_regions.Recognise:
    """Returns what asks the sequence filter of a map that is made in a folder."""
    numbers = count()

    def filtered(
        known: Views, rows: Any, asked: Views, vectors: Any, odometry: bool
    ) -> tuple[Any, Any]:
        places, ids, index = fill_map(folder, f"part {next(numbers)}", known, rows)
        found = recognise(places, ids, index, vectors, asked, True, odometry)
        places.close()
        return found["accepted"], found["match"]

    return filtered


def score(
    found: dict[str, Any], right: NDArray[np.bool_], resampler: Resampler, by: str
) -> dict[str, Any]:
    """Returns recall@1, area under the precision-recall curve, recall at 100 % precision, honesty."""
    answerable = right.any(axis=1)
    hit = right[np.arange(len(right)), found["match"]]
    numbers: dict[str, Any] = resampler.headlines(
        {"recall_at_1": mean(hit[answerable].astype(float))}, answerable
    )
    pair = ("area", "recall_at_100_precision")
    numbers |= resampler.headlines({pair: matching(found[by], hit, answerable)})
    numbers["brier"] = float(((found["probability"] - hit) ** 2).mean())
    numbers["accepted"] = int(found["accepted"].sum())
    numbers["accepted_right"] = int(hit[found["accepted"]].sum())
    return numbers


def measure(bundle: Path, data: Path, cache: Path | None) -> dict[str, Any]:
    """Returns all numbers."""
    cv2.setNumThreads(1)
    splits: Splits = open_dataset("seven_scenes", data / "kitchen", split="blocks", validation=0)
    stored, queries = Views.of(splits.train), Views.of(splits.test)
    right = right_matches(queries, stored)
    report: dict[str, Any] = {
        "bundle": ModelBundle.load(bundle).sha256[:12],
        "map": len(stored.samples),
        "queries": len(right),
        "answerable": int(right.any(axis=1).sum()),
    }
    assert splits.camera_matrix is not None
    height, width = splits.train[0].source.load().shape[:2]
    intrinsics = Intrinsics.of_matrix(splits.camera_matrix, width, height)
    print("descriptors ...", file=sys.stderr, flush=True)
    files = {} if cache is None else {n: cache / f"{report['bundle']}_{n}.npz" for n in CACHED}
    vectors = cached(
        files.get("pooled"), lambda: pooled_descriptors(bundle, stored, queries)
    ) | cached(files.get("trained"), lambda: trained_descriptors(bundle, stored, queries))
    for key, held_out in (("regions", False), ("regions_held_out", True)):
        print(f"{key} ...", file=sys.stderr, flush=True)
        report[key] = kept(
            cache,
            f"{report['bundle']}_{key}",
            partial(_regions, stored, queries, vectors, intrinsics, held_out),
        )
    report |= kept(
        cache,
        f"{report['bundle']}_whole",
        lambda: _whole(data, stored, queries, vectors, right, intrinsics),
    )
    return report


def _whole(
    data: Path,
    stored: Views,
    queries: Views,
    vectors: dict[str, Any],
    right: NDArray[np.bool_],
    intrinsics: Intrinsics,
) -> dict[str, Any]:
    """Returns how well the queries' places and poses are found in the whole map."""
    report: dict[str, Any] = {"rows": {}}
    answerable = right.any(axis=1)
    resampler = Resampler(
        queries.stamps_ns, [(0, len(right))], EvaluationSettings(seed=SEED, block_s=1.0)
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in (*POOLINGS, "NetVLAD"):
            known, asked = vectors[f"map {name}"], vectors[f"queries {name}"]
            print(f"{name} ...", file=sys.stderr, flush=True)
            places, ids, index = fill_map(Path(folder), name, stored, known)
            results = {}
            for sequence in (False, True):
                results[sequence] = found = recognise(places, ids, index, asked, queries, sequence)
                by = "probability" if sequence else "similarity"
                title = f"{name}, sequence filter" if sequence else f"{name}, single image"
                report["rows"][title] = score(found, right, resampler, by)
            if name == "NetVLAD":
                print("structure ...", file=sys.stderr, flush=True)
                blobs = build_structure(stored, intrinsics)
                for row, i in enumerate(ids):
                    places.set_structure(i, blobs[str(row)].tobytes())
                report["build_s"] = float(blobs["seconds"])
                sizes = [len(places.structure(i) or b"") for i in ids]
                report["structure_kb"] = float(np.mean(sizes)) / 1e3
                print("verification ...", file=sys.stderr, flush=True)
                features = query_features(queries, intrinsics)
                report["elsewhere"] = elsewhere(places, data, intrinsics)
                refined = refine(places, results[False]["ranked"], queries, features)
                report["poses"] = poses(results, refined, queries, stored, answerable, resampler)
            places.close()
    return report


def _regions(
    stored: Views,
    queries: Views,
    vectors: dict[str, Any],
    intrinsics: Intrinsics,
    held_out: bool,
) -> dict[str, Any]:
    """Returns what is said of parts of the kitchen that the map lacks."""
    samples = [*stored.samples, *queries.samples]
    known = np.concatenate([vectors["map NetVLAD"], vectors["queries NetVLAD"]])
    order = np.array(sorted(range(len(samples)), key=lambda i: samples[i].name))
    views = Views.of(tuple(samples[i] for i in order))
    with tempfile.TemporaryDirectory() as folder:
        return place_regions.measure(
            views,
            known[order],
            order >= len(stored.samples),
            intrinsics,
            filtered_in(Path(folder)),
            place_regions.cuts(views, held_out),
            place_regions.STEPS[held_out],
        )


def poses(
    found: dict[bool, dict[str, Any]],
    refined: dict[str, Any],
    queries: Views,
    stored: Views,
    answerable: NDArray[np.bool_],
    resampler: Resampler,
) -> dict[str, Any]:
    """Returns pose errors of the best match and of verification, and what was refused."""
    columns = {"verified, {n} candidates of a single image": [refined["m"], refined["deg"]]}
    for sequence, title in ((False, "single image"), (True, "sequence filter")):
        pairs = [
            pose_error(T, stored.T_map_camera[b, :3, 3], stored.xyzw[b])[1:]
            for T, b in zip(queries.T_map_camera, found[sequence]["match"], strict=True)
        ]
        columns[f"best match's pose, {title}"] = list(zip(*pairs, strict=True))
    result: dict[str, Any] = {"rows": {}}
    for name in sorted(columns):
        errors = np.array(columns[name]).T
        rows = answerable & np.isfinite(errors[:, 0])
        result["rows"][name.format(n=CANDIDATES)] = {
            "frames": int(rows.sum()),
            **resampler.headlines(
                {("median_m", "p90_m"): quantiles(errors[rows, 0], [0.5, 0.9])}, rows
            ),
            **resampler.headlines(
                {("median_deg", "p90_deg"): quantiles(errors[rows, 1], [0.5, 0.9])}, rows
            ),
            "max_m": float(errors[rows, 0].max()),
            "max_deg": float(errors[rows, 1].max()),
        }
    for name, rows in (("answerable", answerable), ("unanswerable", ~answerable)):
        result[f"reasons_{name}"] = dict(Counter(refined["reason"][rows].tolist()))
    accepted = np.isfinite(refined["m"])
    result["unanswerable_errors_m"] = refined["m"][accepted & ~answerable].tolist()
    result["nees"] = {
        "mean": float(np.nanmean(refined["nees"])),
        "median": float(np.nanmedian(refined["nees"])),
    }
    result["inliers_median"] = float(np.median(refined["inliers"][accepted]))
    result["verify_s"] = refined["seconds"]
    return result


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.place_accuracy", description=__doc__
    )
    parser.add_argument("--bundle", type=Path, default=Path("runs/kitchen_place/bundle"))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "places_accuracy.md")
    parser.add_argument(
        "--cache",
        type=Path,
        help="keep descriptors and the parts of the report here, and go on from them",
    )
    parser.add_argument("--json", type=Path, help="write all numbers here")
    arguments = parser.parse_args()
    data = Path(os.environ.get("ROBOT_VISION_DATA") or ROOT.parent / "shared" / "data")
    for needed, remedy in (
        (data / "kitchen", "set ROBOT_VISION_DATA to the folder of real recordings"),
        (arguments.bundle, "robot-vision train config/training/kitchen_place.yaml"),
    ):
        if not needed.is_dir():
            print(f"{needed} is not there: {remedy}", file=sys.stderr)
            return 2
    print("simulated rooms ...", file=sys.stderr, flush=True)
    simulated = kept(
        arguments.cache,
        "simulated",
        lambda: place_simulated.measure(ROOT / "models" / "demo", filtered_in),
    )
    report = measure(arguments.bundle, data, arguments.cache) | {"simulated": simulated}
    page = text(report, "python -m benchmarks.place_accuracy")
    arguments.output.write_text(page)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
