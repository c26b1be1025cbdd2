"""What verification and the sequence filter say where the map has nothing: parts of the kitchen left out.

The walk is cut into five parts along its longest axis. Each in turn is left out of the map, every fifth of
the other training frames being a keyframe. Asked for are the test frames and those of the part, every third
one; the sequence filter sees all of them, in their order in time.

Settings were chosen with these five parts in view. A second cut, along the axis across, with other keyframes
and other frames asked for, was made when all settings were frozen and was looked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.place_frames import HEADING_DEG, RADIUS_M, Array, Views, right_matches
from benchmarks.place_verified import pose_error
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.features import LocalFeatures
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.places.verification.verifier import VerificationCandidate, Verifier

# Limits of the parts along x, metres.
PARTS = {
    "A": (-9.0, -0.85),
    "B": (-0.85, -0.5),
    "C": (-0.5, -0.1),
    "D": (-0.1, 0.35),
    "E": (0.35, 9),
}
KEYFRAMES, ASKED, CANDIDATES = 5, 3, 5
HELD_OUT = ("P", "Q", "R", "S")  # as many frames in each, along z
STEPS = {
    False: (slice(0, None, KEYFRAMES), slice(0, None, ASKED)),
    True: (slice(2, None, KEYFRAMES), slice(1, None, ASKED)),
}
FALSE_M, FALSE_DEG = 0.25, 10.0
CHI_SQUARED_95 = 12.592  # six degrees of freedom

Recognise = Callable[[Views, Array, Views, Array, bool], tuple[NDArray[np.bool_], NDArray[np.intp]]]


def cuts(views: Views, held_out: bool) -> dict[str, NDArray[np.bool_]]:
    """Returns which frames (N,) are in each part."""
    if not held_out:
        x = views.T_map_camera[:, 0, 3]
        return {name: (x >= low) & (x < high) for name, (low, high) in PARTS.items()}
    order = np.argsort(np.argsort(views.T_map_camera[:, 2, 3], kind="stable"), kind="stable")
    number = order * len(HELD_OUT) // len(order)
    return {name: number == i for i, name in enumerate(HELD_OUT)}


def _some(views: Views, rows: NDArray[np.intp]) -> Views:
    return Views(
        tuple(views.samples[i] for i in rows), views.stamps_ns[rows], views.T_map_camera[rows]
    )


def measure(
    views: Views,
    vectors: Array,
    test: NDArray[np.bool_],
    intrinsics: Intrinsics,
    recognise: Recognise,
    parts: dict[str, NDArray[np.bool_]],
    steps: tuple[slice, slice],
) -> dict[str, Any]:
    """Returns the numbers of each part.

    Args:
        views: all frames, in their order in time.
        vectors: descriptors (N, D) of them.
        test: which (N,) are test frames.
        intrinsics: of the camera.
        recognise: returns, for a map and queries, with odometry or without, what the sequence filter
            accepted and its best keyframe.
        parts: which frames (N,) are in each.
        steps: which of the training frames are keyframes, and which of the frames are asked for.
    """
    verifier = Verifier(VerificationOptions())
    known: dict[int, LocalFeatures] = {}
    found = {}
    for name, part in parts.items():
        stored = np.flatnonzero(~test & ~part)
        candidates = _candidates(views, stored[steps[0]], intrinsics)
        keyframes = np.array(sorted(candidates))
        asked = np.flatnonzero(test | part)
        answerable = right_matches(_some(views, asked), _some(views, keyframes)).any(axis=1)
        rows: list[tuple[Any, ...]] = []
        for i, can in list(zip(asked, answerable, strict=True))[steps[1]]:
            if i not in known:
                known[i] = verifier.features(views.samples[i].source.load(), intrinsics)
            first = keyframes[np.argsort(-(vectors[keyframes] @ vectors[i]))[:CANDIDATES]]
            pose = verifier.verify_features(known[i], [candidates[k] for k in first]).pose
            m = deg = nees = np.nan
            if pose is not None:
                T = views.T_map_camera[i]
                error, m, deg = pose_error(T, pose.position, pose.orientation_xyzw)
                nees = float(error @ np.linalg.solve(pose.covariance, error))
            rows.append((can, pose is not None, m, deg, nees))
        found[name] = _summary(rows) | {"left_out": int(part.sum()), "keyframes": len(keyframes)}
        dense, queries = _some(views, stored), _some(views, asked)
        right = right_matches(queries, dense)
        for way, odometry in (("sequence", False), ("odometry", True)):
            accepted, best = recognise(dense, vectors[stored], queries, vectors[asked], odometry)
            hit = right[np.arange(len(right)), best]
            found[name] |= {
                f"{way}_accepted": int(accepted.sum()),
                f"{way}_right": int((accepted & hit).sum()),
                f"{way}_without_answer": int((accepted & ~right.any(axis=1)).sum()),
            }
        found[name]["without_answer"] = int((~right.any(axis=1)).sum())
    return found


def _candidates(
    views: Views,
    frames: NDArray[np.intp],
    intrinsics: Intrinsics,
) -> dict[int, VerificationCandidate]:
    builder, content = StructureBuilder(provisional=False), {}
    for i in frames:
        image = views.samples[i].source.load()
        content |= builder.add(int(i), views.T_map_camera[i], image, intrinsics)
    content |= builder.flush()
    return {
        i: VerificationCandidate(i, views.T_map_camera[i], KeyframeStructure.from_bytes(c))
        for i, c in content.items()
    }


def _summary(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    answerable, accepted = (np.array([row[k] for row in rows], bool) for k in (0, 1))
    m, deg, nees = (np.array([row[k] for row in rows]) for k in (2, 3, 4))
    return {
        "answerable": int(answerable.sum()),
        "kept": int((answerable & accepted).sum()),
        "off_map": int((~answerable).sum()),
        "off_map_accepted": int((~answerable & accepted).sum()),
        "false": int((accepted & ((m > FALSE_M) | (deg > FALSE_DEG))).sum()),
        "worst_m": float(np.nanmax(m)),
        "inside": int((nees[accepted] <= CHI_SQUARED_95).sum()),
        "nees": float(nees[accepted].sum()) / 6,
    }


def text(found: dict[str, Any], held_out: dict[str, Any], simulated: dict[str, Any]) -> list[str]:
    """Returns lines of the page."""
    return [
        "## Where the map has nothing",
        "",
        "The walk is cut into parts, and each in turn is left out of the map (every fifth other training "
        f"frame is a keyframe). {CANDIDATES} candidates of a single image are verified. "
        f"False is a pose more than {FALSE_M:g} m or {FALSE_DEG:g} degrees off. The network was trained on "
        "the parts that are left out too, which makes retrieval better than a stranger's, not verification. "
        "The filter's map has all other training frames, and a place is "
        f"{RADIUS_M:g} m and {HEADING_DEG:g} degrees wide: what it accepts without an answer lies just past "
        "that. Odometry is the true motion. First five parts along the longest axis, with which thresholds "
        "were set: take these figures for a fit.",
        "",
        *_table(found, only_all=True),
        "",
        "Held out: with all settings frozen, the walk is cut across, along z, into four parts of as many "
        "frames; other frames are keyframes (from the third on) and other frames are asked for (from the "
        "second on). It is the same kitchen and the same walk, in maps that nobody tuned on. In brackets: "
        "95 percent intervals (Wilson) that take frames for independent, and so are too narrow.",
        "",
        *_table(held_out),
        "",
        "The demo's simulated home (320 x 240 pixels, noise, lamps that differ; mapping with seed 71, asking "
        "with seed 72: `benchmarks/place_simulated.py`), with the shipped demo model. Each room in turn is "
        "left out. Without odometry how near a match is judged was chosen on this drive, among others: "
        "places_results.md has one that it was not chosen on.",
        "",
        *_table(simulated),
        "",
        "The ellipsoids allow for errors that all features of an image share: as large as each map's own "
        "keyframes show them, and at most a hand-held Kinect's. Without odometry the filter can seldom be "
        "sure of 0.25 m here, and accepts little. A frame of the drive that asks is asked in all four maps "
        "and counts in each.",
        "",
    ]


def _wilson(count: int, of: int) -> str:
    z = 1.96
    middle, half = count + z**2 / 2, z * (count * (of - count) / of + z**2 / 4) ** 0.5
    low, high = ((middle + sign * half) / (of + z**2) for sign in (-1, 1))
    return f"{count / of:.3f} ({low:.3f} to {high:.3f})"


def _table(found: dict[str, Any], only_all: bool = False) -> list[str]:
    lines = [
        "| left out | keyframes | answerable: kept / all | no keyframe near: accepted / all | false | worst "
        "| in the 95 % ellipsoid | mean NEES / 6 | sequence filter: right / accepted "
        "| of it without an answer | with odometry: right / accepted | of it without an answer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups = {} if only_all else {name: [name] for name in found}
    groups["all"] = list(found)
    for name, parts in groups.items():
        s = {key: sum(found[p][key] for p in parts) for key in found[parts[0]]}
        accepted = s["kept"] + s["off_map_accepted"]
        inside = f"{s['inside'] / accepted:.3f}"
        if name == "all":
            inside = _wilson(s["inside"], accepted)
        lines.append(
            f"| {name} ({s['left_out']} frames) | {s['keyframes']} | {s['kept']} / {s['answerable']} | "
            f"{s['off_map_accepted']} / {s['off_map']} | {s['false']} | "
            f"{max(found[p]['worst_m'] for p in parts):.3f} m | {inside} | "
            f"{s['nees'] / accepted:.2f} | {s['sequence_right']} / {s['sequence_accepted']} | "
            f"{s['sequence_without_answer']} of {s['without_answer']} | "
            f"{s['odometry_right']} / {s['odometry_accepted']} | "
            f"{s['odometry_without_answer']} of {s['without_answer']} |"
        )
    return lines
