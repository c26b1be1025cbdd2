"""Local features of verification compared: `python -m benchmarks.place_features --bundle B --features FILE`.

Half of the kitchen's test frames are asked for in a map of every fourth training frame (7-Scenes RedKitchen,
split in blocks), as they are, worse by the degradations of `robot-vision stress`, and against keyframes that
saw the place from elsewhere. Without `--features` the features are SIFT. Each run prints rows of a table.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.place_accuracy import ROOT
from benchmarks.place_frames import SEED, Array, Views, right_matches
from benchmarks.place_regions import CHI_SQUARED_95, FALSE_DEG, FALSE_M
from benchmarks.place_verified import CANDIDATES, pose_error
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.registry import open_dataset
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import rotation_error_deg
from robot_vision.pipeline import Pipeline
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.places.verification.verifier import VerificationCandidate, Verifier
from robot_vision.statistics.bootstrap import Resampler, mean, quantiles
from robot_vision.studies.stress.degradations import (
    DEGRADATIONS,
    ROLL,
    generator,
    roll_of,
    rotation_of,
)

KEYFRAMES, ASKED = 4, 2
STRENGTH = (
    3  # of the five, the last but one: at the middle one hardly anything was lost in development
)
WORSE = ("blur", "dark", ROLL)
FAR_M, FAR_DEG = 0.4, 15.0  # a keyframe that is further away or turned by more sees another view


def _every(views: Views, step: int) -> Views:
    return Views(views.samples[::step], views.stamps_ns[::step], views.T_map_camera[::step])


def _vectors(bundle: Path, views: Views) -> NDArray[np.float32]:
    with Pipeline.load(bundle, precision="float32", threads=1) as pipeline:
        return np.stack([pipeline(s.source.load())["place"].values for s in views.samples])


def _keyframes(
    stored: Views, intrinsics: Intrinsics, options: VerificationOptions
) -> list[VerificationCandidate]:
    """Returns the map's keyframes; prints what they cost."""
    builder, content, start = StructureBuilder(options, False), {}, time.process_time()
    for i, (sample, T) in enumerate(zip(stored.samples, stored.T_map_camera, strict=True)):
        content |= builder.add(i, T, sample.source.load(), intrinsics)
    content |= builder.flush()
    seconds = (time.process_time() - start) / len(content)
    size = np.mean([len(c) for c in content.values()]) / 1e3
    print(f"{options.detector}: {size:.1f} kB and {1e3 * seconds:.0f} ms a keyframe")
    return [
        VerificationCandidate(i, stored.T_map_camera[i], KeyframeStructure.from_bytes(content[i]))
        for i in range(len(content))
    ]


def _ask(
    queries: Views,
    features: list[Any],
    keyframes: list[VerificationCandidate],
    ranked: NDArray[np.intp],
    truth: Array,
    verifier: Verifier,
) -> tuple[Array, float]:
    """Returns errors in metres, degrees and squared sigmas (N, 3), NaN without a pose, and seconds."""
    rows, seconds = [], []
    for query, first, T in zip(features, ranked, truth, strict=True):
        start = time.process_time()
        pose = verifier.verify_features(query, [keyframes[k] for k in first[:CANDIDATES]]).pose
        seconds.append(time.process_time() - start)
        if pose is None:
            rows.append((np.nan, np.nan, np.nan))
            continue
        error, m, deg = pose_error(T, pose.position, pose.orientation_xyzw)
        rows.append((m, deg, float(error @ np.linalg.solve(pose.covariance, error))))
    return np.array(rows), float(np.median(seconds))


def _row(
    name: str,
    detector: str,
    found: Array,
    answerable: NDArray[np.bool_],
    seconds: tuple[float, float],
    resampler: Resampler,
) -> str:
    """Returns a row of the table."""
    kept = np.isfinite(found[:, 0])
    rows = answerable & kept
    numbers = resampler.headlines({"kept": mean(kept[answerable])}, answerable)
    numbers |= resampler.headlines(
        {("m", "m90"): quantiles(found[rows, 0], (0.5, 0.9))}, rows
    ) | resampler.headlines({("deg", "deg90"): quantiles(found[rows, 1], (0.5, 0.9))}, rows)

    def words(key: str, digits: int) -> str:
        n = numbers[key]
        if n["value"] is None:
            return "-"
        text = f"{n['value']:.{digits}f}"
        return (
            text
            if n["low"] is None
            else f"{text} ({n['low']:.{digits}f} to {n['high']:.{digits}f})"
        )

    false = kept & ((found[:, 0] > FALSE_M) | (found[:, 1] > FALSE_DEG))
    inside = (found[kept, 2] <= CHI_SQUARED_95).mean() if kept.any() else np.nan
    ms = " + ".join(f"{1e3 * s:.0f}" for s in seconds)
    return (
        f"| {name} | {detector} | {rows.sum()} / {answerable.sum()}: {words('kept', 2)} | {false.sum()} "
        f"| {words('m', 3)} | {words('m90', 3)} | {words('deg', 2)} | {words('deg90', 2)} | {inside:.2f} "
        f"| {ms} |"
    )


def main() -> None:
    """Builds, asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="model with a place head")
    parser.add_argument("--features", default="", help="XFeat's graph (default: SIFT)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ.get("ROBOT_VISION_DATA") or ROOT.parent / "shared" / "data")
    splits = open_dataset("seven_scenes", data / "kitchen", split="blocks", validation=0)
    stored, queries = (
        _every(Views.of(splits.train), KEYFRAMES),
        _every(Views.of(splits.test), ASKED),
    )
    assert splits.camera_matrix is not None
    height, width = splits.train[0].source.load().shape[:2]
    intrinsics = Intrinsics.of_matrix(splits.camera_matrix, width, height)
    similar = _vectors(arguments.bundle, queries) @ _vectors(arguments.bundle, stored).T
    answerable = right_matches(queries, stored).any(axis=1)
    options = VerificationOptions.of_features(arguments.features)
    keyframes, verifier = _keyframes(stored, intrinsics, options), Verifier(options)
    settings = EvaluationSettings(seed=SEED, block_s=1.0)
    resampler = Resampler(queries.stamps_ns, [(0, len(answerable))], settings)

    gap = queries.T_map_camera[:, None, :3, 3] - stored.T_map_camera[None, :, :3, 3]
    turn = rotation_error_deg(queries.xyzw[:, None], stored.xyzw[None])
    far = (np.linalg.norm(gap, axis=-1) > FAR_M) | (turn > FAR_DEG)
    every = np.ones(len(answerable), bool)
    ranked = np.argsort(-similar, axis=1)
    for worse in ("", *WORSE):
        features, seconds, truth = [], [], queries.T_map_camera.copy()
        strength = DEGRADATIONS[worse].strengths[STRENGTH] if worse else 0.0
        for i, sample in enumerate(queries.samples):
            image = sample.source.load()
            if worse:
                random, apply = generator(SEED, worse, i), DEGRADATIONS[worse].apply
                assert apply is not None
                image = np.ascontiguousarray(apply(image, strength, random))
            if worse == ROLL:
                turned = rotation_of(roll_of(strength, generator(SEED, worse, i)))
                truth[i, :3, :3] = truth[i, :3, :3] @ turned
            start = time.process_time()
            features.append(verifier.features(image, intrinsics))
            seconds.append(time.process_time() - start)
        own = float(np.median(seconds))
        found, compared = _ask(queries, features, keyframes, ranked, truth, verifier)
        name = f"{worse} {strength:g} {DEGRADATIONS[worse].unit}" if worse else "as they are"
        print(
            _row(name, options.detector, found, answerable, (own, compared), resampler), flush=True
        )
        if not worse:
            others = np.argsort(np.where(far, -similar, np.inf), axis=1)
            found, compared = _ask(queries, features, keyframes, others, truth, verifier)
            name = f"keyframes over {FAR_M:g} m or {FAR_DEG:g} degrees away"
            print(
                _row(name, options.detector, found, every, (own, compared), resampler), flush=True
            )


if __name__ == "__main__":
    main()
