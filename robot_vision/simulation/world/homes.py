"""Homes by seed: two to six rooms with other layouts, furniture, textures and light for each seed."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from robot_vision.simulation.world.home import table
from robot_vision.simulation.world.obstacles import DistanceMap
from robot_vision.simulation.world.world import SIDES, Box, Colour, Door, Finish, Panel, Room, World

WALL_M = 0.12  # thickness
_LEAST_M = 2.3  # shortest side of a room
_AREA_M2 = 13.0  # of a room, on average
_PASSAGE_M = 0.3  # every free place is reached by a disc of this radius
_DOOR_MARGIN_M = 0.2  # from a door to the corner of a room
_SECOND_DOOR = 0.35  # share of neighbouring rooms that have a door they would not need

_WALLS = ("plaster", "tiles", "stripes", "bricks", "wallpaper", "wainscot", "panels", "concrete")
_FLOORS = ("checker", "carpet", "concrete", "planks", "runner", "tiles", "terrazzo")
_CEILINGS = ("plaster", "panels", "planks")
_SIDES = (
    "cabinet",
    "drawers",
    "shelf",
    "books",
    "crate",
    "planks",
    "quilt",
    "hazard",
    "plain",
    "fridge",
)
_TOPS = ("plain", "planks", "terrazzo", "crate", "quilt", "plaster")
_PICTURES = ("art", "window", "mirror", "whiteboard", "chart", "pegboard", "screen")

_Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class _Kind:
    """A kind of furniture: ranges of width, depth and height, and whether it stands at a wall."""

    width: tuple[float, float]
    depth: tuple[float, float]
    height: tuple[float, float]
    at_wall: bool = True
    legs: bool = False


_FURNITURE = (
    _Kind((0.6, 1.8), (0.35, 0.6), (0.7, 2.1)),  # cabinets, shelves
    _Kind((1.3, 1.8), (1.9, 2.1), (0.4, 0.55)),  # beds
    _Kind((1.4, 2.2), (0.75, 0.95), (0.4, 0.8)),  # sofas
    _Kind((0.3, 0.6), (0.3, 0.6), (0.3, 0.9)),  # crates, stools at a wall
    _Kind((0.9, 1.6), (0.7, 1.0), (0.7, 0.8), at_wall=False, legs=True),  # tables
    _Kind((0.35, 0.5), (0.35, 0.5), (0.4, 0.9), at_wall=False),  # chairs, poufs
    _Kind((0.5, 1.1), (0.4, 0.8), (0.3, 0.5), at_wall=False),  # low tables, chests
)

_CRATE = _Kind((0.3, 0.7), (0.3, 0.6), (0.3, 1.2), at_wall=False)


def random_home(seed: int) -> World:
    """Returns the home of a seed, at least 0: rooms `room_1`, `room_2`, ... with doors between them.

    A disc of 0.3 m reaches every place where it fits, up to three hundredths of them.
    """
    for attempt in itertools.count():
        rng = np.random.default_rng((seed, 20, attempt))
        world = _bare(rng)
        if len(world.rooms) < 2 or not connected(world):  # too little wall to share with a door
            continue
        for index in range(len(world.rooms)):
            world = _furnished(rng, world, index)
        return replace(world, rooms=tuple(_decorated(rng, world, room) for room in world.rooms))
    raise AssertionError


def _bare(rng: np.random.Generator) -> World:
    count = int(rng.integers(2, 7))
    side = np.sqrt(count * _AREA_M2)
    width, depth = side * rng.uniform(0.85, 1.2), side * rng.uniform(0.85, 1.2)
    places = _split(rng, (0.0, 0.0, float(width), float(depth)), count)
    rooms = tuple(_bare_room(rng, f"room_{i}", place) for i, place in enumerate(places, 1))
    return World(rooms, tuple(_doors(rng, rooms)), rooms[0].name)


def _split(rng: np.random.Generator, whole: _Rectangle, count: int) -> list[_Rectangle]:
    """Cuts the largest room in two until there are enough, or none is large enough."""
    places = [whole]
    while len(places) < count:
        places.sort(key=lambda p: -(p[2] - p[0]) * (p[3] - p[1]))
        x0, y0, x1, y1 = places[0]
        axis = int(y1 - y0 > x1 - x0)
        low, high = (x0, x1) if axis == 0 else (y0, y1)
        least = _LEAST_M + WALL_M / 2
        if high - low < 2 * least:
            break
        at = float(np.clip(low + (high - low) * rng.uniform(0.3, 0.7), low + least, high - least))
        a, b = at - WALL_M / 2, at + WALL_M / 2
        places[:1] = (
            [(x0, y0, a, y1), (b, y0, x1, y1)] if axis == 0 else [(x0, y0, x1, a), (x0, b, x1, y1)]
        )
    return places


def _bare_room(rng: np.random.Generator, name: str, place: _Rectangle) -> Room:
    strength, warmth = rng.uniform(0.6, 1.15), rng.uniform(-0.12, 0.12)
    return Room(
        name=name,
        low=place[:2],
        high=place[2:],
        height=float(rng.uniform(2.4, 2.9)),
        wall=_finish(rng, _WALLS, (0.0, 0.45), (0.55, 0.95)),
        floor=_finish(rng, _FLOORS, (0.0, 0.6), (0.3, 0.85)),
        ceiling=_finish(rng, _CEILINGS, (0.0, 0.12), (0.8, 0.97)),
        light=(strength * (1 + warmth), strength, strength * (1 - warmth)),
    )


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return round(255 * r), round(255 * g), round(255 * b)


def _finish(
    rng: np.random.Generator,
    styles: tuple[str, ...],
    saturation: tuple[float, float] = (0.0, 0.9),
    value: tuple[float, float] = (0.15, 0.95),
) -> Finish:
    style = styles[int(rng.integers(len(styles)))]
    return Finish(style, _colour(rng, saturation, value), _colour(rng, saturation, value))


def _doors(rng: np.random.Generator, rooms: tuple[Room, ...]) -> Iterator[Door]:
    """Yields doors so that every room is reached, and a few more."""
    frame = Finish(
        "planks", _colour(rng, (0.0, 0.5), (0.3, 0.9)), _colour(rng, (0, 0.5), (0.2, 0.6))
    )
    pairs = [(i, j) for i in range(len(rooms)) for j in range(i)]
    group = list(range(len(rooms)))
    for index in rng.permutation(len(pairs)):
        i, j = pairs[index]
        spare = rng.random() < _SECOND_DOOR
        shared = _shared_wall(rooms[i], rooms[j])
        if shared is None or (group[i] == group[j] and not spare):
            continue
        axis, at, low, high = shared
        width = float(rng.uniform(0.9, 1.15))
        start = float(rng.uniform(low + _DOOR_MARGIN_M, high - _DOOR_MARGIN_M - width))
        ends = (start, at), (start + width, at + WALL_M)
        corners = ends if axis == 0 else (ends[0][::-1], ends[1][::-1])
        yield Door(corners[0], corners[1], float(rng.uniform(2.0, 2.2)), frame)
        group = [group[j] if g == group[i] else g for g in group]


def _shared_wall(a: Room, b: Room) -> tuple[int, float, float, float] | None:
    """Returns axis, smaller coordinate across, and the extent of a wall with room for a door, or None."""
    for axis in (0, 1):
        for first, second in ((a, b), (b, a)):
            if abs(first.high[1 - axis] + WALL_M - second.low[1 - axis]) < 1e-6:
                low = max(first.low[axis], second.low[axis])
                high = min(first.high[axis], second.high[axis])
                if high - low > 1.2 + 2 * _DOOR_MARGIN_M:
                    return axis, first.high[1 - axis], low, high
    return None


def _furnished(rng: np.random.Generator, world: World, index: int) -> World:
    """Puts furniture into a room, of which none cuts off a part of the home."""
    room = world.rooms[index]
    area = (room.high[0] - room.low[0]) * (room.high[1] - room.low[1])
    for _ in range(int(rng.integers(round(0.25 * area), round(0.55 * area) + 1))):
        kind = _FURNITURE[int(rng.integers(len(_FURNITURE)))]
        boxes = _piece(rng, room, kind)
        if boxes is None or overlaps(boxes, room):
            continue
        wanted = replace(room, boxes=(*room.boxes, *boxes))
        rooms = tuple(wanted if i == index else r for i, r in enumerate(world.rooms))
        if connected(replace(world, rooms=rooms)):
            room, world = wanted, replace(world, rooms=rooms)
    return world


def _piece(rng: np.random.Generator, room: Room, kind: _Kind) -> tuple[Box, ...] | None:
    size = [float(rng.uniform(*kind.width)), float(rng.uniform(*kind.depth))]
    height, side = float(rng.uniform(*kind.height)), SIDES[int(rng.integers(4))]
    if side in ("east", "west"):
        size.reverse()
    free = [room.high[i] - room.low[i] - size[i] for i in (0, 1)]
    if min(free) < 0:
        return None
    x, y = (room.low[i] + free[i] * float(rng.random()) for i in (0, 1))
    if kind.at_wall:
        x = {"east": room.high[0] - size[0], "west": room.low[0]}.get(side, x)
        y = {"north": room.high[1] - size[1], "south": room.low[1]}.get(side, y)
    low, high = (x, y), (x + size[0], y + size[1])
    finish, top = _finish(rng, _SIDES), _finish(rng, _TOPS)
    if kind.legs:
        return table(low, high, height, top)
    return (Box((*low, 0.0), (*high, height), finish, top),)


def crate(rng: np.random.Generator, room: Room) -> tuple[Box, ...] | None:
    """Returns a crate that stands anywhere in a room, perhaps in something else; None in a tiny room."""
    return _piece(rng, room, _CRATE)


def picture(rng: np.random.Generator) -> Finish:
    """Returns what hangs on a wall."""
    return _finish(rng, _PICTURES)


def overlaps(boxes: tuple[Box, ...], room: Room) -> bool:
    """Says whether any of the boxes is above, below or in one of the room's."""
    return any(
        all(a.low[i] < b.high[i] and b.low[i] < a.high[i] for i in (0, 1))
        for a in boxes
        for b in room.boxes
    )


def connected(world: World) -> bool:
    """Says whether a disc gets nearly everywhere where it fits, and through each door."""
    free = DistanceMap.of(world)
    labels, largest = free.components(_PASSAGE_M)
    fits = labels > 0
    doors = np.array([np.add(door.low, door.high) / 2 for door in world.doors]).reshape(-1, 2)
    return bool(
        (labels == largest).sum() >= 0.97 * fits.sum()
        and (labels[free.cells(doors)] == largest).all()
    )


def _decorated(rng: np.random.Generator, world: World, room: Room) -> Room:
    """Hangs pictures on walls, clear of doors and of each other."""
    panels: list[Panel] = []
    for side in SIDES:
        axis = int(side in ("east", "west"))
        taken = [(d.low[axis], d.high[axis]) for d in world.openings(room, side)]
        for _ in range(int(rng.integers(0, 3))):
            width, height = float(rng.uniform(0.5, 1.5)), float(rng.uniform(0.6, 1.2))
            low, high = room.low[axis] + 0.1, room.high[axis] - 0.1 - width
            if high <= low:
                continue
            start = float(rng.uniform(low, high))
            if any(start < b + 0.1 and a - 0.1 < start + width for a, b in taken):
                continue
            taken.append((start, start + width))
            at = start + width / 2
            panels.append(
                Panel(side, at, float(rng.uniform(1.4, 1.6)), width, height, picture(rng))
            )
    return replace(room, panels=tuple(panels))
