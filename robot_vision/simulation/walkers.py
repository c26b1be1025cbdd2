"""Boxes of a person's size that walk about."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.planner import Plan
from robot_vision.simulation.world.obstacles import DistanceMap, Obstacles
from robot_vision.simulation.world.world import Box, Finish

HALF_M = 0.2  # of a box's side
_HEIGHT_M = 1.7
_SPEED_M_S = 0.5
_CLEARANCE_M = 0.3
_POLITE_M = 0.7  # a walker does not go where it would be nearer to the robot than this
_PATIENCE_S = 1.5  # then it goes somewhere else
_ARRIVED_M = 0.2


class Walker:
    """Walks from place to place, and does not run into the robot.

    Args:
        free: distances of the world.
        rng: of its places and its colours.

    Attributes:
        xy: (2,) its middle, metres in the map.
        box: itself, where it began.
    """

    def __init__(self, free: DistanceMap, rng: np.random.Generator) -> None:
        self._free, self._rng = free, rng
        labels, largest = free.components(_CLEARANCE_M)
        self._places = free.points(np.nonzero(labels == largest))
        self.xy: NDArray[np.float64] = self._places[int(rng.integers(len(self._places)))]
        self._waited_s = 0.0
        self._plan: Plan | None = None
        self._goal = self.xy
        hue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.3, 0.9))
        colour = tuple(round(255 * float(c)) for c in hue)
        finish = Finish(str(rng.choice(["stripes", "plain", "quilt"])), colour)  # type: ignore[arg-type]
        (x, y), h = (float(v) for v in self.xy), HALF_M
        self.box = Box((x - h, y - h, 0.0), (x + h, y + h, _HEIGHT_M), finish, finish)

    @property
    def offset(self) -> NDArray[np.float64]:
        """How far (2,) it is from where it began, metres."""
        return self.xy - HALF_M - self.box.low[:2]

    def step(self, robot_xy: NDArray[np.float64], shut: Obstacles | None, dt_s: float) -> None:
        """Walks for a moment, or waits while the robot or a door that shuts is in its way."""
        if self._plan is None or np.hypot(*(self._goal - self.xy)) < _ARRIVED_M:
            self._goal = self._places[int(self._rng.integers(len(self._places)))]
            self._plan = Plan(self._free, _CLEARANCE_M, self._goal)
        way = self._plan.way(self.xy, 0.3)
        step = way[min(2, len(way) - 1)] - self.xy
        length = float(np.hypot(*step))
        there = self.xy + step * min(_SPEED_M_S * dt_s / max(length, 1e-9), 1.0)
        now, then = (float(np.hypot(*(robot_xy - at))) for at in (self.xy, there))
        if (then < _POLITE_M and then < now) or (
            shut is not None and shut.clearance(there) < min(HALF_M * 1.1, shut.clearance(self.xy))
        ):
            self._waited_s += dt_s
            if self._waited_s > _PATIENCE_S:
                self._plan, self._waited_s = None, 0.0
        else:
            self.xy, self._waited_s = there, 0.0
