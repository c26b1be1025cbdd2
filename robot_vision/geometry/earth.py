"""Latitude and longitude, and metres: planes that touch the earth, UTM, and which points are of one town."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

FALSE_NORTHING_M = 1e7
# WGS 84: the greater half axis in metres, the flattening, and the square of the eccentricity.
_A, _F = 6378137.0, 1 / 298.257223563
_E2 = _F * (2 - _F)


def east_north(
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    datum: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Returns metres east and north (N, 2) of a point, on the plane that touches WGS 84 there.

    Exact to a few centimetres within 20 km, across the date line and near the poles too.

    Args:
        lat_deg: (N,).
        lon_deg: (N,).
        datum: latitude and longitude of the point; None for the middle of all.
    """
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    # About the first one: numbers on both sides of the date line are 360 degrees apart.
    lon = lon[0] + (lon - lon[0] + np.pi) % (2 * np.pi) - np.pi
    middle = np.array([(lat.min() + lat.max()) / 2]), np.array([(lon.min() + lon.max()) / 2])
    if datum is not None:
        middle = np.radians(datum[:1]), np.radians(datum[1:])

    def on_earth(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
        n = _A / np.sqrt(1 - _E2 * np.sin(lat) ** 2)
        x, y = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon)
        return np.stack((n * x, n * y, n * (1 - _E2) * np.sin(lat)), axis=-1)

    away = on_earth(lat, lon) - on_earth(*middle)
    (b,), (a,) = middle
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.array([-math.sin(b) * math.cos(a), -math.sin(b) * math.sin(a), math.cos(b)])
    return np.stack((away @ east, away @ north), axis=-1)


def metres_apart(
    lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64], datum: tuple[float, float]
) -> NDArray[np.float64]:
    """Returns about how far points (N,) are from one, in metres along the ground (haversine, a sphere)."""
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    b, a = np.radians(datum)
    square = np.sin((lat - b) / 2) ** 2 + np.cos(lat) * np.cos(b) * np.sin((lon - a) / 2) ** 2
    return np.asarray(2 * _A * np.arcsin(np.sqrt(np.clip(square, 0.0, 1.0))))


def degrees_of_utm(
    zone: NDArray[np.int64],
    south: NDArray[np.bool_],
    east_m: NDArray[np.float64],
    north_m: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns latitude and longitude (N,) of UTM coordinates, by Krueger's series (1912) to a millimetre.

    Args:
        zone: (N,), 1 to 60.
        south: (N,), of the southern half, whose northings count from 10,000 km south of the equator.
        east_m: (N,).
        north_m: (N,).
    """
    n = _F / (2 - _F)
    radius = 0.9996 * _A / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    xi = (north_m - np.where(south, FALSE_NORTHING_M, 0.0)) / radius
    eta = (east_m - 500_000.0) / radius
    betas = (n / 2 - 2 * n**2 / 3 + 37 * n**3 / 96, n**2 / 48 + n**3 / 15, 17 * n**3 / 480)
    xi, eta = (
        xi - sum(b * np.sin(2 * j * xi) * np.cosh(2 * j * eta) for j, b in enumerate(betas, 1)),
        eta - sum(b * np.cos(2 * j * xi) * np.sinh(2 * j * eta) for j, b in enumerate(betas, 1)),
    )
    chi = np.arcsin(np.sin(xi) / np.cosh(eta))
    deltas = (2 * n - 2 * n**2 / 3 - 2 * n**3, 7 * n**2 / 3 - 8 * n**3 / 5, 56 * n**3 / 15)
    lat = chi + sum(d * np.sin(2 * j * chi) for j, d in enumerate(deltas, 1))
    lon = np.degrees(np.arctan2(np.sinh(eta), np.cos(xi))) + 6.0 * zone - 183.0
    return np.degrees(lat), lon


def towns(lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the number of each point's town (N,): cubes of a quarter of a degree that touch are one.

    Cubes about the earth's middle, 28 km wide, know neither a date line nor poles.
    """
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    on_ball = np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=-1)
    cells = [tuple(cell) for cell in np.floor(on_ball / np.radians(0.25)).astype(int).tolist()]
    left, number, count = set(cells), dict[tuple[int, ...], int](), 0
    for first in dict.fromkeys(cells):
        if first not in left:
            continue
        left.discard(first)
        reached = [first]
        while reached:
            a, b, c = reached.pop()
            number[a, b, c] = count
            steps = itertools.product((-1, 0, 1), repeat=3)
            near = {(a + i, b + j, c + k) for i, j, k in steps} & left
            left -= near
            reached += near
        count += 1
    return np.array([number[cell] for cell in cells], np.int64)
