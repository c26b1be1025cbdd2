"""Finds how two maps lie to each other from the places that both show.

Every place of one map is matched with the most similar one of the other. Each match alone says roughly how
the frames lie to each other (two views of a place are some decimetres and degrees apart); the answer is what
most matches agree on, fitted to positions and orientations together in closed form (Umeyama 1991, with the
rotations added to the correlation matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry import rigid as geometry
from robot_vision.places.index.index_cache import open_index
from robot_vision.places.map.base import MapError, PlaceMap

Array = NDArray[np.float64]

# Two keyframes of one place are about as far apart as keyframes of a map are, and twice that at most.
_NEAR_M, _NEAR_DEG = 0.3, 10.0
_ROUGH = 4.0  # a single match is so much worse at the other end of a room
_FINE = 3.0
_MOST_MATCHES = 2000
_HYPOTHESES = 400
_MIN_AGREEING = 10
_CLEAR = 2.0  # times as many as agree on anything else, or a building of equal floors fools it


@dataclass(frozen=True, eq=False)
class MapAlignment:
    """How two maps lie to each other.

    Attributes:
        T_target_source: takes points of the source's map frame to the target's (4, 4).
        matches: places that were compared.
        agreeing: those that agree.
        runner_up: those that agree on the best different answer.
        error_m: median distance of agreeing places from their matches.
    """

    T_target_source: Array
    matches: int
    agreeing: int
    runner_up: int
    error_m: float


def align_maps(target: PlaceMap, source: PlaceMap) -> MapAlignment:
    """Returns how `source` lies in the frame of `target`.

    Raises:
        MapError: too few places agree, or as many agree on something else.
    """
    a, b = _matches(target, source)
    if len(a) < _MIN_AGREEING:
        raise MapError(_too_few(target, source, f"only {len(a)} places resemble each other"))
    rotations = a[:, :3, :3] @ b[:, :3, :3].transpose(0, 2, 1)  # one hypothesis a match
    best = _consensus(a, b, rotations, np.ones(len(a), bool))
    T, agreeing = best
    count = int(agreeing.sum())
    # Matches that say something else altogether are what a second answer would rest on.
    distance, degrees = _residuals(T, a, b)
    others = (distance > 2 * _ROUGH * _NEAR_M) | (degrees > 2 * _ROUGH * _NEAR_DEG)
    second = _consensus(a, b, rotations, others)[1] if others.sum() >= 3 else np.zeros(1, bool)
    runner_up = int((second & others).sum()) if len(second) == len(others) else 0
    if count < _MIN_AGREEING:
        raise MapError(_too_few(target, source, f"{count} of {len(a)} places agree"))
    if count < _CLEAR * runner_up:
        raise MapError(
            _too_few(target, source, f"{count} places agree on one answer, {runner_up} on another")
        )
    error = float(np.median(distance[agreeing]))
    return MapAlignment(T, len(a), count, runner_up, error)


def _too_few(target: PlaceMap, source: PlaceMap, why: str) -> str:
    return (
        f"{source.info.uri} cannot be aligned with {target.info.uri}: {why}; give the pose of its frame "
        "with --transform"
    )


def _matches(target: PlaceMap, source: PlaceMap) -> tuple[Array, Array]:
    """Returns poses (M, 4, 4) of source places' best matches in the target, and of those places."""
    ids, descriptors = source.descriptors()
    if len(ids) > _MOST_MATCHES:
        some = np.linspace(0, len(ids) - 1, _MOST_MATCHES).astype(np.intp)
        ids, descriptors = ids[some], descriptors[some]
    if not len(ids) or not len(target):
        nothing = np.empty((0, 4, 4))
        return nothing, nothing
    found, _ = open_index(target, cache=False).search(descriptors, 1)
    return _poses(target, found[:, 0]), _poses(source, ids)


def _poses(places: PlaceMap, ids: NDArray[np.int64]) -> Array:
    poses = places.poses()
    at = np.searchsorted(poses.ids, ids)
    T = np.tile(np.eye(4), (len(ids), 1, 1))
    if len(ids):
        T[:, :3, :3] = geometry.matrix_from_xyzw(poses.quaternions_xyzw[at])
        T[:, :3, 3] = poses.positions[at]
    return T


def _consensus(
    a: Array, b: Array, rotations: Array, among: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.bool_]]:
    """Returns the transform that most matches agree on, and which do (M,)."""
    candidates = np.flatnonzero(among)
    rng = np.random.default_rng(0)
    candidates = rng.permutation(candidates)[:_HYPOTHESES]
    best, most = np.eye(4), np.zeros(len(a), bool)
    for i in candidates:
        T = np.eye(4)
        T[:3, :3] = rotations[i]
        T[:3, 3] = a[i, :3, 3] - rotations[i] @ b[i, :3, 3]
        agreeing = _agree(T, a, b, _ROUGH) & among
        if agreeing.sum() > most.sum():
            best, most = T, agreeing
    for round_number in range(10):
        if most.sum() < 3:
            break
        best = _fit(a[most], b[most])
        now = _agree(best, a, b, _ROUGH if round_number < 3 else _FINE) & among
        if round_number > 3 and np.array_equal(now, most):
            break
        most = now
    return best, most


def _fit(a: Array, b: Array) -> Array:
    """Returns the T that brings `T @ b` nearest to a, in positions and rotations (N, 4, 4) alike."""
    centre_a, centre_b = a[:, :3, 3].mean(axis=0), b[:, :3, 3].mean(axis=0)
    correlation = (b[:, :3, 3] - centre_b).T @ (a[:, :3, 3] - centre_a) / _NEAR_M**2
    turn = np.radians(_NEAR_DEG)
    correlation += np.einsum("nij,nkj->ik", b[:, :3, :3], a[:, :3, :3]) / (2 * turn**2)
    u, _, vt = np.linalg.svd(correlation)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    T = np.eye(4)
    T[:3, :3] = vt.T @ flip @ u.T
    T[:3, 3] = centre_a - T[:3, :3] @ centre_b
    return T


def _residuals(T: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Returns metres (M,) and degrees (M,) between a and `T @ b`."""
    moved = T @ b
    distance = np.linalg.norm(moved[:, :3, 3] - a[:, :3, 3], axis=1)
    traces = np.einsum("nij,nij->n", moved[:, :3, :3], a[:, :3, :3])
    return distance, np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def _agree(T: Array, a: Array, b: Array, times: float) -> NDArray[np.bool_]:
    distance, degrees = _residuals(T, a, b)
    return np.asarray((distance < times * _NEAR_M) & (degrees < times * _NEAR_DEG))
