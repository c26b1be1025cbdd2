"""Ways over a distance map, for those who see the geometry."""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.world.obstacles import DistanceMap

_CELL = 2  # cells of the distance map along a side of a planner's cell
_COMFORT_M = 0.35  # nearer than this, besides the clearance, a way costs more
_PRICE = 6.0  # of a metre along a wall, in metres


class Plan:
    """The cheapest way to a place from everywhere: Dijkstra's algorithm over the distance map.

    Args:
        free: distances of the world.
        clearance_m: that a way keeps at least.
        goal: (x, y).

    Attributes:
        cost: (rows, columns) metres to the goal, with a price for what is near; infinite where no way is.
    """

    def __init__(self, free: DistanceMap, clearance_m: float, goal: NDArray[np.float64]) -> None:
        self._free = free
        distance = _coarse(free.distance)
        room = distance >= clearance_m
        near = np.clip(1 - (distance - clearance_m) / _COMFORT_M, 0, 1)
        price = (1 + _PRICE * near**2) * free.resolution_m * _CELL
        self.cost: NDArray[np.float64] = np.full(distance.shape, np.inf)
        self._next = np.full((*distance.shape, 2), -1)
        start = self.cell(goal)
        self.cost[start] = 0.0
        heap = [(0.0, start)]
        steps = [(i, j, math.hypot(i, j)) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        rows, columns = distance.shape
        while heap:
            cost, (r, c) = heapq.heappop(heap)
            if cost > self.cost[r, c]:
                continue
            for i, j, length in steps:
                a, b = r + i, c + j
                if not (0 <= a < rows and 0 <= b < columns and room[a, b]):
                    continue
                there = cost + length * price[a, b]
                if there < self.cost[a, b]:
                    self.cost[a, b] = there
                    self._next[a, b] = r, c
                    heapq.heappush(heap, (there, (a, b)))

    def cell(self, xy: NDArray[np.float64]) -> tuple[int, int]:
        """Returns the planner's cell of a point."""
        (row,), (column,) = self._free.cells(xy)
        return int(row) // _CELL, int(column) // _CELL

    def way(self, xy: NDArray[np.float64], length_m: float) -> NDArray[np.float64]:
        """Returns the next points (n, 2) of the way, up to a length; empty where none is near."""
        at = self.cell(xy)
        if not np.isfinite(self.cost[at]):  # too near to something: the nearest cell that is not
            rows, columns = np.nonzero(np.isfinite(self.cost))
            if not len(rows):
                return np.zeros((0, 2))
            i = int(((rows - at[0]) ** 2 + (columns - at[1]) ** 2).argmin())
            at = int(rows[i]), int(columns[i])
        cells = [at]
        for _ in range(math.ceil(length_m / (self._free.resolution_m * _CELL))):
            r, c = self._next[cells[-1]]
            if r < 0:
                break
            cells.append((int(r), int(c)))
        rows_columns = np.array(cells).T * _CELL + (_CELL - 1) / 2
        return self._free.points((rows_columns[0], rows_columns[1]))


def _coarse(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the least distance in each cell of the planner."""
    rows, columns = (-(-n // _CELL) * _CELL for n in distance.shape)
    padded = np.zeros((rows, columns), np.float32)
    padded[: distance.shape[0], : distance.shape[1]] = distance
    return padded.reshape(rows // _CELL, _CELL, columns // _CELL, _CELL).min(axis=(1, 3))
