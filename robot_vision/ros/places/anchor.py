"""Where the origin of the odometry lies in the map: found by accepted matches, held against their errors.

Odometry is smooth and drifts; a match is rough and does not. `T_map_odom` joins the two: matches set it, and
between them the odometry carries the robot on, so that keyframes can be added to a map that was begun in
another session.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.alike import inflation
from robot_vision.geometry.rigid import compose_with_covariance, inverse, symmetrised

Array = NDArray[np.float64]
# A wheel odometry's usual error: 2 % of the way and 1 degree a metre, one sigma, plus what it loses standing.
DRIFT_M_PER_M = 0.02
DRIFT_RAD_PER_M = 0.0175
# Squared Mahalanobis distance of six numbers that one right match in a thousand exceeds (chi-square).
GATE = 22.46
# Views that are near to each other have the same nearest keyframe, and so the same error: after this way, or
# this turn, their errors have a correlation of 1/e.
CORRELATION_M, CORRELATION_RAD = 0.5, 0.5
CONFLICTS = 3  # matches in a row outside the gate, that agree, before the old origin is given up


class Anchor:
    """An estimate of `T_map_odom` with its covariance (6, 6): a Kalman filter on poses.

    The error state is a translation and a rotation vector in the map frame, as in the covariance of a pose.
    Drift is modelled as a random walk whose variance grows with the way travelled. A match whose error has
    the correlation rho with that of the last one counts (1 - rho) / (1 + rho) of an independent one.
    """

    def __init__(self) -> None:
        self._T: Array | None = None
        self._P: Array = np.zeros((6, 6))
        self._last: Array | None = None
        self._matched: Array | None = None  # T_odom_camera of the last match that was used
        self._conflicts: list[Array] = []

    @property
    def T_map_odom(self) -> Array | None:
        """The estimate (4, 4); None before the first match."""
        return self._T

    def clear(self) -> None:
        """Forgets the estimate: the odometry restarted."""
        self._T, self._last, self._matched, self._conflicts = None, None, None, []

    def set(self, T_map_odom: Array) -> None:
        """Declares the origin, without doubt: the first session of a map defines its frame."""
        self._T, self._P = np.array(T_map_odom), np.zeros((6, 6))
        self._last = self._matched = None

    def camera(self, T_odom_camera: Array) -> tuple[Array, Array] | None:
        """Returns `T_map_camera` (4, 4) and its covariance (6, 6); None before the first match."""
        if self._T is None:
            return None
        self._move(T_odom_camera)
        return compose_with_covariance(self._T, self._P, T_odom_camera)

    def match(self, T_map_camera: Array, covariance: Array, T_odom_camera: Array) -> bool:
        """Takes an accepted match into account.

        Args:
            T_map_camera: the match's pose (4, 4).
            covariance: of it (6, 6).
            T_odom_camera: the odometry's pose at the same time.

        Returns:
            False if it contradicts the estimate. After `CONFLICTS` such matches that agree among themselves
            the estimate restarts from the last: the robot was carried, or the first match was wrong.
        """
        measured, R = compose_with_covariance(
            T_map_camera, symmetrised(covariance), inverse(T_odom_camera)
        )
        if self._T is None:
            self._begin(measured, R, T_odom_camera)
            return True
        self._move(T_odom_camera)
        # The two are compared where the robot is: at the origin, far away, a small rotation is a large way.
        predicted, P = compose_with_covariance(self._T, self._P, T_odom_camera)
        R = symmetrised(covariance)
        residual = difference(T_map_camera, predicted)
        S = P + R
        if float(residual @ np.linalg.solve(S, residual)) > GATE:
            return self._conflict(measured, R, T_map_camera, T_odom_camera)
        self._conflicts = []
        gain = np.linalg.solve(P + R * inflation(self._away(T_odom_camera)), P).T  # both symmetric
        self._matched = np.array(T_odom_camera)
        corrected = moved(predicted, gain @ residual)
        P = symmetrised((np.eye(6) - gain) @ P)
        self._T, self._P = compose_with_covariance(corrected, P, inverse(T_odom_camera))
        return True

    def _begin(self, measured: Array, R: Array, T_odom_camera: Array) -> None:
        self._T, self._P = measured, R
        self._last, self._matched = np.array(T_odom_camera[:3, 3]), np.array(T_odom_camera)
        self._conflicts = []

    def _away(self, T_odom_camera: Array) -> float:
        if self._matched is None:
            return math.inf
        apart = difference(T_odom_camera, self._matched)
        metres, radians = np.linalg.norm(apart[:3]), np.linalg.norm(apart[3:])
        return float(metres / CORRELATION_M + radians / CORRELATION_RAD)

    def _conflict(
        self, measured: Array, R: Array, T_map_camera: Array, T_odom_camera: Array
    ) -> bool:
        _, at_origin = compose_with_covariance(T_map_camera, R, inverse(T_odom_camera))
        if self._conflicts and not _agree(self._conflicts[-1], measured, T_odom_camera, R):
            self._conflicts = []
        self._conflicts.append(measured)
        if len(self._conflicts) >= CONFLICTS:
            self._begin(measured, at_origin, T_odom_camera)
            return True
        return False

    def _move(self, T_odom_camera: Array) -> None:
        """Lets the covariance grow with the way since the last call."""
        here = np.array(T_odom_camera[:3, 3])
        if self._last is not None:
            way = float(np.linalg.norm(here - self._last))
            drift = np.repeat([DRIFT_M_PER_M**2, DRIFT_RAD_PER_M**2], 3) * way
            # Drift happens where the robot is, and is moved from there to the origin.
            assert self._T is not None
            at, P = compose_with_covariance(self._T, self._P, T_odom_camera)
            self._P = compose_with_covariance(at, P + np.diag(drift), inverse(T_odom_camera))[1]
        self._last = here


def difference(a: Array, b: Array) -> Array:
    """Returns the error (6,) that takes pose b to pose a: translation, then rotation vector, map frame."""
    turn = a[:3, :3] @ b[:3, :3].T
    sine = 0.5 * np.array(
        [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    )
    norm = float(np.linalg.norm(sine))
    angle = float(np.arctan2(norm, (np.trace(turn) - 1) / 2))
    if norm > 1e-9:
        sine = sine / norm * angle
    elif angle > 1:  # half a turn: the axis is the column of R + I that is longest
        columns = turn + np.eye(3)
        axis = columns[:, int(np.argmax(np.diagonal(columns)))]
        sine = axis / np.linalg.norm(axis) * angle
    return np.concatenate([a[:3, 3] - b[:3, 3], sine])


def moved(pose: Array, error: Array) -> Array:
    """Returns a pose after an error (6,): the inverse of `difference`."""
    result = np.eye(4)
    angle = float(np.linalg.norm(error[3:]))
    turn = np.eye(3)
    if angle > 1e-12:
        x, y, z = error[3:] / angle
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    result[:3, :3] = turn @ pose[:3, :3]
    result[:3, 3] = pose[:3, 3] + error[:3]
    return result


def _agree(a: Array, b: Array, T_odom_camera: Array, R: Array) -> bool:
    residual = difference(a @ T_odom_camera, b @ T_odom_camera)
    return float(residual @ np.linalg.solve(2 * R, residual)) <= GATE
