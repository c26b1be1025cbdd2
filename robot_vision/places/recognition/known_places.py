"""The map's keyframes as the recogniser needs them: poses, weights that even out density, neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.places.map.keyframe import stamped

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_LEVELS = (1, 4, 16)  # sides of the grids' cells over `cell_m`
_REACH = 2  # cells to each side; further means that nothing is known but "in the map"
_OFFSET, _BITS = 1 << 20, 21
_EDGE = 1e-6  # keyframes at even distances lie on cells' edges: rounding must not move them across
_TAIL = 1024  # keyframes that came since the grids were made
_SPEED_SHARE, _MIN_STEPS, _MAX_STEP_S = 0.95, 20, 5.0


class PlaceTable:
    """Poses of N keyframes, by rows, with ascending ids.

    Keyframes of one cell (a cube of space and a sector of the viewing direction) share the weight of one
    place, so that 10,000 keyframes in one spot are not 10,000 times as probable as a place with one. Cells
    lie about the first keyframe and along its axes, so that nothing depends on the map's own frame.

    Args:
        ids: int64 (N,), ascending.
        positions: (N, 3), metres.
        quaternions_xyzw: (N, 4).
        cell_m: side of the cells: the radius of a place.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        positions: NDArray[Any],
        quaternions_xyzw: NDArray[Any],
        cell_m: float,
    ) -> None:
        self.cell_m = cell_m
        self.ids = np.asarray(ids, np.int64)
        self.positions = np.asarray(positions, np.float64).reshape(-1, 3)
        self.quaternions_xyzw = np.asarray(quaternions_xyzw, np.float64).reshape(-1, 4)
        self._settled = len(self.ids)
        self._anchor(self.positions, self.quaternions_xyzw)
        self.views = self._view_keys(self.positions, self.quaternions_xyzw)  # cell of each
        self._views, inverse, counts = np.unique(
            self.views, return_inverse=True, return_counts=True
        )
        self._view_counts = counts
        self.weights = 1.0 / counts[inverse] if len(self.views) else np.zeros(0)
        self._total = float(len(counts))
        self._grids = []
        for level in _LEVELS:
            keys = _pack(_cells(self._local(self.positions), level * cell_m))
            order = np.argsort(keys, kind="stable")
            self._grids.append((keys[order], order))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def places(self) -> float:
        """How many places the keyframes are of, about."""
        return self._total

    @property
    def prior(self) -> Array:
        """Probability of each keyframe (N,) when nothing is known but that the camera is in the map."""
        return self.weights / max(self._total, 1e-12)

    @property
    def full_tail(self) -> bool:
        """Whether enough came since the grids were made for the table to be rebuilt."""
        return len(self) - self._settled >= _TAIL

    def append(
        self, ids: NDArray[Any], positions: NDArray[Any], quaternions_xyzw: NDArray[Any]
    ) -> None:
        """Adds keyframes whose ids are above all others'."""
        assert not len(self.ids) or ids[0] > self.ids[-1]
        if not len(self.ids):
            self._anchor(positions, quaternions_xyzw)
        views = self._view_keys(positions, quaternions_xyzw)
        at = np.searchsorted(self._views, views)
        inside = np.minimum(at, max(len(self._views) - 1, 0))
        known = np.zeros(len(views), bool)
        if len(self._views):
            known = self._views[inside] == views
        count = np.where(known, self._view_counts[inside] if len(self._views) else 0, 0)
        weights = 1.0 / (1 + count)
        self.ids = np.concatenate([self.ids, np.asarray(ids, np.int64)])
        self.views = np.concatenate([self.views, views])
        self.positions = np.concatenate([self.positions, positions])
        self.quaternions_xyzw = np.concatenate([self.quaternions_xyzw, quaternions_xyzw])
        self.weights = np.concatenate([self.weights, weights])
        self._total += float(weights.sum())

    def _anchor(self, positions: NDArray[Any], quaternions_xyzw: NDArray[Any]) -> None:
        """Lays the cells; coordinates may be UTM's, millions of metres, and cells are counted in 21 bits."""
        self._origin, self._axes = np.zeros(3), np.eye(3)
        if len(positions):
            self._origin = np.array(positions[0], np.float64)
            self._axes = matrix_from_xyzw(np.asarray(quaternions_xyzw[:1], np.float64))[0]

    def _local(self, positions: NDArray[Any]) -> Array:
        return np.asarray((np.asarray(positions, np.float64) - self._origin) @ self._axes)

    def _view_keys(
        self, positions: NDArray[Any], quaternions_xyzw: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Returns a key of each keyframe's cell of space and sector of view; ones that collide are rare."""
        if not len(positions):
            return np.zeros(0, np.int64)
        ahead = matrix_from_xyzw(quaternions_xyzw)[:, :, 2] @ self._axes
        sector = np.rint(ahead * 1.5 - _EDGE).astype(np.int64) + 2  # sectors of about 40 degrees
        code = (sector[:, 0] * 5 + sector[:, 1]) * 5 + sector[:, 2]
        keys = _pack(_cells(self._local(positions), self.cell_m)).astype(np.uint64)
        mixed = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed + code.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)).astype(np.int64)

    def rows_of(self, ids: NDArray[Any]) -> Rows:
        """Returns rows (n,) of ids, -1 for those that are not there."""
        ids = np.asarray(ids, np.int64)
        if not len(self.ids):
            return np.full(len(ids), -1, np.intp)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def near(self, positions: NDArray[Any], reach_m: float) -> Rows | None:
        """Returns rows of all keyframes within a reach of any position, and some others beyond it.

        None where the reach is too wide to list them.
        """
        wide = [level for level in _LEVELS if reach_m <= _REACH * level * self.cell_m]
        if not wide:
            return None
        level = wide[0]
        keys, order = self._grids[_LEVELS.index(level)]
        cells = np.unique(_cells(self._local(positions), level * self.cell_m), axis=0)
        side = np.arange(-_REACH, _REACH + 1)
        around = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
        wanted = np.unique(_pack((cells[:, None] + around).reshape(-1, 3)))
        low = np.searchsorted(keys, wanted, "left")
        high = np.searchsorted(keys, wanted, "right")
        found = [order[a:b] for a, b in zip(low, high, strict=True) if b > a]
        tail = np.arange(self._settled, len(self.ids))
        return np.concatenate([*found, tail]).astype(np.intp)

    def same_place(self, row: int, others: Rows, radius_m: float, heading_deg: float) -> Any:
        """Returns which rows (n,) are the same place as `row`."""
        gap = np.linalg.norm(self.positions[others] - self.positions[row], axis=1)
        cosine = np.abs(self.quaternions_xyzw[others] @ self.quaternions_xyzw[row])
        return (gap <= radius_m) & (cosine >= np.cos(np.radians(heading_deg) / 2) - 1e-12)

    def away(self, row: int, others: Rows, radius_m: float, heading_deg: float) -> Array:
        """Returns how far rows (n,) are from `row`, 1 being a place's radius or its heading."""
        gap = np.linalg.norm(self.positions[others] - self.positions[row], axis=1)
        turn = turns_deg(self.quaternions_xyzw[others], self.quaternions_xyzw[row])
        return np.asarray(np.hypot(gap / radius_m, turn / heading_deg))


def turns_deg(a_xyzw: Array, b_xyzw: Array) -> Array:
    """Returns the angles (n, m) between quaternions (n, 4) and (m, 4), degrees."""
    return np.asarray(2 * np.degrees(np.arccos(np.clip(np.abs(a_xyzw @ b_xyzw.T), 0, 1))))


def learned_speed(
    stamps_ns: NDArray[Any], positions: NDArray[Any], streams: NDArray[Any]
) -> float | None:
    """Returns the speed (m/s) that a camera rarely exceeded while the map was made; None if unknown.

    Args:
        stamps_ns: (N,); those of images without stamps are left out.
        positions: (N, 3).
        streams: (N,), equal for keyframes of one camera in one drive.
    """
    speeds = []
    for stream in np.unique(streams):
        rows = np.flatnonzero((streams == stream) & stamped(stamps_ns))
        rows = rows[np.argsort(stamps_ns[rows], kind="stable")]
        step_s = np.diff(stamps_ns[rows]) / 1e9
        step_m = np.linalg.norm(np.diff(positions[rows], axis=0), axis=1)
        usable = (step_s > 0) & (step_s < _MAX_STEP_S)
        speeds.append(step_m[usable] / step_s[usable])
    all_speeds = np.concatenate([*speeds, np.zeros(0)])
    if len(all_speeds) < _MIN_STEPS:
        return None
    speed = float(np.quantile(all_speeds, _SPEED_SHARE))
    return speed if speed > 0 else None


def _cells(positions: NDArray[Any], side_m: float) -> NDArray[np.int64]:
    limit = _OFFSET - 2 * _REACH
    return np.clip(np.floor(positions / side_m + _EDGE), -limit, limit).astype(np.int64)


def _pack(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    shifted = cells + _OFFSET
    return np.asarray(
        (shifted[:, 0] << (2 * _BITS)) | (shifted[:, 1] << _BITS) | shifted[:, 2], np.int64
    )
