"""Ways that are taught in simulated homes, and the homes on another day."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import apart, inverse, pose_matrix
from robot_vision.simulation.drive_bag import write_drive
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.nearest_image import small
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world import homes
from robot_vision.simulation.world.days import DayChanges, next_day
from robot_vision.simulation.world.world import Box, World

Array = NDArray[np.float64]

_TAUGHT_M_S = 0.4
_KEEPS_M = 0.15  # that who teaches keeps from everything, where there is room
_ALIKE_MAP_M = 0.7  # within which of the robot the map's frame is that of the drive there
_WRONG_M, _WRONG_DEG = 0.5, 15.0
_STARTS_TRIED = 1000
_CLEAR_M = 0.4  # from the taught way to what was moved or put there
_START, _START_BEFORE_BOX = 0.6, 0.3  # share of the way that starts are on
_BOX_M = 1.5, 3.0  # along the way, from the robot's centre to a box that is put on it
_BOX_ASIDE_M = 0.1  # and its centre from the way, at most


@dataclass(frozen=True, eq=False)
class Taught:
    """What is true of a drive that was taught.

    Attributes:
        world: where.
        true: (n, 3) x, y and yaw in the world at each image.
        said: (n, 3) the same by odometry, which is the map's frame.
        views: (n, `VIEW`) uint8, what the camera saw there, small and grey.
    """

    world: World
    true: Array
    said: Array
    views: NDArray[np.uint8]

    def way(self) -> Array:
        """Returns the true way (m, 2), a point at least every 1 cm."""
        at = np.arange(0, len(self.true) - 1, 0.25)
        n = np.arange(len(self.true))
        return np.stack([np.interp(at, n, self.true[:, i]) for i in (0, 1)], axis=1)

    def wrong(self, T_map_base: Array, true: Motion) -> bool:
        """Says whether a pose in the map is not where the robot is."""
        near = np.flatnonzero(np.hypot(*(self.true[:, :2] - (true.x, true.y)).T) < _ALIKE_MAP_M)
        T = planar(true.x, true.y, true.yaw)
        for i in near:
            found = planar(*self.true[i]) @ inverse(planar(*self.said[i])) @ T_map_base
            metres = float(np.hypot(*(found[:2, 3] - T[:2, 3])))
            if metres < _WRONG_M and apart(found, T)[1] < _WRONG_DEG:
                return False
        return True


def planar(x: float, y: float, yaw: float) -> Array:
    """Returns the pose (4, 4) of a robot on the floor."""
    half = yaw / 2
    return pose_matrix(np.array([x, y, 0.0]), np.array([0.0, 0.0, math.sin(half), math.cos(half)]))


def taught_drive(bag: Path, world: World, seed: int, metres: float, rear: bool = False) -> Taught:
    """Drives through a home by its geometry, and records it, with a camera that looks back or without.

    Raises:
        SourceError: the bag exists, or cannot be written.
    """
    simulator, expert = Simulator(world, seed), Expert(seed, _KEEPS_M)
    true, said, views = [], [], []

    def driver(now: Simulator) -> tuple[float, float]:
        m, o = now.motion, now.odometry.motion
        true.append((m.x, m.y, m.yaw))
        said.append((o.x, o.y, o.yaw))
        views.append(small(now.image()))
        speed, turn_rate = expert(now)
        slower = min(1.0, _TAUGHT_M_S / max(speed, 1e-6))
        return speed * slower, turn_rate * slower

    images = round(10 * metres / (0.8 * _TAUGHT_M_S))
    write_drive(bag, simulator, driver, images, depth="", rear=rear)
    return Taught(world, np.array(true), np.array(said), np.array(views))


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


def start_of(
    taught: Taught,
    world: World,
    seed: int,
    walkers: int = 0,
    moving_doors: bool = False,
    box: bool = False,
    backwards: bool = False,
) -> Simulator:
    """Returns a robot on the way, about in its direction, with other noise and other odometry.

    Args:
        taught: the way; the robot begins in its first 60 percent, before a box in its first 30, backwards
            in its last 60.
        world: on another day.
        seed: of the robot.
        walkers: people who walk about.
        moving_doors: doors open and shut.
        box: put a crate on the way that it is to go, 1.5 to 3 m away.
        backwards: the robot is to drive back.

    Raises:
        ConfigError: there is no room for it.
    """
    rng = np.random.default_rng((seed, 27))
    starts = round((_START_BEFORE_BOX if box else _START) * len(taught.true))
    for _ in range(_STARTS_TRIED):
        i = int(rng.integers(0, starts))
        i = len(taught.true) - 1 - i if backwards else i
        x, y, yaw = taught.true[i] + rng.normal(0, (0.05, 0.05, 0.1))
        if world.is_free((x, y), 0.25):
            on = taught.true[i::-1] if backwards else taught.true[i:]
            here = _with_box(on[:, :2], world, rng) if box else world
            if here is None:
                continue
            return Simulator(
                here, seed, start=(x, y, yaw), walkers=walkers, moving_doors=moving_doors
            )
    what = "a robot and a box ahead of it" if box else "a robot"
    raise ConfigError(
        f"The way has no place for {what}: use more --metres, or another --first-world"
    )


def _with_box(on: Array, world: World, rng: np.random.Generator) -> World | None:
    """Returns the home with a crate on the way (n, 2) that the robot has to go; None where none fits."""
    ahead = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(on, axis=0).T))])
    near = np.flatnonzero(
        (ahead > _BOX_M[0]) & (ahead < _BOX_M[1]) & (np.hypot(*(on - on[0]).T) > _BOX_M[0])
    )
    if not len(near):
        return None
    at = on[int(rng.choice(near))] + rng.uniform(-_BOX_ASIDE_M, _BOX_ASIDE_M, 2)
    room = world.room_at((float(at[0]), float(at[1])))
    crate = next(filter(None, (homes.crate(rng, room) for _ in range(_STARTS_TRIED))), None)
    if crate is None:
        return None
    low, high = np.array(crate[0].low), np.array(crate[0].high)
    half = (high - low) / 2
    low = np.array([*(at - half[:2]), low[2]])
    box = replace(crate[0], low=tuple(low.tolist()), high=tuple((low + 2 * half).tolist()))
    rooms = (replace(r, boxes=(*r.boxes, box)) if r is room else r for r in world.rooms)
    return replace(world, rooms=tuple(rooms))
