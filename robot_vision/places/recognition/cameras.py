"""Where the camera is if it is at each of some keyframes: a normal distribution about each.

A belief over keyframes alone forgets how far from them the camera has come: each step of odometry that is
rounded to the nearest keyframe loses what is left over, and a camera that leaves the map stays on its
border for ever. So each keyframe's share of the belief knows where in the place the camera is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import matrix_from_xyzw, xyzw_from_matrix
from robot_vision.places.recognition.known_places import PlaceTable, Rows, turns_deg
from robot_vision.statistics.normal import normal_cdf

Array = NDArray[np.float64]

_EXACT = 1e-3  # of a place's reach: a smaller deviation is as good as none


@dataclass(frozen=True, eq=False)
class Cameras:
    """Normal distributions of poses.

    Attributes:
        positions: means (n, 3), metres in the map.
        quaternions_xyzw: means (n, 4).
        variance: (n, 2), of a coordinate (square metres) and of the heading (square degrees).
    """

    positions: Array
    quaternions_xyzw: Array
    variance: Array

    @classmethod
    def at(cls, table: PlaceTable, rows: Rows, variance: Array) -> Cameras:
        """Returns cameras at keyframes, all with one variance (2,)."""
        spread = np.broadcast_to(variance, (len(rows), 2))
        return cls(table.positions[rows], table.quaternions_xyzw[rows], spread)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Cameras:
        return Cameras(self.positions[rows], self.quaternions_xyzw[rows], self.variance[rows])

    def moved(self, motion: Array, variance: Array) -> Cameras:
        """Returns cameras after a motion (4, 4), whose own variance is (2,)."""
        rotation = matrix_from_xyzw(self.quaternions_xyzw)
        x, y, z, w = xyzw_from_matrix(motion[:3, :3])
        right = np.array([[w, z, -y, x], [-z, w, x, y], [y, -x, w, z], [-x, -y, -z, w]])
        return Cameras(
            self.positions + rotation @ motion[:3, 3],
            self.quaternions_xyzw @ right.T,
            self.variance + variance,
        )

    def seen_at(self, keyframes: Cameras) -> Cameras:
        """Returns cameras after an image that shows each one's keyframe: a Kalman filter's step."""
        keep = keyframes.variance / (self.variance + keyframes.variance)
        mean = mixed(keyframes, self, keep)
        return Cameras(mean.positions, mean.quaternions_xyzw, keep * self.variance)

    def within(self, table: PlaceTable, rows: Rows, radius_m: float, heading_deg: float) -> Array:
        """Returns (n, m): the probability that cameras are within radius and heading of keyframes (m,)."""
        there = table.positions[rows]
        gap = np.linalg.norm(self.positions[:, None] - there[None], axis=-1)
        turn = turns_deg(self.quaternions_xyzw, table.quaternions_xyzw[rows])
        sigma = np.sqrt(self.variance)
        spread, turned = (
            np.maximum(sigma[:, i, None], _EXACT * limit)
            for i, limit in enumerate((radius_m, heading_deg))
        )
        return _in_ball(gap, spread, radius_m) * (
            normal_cdf((heading_deg - turn) / turned) - normal_cdf((-heading_deg - turn) / turned)
        )

    def gathered(self, weights: Array, near: Cameras) -> Cameras:
        """Returns means and variances (m,) of these (n,).

        Args:
            weights: (n, m), of each in each.
            near: (m,), about there: taken where all weights are 0.
        """
        total = weights.sum(axis=0)
        some = total > 1e-300
        share = weights / np.where(some, total, 1.0)
        centre = self.positions.mean(axis=0)
        offset = self.positions - centre
        mean = share.T @ offset
        square = share.T @ (offset**2).sum(axis=1)
        gap = np.maximum(square - (mean**2).sum(axis=1), 0) / 3
        sign = np.where(self.quaternions_xyzw @ near.quaternions_xyzw.T < 0, -share, share)
        q = sign.T @ self.quaternions_xyzw
        norm = np.linalg.norm(q, axis=1)
        variance = share.T @ self.variance + np.stack([gap, _turn_variance(norm)], axis=1)
        some &= norm > 1e-6
        unit = q / np.where(norm > 1e-6, norm, 1.0)[:, None]
        return Cameras(
            np.where(some[:, None], mean + centre, near.positions),
            np.where(some[:, None], unit, near.quaternions_xyzw),
            np.where(some[:, None], variance, near.variance),
        )

    def replaced(self, rows: NDArray[np.intp], others: Cameras) -> Cameras:
        """Returns these with others in some rows."""
        new = [a.copy() for a in (self.positions, self.quaternions_xyzw, self.variance)]
        new[0][rows], new[1][rows] = others.positions, others.quaternions_xyzw
        new[2][rows] = others.variance
        return Cameras(*new)


def mixed(a: Cameras, b: Cameras, share: Array) -> Cameras:
    """Returns the mean and variance of two, `share` (n, 1 or 2) of it being `b`."""
    p, t = share[:, :1], share[:, -1:]
    sign = np.where((a.quaternions_xyzw * b.quaternions_xyzw).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    q = (1 - t) * a.quaternions_xyzw + t * sign * b.quaternions_xyzw
    norm = np.linalg.norm(q, axis=1)
    gap = ((a.positions - b.positions) ** 2).sum(axis=1) * (share[:, 0] * (1 - share[:, 0])) / 3
    return Cameras(
        (1 - p) * a.positions + p * b.positions,
        q / np.maximum(norm, 1e-9)[:, None],
        (1 - share) * a.variance
        + share * b.variance
        + np.stack([gap, _turn_variance(norm)], axis=1),
    )


def kernel(cameras: Cameras, table: PlaceTable, targets: Rows, flat: Array, sigma: Array) -> Array:
    """Returns (n, m): 1 within a flat reach, falling off as a normal beyond it, in place and heading.

    Args:
        cameras: n of them.
        table: of the keyframes.
        targets: their rows (m,).
        flat: the reach (2,) in metres and degrees.
        sigma: (n, 2), metres and degrees.
    """
    there = table.positions[targets]
    centre = there.mean(axis=0)
    a, b = cameras.positions - centre, there - centre
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    gap = np.maximum(np.sqrt(np.maximum(square, 0)) - flat[0], 0) / sigma[:, :1]
    turn = turns_deg(cameras.quaternions_xyzw, table.quaternions_xyzw[targets])
    turn = np.maximum(turn - flat[1], 0) / sigma[:, 1:]
    return np.asarray(np.exp(-(gap**2 + turn**2) / 2))


def _in_ball(gap: Array, sigma: Array, radius: float) -> Array:
    """Returns the probability that a normal variable in space is in a ball, `gap` from its mean."""
    gap = np.maximum(gap, 1e-6 * radius)
    low, high = (radius - gap) / sigma, (radius + gap) / sigma
    edge = (np.exp(-(low**2) / 2) - np.exp(-(high**2) / 2)) / np.sqrt(2 * np.pi)
    return np.asarray(np.clip(normal_cdf(high) - normal_cdf(-low) - sigma / gap * edge, 0.0, 1.0))


def _turn_variance(norm: Array) -> Array:
    """Returns variances (n,) in square degrees from lengths (n,) of mean unit quaternions."""
    return np.asarray(4 * np.maximum(1 - norm**2, 0) * np.degrees(1) ** 2)
