"""Where cells lie, in a plane of the map or on the earth: their places, and what is how far from what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.geometry import squares
from robot_vision.geometry.earth import (
    EARTH,
    apart_m,
    degrees_of_normals,
    normals_of,
    on_earth,
)
from robot_vision.geometry.earth_cells import EarthCells
from robot_vision.geometry.squares import PLANES

Array = NDArray[np.float64]

RADII = (0.5, 1.0, 2.0, 5.0)  # metres
# Street, city, region, country, continent, as in PlaNet
EARTH_RADII = (1e3, 25e3, 200e3, 750e3, 2500e3)
_NEAR_GROUND_M = 100e3


class Ground(ABC):
    """K cells, and places as D numbers: two coordinates in a plane, the normal (3,) on the earth.

    Attributes:
        plane: as the settings call it.
        radii: metres within which answers are counted.
        centres: (K, D).
        sides_m: (K,).
        points: (K, 3), the centres in the map's frame.
    """

    plane: str
    radii: ClassVar[tuple[float, ...]] = RADII
    centres: Array
    sides_m: Array
    points: Array

    @abstractmethod
    def positions(self, xyz: Array) -> Array:
        """Returns places (N, D) of positions (N, 3) in the map's frame; NaN where they are."""

    @abstractmethod
    def distances(self, places: Array) -> Array:
        """Returns how far places (N, D) are from each cell (N, K), metres; 0 in it."""

    @abstractmethod
    def nearest(self, places: Array) -> tuple[NDArray[np.int64], Array]:
        """Returns of places (N, D) the cell (N,) that holds it, else the nearest, and how far (N,)."""

    @abstractmethod
    def apart(self, a: Array, b: Array) -> Array:
        """Returns how far places (..., D) are from each other (...), metres."""

    @abstractmethod
    def expected(self, probabilities: NDArray[Any]) -> Array:
        """Returns the expected place (..., D) of probabilities (..., K)."""

    @abstractmethod
    def text(self, place: Array) -> str:
        """Returns a place (D,) for people."""


class Plane(Ground):
    """Squares along two axes of the map.

    Args:
        plane: the axes.
        corners: (K, 4), metres: low and high corner of each.
    """

    def __init__(self, plane: str, corners: Array) -> None:
        self.plane, self.corners = plane, corners
        self.centres = squares.centres(corners)
        self.sides_m = corners[:, 2] - corners[:, 0]
        self.points = np.zeros((len(corners), 3))
        self.points[:, list(PLANES[plane])] = self.centres

    def positions(self, xyz: Array) -> Array:
        return xyz[:, list(PLANES[self.plane])]

    def distances(self, places: Array) -> Array:
        return squares.distances(places, self.corners)

    def nearest(self, places: Array) -> tuple[NDArray[np.int64], Array]:
        away = self.distances(places)
        return away.argmin(axis=1), away.min(axis=1)

    def apart(self, a: Array, b: Array) -> Array:
        return np.asarray(np.linalg.norm(a - b, axis=-1))

    def expected(self, probabilities: NDArray[Any]) -> Array:
        """See `Ground`: between two peaks it is where nobody is."""
        return np.asarray(np.asarray(probabilities, np.float64) @ self.centres)

    def text(self, place: Array) -> str:
        """Returns coordinates with the names of their axes, such as `x +1.25 y -0.50 m`."""
        first, second = place
        return f"{self.plane[0]} {first:+.2f} {self.plane[1]} {second:+.2f} m"


class Earth(Ground):
    """Cells of the earth, and positions from its middle; heights play no part.

    Args:
        cells: (K, 4): face, level, column, row.
    """

    plane = EARTH
    radii: ClassVar[tuple[float, ...]] = (*RADII, *EARTH_RADII)

    def __init__(self, cells: Array) -> None:
        self.squares = EarthCells(cells.astype(np.int64))
        self.centres, self.sides_m = self.squares.centres, self.squares.sides_m
        self.points = on_earth(self.centres)

    def positions(self, xyz: Array) -> Array:
        """See `Ground`.

        Raises:
            SourceError: one is not near the ground.
        """
        return earth_normals(xyz)

    def distances(self, places: Array) -> Array:
        return self.squares.distances(places)

    def nearest(self, places: Array) -> tuple[NDArray[np.int64], Array]:
        return self.squares.nearest(places)

    def apart(self, a: Array, b: Array) -> Array:
        """See `Ground`: along a great circle."""
        return apart_m(a, b)

    def expected(self, probabilities: NDArray[Any]) -> Array:
        """See `Ground`: the direction of the mean of the normals; of opposite places the most probable."""
        p = np.asarray(probabilities, np.float64)
        mean = p @ self.centres
        length = np.linalg.norm(mean, axis=-1, keepdims=True)
        best = self.centres[p.argmax(axis=-1)]
        return np.where(length > 1e-9, mean / np.maximum(length, 1e-9), best)

    def text(self, place: Array) -> str:
        """Returns latitude and longitude, such as `52.27660 N 7.43470 E`."""
        lat, lon = (float(v) for v in degrees_of_normals(place))
        return f"{abs(lat):.5f} {'NS'[lat < 0]} {abs(lon):.5f} {'EW'[lon < 0]}"


def earth_normals(xyz: Array) -> Array:
    """Returns the normals (N, 3) of positions (N, 3) from the middle of the earth; NaN where they are.

    Raises:
        SourceError: one is not near the ground: it is in another frame.
    """
    radius = np.linalg.norm(xyz, axis=1)
    far = radius < 1e6  # nowhere near: no normal is asked for there
    found, height = normals_of(np.where(far[:, None], np.nan, xyz))
    wrong = np.flatnonzero(far | (np.abs(height) > _NEAR_GROUND_M))
    if len(wrong):
        raise SourceError(
            f"{len(wrong)} of {len(xyz)} positions are not on the ground of the earth, such as "
            f"{np.round(xyz[wrong[0]], 2).tolist()} m: cells on the earth take positions from its middle, "
            f"which data have with the option datum: {EARTH}"
        )
    return found


def ground_of(plane: str, cells: Array) -> Ground:
    """Returns the ground of cells (K, 4): corners of squares, or face, level, column and row."""
    return Earth(cells) if plane == EARTH else Plane(plane, cells)
