"""What bundle.yaml says of a head of cells."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown
from robot_vision.geometry.earth import EARTH, parsed_datum
from robot_vision.geometry.earth_cells import MOST_LEVEL
from robot_vision.geometry.squares import PLANES
from robot_vision.heads.cells.ground import Ground, ground_of
from robot_vision.settings.checks import require

MOST_CELLS = 65536
MOST_M = 1e8  # of a coordinate


@dataclass(frozen=True)
class CellsSpec:
    """Cells of the map as classes: dropout and a linear layer on the tap's pooled features, then a softmax.

    Attributes:
        corners: of each cell low and high corner along the plane's axes, metres: 4 K numbers, one cell after
            the other (kept in `cells.csv`); on the earth face, level, column and row of each
            (`geometry.earth_cells`).
        images: training images in each (K, kept there too).
        map_frame: frame of the corners.
        plane: axes of the map along which cells lie: `xy` where z is up (REP 103), `xz` where y is; `earth`
            for cells on the earth, whose positions are from its middle.
        datum: latitude,longitude of the map's origin in degrees, where x is east and y is north; empty where
            nobody knows it.
        most_images: a cell with more training images was quartered.
        least_images: a cell with fewer was left out.
        smallest_m: side of a cell that was not quartered.
        tap: the backbone's feature tap; empty for the backbone's default.
        hidden: width of a layer before the last; 0 has none.
        dropout: probability while training.
        temperature: logits are divided by it before the softmax (Guo et al. 2017, eq. 9).
    """

    KIND: ClassVar[str] = "cells"

    corners: tuple[float, ...]
    images: tuple[int, ...]
    map_frame: str = "map"
    plane: str = "xy"
    datum: str = ""
    most_images: int = 0
    least_images: int = 2
    smallest_m: float = 0.25
    tap: str = ""
    hidden: int = 0
    dropout: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        count = len(self.images)
        require(2 <= count <= MOST_CELLS, "number of cells", count, f"from 2 to {MOST_CELLS}")
        numbers = len(self.corners)
        require(numbers == 4 * count, "numbers in corners", numbers, f"{4 * count}: four a cell")
        c = np.reshape(self.corners, (-1, 4))
        fine = (c[:, :2] < c[:, 2:]).all(axis=1) & (np.abs(c) <= MOST_M).all(axis=1)  # NaN is not
        allowed = f"a low corner and then a high one, in metres up to {MOST_M:g}"
        if self.plane == EARTH:
            allowed = f"a face from 0 to 5, a level up to {MOST_LEVEL}, and a column and a row of that level"
            most = np.exp2(np.clip(c[:, 1], 0, MOST_LEVEL))[:, None]
            fine = (c >= 0).all(axis=1) & (c[:, 0] <= 5) & (c[:, 1] <= MOST_LEVEL)
            fine &= (c[:, 2:] < most).all(axis=1) & (c == np.rint(c)).all(axis=1)
        wrong = np.flatnonzero(~fine)
        cell = c[wrong[0]].tolist() if len(wrong) else []
        require(not len(wrong), "cell", cell, allowed)
        require(min(self.images) >= 1, "images in a cell", min(self.images), "at least 1")
        require(bool(self.map_frame), "map_frame", self.map_frame, "a frame's name")
        if self.plane not in (*PLANES, EARTH):
            raise ConfigError(unknown("plane", self.plane, (*PLANES, EARTH)))
        if self.datum:
            parsed_datum(self.datum)
            require(self.plane == "xy", "plane", self.plane, "xy where there is a datum")
        require(self.most_images >= 0, "most_images", self.most_images, "at least 1, or 0")
        require(self.least_images >= 1, "least_images", self.least_images, "at least 1")
        for name in ("smallest_m", "temperature"):
            value = getattr(self, name)
            require(value > 0 and math.isfinite(value), name, value, "positive and finite")
        require(0 <= self.hidden <= 65536, "hidden", self.hidden, "from 0 to 65536")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")

    @functools.cached_property
    def cells(self) -> NDArray[np.float64]:
        """(K, 4), as `corners` has them."""
        found = np.array(self.corners, np.float64).reshape(-1, 4)
        found.flags.writeable = False
        return found

    @functools.cached_property
    def ground(self) -> Ground:
        """Where they lie."""
        return ground_of(self.plane, self.cells)

    @property
    def axes(self) -> tuple[int, int]:
        """The plane's axes among x, y and z of the map; the earth has none."""
        return PLANES[self.plane]
