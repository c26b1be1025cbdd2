"""From a world's data to painted and lit rectangles in space, and one atlas that holds their pixels."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.simulation.world.textures import paint
from robot_vision.simulation.world.world import SIDES, Box, Door, Finish, Room, World

DENSITY = 72.0  # texture pixels a metre
PANEL_GAP = 0.015  # metres that a picture stands off its wall
BORDER = 8  # pixels around each texture, so that coarse levels of the atlas do not mix neighbours
LEVELS = 4  # of the atlas: full size, half, quarter, eighth
SURFACES = ("floor", "wall", "ceiling", "furniture", "picture", "doorway")


@dataclass(frozen=True)
class Rectangle:
    """A painted rectangle in the map, seen from one side.

    A viewer in front of it sees `right` to the right and `down` downwards; the normal that points to that
    viewer is `down x right`.

    Attributes:
        origin: (3,) the top left corner, metres.
        right: (3,) the top edge.
        down: (3,) the left edge.
        finish: how it is painted.
        room: name of the room whose lamp lights it.
        lit: False for what shines itself or must keep its exact colour.
        surface: one of `SURFACES`, or empty.
    """

    origin: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    finish: Finish
    room: str
    lit: bool = True
    surface: str = ""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal towards the side from which it is seen."""
        normal = np.cross(self.down, self.right)
        return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class Atlas:
    """All textures in one image with its coarser levels below each other.

    Attributes:
        image: RGB uint8; level n starts at row `rows[n]` and is 2^n times smaller.
        rows: (LEVELS,) first row of each level.
        places: (rectangles, 4) x, y, width and height of each texture at level 0.
    """

    image: NDArray[np.uint8]
    rows: NDArray[np.float32]
    places: NDArray[np.float32]


def facing(
    side: str,
    low: ArrayLike,
    high: ArrayLike,
    finish: Finish,
    room: str,
    surface: str = "",
) -> Rectangle:
    """Returns one face of the box from `low` to `high`, as seen by a viewer who looks to `side`.

    `north` looks along +y, `east` along +x, `up` along +z. For the walls of a room the viewer stands
    inside and the face is the far one; for furniture pass the near face as a box without depth.
    """
    (x0, y0, z0), (x1, y1, z1) = np.asarray(low, float), np.asarray(high, float)
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    origin, right, down = {
        "north": ((x0, y1, z1), (dx, 0, 0), (0, 0, -dz)),
        "south": ((x1, y0, z1), (-dx, 0, 0), (0, 0, -dz)),
        "east": ((x1, y1, z1), (0, -dy, 0), (0, 0, -dz)),
        "west": ((x0, y0, z1), (0, dy, 0), (0, 0, -dz)),
        "down": ((x0, y1, z0), (dx, 0, 0), (0, -dy, 0)),
        "up": ((x0, y0, z1), (dx, 0, 0), (0, dy, 0)),
    }[side]
    edges = np.array(origin), np.array(right), np.array(down)
    return Rectangle(*edges, finish, room, surface=surface)


def rectangles(world: World) -> list[Rectangle]:
    """Returns every surface of a world."""
    found: list[Rectangle] = []
    for room in world.rooms:
        found += _shell(room, world)
        for box in room.boxes:
            found += box_faces(box, room.name)
        found += _panels(room)
    for door in world.doors:
        found += _doorway(door, world.corridor)
    return found


def _shell(room: Room, world: World) -> Iterator[Rectangle]:
    low, high = (*room.low, 0.0), (*room.high, room.height)
    yield facing("down", low, high, room.floor, room.name, surface="floor")
    yield facing("up", low, high, room.ceiling, room.name, surface="ceiling")
    for side in ("east", "west", "north", "south"):
        # The wall is cut around and above each of its doors.
        axis = int(side in ("east", "west"))
        at = (room.high if side in ("north", "east") else room.low)[1 - axis]

        def piece(
            a: float, b: float, z0: float, side: str = side, axis: int = axis, at: float = at
        ) -> Rectangle:
            ends = [(a, at), (b, at)] if axis == 0 else [(at, a), (at, b)]
            corners = (*ends[0], z0), (*ends[1], room.height)
            return facing(side, *corners, room.wall, room.name, surface="wall")

        start = room.low[axis]
        for door in world.openings(room, side):
            yield piece(start, door.low[axis], 0.0)
            yield piece(door.low[axis], door.high[axis], door.height)
            start = door.high[axis]
        yield piece(start, room.high[axis], 0.0)


def box_faces(box: Box, room: str) -> Iterator[Rectangle]:
    """Yields the faces of a box that can be seen: five on the floor, six above it."""
    (x0, y0, z0), (x1, y1, z1) = box.low, box.high
    side = functools.partial(facing, finish=box.side, room=room, surface="furniture")
    yield side("north", (x0, y0, z0), (x1, y0, z1))  # the near face of each side
    yield side("south", (x0, y1, z0), (x1, y1, z1))
    yield side("east", (x0, y0, z0), (x0, y1, z1))
    yield side("west", (x1, y0, z0), (x1, y1, z1))
    yield side("down", (x0, y0, z1), (x1, y1, z1), finish=box.top)
    if z0 > 0:
        yield side("up", (x0, y0, z0), (x1, y1, z0))


def _panels(room: Room) -> Iterator[Rectangle]:
    for panel in room.panels:
        assert panel.side in SIDES, panel.side
        half, z0, z1 = panel.width / 2, panel.z - panel.height / 2, panel.z + panel.height / 2
        a, b = panel.along - half, panel.along + half
        if panel.side in ("north", "south"):
            y = room.high[1] - PANEL_GAP if panel.side == "north" else room.low[1] + PANEL_GAP
            low, high = (a, y, z0), (b, y, z1)
        else:
            x = room.high[0] - PANEL_GAP if panel.side == "east" else room.low[0] + PANEL_GAP
            low, high = (x, a, z0), (x, b, z1)
        yield facing(panel.side, low, high, panel.finish, room.name, surface="picture")


def _doorway(door: Door, room: str) -> Iterator[Rectangle]:
    low, high = (*door.low, 0.0), (*door.high, door.height)
    posts = ("east", "west") if door.axis == 0 else ("north", "south")
    for side in (*posts, "down", "up"):
        yield facing(side, low, high, door.finish, room, surface="doorway")


def build_atlas(found: list[Rectangle], rooms: dict[str, Room], width: int = 2048) -> Atlas:
    """Paints and lights all rectangles and packs them in rows of an image `width` pixels wide."""
    textures = []
    for rectangle in found:
        key = np.concatenate([rectangle.origin, rectangle.right, rectangle.down]).round(4).tobytes()
        size = np.linalg.norm(rectangle.right), np.linalg.norm(rectangle.down)
        # The seed follows from the place in the world: one more chair leaves all other textures alone.
        image = paint(rectangle.finish, float(size[0]), float(size[1]), DENSITY, zlib.crc32(key))
        if rectangle.lit:
            image = _lit(image, rectangle, rooms[rectangle.room])
        textures.append(np.pad(image, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), "edge"))
    assert max(t.shape[1] for t in textures) <= width
    order = sorted(range(len(textures)), key=lambda i: -textures[i].shape[0])
    places = np.zeros((len(textures), 4), np.float32)
    x = y = shelf = 0
    align = 1 << (LEVELS - 1)
    for i in order:
        h, w = textures[i].shape[:2]
        if x + w > width:
            x, y = 0, y + shelf
            shelf = 0
        places[i] = x + BORDER, y + BORDER, w - 2 * BORDER, h - 2 * BORDER
        x += -(-w // align) * align
        shelf = max(shelf, -(-h // align) * align)
    full = np.zeros((y + shelf, width, 3), np.uint8)
    for texture, (px, py, _, _) in zip(textures, places.astype(int), strict=True):
        h, w = texture.shape[:2]
        full[py - BORDER : py - BORDER + h, px - BORDER : px - BORDER + w] = texture
    levels: list[NDArray[np.uint8]] = [full]
    for _ in range(LEVELS - 1):
        half = cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        levels.append(half.astype(np.uint8, copy=False))
    rows = np.cumsum([0] + [len(level) for level in levels[:-1]])
    wide = [np.pad(level, ((0, 0), (0, width - level.shape[1]), (0, 0))) for level in levels]
    return Atlas(np.concatenate(wide), rows.astype(np.float32), places)


def _lit(image: NDArray[np.uint8], rectangle: Rectangle, room: Room) -> NDArray[np.uint8]:
    """Lights a texture: ambient light, a lamp under the middle of the ceiling, shadows on the floor."""
    h, w = image.shape[:2]
    steps = max(h // 9, 2), max(w // 9, 2)  # light changes slowly: eight values a metre are enough
    t, s = ((np.arange(n) + 0.5) / n for n in steps)
    points = (
        rectangle.origin + s[None, :, None] * rectangle.right + t[:, None, None] * rectangle.down
    )  # (h', w', 3)
    lamp = np.array([*room.centre, room.height - 0.3])
    to_lamp = lamp - points
    distance = np.linalg.norm(to_lamp, axis=2)
    facing_lamp = np.maximum((to_lamp @ rectangle.normal) / distance, 0)
    side = 0.05 * (rectangle.normal @ np.array([0.6, -0.8, 0.0]))  # opposite walls differ a little
    light = 0.55 + side + 1.6 * facing_lamp / (1.2 + distance**2) + 0.25 * (1 - distance / 8)
    if abs(rectangle.normal[2]) > 0.99 and rectangle.origin[2] < 0.01:
        for box in room.boxes:
            gap = np.maximum(box.low[:2] - points[..., :2], points[..., :2] - box.high[:2])
            away = np.linalg.norm(np.maximum(gap, 0), axis=2)
            light *= 1 - 0.45 * np.exp(-((away / 0.18) ** 2))
    coloured = (light[..., None] * room.light).astype(np.float32)
    field = cv2.resize(coloured, (w, h), interpolation=cv2.INTER_LINEAR)
    return np.clip(image * field, 0, 255).astype(np.uint8)
