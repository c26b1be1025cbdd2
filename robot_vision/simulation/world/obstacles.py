"""What a robot can hit: distances, a map of them, and what a laser scanner would measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.simulation.world.world import SIDES, Box, Door, Room, World

Points = NDArray[np.float64]
ROBOT_HEIGHT_M = 0.5
RESOLUTION_M = 0.05


class Obstacles:
    """Walls and furniture as rectangles in the plane; a wall has no thickness.

    Args:
        world: the rooms.
        height_m: of the robot; what hangs higher is no obstacle.

    Attributes:
        low: (n, 2) corners of smallest x and y, map frame.
        high: (n, 2) the others.
    """

    def __init__(self, world: World, height_m: float = ROBOT_HEIGHT_M) -> None:
        found = [*_walls(world), *_boxes(world, height_m)]
        self.low: Points = np.array([low for low, _ in found], float).reshape(-1, 2)
        self.high: Points = np.array([high for _, high in found], float).reshape(-1, 2)

    def with_boxes(self, low: ArrayLike, high: ArrayLike) -> Obstacles:
        """Returns these and further rectangles from corners (m, 2) to corners (m, 2)."""
        return Obstacles.of(
            np.concatenate([self.low, np.reshape(low, (-1, 2))]),
            np.concatenate([self.high, np.reshape(high, (-1, 2))]),
        )

    @staticmethod
    def of(low: ArrayLike, high: ArrayLike) -> Obstacles:
        """Returns rectangles from corners (n, 2) to corners (n, 2) alone."""
        found = object.__new__(Obstacles)
        found.low, found.high = np.reshape(low, (-1, 2)), np.reshape(high, (-1, 2))
        return found

    def clearance(self, xy: ArrayLike) -> float:
        """Returns the metres from a point (x, y) to what is nearest; 0 inside it."""
        point = np.asarray(xy, float)
        gap = np.maximum(np.maximum(self.low - point, point - self.high), 0)
        return float(np.sqrt((gap * gap).sum(axis=1).min()))

    def nearest(self, xy: ArrayLike) -> Points:
        """Returns the nearest point (2,) of all obstacles."""
        point = np.asarray(xy, float)
        points = np.clip(point, self.low, self.high)
        return np.asarray(points[((points - point) ** 2).sum(axis=1).argmin()])

    def scan(
        self, xy: ArrayLike, angles: ArrayLike, range_max_m: float = 10.0
    ) -> NDArray[np.float64]:
        """Returns how far a ray gets in each direction.

        Args:
            xy: (2,) where all rays start, or (m, 2) where each does, map frame.
            angles: (m,) directions in the map, radians from +x to +y.
            range_max_m: infinity stands for what is farther.

        Returns:
            (m,) metres.
        """
        start, turn = np.asarray(xy, float).reshape(-1, 2), np.asarray(angles, float)
        gap = np.maximum(self.low - start.max(axis=0), start.min(axis=0) - self.high)
        near = gap.max(axis=1) <= range_max_m  # the others no ray reaches
        low, high = self.low[near], self.high[near]
        spans = []
        for axis, direction in enumerate((np.cos(turn), np.sin(turn))):
            direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction)[:, None]
            to_low = (low[:, axis] - start[:, axis, None]) / direction  # (m, n)
            to_high = (high[:, axis] - start[:, axis, None]) / direction
            spans.append((np.minimum(to_low, to_high), np.maximum(to_low, to_high)))
        enters = np.maximum(spans[0][0], spans[1][0])
        leaves = np.minimum(spans[0][1], spans[1][1])
        hit = (leaves >= enters) & (leaves >= 0)
        nearest = np.where(hit, np.maximum(enters, 0), np.inf).min(axis=1, initial=np.inf)
        return np.where(nearest <= range_max_m, nearest, np.inf)


def _walls(world: World) -> Sequence[tuple[ArrayLike, ArrayLike]]:
    """Returns the ends of every piece of wall, and of the posts of doors."""
    found = []
    for room in world.rooms:
        for side in SIDES:
            axis = int(side in ("east", "west"))
            at = (room.high if side in ("north", "east") else room.low)[1 - axis]
            cuts = [room.low[axis]]
            for door in world.openings(room, side):
                cuts += [door.low[axis], door.high[axis]]
            cuts.append(room.high[axis])
            for a, b in zip(cuts[::2], cuts[1::2], strict=True):
                found.append(((a, at), (b, at)) if axis == 0 else ((at, a), (at, b)))
    for door in world.doors:
        for post in (door.low[door.axis], door.high[door.axis]):
            low, high = list(door.low), list(door.high)
            low[door.axis] = high[door.axis] = post
            found.append(((low[0], low[1]), (high[0], high[1])))
    return found


def _boxes(world: World, height_m: float) -> Sequence[tuple[ArrayLike, ArrayLike]]:
    boxes: list[Box] = [box for room in world.rooms for box in room.boxes]
    return [(box.low[:2], box.high[:2]) for box in boxes if box.low[2] < height_m]


@dataclass(frozen=True)
class DistanceMap:
    """The distance from each cell of a grid to what a robot can hit.

    Attributes:
        origin: (x, y) of the corner of smallest x and y, map frame.
        distance: float32 (rows, columns), metres from a cell's centre, to within 6 cm; 0 where something
            is. Rows go along y.
        resolution_m: side of a cell.
    """

    origin: Points
    distance: NDArray[np.float32]
    resolution_m: float = RESOLUTION_M

    @staticmethod
    def of(world: World, height_m: float = ROBOT_HEIGHT_M) -> DistanceMap:
        """Returns the map of a world for a robot of some height."""
        low, high = world.bounds()
        origin = low - RESOLUTION_M
        columns, rows = np.ceil((high - origin) / RESOLUTION_M).astype(int) + 1
        free = np.zeros((rows, columns), np.uint8)
        places: list[Room | Door] = [*world.rooms, *world.doors]
        for place in places:
            _fill(free, origin, place.low, place.high, 1, grow=0.0)
        for box_low, box_high in _boxes(world, height_m):
            _fill(free, origin, box_low, box_high, 0, grow=RESOLUTION_M / 2)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        half = np.maximum(distance - 0.5, 0) * RESOLUTION_M
        return DistanceMap(origin, half.astype(np.float32))

    def cells(self, points: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Returns rows and columns of points (n, 2), the nearest ones for those outside."""
        at = np.floor((np.reshape(points, (-1, 2)) - self.origin) / self.resolution_m)
        rows, columns = self.distance.shape
        return (
            np.clip(at[:, 1], 0, rows - 1).astype(np.intp),
            np.clip(at[:, 0], 0, columns - 1).astype(np.intp),
        )

    def points(self, cells: tuple[Any, ...]) -> Points:
        """Returns the centres (n, 2) of cells: their rows and their columns."""
        rows, columns = cells
        at = np.stack([np.asarray(columns, float), np.asarray(rows, float)], axis=-1)
        return np.asarray(self.origin + (at + 0.5) * self.resolution_m)

    def components(self, clearance_m: float) -> tuple[NDArray[np.int32], int]:
        """Returns which connected part each cell is in where there is room, 0 elsewhere; and the largest."""
        room = (self.distance >= clearance_m).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(room, connectivity=8)
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else 0
        return labels.astype(np.int32, copy=False), largest


def _fill(
    grid: NDArray[np.uint8],
    origin: Points,
    low: ArrayLike,
    high: ArrayLike,
    value: int,
    grow: float,
) -> None:
    """Sets the cells whose centres are in a rectangle, grown by some metres."""
    a = np.ceil((np.asarray(low) - grow - origin) / RESOLUTION_M - 0.5 - 1e-9).astype(int)
    b = np.floor((np.asarray(high) + grow - origin) / RESOLUTION_M - 0.5 + 1e-9).astype(int)
    grid[max(a[1], 0) : b[1] + 1, max(a[0], 0) : b[0] + 1] = value
