"""The referee: drives in lock-step, and counts what a driver is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.drivers import Driver
from robot_vision.simulation.robot import STEP_NS, Motion
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
        stops: how often what stopped the robot, or let it turn on the spot, by what the driver says.
    """

    world: str
    way_m: float
    time_s: float
    hits: tuple[Hit, ...]
    stuck: int
    visited: float
    turn_change_rad_s2: float
    path: NDArray[np.float64]
    stops: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, without the path."""
        return {**asdict(replace(self, path=np.zeros((0, 2)))), "path": None} | {
            "hits": [asdict(hit) for hit in self.hits]
        }


def reason_of(driver: Driver) -> str:
    """Returns what stops the robot by what its driver says; empty where nothing does."""
    return str(getattr(driver, "reason", ""))


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
    began_ns = simulator.now_ns
    path, hits, turned, last_turn = [_place(simulator)], [], 0.0, 0.0
    stuck, watch = 0, StuckWatch(began_ns, _place(simulator))
    stops: Counter[str] = Counter()
    reason = ""
    while simulator.way_m < metres:
        time_s = (simulator.now_ns - began_ns) * 1e-9
        if time_s > metres / _LEAST_M_S:
            break
        speed, turn_rate = command = driver(simulator)
        before, reason = reason, reason_of(driver)
        if reason and reason != before:
            stops[reason] += 1
        if each is not None:
            each(simulator, command)
        turned += abs(turn_rate - last_turn)
        last_turn = turn_rate
        simulator.command(speed, turn_rate)
        carried = False
        for _ in range(IMAGE_STEPS):
            for event in simulator.step():
                hits.append(hit_of(event.motion, simulator))
                carried = True
            if carried:
                break
        path.append(_place(simulator))
        if not carried and watch.is_stuck(simulator.now_ns, _place(simulator)):
            stuck += 1
            carried = True
        if carried:
            simulator.reset()
            driver.reset()
            path += [np.full(2, np.nan), _place(simulator)]
            watch.restart(simulator.now_ns, _place(simulator))
            last_turn, reason = 0.0, ""
    time_s = max((simulator.now_ns - began_ns) * 1e-9, dt_s)
    return Drive(
        name,
        simulator.way_m,
        time_s,
        tuple(hits),
        stuck,
        visited(simulator, np.array(path)),
        turned / time_s,
        np.array(path),
        dict(stops),
    )


def _place(simulator: Simulator) -> NDArray[np.float64]:
    return np.array([simulator.motion.x, simulator.motion.y])


class StuckWatch:
    """Notices a robot that gets nowhere for ten seconds.

    Args:
        now_ns: when it begins.
        xy: (2,) where the robot is, metres.
    """

    def __init__(self, now_ns: int, xy: NDArray[np.float64]) -> None:
        self.restart(now_ns, xy)

    def restart(self, now_ns: int, xy: NDArray[np.float64]) -> None:
        """Begins again where the robot was carried to."""
        self._since_ns, self._at = now_ns, xy

    def is_stuck(self, now_ns: int, xy: NDArray[np.float64]) -> bool:
        """Takes where the robot is now, and says whether it is stuck."""
        if np.hypot(*(xy - self._at)) > _STUCK_M:
            self.restart(now_ns, xy)
        return (now_ns - self._since_ns) * 1e-9 >= _STUCK_S


def hit_of(motion: Motion, simulator: Simulator) -> Hit:
    """Returns a collision at a pose, with what of the simulator's obstacles is nearest there."""
    here = np.array([motion.x, motion.y])
    dx, dy = simulator.obstacles.nearest(here) - here
    bearing = math.degrees(math.remainder(math.atan2(dy, dx) - motion.yaw, math.tau))
    pictured = abs(bearing) <= simulator.mount.field_deg / 2
    return Hit(motion.x, motion.y, motion.speed_m_s, bearing, pictured)


def visited(simulator: Simulator, path: NDArray[np.float64]) -> float:
    """Returns the share of the places that a robot can reach that a path (n, 2) came near to.

    Args:
        simulator: of the world.
        path: metres in the map; NaN where the robot was carried.
    """
    free = simulator.free
    labels, largest = free.components(simulator.robot.radius_m + free.resolution_m)
    places = free.points(np.nonzero(labels == largest))
    seen = np.zeros(len(places), np.bool_)
    for xy in path[np.isfinite(path[:, 0])]:
        gap = places - xy
        seen |= (gap * gap).sum(axis=1) < _NEAR_M**2
    return float(seen.mean())


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
            "stops": dict(sum((Counter(d.stops) for d in self.drives), Counter())),
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
