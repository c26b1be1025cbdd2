"""A small world as plain data: rooms, doors, furniture, pictures, and how to walk through them.

The map frame has x to the right, y to the top of a floor plan and z up; everything is in metres and parallel
to the axes. `default_world` is the home and workplace of the demo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[int, int, int]  # RGB, 0 to 255
SIDES = ("north", "south", "east", "west")


@dataclass(frozen=True)
class Finish:
    """How a surface is painted.

    Attributes:
        style: a name in `textures.STYLES`.
        colour: the main colour.
        accent: the colour of joints, handles, frames and other details.
    """

    style: str
    colour: Colour
    accent: Colour = (40, 40, 40)


@dataclass(frozen=True)
class Box:
    """A piece of furniture: a box between two corners; its four sides share a finish."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    side: Finish
    top: Finish


@dataclass(frozen=True)
class Panel:
    """A picture, window or board that hangs on a wall.

    Attributes:
        side: the wall, one of `SIDES`.
        along: x (walls north and south) or y (east and west) of its centre.
        z: height of its centre above the floor.
        width: along the wall.
        height: upwards.
        finish: how it is painted.
    """

    side: str
    along: float
    z: float
    width: float
    height: float
    finish: Finish


@dataclass(frozen=True)
class Room:
    """A room: the inside of its walls and what is in it.

    Attributes:
        name: the label of every frame taken in it.
        low: the corner of smallest x and y.
        high: the corner of largest x and y.
        height: of the ceiling.
        wall: finish of the walls.
        floor: finish of the floor.
        ceiling: finish of the ceiling.
        light: colour and strength of its lamp; (1, 1, 1) is a well lit room.
        loop: a walk of points (x, y) around the room; it starts and ends in the corridor before the door.
        boxes: furniture.
        panels: what hangs on the walls.
    """

    name: str
    low: tuple[float, float]
    high: tuple[float, float]
    height: float
    wall: Finish
    floor: Finish
    ceiling: Finish
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    loop: tuple[tuple[float, float], ...] = ()
    boxes: tuple[Box, ...] = ()
    panels: tuple[Panel, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the floor."""
        return (self.low[0] + self.high[0]) / 2, (self.low[1] + self.high[1]) / 2

    def distance(self, xy: ArrayLike) -> float:
        """Metres from a point (x, y) to the room's inside; 0 inside."""
        outside = np.maximum(np.subtract(self.low, xy), np.subtract(xy, self.high))
        return float(np.linalg.norm(np.maximum(outside, 0)))


@dataclass(frozen=True)
class Door:
    """An open doorway from `low` to `high`; it is wider than its wall is thick."""

    low: tuple[float, float]
    high: tuple[float, float]
    height: float
    finish: Finish

    @property
    def axis(self) -> int:
        """Which way its wall runs: 0 along x, 1 along y."""
        return int(self.high[1] - self.low[1] > self.high[0] - self.low[0])


@dataclass(frozen=True)
class World:
    """Rooms and the doors between them.

    Attributes:
        rooms: all rooms; their names are the labels.
        doors: the openings between them.
        corridor: name of the room whose lamp lights the doorways; the demo's is entered from it alone.
    """

    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    corridor: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the rooms, in alphabetical order."""
        return tuple(sorted(room.name for room in self.rooms))

    def room(self, name: str) -> Room:
        """Returns the room of that name."""
        return next(room for room in self.rooms if room.name == name)

    def openings(self, room: Room, side: str) -> list[Door]:
        """Returns the doors in one wall of a room, in order along it; `side` is one of `SIDES`."""
        axis = int(side in ("east", "west"))
        at = (room.high if side in ("north", "east") else room.low)[1 - axis]
        found = [
            door
            for door in self.doors
            if door.axis == axis
            and min(abs(door.low[1 - axis] - at), abs(door.high[1 - axis] - at)) < 1e-6
            and room.low[axis] < door.low[axis] < room.high[axis]
        ]
        return sorted(found, key=lambda door: door.low)

    def room_at(self, xy: ArrayLike) -> Room:
        """Returns the room that holds a point (x, y); in a doorway the nearer one."""
        return min(self.rooms, key=lambda room: room.distance(xy))

    def is_free(self, xy: ArrayLike, margin: float = 0.0) -> bool:
        """Says whether a disc of radius `margin` around (x, y) touches no wall and no furniture.

        A disc in a doorway is tested against its two posts. Boxes that hang above 1.6 m are no obstacle.
        """
        point = np.asarray(xy, dtype=float)
        places: list[Room | Door] = [*self.rooms, *self.doors]
        if not any(self._clear_of_walls(place, point, margin) for place in places):
            return False
        for box in (box for room in self.rooms for box in room.boxes if box.low[2] < 1.6):
            gap = np.maximum(np.subtract(box.low[:2], point), np.subtract(point, box.high[:2]))
            if (gap < 0).all() or np.linalg.norm(np.maximum(gap, 0)) < margin:
                return False
        return True

    @staticmethod
    def _clear_of_walls(place: Room | Door, point: NDArray[np.float64], margin: float) -> bool:
        low, high = np.array(place.low), np.array(place.high)
        if isinstance(place, Door):  # only its posts count: a disc may reach into both rooms
            along = place.axis
            depth = np.zeros(2)
            depth[1 - along] = 2 * margin + 0.01
            low, high = low - depth, high + depth
            low[along] += margin
            high[along] -= margin
            return bool((low <= point).all() and (point <= high).all())
        return bool((point >= low + margin).all() and (point <= high - margin).all())

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the smallest and the largest (x, y) of all rooms."""
        low = np.min([room.low for room in self.rooms], axis=0)
        return low, np.max([room.high for room in self.rooms], axis=0)
