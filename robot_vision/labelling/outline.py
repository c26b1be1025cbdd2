"""How large a robot is, and how far it can go: ahead, or on along the way that it drove.

Base is the robot's frame: x ahead, y to the left, z up, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.obstacles import Corridor, nearest_obstacle

Array = NDArray[np.floating]

_COLUMNS = 8  # of the corridor's cross-section, see `Section`
_STEP_M = 0.05  # along the driven way, from one place where the robot is tried to the next


@dataclass(frozen=True)
class Outline:
    """The room that a robot takes.

    Attributes:
        width_m: of its corridor.
        low_m: height above base from which something is an obstacle and not the floor.
        high_m: height up to which it is.
        front_m: of a flat front ahead of base; None for a round robot about base.
    """

    width_m: float
    low_m: float
    high_m: float
    front_m: float | None = None

    def reaches(self, y: Array) -> Array:
        """Returns how far ahead of base the robot reaches at each y; 0 where it is not as wide."""
        if self.front_m is not None:
            return np.full_like(y, self.front_m)
        with np.errstate(invalid="ignore"):
            round_ = np.maximum((self.width_m / 2) ** 2 - y**2, 0)
        return np.asarray(np.sqrt(round_))

    @property
    def front(self) -> float:
        """How far ahead of base it reaches at most, metres."""
        return self.width_m / 2 if self.front_m is None else self.front_m


def free_ahead(points: Array, outline: Outline, pixels: int) -> float:
    """Returns how far the robot can go straight ahead until it touches something.

    Args:
        points: (3, n) in base; NaN where nothing was measured.
        outline: of the robot.
        pixels: how many must be as near.

    Returns:
        Metres; infinite where nothing is in the way, NaN where nothing was measured at all.
    """
    gaps = np.array(points, np.float64)
    gaps[0] -= outline.reaches(gaps[1])
    corridor = Corridor(outline.low_m, outline.high_m, outline.width_m, pixels)
    return nearest_obstacle(gaps, np.zeros(gaps.shape[1]), 0.0, corridor).distance


def free_along(
    points: Array, way: NDArray[np.float64], outline: Outline, pixels: int, reach_m: float
) -> float:
    """Returns how far the robot can go along a way, and straight on from its end, until it touches something.

    Args:
        points: (3, n) in base, as for `free_ahead`.
        way: (m, 4, 4) where base is on it, the first being the identity.
        outline: of the robot.
        pixels: how many must be as near.
        reach_m: farther is not looked.
    """
    if np.isnan(points[0]).all():
        return float("nan")
    # Only what can be touched at all: the same for every place of the way.
    with np.errstate(invalid="ignore"):
        z = points[2]
        near = np.hypot(points[0], points[1]) <= reach_m + outline.front + outline.width_m
        things = np.array(
            points[:, (z >= outline.low_m) & (z <= outline.high_m) & near], np.float64
        )
    gone = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(way[:, :3, 3], axis=0), axis=1))]
    )
    tried = -np.inf
    for T, metres in zip(way, gone, strict=True):
        if metres >= reach_m or (metres - tried < _STEP_M and metres < gone[-1]):
            continue
        tried = metres
        here = T[:3, :3].T @ (things - T[:3, 3:])
        free = free_ahead(here, outline, pixels) if here.size else np.inf
        step = _STEP_M if metres < gone[-1] else np.inf
        if free <= step:
            return float(metres + free)
    return float("inf")


@dataclass(frozen=True, eq=False)
class Section:
    """The corridor's cross-section at a distance ahead, in cells: which of them a sensor says something of.

    Attributes:
        rays: numbers of the sensor's rays that go through it.
        cells: of each of these rays.
        count: of all cells.
    """

    rays: NDArray[np.intp]
    cells: NDArray[np.intp]
    count: int

    @classmethod
    def of(
        cls, rays: Array, origin: Array, outline: Outline, ahead_m: float, layers: int
    ) -> Section:
        """Cuts the corridor.

        Args:
            rays: (3, n), directions in base.
            origin: (3,), where the sensor is in base.
            outline: of the robot.
            ahead_m: from the robot's front.
            layers: one above the other: 1 for a planar scan, whose heights do not count.
        """
        x = outline.front + ahead_m
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (x - origin[0]) / rays[0]
            y, z = origin[1] + far * rays[1], origin[2] + far * rays[2]
            across = (y / outline.width_m + 0.5) * _COLUMNS
            up = (z - outline.low_m) / (outline.high_m - outline.low_m) * layers
            if layers == 1:
                up = np.zeros_like(y)
            inside = (far > 0) & (across >= 0) & (across < _COLUMNS) & (up >= 0) & (up < layers)
        found = np.flatnonzero(inside)
        cells = across[found].astype(np.intp) * layers + up[found].astype(np.intp)
        return cls(found, cells, _COLUMNS * layers)

    def looked_at(self, known: NDArray[np.bool_]) -> float:
        """Returns the share of the cells with a ray that measured something; `known` is (n,)."""
        return len(np.unique(self.cells[known[self.rays]])) / self.count
