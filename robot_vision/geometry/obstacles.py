"""Obstacles of a depth image: the nearest in the robot's path, and all around as a planar scan.

Base is the robot's frame: x ahead, y to the left, z up, in metres. All points and rays are in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.statistics.normal import REACH_90

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Obstacle:
    """The nearest thing in the robot's path.

    Attributes:
        distance: along x of base, metres; infinite where the path is free, NaN where nothing is known.
        near: lower end of its 90 percent interval.
        deviation: standard deviation of the distance.
    """

    distance: float
    near: float
    deviation: float


@dataclass(frozen=True)
class Corridor:
    """Where something is in the way.

    Attributes:
        low: least height above base, metres.
        high: greatest height.
        width: of the path straight ahead, half on each side of x.
        pixels: how many must be as near.
    """

    low: float
    high: float
    width: float
    pixels: int


def nearest_obstacle(points: Array, sigma: Array, camera_x: float, corridor: Corridor) -> Obstacle:
    """Returns the nearest obstacle: the distance within which there are `corridor.pixels` pixels.

    Its interval is that of the last of these pixels, moved along its ray.

    Args:
        points: (3, n), metres; NaN where nothing is said.
        sigma: (n,), of the depth's logarithm.
        camera_x: where along x the camera is, metres.
        corridor: where.
    """
    x, y, z = points
    if np.isnan(x).all():
        return Obstacle(np.nan, np.nan, np.nan)
    with np.errstate(invalid="ignore"):  # of NaN, which compares false
        way = (np.abs(y) <= corridor.width / 2) & (z >= corridor.low) & (z <= corridor.high)
        index = np.flatnonzero(way & (x > 0))
    if len(index) < corridor.pixels:
        return Obstacle(np.inf, np.inf, 0.0)
    ahead = x[index]
    last = index[np.argpartition(ahead, corridor.pixels - 1)[corridor.pixels - 1]]
    own = float(sigma[last])
    along = float(x[last]) - camera_x  # grows with the depth
    near = camera_x + along * float(np.exp(-REACH_90 * own))
    return Obstacle(float(x[last]), max(near, 0.0), along * own)


@dataclass(frozen=True)
class Scan:
    """A planar scan in base.

    Attributes:
        first: bearing of the first beam, radians, to the left of x.
        step: from one to the next.
        ranges: float32 (n,), metres: infinite where nothing is in the way, NaN where nothing is seen.
    """

    first: float
    step: float
    ranges: NDArray[np.float32]


def bearings(rays: Array) -> tuple[float, float]:
    """Returns the least and the greatest bearing of the camera's rays (3, n), NaN for padding."""
    found = np.arctan2(rays[1], rays[0])
    return float(np.nanmin(found)), float(np.nanmax(found))


def planar_scan(
    points: Array,
    span: tuple[float, float],
    low: float,
    high: float,
    beams: int,
) -> Scan:
    """Returns the nearest obstacle of each bearing.

    Args:
        points: (3, n), metres; NaN where nothing is said.
        span: bearings of the first and the last beam, radians.
        low: least height above base of an obstacle, metres.
        high: greatest height.
        beams: how many there are.
    """
    first, end = span
    step = max((end - first) / max(beams - 1, 1), 1e-6)
    x, y, z = points
    # No bearing is that of nothing, and behind the robot the tangent is that of the other side.
    with np.errstate(invalid="ignore", divide="ignore"):  # of NaN, which compares false
        bearing = np.arctan(y / x)  # twice as fast as arctan2
        if not (x > 0).all() and len(behind := np.flatnonzero(x <= 0)):
            bearing[behind] = np.arctan2(y[behind], x[behind])
        beam = np.rint((bearing - first) / step)
        inside = (beam >= 0) & (beam < beams)
        hit = np.flatnonzero(inside & (z >= low) & (z <= high))
    index = np.where(inside, beam, beams).astype(np.intp)
    seen = np.bincount(index, minlength=beams + 1)[:beams] > 0
    ranges = np.where(seen, np.float32(np.inf), np.float32(np.nan))
    x, y = x[hit], y[hit]
    np.minimum.at(ranges, index[hit], np.sqrt(x * x + y * y).astype(np.float32))
    return Scan(first, step, ranges)
