"""The running session's own keyframes: has the robot come back to where it was some time ago?

Loop closures are looked for among these, apart from the map, since both ends have to be in the frame of the
robot's own motion. All of it is in memory, and works without a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.places.recognition.known_places import PlaceTable
from robot_vision.places.recognition.self_calibration import DEFAULT, calibrate_on_map

Array = NDArray[np.float64]
CAPACITY = 20_000  # keyframes: 40 MB of 512 numbers; of a longer session the oldest are forgotten
CONSISTENT = 3  # views in a row that have to come back to the same stretch before it is believed
STRETCH = 4  # how many keyframes such a stretch may advance from one view to the next


@dataclass(frozen=True)
class Loop:
    """A view of now and the keyframe that it came back to.

    Attributes:
        number: of the earlier keyframe in the session.
        stamp_ns: of it.
        T_fixed_camera: its pose (4, 4) in the frame of the motion.
        similarity: cosine of the two descriptors.
        probability: that they show the same place.
    """

    number: int
    stamp_ns: int
    T_fixed_camera: Array
    similarity: float
    probability: float


@dataclass(frozen=True)
class LoopRule:
    """What counts as a loop.

    Attributes:
        exclude_s: keyframes of the last seconds do not.
        exclude_m: nor those of the last metres of the way.
        min_probability: less sure ones do not.
        radius_m: keyframes within it of each other ...
        heading_deg: ... and within this turn are one place.
    """

    exclude_s: float
    exclude_m: float
    min_probability: float
    radius_m: float
    heading_deg: float


class Session:
    """Keyframes of one run, with their poses in the frame of the robot's motion.

    Args:
        dimension: numbers of a descriptor.
    """

    def __init__(self, dimension: int, capacity: int = CAPACITY) -> None:
        self.dimension = dimension
        self._capacity = capacity
        self._rows = _Rows(dimension, min(256, capacity))
        self._poses: list[Array] = []
        self._first = 0  # number of the oldest that is kept
        self._way = 0.0
        self._last: Array | None = None
        self._streak: list[int] = []
        self._reported: dict[int, float] = {}  # the way at which a keyframe was reported
        self._probability = DEFAULT
        self._calibrated_for = 0

    def __len__(self) -> int:
        return len(self._poses)

    @property
    def positions(self) -> Array:
        """Positions (N, 3) in the frame of the motion."""
        return self._rows.positions[: len(self)].copy()

    def move(self, T_fixed_camera: Array) -> None:
        """Adds to the way that the camera has travelled."""
        if self._last is not None:
            self._way += float(np.linalg.norm(T_fixed_camera[:3, 3] - self._last[:3, 3]))
        self._last = np.array(T_fixed_camera)

    def add(self, stamp_ns: int, T_fixed_camera: Array, descriptor: NDArray[np.float32]) -> int:
        """Adds a keyframe and returns its number in the session."""
        if len(self) == self._capacity:
            drop = max(self._capacity // 8, 1)
            self._rows.drop(drop, len(self))
            del self._poses[:drop]
            self._first += drop
        row = len(self)
        self._rows.grow_to(row + 1)
        self._rows.descriptors[row] = descriptor
        self._rows.stamps[row] = stamp_ns
        self._rows.ways[row] = self._way
        self._rows.positions[row] = T_fixed_camera[:3, 3]
        self._rows.quaternions[row] = xyzw_from_matrix(T_fixed_camera[:3, :3])
        self._poses.append(np.array(T_fixed_camera))
        return self._first + row

    def find(
        self,
        stamp_ns: int,
        descriptor: NDArray[np.float32],
        rule: LoopRule,
    ) -> Loop | None:
        """Returns the loop that this view closes; None if it closes none, or only reported ones.

        A single view is never believed: `CONSISTENT` views in a row have to come back to one stretch of the
        way, each advancing by a few keyframes at most, forwards or backwards.

        Args:
            stamp_ns: of the view.
            descriptor: of the view (D,).
            rule: what counts.
        """
        loop = self._best(stamp_ns, descriptor, rule)
        if loop is None:
            self._streak = []
            return None
        if self._streak and abs(loop.number - self._streak[-1]) > STRETCH:
            self._streak = []
        self._streak.append(loop.number)
        if len(self._streak) < CONSISTENT:
            return None
        self._streak = self._streak[-CONSISTENT:]
        self._reported = {
            n: way for n, way in self._reported.items() if self._way - way < rule.radius_m
        }
        if loop.number in self._reported:
            return None  # it stands still, perhaps between two keyframes, or turns on the spot
        self._reported[loop.number] = self._way
        return loop

    def _best(
        self,
        stamp_ns: int,
        descriptor: NDArray[np.float32],
        rule: LoopRule,
    ) -> Loop | None:
        # Ways only grow: what was long ago by way is a prefix.
        rows = self._rows
        count = int(np.searchsorted(rows.ways[: len(self)], self._way - rule.exclude_m, "right"))
        old = rows.stamps[:count] <= stamp_ns - int(rule.exclude_s * 1e9)
        if not np.any(old):
            return None
        similarity = np.where(old, rows.descriptors[:count] @ descriptor, -np.inf)
        best = int(np.argmax(similarity))
        away = np.linalg.norm(rows.positions[:count] - rows.positions[best], axis=1)
        cosine = np.abs(rows.quaternions[:count] @ rows.quaternions[best])
        same = (away <= 2 * rule.radius_m) & (cosine >= np.cos(np.radians(rule.heading_deg) / 2))
        other = similarity[old & ~same]
        margin = float(similarity[best] - other.max()) if len(other) else None
        sure = float(self._calibrated(rule)(float(similarity[best]), margin))
        if sure < rule.min_probability:
            return None
        return Loop(
            self._first + best,
            int(rows.stamps[best]),
            self._poses[best],
            float(similarity[best]),
            sure,
        )

    def _calibrated(self, rule: LoopRule) -> PlaceProbability:
        """Returns how sure a similarity is, fitted again on the session whenever it has doubled."""
        count = len(self)
        if count >= 2 * max(self._calibrated_for, 10):
            rows = self._rows
            table = PlaceTable(
                np.arange(count), rows.positions[:count], rows.quaternions[:count], rule.radius_m
            )
            self._probability = calibrate_on_map(
                table, rows.descriptors[:count], rule.radius_m, rule.heading_deg
            ).probability
            self._calibrated_for = count
        return self._probability


class _Rows:
    """Arrays that grow together."""

    def __init__(self, dimension: int, count: int) -> None:
        self.descriptors = np.zeros((count, dimension), np.float32)
        self.stamps = np.zeros(count, np.int64)
        self.ways = np.zeros(count)
        self.positions = np.zeros((count, 3))
        self.quaternions = np.zeros((count, 4))

    def grow_to(self, count: int) -> None:
        while len(self.stamps) < count:
            for name, values in list(vars(self).items()):
                setattr(self, name, np.concatenate([values, np.zeros_like(values)]))

    def drop(self, drop: int, count: int) -> None:
        for values in vars(self).values():
            values[: count - drop] = values[drop:count].copy()
