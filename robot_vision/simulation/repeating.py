"""Routes that are taught in simulated homes and repeated there by sight, when the homes have changed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.driving.following import ARRIVED, OFF_ROUTE, SURE_M, Follower
from robot_vision.driving.route import Route
from robot_vision.errors import ConfigError
from robot_vision.filters.pose_settings import PoseFilterSettings
from robot_vision.gate.rule import read_scores
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import apart, inverse, pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.localising.localiser import ActiveLocaliser, LocaliserOptions
from robot_vision.places.localising.next_view import MapViews
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.recognition.recogniser import Recognition
from robot_vision.places.tracker import PlaceTracker
from robot_vision.simulation.drive_bag import write_drive
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.nodes import COLLISION
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.sight import Sight
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.days import DayChanges, next_day
from robot_vision.simulation.world.world import Box, World
from robot_vision.statistics.exact import poisson_interval, upper_share

Array = NDArray[np.float64]

BY_SIGHT, BY_ODOMETRY = "sight", "odometry"
LOST, COLLIDED, TIME = "lost", "collision", "time"
_TAUGHT_M_S = 0.4
_KEEPS_M = 0.15  # that who teaches keeps from everything, where there is room
_IMAGES_A_LOOK = 2  # 5 Hz
_ALIKE_MAP_M = 0.7  # within which of the robot the map's frame is that of the drive there
_WRONG_M, _WRONG_DEG = 0.5, 15.0
_LOOKS_ROUND_S = 2.0  # after which a robot that is lost looks round on the spot
_LOST_S = 30.0  # after which one that does not get on is given up
_SLOWEST_M_S = 0.08
_STARTS_TRIED = 1000
_CLEAR_M = 0.4  # from the taught way to what was moved or put there


@dataclass(frozen=True, eq=False)
class Taught:
    """What is true of a drive that was taught.

    Attributes:
        world: where.
        true: (n, 3) x, y and yaw in the world at each image.
        said: (n, 3) the same by odometry, which is the map's frame.
    """

    world: World
    true: Array
    said: Array

    def way(self) -> Array:
        """Returns the true way (m, 2), a point at least every 1 cm."""
        at = np.arange(0, len(self.true) - 1, 0.25)
        n = np.arange(len(self.true))
        return np.stack([np.interp(at, n, self.true[:, i]) for i in (0, 1)], axis=1)

    def wrong(self, T_map_base: Array, true: Motion) -> bool:
        """Says whether a pose in the map is not where the robot is."""
        near = np.flatnonzero(np.hypot(*(self.true[:, :2] - (true.x, true.y)).T) < _ALIKE_MAP_M)
        T = _planar(true.x, true.y, true.yaw)
        for i in near:
            found = _planar(*self.true[i]) @ inverse(_planar(*self.said[i])) @ T_map_base
            metres = float(np.hypot(*(found[:2, 3] - T[:2, 3])))
            if metres < _WRONG_M and apart(found, T)[1] < _WRONG_DEG:
                return False
        return True


def _planar(x: float, y: float, yaw: float) -> Array:
    half = yaw / 2
    return pose_matrix(np.array([x, y, 0.0]), np.array([0.0, 0.0, math.sin(half), math.cos(half)]))


def _odometry(simulator: Simulator) -> Array:
    m = simulator.odometry.motion
    return _planar(m.x, m.y, m.yaw)


def taught_drive(bag: Path, world: World, seed: int, metres: float) -> Taught:
    """Drives through a home by its geometry, and records it.

    Raises:
        SourceError: the bag exists, or cannot be written.
    """
    simulator, expert = Simulator(world, seed), Expert(seed, _KEEPS_M)
    true, said = [], []

    def driver(now: Simulator) -> tuple[float, float]:
        m, o = now.motion, now.odometry.motion
        true.append((m.x, m.y, m.yaw))
        said.append((o.x, o.y, o.yaw))
        speed, turn_rate = expert(now)
        slower = min(1.0, _TAUGHT_M_S / max(speed, 1e-6))
        return speed * slower, turn_rate * slower

    write_drive(bag, simulator, driver, round(10 * metres / (0.8 * _TAUGHT_M_S)), depth="")
    return Taught(world, np.array(true), np.array(said))


def changed(taught: Taught, rng: np.random.Generator) -> World:
    """Returns the home on another day, of which nothing new stands on the taught way."""
    before, way, rooms = taught.world, taught.way()[::10], []
    _, today = next_day(before, before, rng, DayChanges(panels=0.25))
    for old, room in zip(before.rooms, today.rooms, strict=True):
        there = (b for b in room.boxes if b in old.boxes or _gap(b, way) > _CLEAR_M)
        rooms.append(replace(room, boxes=tuple(there)))
    return replace(today, rooms=tuple(rooms))


def _gap(box: Box, way: Array) -> float:
    outside = np.maximum(np.subtract(box.low[:2], way), np.subtract(way, box.high[:2]))
    return float(np.hypot(*np.maximum(outside, 0).T).min())


@dataclass(frozen=True)
class Repeat:
    """One start.

    Attributes:
        route: its name.
        by: `sight`, or `odometry` alone after the first look.
        end: `arrived`, or why not: `lost`, `off_route`, `blocked`, `collision`, `time`.
        way_m: driven.
        to_go_m: of the route, from where the robot was put.
        cross_track_m: distances of the robot from the true way, ten a second while it follows the route.
        looks: images that were compared with the map.
        verified: those of them that gave a pose.
        wrong: those of them that were not where the robot was.
    """

    route: str
    by: str
    end: str
    way_m: float
    to_go_m: float
    cross_track_m: tuple[float, ...]
    looks: int
    verified: int
    wrong: int


def start_of(
    taught: Taught, world: World, seed: int, walkers: int, moving_doors: bool
) -> Simulator:
    """Returns a robot on the way, about in its direction, with other noise and other odometry.

    Raises:
        ConfigError: there is no room for it.
    """
    rng = np.random.default_rng((seed, 27))
    for _ in range(_STARTS_TRIED):
        i = int(rng.integers(0, round(0.6 * len(taught.true))))
        x, y, yaw = taught.true[i] + rng.normal(0, (0.05, 0.05, 0.1))
        if world.is_free((x, y), 0.25):
            return Simulator(
                world, seed, start=(x, y, yaw), walkers=walkers, moving_doors=moving_doors
            )
    raise ConfigError("The way has no place where a robot can be put: teach it farther from things")


def repeat(
    name: str,
    taught: Taught,
    route: Route,
    places: PlaceMap,
    pipeline: Pipeline,
    simulator: Simulator,
    by: str,
    reflex: Sight | None,
) -> Repeat:
    """Lets a robot repeat a route from where it stands.

    Args:
        name: of the route.
        taught: what is true of it.
        route: as the robot estimated it.
        places: its map.
        pipeline: of the map's model.
        simulator: the robot.
        by: `sight`; or `odometry`, for one that looks only until it knows where it is.
        reflex: reads the topic `COLLISION`; None for none.
    """
    c, way, follower = simulator.mount.camera, taught.way(), Follower(route)
    lens = Intrinsics(c.width, c.height, np.asarray(c.k), np.zeros(0))
    sure = PoseFilterSettings(localised_m=SURE_M)
    tracker = PlaceTracker(places, pipeline, lens, simulator.T_base_camera, sure)
    cross_track: list[float] = []
    looks = verified = wrong = 0
    fixed: Array | None = None  # T_map_odom of a robot that looks no more
    searching = ActiveLocaliser(MapViews(places), LocaliserOptions(drive_m=0.0))
    lost_ns = stands_ns = began_ns = simulator.now_ns
    turn = 0.0
    reason, to_go = LOST, 0.0
    for ticks in itertools.count():
        T_odom_base = _odometry(simulator)
        tracker.move(simulator.now_ns, T_odom_base)
        if fixed is None and ticks % _IMAGES_A_LOOK == 0:
            found, pose = tracker.see(simulator.now_ns, simulator.image())
            looks += 1
            T_odom_camera = T_odom_base @ simulator.T_base_camera
            T = None
            if pose is not None:
                verified += 1
                T = pose_matrix(pose.position, pose.orientation_xyzw)
                wrong += taught.wrong(T @ inverse(simulator.T_base_camera), simulator.motion)
            if not tracker.localised:
                turn = searching.look(simulator.now_ns, T_odom_camera, _named(found), T).side
            else:
                searching.reset()
        T_map_base = _where(tracker) if fixed is None else fixed @ T_odom_base
        command = 0.0, 0.0
        if T_map_base is None:
            reason = LOST
            if (simulator.now_ns - lost_ns) * 1e-9 > _LOOKS_ROUND_S:
                command = 0.0, turn * follower.settings.max_turn_rad_s
        else:
            lost_ns = simulator.now_ns
            if by == BY_ODOMETRY and fixed is None:
                fixed = T_map_base @ inverse(T_odom_base)
            yaw = math.atan2(T_map_base[1, 0], T_map_base[0, 0])
            x, y = T_map_base[:2, 3]
            said = follower.drive(x, y, yaw, _collision(reflex, simulator))
            reason = said.reason
            command = said.velocity.linear[0], said.velocity.angular[2]
            to_go = to_go or route.length_m - said.progress_m
        if command != (0.0, 0.0) and reason != LOST:
            stands_ns = simulator.now_ns
        seconds = (simulator.now_ns - began_ns) * 1e-9
        if (simulator.now_ns - stands_ns) * 1e-9 > _LOST_S or reason in (ARRIVED, OFF_ROUTE):
            break
        if seconds > _LOST_S + route.length_m / _SLOWEST_M_S:
            reason = reason or TIME
            break
        simulator.command(*command)
        for _ in range(IMAGE_STEPS):
            simulator.step()
        if reason != LOST:
            here = simulator.motion.x, simulator.motion.y
            cross_track.append(float(np.hypot(*(way - here).T).min()))
        if simulator.collisions:
            reason = COLLIDED
            break
    return Repeat(
        name, by, reason, simulator.way_m, to_go, tuple(cross_track), looks, verified, wrong
    )


def _where(tracker: PlaceTracker) -> Array | None:
    estimate = tracker.filter.estimate() if tracker.localised else None
    return None if estimate is None else estimate.T


def _named(found: Recognition) -> list[tuple[Array, float]]:
    return [(pose_matrix(c.position, c.quaternion_xyzw), c.probability) for c in found.candidates]


def _collision(reflex: Sight | None, simulator: Simulator) -> float:
    if reflex is None:
        return 0.0
    message = reflex(simulator).get(COLLISION)
    return 1.0 if message is None else read_scores(message)["collision"]


def figures(repeats: Sequence[Repeat]) -> dict[str, Any]:
    """Returns the pooled figures of one way to repeat, plain values."""
    arrived, count = sum(r.end == ARRIVED for r in repeats), len(repeats)
    hits, km = sum(r.end == COLLIDED for r in repeats), sum(r.way_m for r in repeats) / 1000
    off = np.array([metres for r in repeats for metres in r.cross_track_m] or [np.nan])
    low, high = poisson_interval(hits)
    per_km = [n / km if km else math.nan for n in (hits, low, high)]
    looks = sum(r.looks for r in repeats)
    return {
        "by": repeats[0].by,
        "starts": count,
        "arrived": arrived,
        "arrived_share": [
            arrived / count,
            1 - upper_share(count - arrived, count, 0.975),
            upper_share(arrived, count, 0.975),
        ],
        "km": km,
        "to_go_m": float(np.mean([r.to_go_m for r in repeats])),
        "cross_track_median_m": float(np.median(off)),
        "cross_track_p95_m": float(np.quantile(off, 0.95)),
        "collisions": hits,
        "collisions_per_km": per_km,
        "looks": looks,
        "verified": sum(r.verified for r in repeats),
        "wrong": sum(r.wrong for r in repeats),
        "ends": dict(Counter(r.end for r in repeats)),
    }


def plain(repeats: Sequence[Repeat]) -> list[dict[str, Any]]:
    """Returns each start for JSON, with what its distances from the way are."""
    found = []
    for each in repeats:
        row = {**asdict(each), "cross_track_m": None}
        if each.cross_track_m:
            row["cross_track_m"] = [
                float(np.quantile(each.cross_track_m, q)) for q in (0.5, 0.95, 1.0)
            ]
        found.append(row)
    return found
