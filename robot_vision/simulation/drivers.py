"""Drivers that need no camera: three that see the geometry, and two that see nothing.

A driver is called once for each image, and returns the speed and the turn rate to drive with until the next.
Those that see are in `watching`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.braking import braking_speed
from robot_vision.simulation.free_way import FreeWay
from robot_vision.simulation.planner import Plan
from robot_vision.simulation.robot import MARGIN_M
from robot_vision.simulation.simulator import Simulator

_LOOKAHEAD_M = (0.9, 0.7, 0.5, 0.35, 0.2)
_ARRIVED_M = 0.3
_REACTION_S = 0.15
_ON_THE_SPOT = np.pi / 3, np.pi / 8  # bearing from which it turns so; with `keeps_m`
_STRAYS_M = 0.02  # from the straight line to where it goes
_CREEPS_M_S = 0.05  # where there is hardly room
_AHEAD = np.pi / 3  # from the heading to the next place, if there is one


class Driver(Protocol):
    """What drives a simulated robot; one with an attribute `reason` says with it what stops the robot."""

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns speed, m/s, and turn rate, rad/s."""

    def reset(self) -> None:
        """Is called when the robot was carried to another place."""


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


class Expert:
    """Sees the geometry: plans ways to places where it has not been, and follows them by pure pursuit.

    Coulter (1992), "Implementation of the Pure Pursuit Path Tracking Algorithm"; the robot turns on the
    spot where the way goes back, and is never faster than it can brake before what is straight ahead.

    Args:
        seed: of the places that it visits.
        keeps_m: besides the robot's radius, from everything, where the way has so much room; it cuts no
            corners then. A person who teaches a robot a way drives so.
    """

    def __init__(self, seed: int, keeps_m: float = 0.0) -> None:
        self._rng = np.random.default_rng((seed, 24))
        self._keeps_m = keeps_m
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
        if abs(bearing) > _ON_THE_SPOT[self._keeps_m > 0]:  # turns on the spot
            return 0.0, math.copysign(robot.max_turn_rate_rad_s, bearing)
        curvature = 2 * math.sin(bearing) / max(math.hypot(dx, dy), 0.2)
        turns = abs(curvature) * robot.max_speed_m_s / robot.max_turn_rate_rad_s
        free = simulator.free_ahead() - MARGIN_M
        stops = braking_speed(free, robot.max_acceleration_m_s2, _REACTION_S)
        if stops < _CREEPS_M_S and simulator.free_ahead(moving=False) > free + MARGIN_M:
            return 0.0, 0.0  # before somebody, or a door, which will be elsewhere soon
        speed = min(robot.max_speed_m_s / max(turns, 1.0), max(stops, _CREEPS_M_S))
        turn_rate = curvature * speed
        if speed < 0.1:  # hardly moves: turns to where the way goes
            turn_rate = math.copysign(robot.max_turn_rate_rad_s / 2, bearing)
        return speed, turn_rate

    def _choose(self, simulator: Simulator, here: NDArray[np.float64]) -> None:
        free, clearance = simulator.free, simulator.robot.radius_m + MARGIN_M
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

    def _target(
        self, simulator: Simulator, here: NDArray[np.float64], way: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns the farthest point of the way to which the robot can go straight."""
        lengths = np.concatenate(
            [[0.0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))] if len(way) else [[]]
        )
        radius = simulator.robot.radius_m
        room = np.full(len(way), -np.inf)
        if self._keeps_m:
            clearances = [simulator.obstacles.clearance(point) for point in way]
            room = np.minimum(np.array(clearances) - _STRAYS_M, radius + self._keeps_m)
        for ahead in _LOOKAHEAD_M:
            i = min(int(np.searchsorted(lengths, ahead)), len(way) - 1)
            steps = np.linspace(0, 1, max(int(ahead / 0.05), 2))[1:, None]
            between = here + steps * (way[i] - here)
            clear = min(simulator.obstacles.clearance(point) for point in between)
            if clear >= max(radius + MARGIN_M / 2, room[: i + 1].min()):
                return way[i]
        return way[min(1, len(way) - 1)]


EXPERT, FREE_WAY = "expert", "free_way"
# Each makes a driver from a seed.
DRIVERS: Mapping[str, Callable[[int], Driver]] = {
    EXPERT: Expert,
    FREE_WAY: lambda _seed: FreeWay(),
    "in_view": lambda _seed: FreeWay(in_view=True),
    "straight": lambda _seed: Straight(),
    "random": Random,
}
