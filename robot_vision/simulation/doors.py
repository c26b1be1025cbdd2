"""Doors that slide into their wall and out of it again, by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.robot import towards
from robot_vision.simulation.world.obstacles import Obstacles
from robot_vision.simulation.world.world import SIDES, Box, Door, World

_THICK_M = 0.04  # of a leaf: its wall is thicker, and hides it
_BEHIND_M = 0.02  # that an open leaf is behind its post
_SPEED_M_S = 0.5
_OPEN_S = (5.0, 15.0)
_SHUT_S = (3.0, 8.0)  # less than after which the referee calls a robot stuck that waits
_BARRIER_M = 0.2  # a door that closes opens again when somebody is as near to the doorway


class SlidingDoor:
    """Stands open and shut in turn, and never closes on anybody; it begins open.

    Args:
        door: its doorway.
        sign: where along its wall it slides, 1 or -1.
        rng: of its times.

    Attributes:
        box: the leaf where it is shut.
    """

    def __init__(self, door: Door, sign: int, rng: np.random.Generator) -> None:
        along, across = door.axis, 1 - door.axis
        low, high = np.array(door.low), np.array(door.high)
        middle = (low[across] + high[across]) / 2
        low[across], high[across] = middle - _THICK_M / 2, middle + _THICK_M / 2
        self._wide_m = float(high[along] - low[along]) + _BEHIND_M
        self._way = np.zeros(2)
        self._way[along] = sign
        self._rng, self._shuts, self._open_m = rng, False, self._wide_m
        self._left_s = float(rng.uniform(0, _OPEN_S[1]))
        (x0, y0), (x1, y1) = low.tolist(), high.tolist()
        self.box = Box((x0, y0, 0.0), (x1, y1, door.height), door.finish, door.finish)

    @property
    def offset(self) -> NDArray[np.float64]:
        """How far (2,) the leaf is from where it is shut, metres."""
        return self._way * self._open_m

    def step(self, bodies: Sequence[tuple[float, float, float]], dt_s: float) -> None:
        """Moves for a moment; bodies have x, y and radius, metres in the map."""
        self._left_s -= dt_s
        if self._left_s <= 0:
            self._turn()
        if self._shuts and self._open_m > 0:
            doorway = Obstacles.of(self.box.low[:2], self.box.high[:2])
            if any(doorway.clearance((x, y)) < radius + _BARRIER_M for x, y, radius in bodies):
                self._turn()
        wanted = 0.0 if self._shuts else self._wide_m
        self._open_m = towards(self._open_m, wanted, _SPEED_M_S * dt_s)

    def _turn(self) -> None:
        self._shuts = not self._shuts
        self._left_s = float(self._rng.uniform(*(_SHUT_S if self._shuts else _OPEN_S)))


def sliding_doors(world: World, seed: int) -> Iterator[SlidingDoor]:
    """Yields the doors of a world whose wall has room for a leaf on a side; the others stay open."""
    seeds = np.random.SeedSequence((seed, 29)).spawn(len(world.doors))
    for door, own in zip(world.doors, seeds, strict=True):
        sign = next((sign for sign in (1, -1) if _fits(world, door, sign)), None)
        if sign is not None:
            yield SlidingDoor(door, sign, np.random.default_rng(own))


def _fits(world: World, door: Door, sign: int) -> bool:
    """Says whether a leaf disappears in the wall to one side: within both rooms', clear of other doors."""
    along = door.axis
    way = (door.high[along] - door.low[along] + _BEHIND_M) * sign
    low, high = door.low[along] + way, door.high[along] + way
    for room in world.rooms:
        for side in SIDES:
            openings = world.openings(room, side)
            if door in openings and not (
                room.low[along] <= low
                and high <= room.high[along]
                and all(o is door or o.high[along] <= low or high <= o.low[along] for o in openings)
            ):
                return False
    return True
