"""The referee: drives in lock-step, and counts what a driver is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.drivers import Driver
from robot_vision.simulation.robot import STEP_NS
from robot_vision.simulation.simulator import Simulator
from robot_vision.statistics.exact import poisson_interval

IMAGE_STEPS = 5  # from one command to the next: 10 Hz
_STUCK_S, _STUCK_M = 10.0, 0.3  # less far in so long: stuck
_NEAR_M = 0.25  # a place is visited when the robot's centre comes as near as this
_LEAST_M_S = 0.05  # a drive ends when it took longer than at this mean speed


@dataclass(frozen=True)
class Hit:
    """A collision.

    Attributes:
        x: of the robot, metres in the map.
        y: the same.
        speed_m_s: with which it hit.
        bearing_deg: of what it hit, from its heading, positive to the left.
        pictured: whether the camera's field reaches there.
    """

    x: float
    y: float
    speed_m_s: float
    bearing_deg: float
    pictured: bool


@dataclass(frozen=True)
class Drive:
    """One driver in one world.

    Attributes:
        world: its name.
        way_m: driven.
        time_s: simulated.
        hits: collisions; after each the robot was carried to where it has room.
        stuck: how often it got nowhere for ten seconds, and was carried as well.
        visited: share of the places that a robot can reach that it came near to.
        turn_change_rad_s2: mean absolute change of the commanded turn rate per second.
        path: (n, 2) where the robot was, NaN where it was carried.
    """

    world: str
    way_m: float
    time_s: float
    hits: tuple[Hit, ...]
    stuck: int
    visited: float
    turn_change_rad_s2: float
    path: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, without the path."""
        return {**asdict(replace(self, path=np.zeros((0, 2)))), "path": None} | {
            "hits": [asdict(hit) for hit in self.hits]
        }


def judge(
    simulator: Simulator,
    driver: Driver,
    metres: float,
    name: str = "",
    each: Callable[[Simulator, tuple[float, float]], None] | None = None,
) -> Drive:
    """Lets a driver drive, in lock-step: each command holds for 0.1 s.

    Args:
        simulator: the robot, where it starts.
        driver: what drives.
        metres: after which the drive ends; it also ends when it took longer than at 0.05 m/s.
        name: of the world.
        each: called with each command before it is obeyed.
    """
    dt_s = STEP_NS * 1e-9
    began_ns, visits = simulator.now_ns, _Visits(simulator)
    path, hits, stuck, turned, last_turn = [_place(simulator)], [], 0, 0.0, 0.0
    since_ns, since_at = began_ns, _place(simulator)
    while simulator.way_m < metres:
        time_s = (simulator.now_ns - began_ns) * 1e-9
        if time_s > metres / _LEAST_M_S:
            break
        speed, turn_rate = command = driver(simulator)
        if each is not None:
            each(simulator, command)
        turned += abs(turn_rate - last_turn)
        last_turn = turn_rate
        simulator.command(speed, turn_rate)
        carried = False
        for _ in range(IMAGE_STEPS):
            for event in simulator.step():
                hits.append(_hit(simulator, event.motion.speed_m_s))
                carried = True
            if carried:
                break
        path.append(_place(simulator))
        visits.add(simulator)
        if np.hypot(*(_place(simulator) - since_at)) > _STUCK_M:
            since_ns, since_at = simulator.now_ns, _place(simulator)
        elif not carried and (simulator.now_ns - since_ns) * 1e-9 >= _STUCK_S:
            stuck += 1
            carried = True
        if carried:
            simulator.reset()
            driver.reset()
            path += [np.full(2, np.nan), _place(simulator)]
            since_ns, since_at, last_turn = simulator.now_ns, _place(simulator), 0.0
    time_s = max((simulator.now_ns - began_ns) * 1e-9, dt_s)
    return Drive(
        name,
        simulator.way_m,
        time_s,
        tuple(hits),
        stuck,
        visits.share,
        turned / time_s,
        np.array(path),
    )


def _place(simulator: Simulator) -> NDArray[np.float64]:
    return np.array([simulator.motion.x, simulator.motion.y])


def _hit(simulator: Simulator, speed_m_s: float) -> Hit:
    m, here = simulator.motion, _place(simulator)
    dx, dy = simulator.obstacles.nearest(here) - here
    bearing = math.degrees(math.remainder(math.atan2(dy, dx) - m.yaw, math.tau))
    return Hit(m.x, m.y, speed_m_s, bearing, abs(bearing) <= simulator.mount.field_deg / 2)


class _Visits:
    """Which of the places that a robot can reach it came near to."""

    def __init__(self, simulator: Simulator) -> None:
        free = simulator.free
        labels, largest = free.components(simulator.robot.radius_m + free.resolution_m)
        self._places = free.points(np.nonzero(labels == largest))
        self._seen = np.zeros(len(self._places), np.bool_)

    def add(self, simulator: Simulator) -> None:
        gap = self._places - _place(simulator)
        self._seen |= (gap * gap).sum(axis=1) < _NEAR_M**2

    @property
    def share(self) -> float:
        return float(self._seen.mean())


@dataclass(frozen=True)
class Verdict:
    """A driver over all worlds.

    Attributes:
        driver: its name.
        drives: one a world.
    """

    driver: str
    drives: tuple[Drive, ...]

    @property
    def km(self) -> float:
        """Way of all drives."""
        return sum(drive.way_m for drive in self.drives) / 1000

    def per_km(self, count: int) -> tuple[float, float, float]:
        """Returns events a kilometre with their 95 percent Poisson interval."""
        low, high = poisson_interval(count)
        return count / self.km, low / self.km, high / self.km

    def figures(self) -> dict[str, Any]:
        """Returns the pooled figures, plain values."""
        hits = [hit for drive in self.drives for hit in drive.hits]
        stuck, time_s = sum(d.stuck for d in self.drives), sum(d.time_s for d in self.drives)
        return {
            "driver": self.driver,
            "worlds": len(self.drives),
            "km": self.km,
            "collisions": len(hits),
            "collisions_per_km": list(self.per_km(len(hits))),
            "stuck": stuck,
            "stuck_per_km": list(self.per_km(stuck)),
            "mean_speed_m_s": self.km * 1000 / time_s,
            "visited": float(np.mean([d.visited for d in self.drives])),
            "turn_change_rad_s2": sum(d.turn_change_rad_s2 * d.time_s for d in self.drives)
            / time_s,
            "hits_outside_the_picture": sum(not hit.pictured for hit in hits),
        }


def evaluate(
    make: Callable[[int], Driver],
    name: str,
    simulators: Sequence[tuple[str, Callable[[], Simulator]]],
    metres: float,
    done: Callable[[], None] = lambda: None,
) -> Verdict:
    """Lets a driver drive in each world.

    Args:
        make: the driver, from a seed.
        name: of the driver.
        simulators: of each world, its name and what makes it.
        metres: a world.
        done: called after each world.
    """
    drives = []
    for seed, (world, simulator) in enumerate(simulators):
        drives.append(judge(simulator(), make(seed), metres, world))
        done()
    return Verdict(name, tuple(drives))
