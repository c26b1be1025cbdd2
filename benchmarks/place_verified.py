"""What geometric verification makes of the best matches, on real frames."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.place_frames import Array, Views
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.images.decode import to_rgb
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.features import LocalFeatures
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.verifier import Verifier, candidates_of
from robot_vision.recordings.opening import open_source

CANDIDATES = 3
WRONG_KEYFRAMES, WRONG_FRAMES = 40, 4


def build_structure(stored: Views, intrinsics: Intrinsics) -> dict[str, Any]:
    """Returns the bytes of every frame's structure by its number, and the seconds for each."""
    builder, start = StructureBuilder(provisional=False), time.process_time()
    found: dict[int, bytes] = {}
    for i, (sample, T) in enumerate(zip(stored.samples, stored.T_map_camera, strict=True)):
        found |= builder.add(i, T, sample.source.load(), intrinsics)
    found |= builder.flush()
    seconds = (time.process_time() - start) / len(found)
    arrays: dict[str, Any] = {str(i): np.frombuffer(c, np.uint8) for i, c in found.items()}
    return arrays | {"seconds": np.array(seconds)}


def query_features(queries: Views, intrinsics: Intrinsics) -> list[tuple[LocalFeatures, float]]:
    """Returns each query's features and the seconds of CPU time that finding them took."""
    verifier, found = Verifier(VerificationOptions()), []
    for sample in queries.samples:
        image, start = sample.source.load(), time.process_time()
        features = verifier.features(image, intrinsics)
        found.append((features, time.process_time() - start))
    return found


def pose_error(T: Array, position: Array, xyzw: Array) -> tuple[Array, float, float]:
    """Returns the error (6,) in the map's axes, and its size in metres and degrees."""
    turn = cv2.Rodrigues(T[:3, :3] @ matrix_from_xyzw(xyzw).T)[0][:, 0]
    error = np.concatenate([T[:3, 3] - position, turn])
    return error, float(np.linalg.norm(error[:3])), float(np.degrees(np.linalg.norm(turn)))


def refine(
    places: Any,
    ranked: list[list[int]],
    queries: Views,
    features: list[tuple[LocalFeatures, float]],
) -> dict[str, Any]:
    """Verifies each query against its first candidates."""
    verifier = Verifier(VerificationOptions())
    columns: dict[str, list[Any]] = {"m": [], "deg": [], "nees": [], "reason": [], "inliers": []}
    seconds = []
    for i, (query, extraction_s) in enumerate(features):
        T = queries.T_map_camera[i]
        candidates = candidates_of(places, ranked[i][:CANDIDATES])
        start = time.process_time()
        found = verifier.verify_features(query, candidates)
        seconds.append(time.process_time() - start + extraction_s)
        columns["reason"].append(found.reason)
        columns["inliers"].append(found.inliers)
        error = (np.full(6, np.nan), np.nan, np.nan)
        nees = np.nan
        if found.pose is not None:
            error = pose_error(T, found.pose.position, found.pose.orientation_xyzw)
            nees = float(error[0] @ np.linalg.solve(found.pose.covariance, error[0])) / 6
        columns["m"].append(error[1])
        columns["deg"].append(error[2])
        columns["nees"].append(nees)
    result: dict[str, Any] = {k: np.array(v) for k, v in columns.items()}
    result["seconds"] = float(np.median(seconds))
    return result


def elsewhere(places: Any, data: Path, intrinsics: Intrinsics) -> list[int]:
    """Verifies frames of other recordings against the kitchen; returns how many were accepted, of how many.

    Every one is compared with keyframes all along the map, as if retrieval had named them.
    """
    verifier, accepted, asked = Verifier(VerificationOptions()), 0, 0
    ids = places.poses().ids
    candidates = candidates_of(places, ids[:: max(1, len(ids) // WRONG_KEYFRAMES)].tolist())
    for bag in sorted((data / "ros1_bags").glob("*.bag")):
        with open_source(bag) as source:
            for frame in islice(source, WRONG_FRAMES):
                size = (intrinsics.width, intrinsics.height)
                image = np.asarray(cv2.resize(to_rgb(frame.message), size), np.uint8)
                query = verifier.features(image, intrinsics)
                for candidate in candidates:
                    accepted += verifier.verify_features(query, [candidate]).accepted
                    asked += 1
    return [accepted, asked]
