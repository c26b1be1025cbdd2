"""Cells of the earth: squares of quadtrees on the six faces of a cube, as S2 has them.

A face of the cube about the earth's middle is seen from there under 90 degrees each way. Its coordinates are
the angles from the face's middle along its two axes, so that equal steps are nearly equal on the ground (the
equiangular projection of Ronchi, Iacono and Paolucci 1996, S2's "tangent" one): of cells of one level the
largest has 1.41 times the area of the smallest. Edges are parts of great circles. There are no poles and no
date line.

A cell is a row `face level column row`: the face is cut `level` times in half along both axes.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.earth import RADIUS_M

Array = NDArray[np.float64]

MOST_LEVEL = 30  # a side of a centimetre
FACE_M = math.pi / 2 * RADIUS_M  # side of a face, along its middle
_EXACT_M = 1e-6  # nearer than this is within: rounding
_SLACK = 1e-7  # by which the arc cosine of a small angle may be off
# Of each face the outward axis and the two along it, right-handed.
_FACES = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
        [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    ],
    np.float64,
)


def level_of(side_m: float) -> int:
    """Returns the finest level whose cells are at least that large, along the middle of a face."""
    return int(np.clip(math.floor(math.log2(FACE_M / side_m)), 0, MOST_LEVEL))


def squares_of(normals: Array, level: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns of normals (N, 3) the face (N,), and column and row (N, 2) of a level's square there."""
    along = np.asarray(normals, np.float64) @ _FACES[:, 0].T  # (N, 6)
    face = along.argmax(axis=1)
    away = along[np.arange(len(face)), face]
    across = np.einsum("nij,nj->ni", _FACES[face, 1:], normals)
    share = 0.5 + np.arctan2(across, away[:, None]) * (2 / np.pi)
    steps = np.floor(share * 2.0**level).astype(np.int64)
    return face, np.clip(steps, 0, (1 << level) - 1)


class EarthCells:
    """Some cells of the earth.

    Args:
        cells: integers (K, 4): face, level, column, row.

    Attributes:
        cells: as given.
        centres: normals (K, 3).
        corners: normals (K, 4, 3), counter-clockwise as seen from above.
        edges: (K, 4, 3), unit vectors: positive within, along the edge from each corner to the next.
        sides_m: (K,), mean length of the edges.
    """

    def __init__(self, cells: NDArray[np.int64]) -> None:
        self.cells = np.asarray(cells, np.int64).reshape(-1, 4)
        face, size = self.cells[:, 0], np.exp2(-self.cells[:, 1].astype(np.float64))
        axes = _FACES[face]

        def at(column: float, row: float) -> Array:
            share = (self.cells[:, 2:] + (column, row)) * size[:, None]
            u = np.tan((share - 0.5) * (np.pi / 2))
            points = axes[:, 0] + u[:, :1] * axes[:, 1] + u[:, 1:] * axes[:, 2]
            return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))

        self.centres = at(0.5, 0.5)
        self.corners = np.stack([at(*c) for c in ((0, 0), (1, 0), (1, 1), (0, 1))], axis=1)
        following = np.roll(self.corners, -1, axis=1)
        # Not from the corners: of a cell of a metre their cross product has few digits left.
        self.edges = self._edges(axes, size)
        chords = np.linalg.norm(following - self.corners, axis=2)
        self.sides_m = (2 * RADIUS_M * np.arcsin(chords / 2)).mean(axis=1)

    def _edges(self, axes: Array, size: Array) -> Array:
        found = []
        # Low row, high column, high row, low column
        for axis, end in ((2, 0), (1, 1), (2, 1), (1, 0)):
            angle = ((self.cells[:, axis + 1] + end) * size - 0.5) * (np.pi / 2)
            sign = 1.0 - 2 * end
            found.append(
                sign
                * (np.cos(angle)[:, None] * axes[:, axis] - np.sin(angle)[:, None] * axes[:, 0])
            )
        return np.stack(found, axis=1)

    @functools.cached_property
    def _ends(self) -> tuple[Array, Array]:
        """Of each edge the planes across its two ends, positive between them."""
        following = np.roll(self.corners, -1, axis=1)
        return np.cross(self.edges, self.corners), np.cross(following, self.edges)

    def distances(self, normals: Array) -> Array:
        """Returns how far normals (N, 3) are from the cells (N, K), metres; 0 in a cell."""
        count = len(self.cells)
        of = np.tile(np.arange(count), len(normals))
        return self._away(np.repeat(normals, count, axis=0), of).reshape(len(normals), count)

    def nearest(self, normals: Array) -> tuple[NDArray[np.int64], Array]:
        """Returns of normals (N, 3) the nearest cell (N,), of equal ones the first, and how far it is."""
        angle = np.arccos(np.clip(normals @ self.centres.T, -1, 1))
        chords = np.linalg.norm(self.corners - self.centres[:, None], axis=2).max(axis=1)
        radius = 2 * np.arcsin(chords / 2) + _SLACK
        rows, of = np.nonzero(angle - radius <= (angle + radius).min(axis=1, keepdims=True))
        away = self._away(normals[rows], of)
        order = np.lexsort((of, away, rows))
        first = order[np.searchsorted(rows[order], np.arange(len(normals)))]
        return of[first], away[first]

    def _away(self, normals: Array, of: NDArray[np.int64]) -> Array:
        """Returns how far each of M normals (M, 3) is from one cell (M,), metres."""
        depth = _times(self.edges[of], normals)
        beside = (_times(self._ends[0][of], normals) >= 0) & (
            _times(self._ends[1][of], normals) >= 0
        )
        chords = np.linalg.norm(normals[:, None] - self.corners[of], axis=2)
        to_corner = 2 * np.arcsin(np.minimum(chords / 2, 1.0))
        to_edge = np.arcsin(np.minimum(np.abs(depth), 1.0))
        metres = RADIUS_M * np.where(beside, to_edge, to_corner).min(axis=1)
        metres[(depth >= 0).all(axis=1) | (metres < _EXACT_M)] = 0.0
        return np.asarray(metres)


def _times(vectors: Array, normals: Array) -> Array:
    """Returns the products (M, 4) of (M, 4, 3) and (M, 3)."""
    return np.asarray(np.einsum("mei,mi->me", vectors, normals))
