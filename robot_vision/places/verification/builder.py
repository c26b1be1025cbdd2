"""Structure of a map's keyframes, built while they come: matches with neighbours whose poses are known.

builder = StructureBuilder(options)
for ...:
for i, content in builder.add(keyframe_id, T_map_camera, image, intrinsics).items():
places.set_structure(i, content)
for i, content in builder.flush().items():
places.set_structure(i, content)
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry import pnp
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import inverse
from robot_vision.places.verification.common_errors import CommonErrors
from robot_vision.places.verification.features import FeatureExtractor, LocalFeatures, match
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.places.verification.triangulation import Sighting, epipolar_error, triangulate

_WINDOW = 48  # keyframes whose features are kept to match with: about 15 MB
_LATER = 24  # a keyframe is settled when this many came after it
_MIN_BASELINE_M = 0.02  # nearer ones are the same view, up to the error of the poses
_MAX_TURN_DEG = 40.0  # views that differ more hardly share features that match
_NOISE_PX = 1.0  # of a feature; that of the poses shows in the residuals
# Factors of the focal length that matches are tried with: does another one fit clearly better?
_FOCALS = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.7, 2.0])
_GIVEN = 5  # of them: the one that is given
# Matches and pairs of keyframes to judge by, and matches of a pair
_ENOUGH, _PAIRS, _PAIR = (1000, 6, 30)
_FITS = 0.85  # times the best share of matches; the right focal length has 0.98 of it or more
_AGREE = 0.5  # share of matches that poses which are right to some tenths of a degree explain
_LOCATED = 2  # neighbours that are located by a keyframe's points, to compare with their poses
_DEPTH_SHARE = 0.01  # standard deviation of a measured depth, as a share of it


@dataclass(eq=False)
class _Entry:
    T_map_camera: NDArray[np.float64]
    features: LocalFeatures
    depth: NDArray[np.float64] | None  # z of each feature, NaN where not measured
    settled: bool = False


class StructureBuilder:
    """Makes the structure of keyframes from their images and poses, with bounded memory.

    Args:
        options: of verification.
        provisional: give a keyframe structure at once, from those before it, and again when those after
            it came; otherwise only then. A robot that is switched off loses nothing with it, and spends
            about twice the time.
    """

    def __init__(
        self, options: VerificationOptions | None = None, provisional: bool = True
    ) -> None:
        self.options = options or VerificationOptions()
        self.provisional = provisional
        self.extract = FeatureExtractor(self.options)
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._matches: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._fitting = np.zeros(len(_FOCALS))  # matches that agree with the poses, by focal length
        self._tried = self._pairs = 0
        self._points: list[int] = []
        self._common_errors = CommonErrors(self.options)

    @property
    def summary(self) -> str:
        """Points of the keyframes, and what share of matches their poses explain, for people."""
        if not self._points:
            return "no local features"
        share = self._fitting[_GIVEN] / max(self._tried, 1)
        text = (
            f"{np.median(self._points):.0f} points a keyframe, {share:.0%} of matches fit the poses"
        )
        if self._tried >= _ENOUGH and share < _AGREE:
            text += ": check the poses, their frame and stamps, and the camera's matrix"
        return text

    def add(
        self,
        keyframe_id: int,
        T_map_camera: NDArray[Any],
        image: NDArray[np.uint8],
        intrinsics: Intrinsics,
        depth_m: NDArray[Any] | None = None,
    ) -> dict[int, bytes]:
        """Adds a keyframe and returns structure to keep, by keyframe id.

        Args:
            keyframe_id: of the map.
            T_map_camera: (4, 4), the keyframe's pose.
            image: RGB uint8 (H, W, 3).
            intrinsics: of the camera.
            depth_m: depth image (H, W) in metres, registered to the image, 0 or NaN where unknown;
                points are then taken from it, and triangulated only where it has none.

        Raises:
            ConfigError: image and intrinsics (or depth) are of different sizes, or another focal length
                fits the images and poses clearly better than the one of the intrinsics.
        """
        features, pixels = self.extract(image, intrinsics)
        depth = None if depth_m is None else _depth_at(pixels, np.asarray(depth_m, np.float64))
        T = np.asarray(T_map_camera, np.float64)
        self._entries[keyframe_id] = _Entry(T, features, depth)
        order = list(self._entries)
        if len(order) > _WINDOW:  # before anything can be refused: memory stays bounded
            self._forget(order[0])
        ready = {}
        if len(order) > _LATER:
            settled = order[-1 - _LATER]
            if not self._entries[settled].settled:
                ready[settled] = self._build(settled, True)
                self._entries[settled].settled = True
        if self.provisional:
            ready[keyframe_id] = self._build(keyframe_id, False)
        return ready

    def flush(self) -> dict[int, bytes]:
        """Returns the structure of all keyframes that were waiting for later ones, and forgets all.

        Raises:
            ConfigError: see `add`.
        """
        try:
            return {i: self._build(i, True) for i, e in self._entries.items() if not e.settled}
        finally:
            self._entries.clear()
            self._matches.clear()

    def _forget(self, keyframe_id: int) -> None:
        del self._entries[keyframe_id]
        for pair in [p for p in self._matches if keyframe_id in p]:
            del self._matches[pair]

    def _build(self, keyframe_id: int, settles: bool) -> bytes:
        entry, options = self._entries[keyframe_id], self.options
        features, n = entry.features, len(entry.features)
        views: list[Sighting] = []
        matched: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        limit = options.error_px / features.focal_px
        for other_id in self._neighbours(keyframe_id):
            other = self._entries[other_id]
            mine, theirs = self._matched(keyframe_id, other_id)
            T_other_mine = inverse(other.T_map_camera) @ entry.T_map_camera
            error = epipolar_error(T_other_mine, features.rays[mine], other.features.rays[theirs])
            kept = error <= limit
            self._try_focals(T_other_mine, features, other.features, mine, theirs)
            rays, seen = np.zeros((n, 2)), np.zeros(n, bool)
            rays[mine[kept]], seen[mine[kept]] = other.features.rays[theirs[kept]], True
            views.append(Sighting(T_other_mine, rays, seen))
            matched.append((mine, other.features.rays[theirs]))
        points, sigma = self._points_of(entry, views)
        self._check_focal()
        self._points.append(int(np.isfinite(points[:, 2]).sum()))
        if settles:
            self._locate(entry, views, matched)
        structure = KeyframeStructure(
            features,
            points.astype(np.float32),
            sigma.astype(np.float32),
            self._common_errors.common_share,
        )
        return structure.thinned(options.stored_features).to_bytes()

    def _points_of(
        self, entry: _Entry, views: list[Sighting]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns points (N, 3) of a keyframe's features and the deviations (N,) of their depths."""
        features, n = entry.features, len(entry.features)
        points, sigma = np.full((n, 3), np.nan), np.full(n, np.nan)
        if views and n:
            found = triangulate(
                features.rays,
                views,
                self.options.error_px / features.focal_px,
                self.options.min_parallax_deg,
                _NOISE_PX / features.focal_px,
            )
            points, sigma = found.xyz, found.depth_sigma
        if entry.depth is not None and n:
            known = np.isfinite(entry.depth)
            ahead = np.concatenate([features.rays, np.ones((n, 1))], axis=1)
            points[known] = (ahead * entry.depth[:, None])[known]
            sigma[known] = _DEPTH_SHARE * entry.depth[known]
        return points, sigma

    def _locate(
        self,
        entry: _Entry,
        views: list[Sighting],
        matched: list[tuple[NDArray[np.int64], NDArray[np.float64]]],
    ) -> None:
        """Locates the farthest neighbours by the keyframe's points that were made without them."""
        options, focal = self.options, entry.features.focal_px
        for i in range(max(0, len(views) - _LOCATED), len(views)):
            points, sigma = self._points_of(entry, views[:i] + views[i + 1 :])
            rows, rays = matched[i]
            known = np.isfinite(points[rows, 2])
            if known.sum() < options.min_inliers:
                continue
            rows, rays = rows[known], rays[known]
            data = pnp.Correspondences(points[rows], sigma[rows], rays)
            T = inverse(views[i].T_view_first)
            near = pnp.solve_near(T, data, options.error_px / focal, _NOISE_PX / focal)
            if near is not None and near[2].sum() >= options.min_inliers:
                self._common_errors.add(T, near[0], near[1], pnp.distance(data.subset(near[2])))

    def _try_focals(
        self,
        T_other_mine: NDArray[np.float64],
        mine: LocalFeatures,
        theirs: LocalFeatures,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
    ) -> None:
        """Counts how many matches of a pair agree with its poses, for each focal length."""
        if len(rows) < _PAIR or self._tried >= 10 * _ENOUGH:
            return
        for i, factor in enumerate(_FOCALS):
            limit = self.options.error_px / (mine.focal_px * factor)
            a, b = mine.rays[rows] / factor, theirs.rays[columns] / factor
            self._fitting[i] += (epipolar_error(T_other_mine, a, b) <= limit).sum()
        self._tried += len(rows)
        self._pairs += 1

    def _check_focal(self) -> None:
        """Refuses a focal length where another one explains clearly more matches."""
        best = int(np.argmax(self._fitting))
        if self._tried < _ENOUGH or self._pairs < _PAIRS:
            return
        if self._fitting[_GIVEN] < _FITS * self._fitting[best]:
            shares = self._fitting / self._tried
            raise ConfigError(
                f"The camera's matrix does not fit the images and poses: {shares[_GIVEN]:.0%} of "
                f"{self._tried} matches agree with its focal length, and {shares[best]:.0%} with "
                f"{_FOCALS[best]:g} times that. Give the matrix of these images, in their size "
                "(--option camera_matrix=fx,fy,cx,cy, or a camera_info that fits)"
            )

    def _neighbours(self, keyframe_id: int) -> list[int]:
        """Returns nearby keyframes that look the same way, none next to one that is chosen already."""
        T = self._entries[keyframe_id].T_map_camera
        near = []
        for other_id, other in self._entries.items():
            baseline = other.T_map_camera[:3, 3] - T[:3, 3]
            length = float(np.linalg.norm(baseline))
            ahead = float(other.T_map_camera[:3, 2] @ T[:3, 2])
            if (
                other_id != keyframe_id
                and _MIN_BASELINE_M < length < self.options.max_baseline_m
                and ahead > np.cos(np.radians(_MAX_TURN_DEG))
            ):
                near.append((length, other_id, baseline))
        chosen: list[tuple[int, NDArray[np.float64]]] = []
        for length, other_id, baseline in sorted(near, key=lambda found: found[0]):
            if all(np.linalg.norm(baseline - b) > 0.3 * length for _, b in chosen):
                chosen.append((other_id, baseline))
            if len(chosen) == self.options.neighbours:
                break
        return [other_id for other_id, _ in chosen]

    def _matched(self, a: int, b: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        low, high = min(a, b), max(a, b)
        if (low, high) not in self._matches:
            self._matches[low, high] = match(
                self._entries[low].features, self._entries[high].features, self.options.ratio
            )
        one, other = self._matches[low, high]
        return (one, other) if a == low else (other, one)


def _depth_at(pixels: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns z (N,) at pixels (N, 2); NaN where it is unknown or jumps, as at the edge of a thing."""
    if not len(pixels):
        return np.zeros(0)
    height, width = depth.shape
    x = np.clip(np.rint(pixels[:, 0]).astype(int), 1, width - 2)
    y = np.clip(np.rint(pixels[:, 1]).astype(int), 1, height - 2)
    patch = np.stack([depth[y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])  # (9, N)
    patch = np.where(np.isfinite(patch) & (patch > 0), patch, np.nan)
    low, high, middle = patch.min(axis=0), patch.max(axis=0), patch[4]
    return np.asarray(np.where(high - low < 0.05 * middle, middle, np.nan))
