"""Latitude and longitude, and metres: planes that touch the earth, UTM, and which points are of one town.

Positions from the middle of the earth are those of the frame `earth` of REP 105 (ECEF): x through latitude 0,
longitude 0, z through the north pole. The *normal* of a place is the unit vector up from it, the n-vector of
Gade (2010, "A Non-singular Horizontal Position Representation"): it knows neither a date line nor poles.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

FALSE_NORTHING_M = 1e7
# WGS 84: the greater half axis in metres, the flattening, and the square of the eccentricity.
_A, _F = 6378137.0, 1 / 298.257223563
_E2 = _F * (2 - _F)
# Frame of positions from the middle of the earth (REP 105), and word for such a datum
EARTH = "earth"
FARTHEST_M = 1e6  # from a datum: what nobody means; far beyond it a plane folds over
RADIUS_M = 6371008.8  # mean radius (IUGG), of a sphere on which distances are measured

Array = NDArray[np.float64]


def normals(lat_deg: Array, lon_deg: Array) -> Array:
    """Returns the normals (N, 3) of latitudes and longitudes (N,)."""
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    x, y = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon)
    return np.stack((x, y, np.sin(lat)), axis=-1)


def degrees_of_normals(normal: Array) -> tuple[Array, Array]:
    """Returns latitudes and longitudes (N,) of normals (N, 3); longitudes are from -180 to 180."""
    x, y, z = np.moveaxis(normal, -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def on_earth(normal: Array, height_m: Array | float = 0.0) -> Array:
    """Returns positions (N, 3) from the middle of the earth.

    Args:
        normal: (N, 3).
        height_m: (N,) or one, above the ellipsoid.
    """
    n = _A / np.sqrt(1 - _E2 * normal[..., 2:] ** 2)
    up = np.reshape(height_m, (*np.shape(height_m), 1))
    return np.asarray((n * (1.0, 1.0, 1 - _E2) + up) * normal)


def normals_of(position_m: Array) -> tuple[Array, Array]:
    """Returns normals (N, 3), and heights (N,) in metres, of positions (N, 3) from the middle of the earth.

    By Bowring (1976, "Transformation from spatial to geographical coordinates"), twice: to far less than a
    millimetre within 100 km of the ground.
    """
    x, y, z = np.moveaxis(np.asarray(position_m, np.float64), -1, 0)
    p, b = np.hypot(x, y), _A * (1 - _F)
    tangent_of = np.arctan2(z * _A, p * b)  # the reduced latitude
    for _ in range(2):
        up = z + _E2 / (1 - _E2) * b * np.sin(tangent_of) ** 3
        out = p - _E2 * _A * np.cos(tangent_of) ** 3
        tangent_of = np.arctan2((1 - _F) * up, out)
    lat, lon = np.arctan2(up, out), np.arctan2(y, x)
    ground = _A * np.sqrt(1 - _E2 * np.sin(lat) ** 2)
    height = p * np.cos(lat) + z * np.sin(lat) - ground
    return normals(np.degrees(lat), np.degrees(lon)), np.asarray(height)


def apart_m(a: Array, b: Array) -> Array:
    """Returns the great-circle distance (...) of normals (..., 3), metres on a sphere of the mean radius.

    The ellipsoid's geodesic is up to 0.6 percent longer or shorter, as for any distance by haversines.
    """
    chord = np.linalg.norm(a - b, axis=-1)
    return np.asarray(2 * RADIUS_M * np.arcsin(np.minimum(chord / 2, 1.0)))


def east_north_up(normal: Array) -> Array:
    """Returns the axes east, north and up (..., 3, 3), as rows, of normals (..., 3)."""
    x, y, _ = np.moveaxis(normal, -1, 0)
    lon = np.arctan2(y, x)
    east = np.stack((-np.sin(lon), np.cos(lon), np.zeros_like(lon)), axis=-1)
    return np.stack((east, np.cross(normal, east), normal), axis=-2)


def parsed_datum(text: str) -> tuple[float, float]:
    """Returns latitude and longitude of `latitude,longitude`, in degrees.

    Raises:
        ConfigError: it is something else.
    """
    try:
        lat, lon = (float(word) for word in text.split(","))
    except ValueError:
        lat, lon = math.nan, math.nan
    if not (abs(lat) <= 90 and abs(lon) <= 360):
        raise ConfigError(
            f"datum is {text!r}: give latitude,longitude in degrees, or {EARTH} for positions from the "
            "middle of the earth"
        )
    return lat, lon


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
    up = normals(*np.degrees(middle))
    away = on_earth(normals(np.degrees(lat), np.degrees(lon))) - on_earth(up)
    east, north, _ = east_north_up(up[0])
    return np.stack((away @ east, away @ north), axis=-1)


def degrees_of_east_north(xy_m: Array, datum: tuple[float, float]) -> tuple[Array, Array]:
    """Returns latitudes and longitudes (N,) of points (N, 2) of a plane: the reverse of `east_north`.

    They are those of the ground below the plane, as far as it is within a few hundred kilometres.
    """
    up = normals(*(np.array(number) for number in datum))
    east, north, _ = east_north_up(up)
    positions = on_earth(up) + xy_m[:, :1] * east + xy_m[:, 1:] * north
    for _ in range(4):  # down to the ground, along the plane's own axis
        found, height = normals_of(positions)
        positions = positions - height[:, None] * up
    return degrees_of_normals(found)


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
    on_ball = normals(lat_deg, lon_deg)
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
