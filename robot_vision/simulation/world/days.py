"""Another day in the same home: furniture moved, pictures changed, boxes left about, other light."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_vision.simulation.world import homes
from robot_vision.simulation.world.world import Box, Room, World

_ATTEMPTS = 20
_AT_WALL_M = 0.02


@dataclass(frozen=True)
class DayChanges:
    """How much a home changes from one day to the next.

    Attributes:
        furniture: share of the pieces that stand elsewhere in their room.
        panels: share of the pictures, windows and boards that another hangs in place of.
        boxes: crates in a room, at most, that stand there today only.
        light: standard deviation of the logarithm of a lamp's strength, about that of the plan.
        colour: and of the balance of red against blue.
    """

    furniture: float = 0.15
    panels: float = 0.15
    boxes: int = 2
    light: float = 0.3
    colour: float = 0.1


def next_day(
    home: World, plan: World, rng: np.random.Generator, changes: DayChanges
) -> tuple[World, World]:
    """Returns the home of the next day, and how it looks today.

    Args:
        home: with the furniture and the pictures of yesterday.
        plan: the home as it was made: lamps vary about its, and do not drift.
        rng: of the changes.
        changes: how much.

    Returns:
        The home without today's crates, to go on from; and with them, in today's light. A disc of 0.3 m
        still reaches what it reached.
    """
    for index in range(len(home.rooms)):
        home = _rearranged(home, index, rng, changes.furniture)
    rooms = [
        replace(room, panels=tuple(
            replace(panel, finish=homes.picture(rng)) if rng.random() < changes.panels else panel
            for panel in room.panels
        ))
        for room in home.rooms
    ]  # fmt: skip
    home = replace(home, rooms=tuple(rooms))
    today = home
    for index, planned in enumerate(plan.rooms):
        strength = np.exp(rng.normal(0, changes.light))
        warmth = rng.normal(0, changes.colour)
        r, g, b = planned.light
        light = (r * strength * (1 + warmth), g * strength, b * strength * (1 - warmth))
        today = _with(today, index, replace(today.rooms[index], light=light))
        for _ in range(int(rng.integers(changes.boxes + 1))):
            crate = homes.crate(rng, today.rooms[index])
            if crate is not None:
                room = today.rooms[index]
                wanted = _with(today, index, replace(room, boxes=(*room.boxes, *crate)))
                if not homes.overlaps(crate, room) and homes.connected(wanted):
                    today = wanted
    return home, today


def days_of_home(seed: int) -> Iterator[World]:
    """Yields the home of a seed as it looks each day, without an end; the first is `homes.random_home`."""
    plan = home = homes.random_home(seed)
    rng = np.random.default_rng((seed, 77))
    yield plan
    while True:
        home, today = next_day(home, plan, rng, DayChanges())
        yield today


def pieces(room: Room) -> list[tuple[Box, ...]]:
    """Returns the room's furniture: boxes that stand on, under or in one another move together."""
    found: list[list[Box]] = []
    for box in room.boxes:
        mine = [
            piece for piece in found if homes.overlaps((box,), replace(room, boxes=tuple(piece)))
        ]
        found = [piece for piece in found if piece not in mine]
        found.append([*(b for piece in mine for b in piece), box])
    return [tuple(piece) for piece in found]


def _rearranged(world: World, index: int, rng: np.random.Generator, share: float) -> World:
    for piece in pieces(world.rooms[index]):
        if rng.random() >= share:
            continue
        for _ in range(_ATTEMPTS):
            room = world.rooms[index]
            moved = _moved(piece, room, rng)
            others = replace(room, boxes=tuple(box for box in room.boxes if box not in piece))
            wanted = _with(world, index, replace(others, boxes=(*others.boxes, *moved)))
            if not homes.overlaps(moved, others) and homes.connected(wanted):
                world = wanted
                break
    return world


def _moved(piece: Sequence[Box], room: Room, rng: np.random.Generator) -> tuple[Box, ...]:
    """Returns a piece elsewhere in its room; what stands at a wall stays at that wall."""
    low = np.min([box.low[:2] for box in piece], axis=0)
    high = np.max([box.high[:2] for box in piece], axis=0)
    offset = rng.uniform(np.array(room.low) - low, np.array(room.high) - high)
    at_wall = (low - room.low < _AT_WALL_M) | (np.array(room.high) - high < _AT_WALL_M)
    if at_wall.any():
        offset[int(at_wall.argmax())] = 0.0
    dx, dy = (float(value) for value in offset)
    return tuple(
        replace(
            box,
            low=(box.low[0] + dx, box.low[1] + dy, box.low[2]),
            high=(box.high[0] + dx, box.high[1] + dy, box.high[2]),
        )
        for box in piece
    )


def _with(world: World, index: int, room: Room) -> World:
    return replace(world, rooms=tuple(room if i == index else r for i, r in enumerate(world.rooms)))
