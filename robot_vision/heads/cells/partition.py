"""Adaptive cells: a quadtree over the positions of the training images (PlaNet, Weyand et al. 2016).

The paper divides the sphere (S2 cells); here it is a plane of the map, in metres, or the six faces of a cube
about the earth. Cells are small where many images were taken and large where few were, so that each class has
about as many images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.earth_cells import level_of, squares_of
from robot_vision.geometry.squares import PLANES

Array = NDArray[np.float64]


def divide(
    positions: Array, most: int, least: int, smallest_m: float
) -> tuple[Array, NDArray[np.int64]]:
    """Divides the plane into squares, each of which holds a position.

    A square is quartered while it holds more than `most` positions and is larger than the smallest. Squares
    with fewer than `least` are left out (section 3.1). All corners are multiples of the smallest side, so
    that equal positions give equal cells, and cells touch without gaps of rounding.

    Args:
        positions: (N, 2), metres.
        most: positions in a square that is not quartered.
        least: positions in a cell, at least 1.
        smallest_m: side that is not quartered.

    Returns:
        Cells (K, 4), metres: low corner, high corner, which is no part of the cell. Positions in each (K,).
    """
    if not len(positions):
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    steps = np.floor(np.asarray(positions, np.float64) / smallest_m).astype(np.int64)
    low = steps.min(axis=0)
    side = 1 << int((steps.max(axis=0) - low).max()).bit_length()
    cells = _quartered(steps, low, side, most, least)
    corners = np.concatenate([cells[:, :2], cells[:, :2] + cells[:, 2:3]], axis=1)
    return corners * smallest_m, cells[:, 3]


def divide_earth(
    normals: Array, most: int, least: int, smallest_m: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides the earth in the same way, from the six faces of the cube down.

    Args:
        normals: (N, 3), see `geometry.earth`.
        most: as above.
        least: as above.
        smallest_m: side, along the middle of a face, that is not quartered; near its corners it is less.

    Returns:
        Cells (K, 4): face, level, column and row. Positions in each (K,).
    """
    finest = level_of(smallest_m)
    faces, steps = squares_of(normals, finest)
    found, counts = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.int64)]
    for face in np.unique(faces).tolist():
        cells = _quartered(steps[faces == face], np.zeros(2, np.int64), 1 << finest, most, least)
        size = cells[:, 2]
        level = finest - np.round(np.log2(size)).astype(np.int64)
        place = cells[:, :2] // size[:, None]
        found.append(np.column_stack([np.full(len(cells), face), level, place]))
        counts.append(cells[:, 3])
    return np.concatenate(found), np.concatenate(counts)


def _quartered(
    steps: NDArray[np.int64], low: NDArray[np.int64], side: int, most: int, least: int
) -> NDArray[np.int64]:
    """Returns column, row, side and positions of the squares (K, 4) of steps (N, 2) in one square."""
    found: list[tuple[int, int, int, int]] = []
    todo = [(int(low[0]), int(low[1]), side, np.arange(len(steps)))]
    while todo:  # the last one first, so quarters come in the reverse of their order
        x, y, size, inside = todo.pop()
        if len(inside) < max(least, 1):
            continue
        if len(inside) <= most or size == 1:
            found.append((x, y, size, len(inside)))
            continue
        half = size // 2
        right = steps[inside, 0] >= x + half
        upper = steps[inside, 1] >= y + half
        todo += [
            (x + half * i, y + half * j, half, inside[(right == i) & (upper == j)])
            for j in (1, 0)
            for i in (1, 0)
        ]
    return np.array(found, np.int64).reshape(-1, 4)


def widest(positions: Array) -> str:
    """Returns the plane of the two axes along which positions (N, 3) spread most; of equal ones the first."""
    spread = np.std(positions, axis=0)
    return max(PLANES, key=lambda plane: float(spread[list(PLANES[plane])].sum()))


class Grid:
    """A grid of equal squares over cells, and what of each cell's probability lies in each square.

    Its side is that of the smallest cell, doubled until there are at most `MOST` squares; a cell is then
    either a whole number of squares, or within one.

    Args:
        cells: (K, 4), metres.

    Attributes:
        resolution_m: side of a square.
        origin: (2,), low corner of the first one.
        shape: rows along the second axis, columns along the first.
    """

    MOST = 1_000_000

    def __init__(self, cells: Array) -> None:
        low, high = cells[:, :2].min(axis=0), cells[:, 2:].max(axis=0)
        side = float((cells[:, 2:] - cells[:, :2]).min())
        while np.prod(np.ceil((high - low) / side - 1e-6)) > self.MOST:
            side *= 2
        width, height = np.ceil((high - low) / side - 1e-6).astype(int).tolist()
        self.resolution_m, self.origin, self.shape = side, low, (height, width)
        squares: list[NDArray[np.int64]] = []
        first = np.floor((cells[:, :2] - low) / side + 1e-6).astype(int)
        end = np.ceil((cells[:, 2:] - low) / side - 1e-6).astype(int)
        for (x, y), (right, top) in zip(first.tolist(), end.tolist(), strict=True):
            rows, columns = np.mgrid[y:top, x:right]
            squares.append((rows * width + columns).reshape(-1))
        counts = [len(own) for own in squares]
        self._square = np.concatenate(squares)
        self._cell = np.repeat(np.arange(len(cells)), counts)
        self._share = 1.0 / np.repeat(counts, counts)
        self._outside = np.ones(height * width, bool)
        self._outside[self._square] = False

    def masses(self, probabilities: NDArray[np.floating]) -> Array:
        """Returns the probability (rows, columns) in each square, of those (K,) of the cells."""
        share = np.asarray(probabilities, np.float64)[self._cell] * self._share
        return np.bincount(self._square, share, len(self._outside)).reshape(self.shape)

    def occupancy(self, probabilities: NDArray[np.floating]) -> NDArray[np.int8]:
        """Returns int8 (rows, columns): 100 in the densest square, others in proportion, -1 for none."""
        mass = self.masses(probabilities)
        highest = float(mass.max())
        scaled = np.rint(mass * (100.0 / highest if highest > 0 else 0.0)).astype(np.int8)
        scaled[self._outside.reshape(self.shape)] = -1
        return scaled
