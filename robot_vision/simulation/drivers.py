"""Drivers that need no camera: one that sees the geometry, and two that see nothing.

A driver is called once for each image, and returns the speed and the turn rate to drive with until the next.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.obstacles import DistanceMap

_CELL = 2  # cells of the distance map along a side of a planner's cell
_MARGIN_M = 0.05  # that a plan keeps from everything, besides the robot's radius
_COMFORT_M = 0.35  # nearer than this, besides the radius, a path costs more
_PRICE = 6.0  # of a metre along a wall, in metres
_LOOKAHEAD_M = (0.9, 0.7, 0.5, 0.35, 0.2)
_ARRIVED_M = 0.3
_REACTION_S = 0.15
_AHEAD = np.pi / 3  # from the heading to the next place, if there is one


class Driver(Protocol):
    """What drives a simulated robot."""

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns speed, m/s, and turn rate, rad/s."""

    def reset(self) -> None:
        """Is told that the robot was carried to another place."""


class Straight:
    """Drives straight ahead, whatever comes."""

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns full speed."""
        return simulator.robot.max_speed_m_s, 0.0

    def reset(self) -> None:
        """Nothing to forget."""


class Random:
    """Turns at a rate that changes about once a second.

    Args:
        seed: of the rates.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 23))
        self._turn_rate = 0.0

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns full speed, and the turn rate of the moment."""
        if self._rng.random() < 0.1:
            most = simulator.robot.max_turn_rate_rad_s
            self._turn_rate = float(self._rng.uniform(-most, most))
        return simulator.robot.max_speed_m_s, self._turn_rate

    def reset(self) -> None:
        """Nothing to forget."""


class Plan:
    """The cheapest way to a place from everywhere: Dijkstra's algorithm over the distance map.

    Args:
        free: distances of the world.
        clearance_m: that a way keeps at least.
        goal: (x, y).

    Attributes:
        cost: (rows, columns) metres to the goal, with a price for what is near; infinite where no way is.
    """

    def __init__(self, free: DistanceMap, clearance_m: float, goal: NDArray[np.float64]) -> None:
        self._free = free
        distance = _coarse(free.distance)
        room = distance >= clearance_m
        near = np.clip(1 - (distance - clearance_m) / _COMFORT_M, 0, 1)
        price = (1 + _PRICE * near**2) * free.resolution_m * _CELL
        self.cost: NDArray[np.float64] = np.full(distance.shape, np.inf)
        self._next = np.full((*distance.shape, 2), -1)
        start = self.cell(goal)
        self.cost[start] = 0.0
        heap = [(0.0, start)]
        steps = [(i, j, math.hypot(i, j)) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        rows, columns = distance.shape
        while heap:
            cost, (r, c) = heapq.heappop(heap)
            if cost > self.cost[r, c]:
                continue
            for i, j, length in steps:
                a, b = r + i, c + j
                if not (0 <= a < rows and 0 <= b < columns and room[a, b]):
                    continue
                there = cost + length * price[a, b]
                if there < self.cost[a, b]:
                    self.cost[a, b] = there
                    self._next[a, b] = r, c
                    heapq.heappush(heap, (there, (a, b)))

    def cell(self, xy: NDArray[np.float64]) -> tuple[int, int]:
        """Returns the planner's cell of a point."""
        (row,), (column,) = self._free.cells(xy)
        return int(row) // _CELL, int(column) // _CELL

    def way(self, xy: NDArray[np.float64], length_m: float) -> NDArray[np.float64]:
        """Returns the next points (n, 2) of the way, up to a length; empty where none is near."""
        at = self.cell(xy)
        if not np.isfinite(self.cost[at]):  # too near to something: the nearest cell that is not
            rows, columns = np.nonzero(np.isfinite(self.cost))
            if not len(rows):
                return np.zeros((0, 2))
            i = int(((rows - at[0]) ** 2 + (columns - at[1]) ** 2).argmin())
            at = int(rows[i]), int(columns[i])
        cells = [at]
        for _ in range(math.ceil(length_m / (self._free.resolution_m * _CELL))):
            r, c = self._next[cells[-1]]
            if r < 0:
                break
            cells.append((int(r), int(c)))
        rows_columns = np.array(cells).T * _CELL + (_CELL - 1) / 2
        return self._free.points((rows_columns[0], rows_columns[1]))


def _coarse(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the least distance in each cell of the planner."""
    rows, columns = (-(-n // _CELL) * _CELL for n in distance.shape)
    padded = np.zeros((rows, columns), np.float32)
    padded[: distance.shape[0], : distance.shape[1]] = distance
    return padded.reshape(rows // _CELL, _CELL, columns // _CELL, _CELL).min(axis=(1, 3))


class Expert:
    """Sees the geometry: plans ways to places where it has not been, and follows them by pure pursuit.

    Coulter (1992), "Implementation of the Pure Pursuit Path Tracking Algorithm"; the robot turns on the
    spot where the way goes back, and is never faster than it can brake before what is straight ahead.

    Args:
        seed: of the places that it visits.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 24))
        self._plan: Plan | None = None
        self._goal = np.zeros(2)
        self._places: NDArray[np.float64] | None = None  # not yet visited

    def reset(self) -> None:
        """Plans again."""
        self._plan = None

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns speed and turn rate."""
        m, robot = simulator.motion, simulator.robot
        here = np.array([m.x, m.y])
        if self._plan is None or np.hypot(*(self._goal - here)) < _ARRIVED_M:
            self._choose(simulator, here)
        assert self._plan is not None
        target = self._target(simulator, here, self._plan.way(here, max(_LOOKAHEAD_M)))
        dx, dy = target - here
        bearing = math.remainder(math.atan2(dy, dx) - m.yaw, math.tau)
        if abs(bearing) > math.pi / 3:  # turns on the spot
            return 0.0, math.copysign(robot.max_turn_rate_rad_s, bearing)
        curvature = 2 * math.sin(bearing) / max(math.hypot(dx, dy), 0.2)
        turns = abs(curvature) * robot.max_speed_m_s / robot.max_turn_rate_rad_s
        brake = robot.max_acceleration_m_s2
        free = max(simulator.free_ahead() - _MARGIN_M, 0.0)
        # The speed from which the robot comes to a stand in the free distance, after its reaction.
        stops = brake * (math.sqrt(_REACTION_S**2 + 2 * free / brake) - _REACTION_S)
        speed = min(robot.max_speed_m_s / max(turns, 1.0), max(stops, 0.05))
        turn_rate = curvature * speed
        if speed < 0.1:  # hardly moves: turns to where the way goes
            turn_rate = math.copysign(robot.max_turn_rate_rad_s / 2, bearing)
        return speed, turn_rate

    def _choose(self, simulator: Simulator, here: NDArray[np.float64]) -> None:
        free, clearance = simulator.free, simulator.robot.radius_m + _MARGIN_M
        if self._places is None or not len(self._places):
            labels, largest = free.components(clearance + 0.05)
            self._places = free.points(np.nonzero(labels == largest))
        away = np.hypot(*(self._places - here).T)
        self._places = self._places[away > 2 * _ARRIVED_M]
        if not len(self._places):
            self._places = None
            return self._choose(simulator, here)
        # Ahead rather than behind: a camera cannot see why a driver turns round.
        dx, dy = (self._places - here).T
        turn = np.abs((np.arctan2(dy, dx) - simulator.motion.yaw + np.pi) % (2 * np.pi) - np.pi)
        wanted = self._places[turn < _AHEAD] if (turn < _AHEAD).any() else self._places
        self._goal = wanted[int(self._rng.integers(len(wanted)))]
        self._plan = Plan(free, clearance, self._goal)
        # What the way passes is visited.
        way = self._plan.way(here, 100.0)
        gap = ((self._places[:, None] - way[None, ::3]) ** 2).sum(axis=2).min(axis=1)
        self._places = self._places[gap > _ARRIVED_M**2]

    @staticmethod
    def _target(
        simulator: Simulator, here: NDArray[np.float64], way: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns the farthest point of the way to which the robot can go straight."""
        lengths = np.concatenate(
            [[0.0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))] if len(way) else [[]]
        )
        for ahead in _LOOKAHEAD_M:
            i = min(int(np.searchsorted(lengths, ahead)), len(way) - 1)
            steps = np.linspace(0, 1, max(int(ahead / 0.05), 2))[1:, None]
            between = here + steps * (way[i] - here)
            clear = min(simulator.obstacles.clearance(point) for point in between)
            if clear >= simulator.robot.radius_m + _MARGIN_M / 2:
                return way[i]
        return way[min(1, len(way) - 1)]


# Each makes a driver from a seed.
DRIVERS: Mapping[str, Callable[[int], Driver]] = {
    "expert": Expert,
    "straight": lambda _seed: Straight(),
    "random": Random,
}
