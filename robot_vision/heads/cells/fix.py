"""Latitude and longitude of an answer, with how far it may be from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.earth import (
    degrees_of_east_north,
    degrees_of_normals,
    east_north_up,
    parsed_datum,
)
from robot_vision.heads.cells.answer import CellsAnswer
from robot_vision.heads.cells.ground import Earth

SURE = 0.5  # of the probability in the peak: with less it is more likely elsewhere


@dataclass(frozen=True)
class Fix:
    """Where the camera most probably is.

    Attributes:
        lat_deg: north, WGS 84.
        lon_deg: east.
        covariance: (2, 2), east and north, m^2: the mean square of the distance from there, along the ground,
            over all cells. With two peaks it reaches from the one to the other.
        sure: whether half of the probability is in the most probable cell and what touches it.
    """

    lat_deg: float
    lon_deg: float
    covariance: NDArray[np.float64]
    sure: bool


def fix_of(answer: CellsAnswer, datum: str) -> Fix | None:
    """Returns the centre of the most probable cell.

    Args:
        answer: of cells on the earth, or of a map whose x is east and whose y is north.
        datum: latitude,longitude of that map's origin; empty where nobody knows it, and then there is no fix.
    """
    ground, centre = answer.ground, answer.centre
    if isinstance(ground, Earth):
        lat, lon = degrees_of_normals(centre[None])
        east, north, _ = east_north_up(centre)
        across = np.stack((ground.centres @ east, ground.centres @ north), axis=1)
        length = np.linalg.norm(across, axis=1, keepdims=True)
        # As far as along the ground, in that direction: the tangent plane itself ends after a quarter turn.
        offsets = ground.apart(ground.centres, centre)[:, None] * across / np.maximum(length, 1e-12)
    elif datum:
        lat, lon = degrees_of_east_north(centre[None], parsed_datum(datum))
        offsets = ground.centres - centre
    else:
        return None
    p = answer.probabilities.astype(np.float64)
    covariance = (p * offsets.T) @ offsets + np.eye(2) * (p @ ground.sides_m**2 / 12)
    return Fix(float(lat[0]), float(lon[0]), covariance, answer.peak >= SURE)
