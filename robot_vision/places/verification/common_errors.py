"""How far verified poses err beyond the noise of features, and what a map's own keyframes say of it.

Features of one image err together: lens, rolling shutter, poses of the map and intrinsics shift them all.
How much is a property of camera and map, so the map is asked: each keyframe is located by the points of its
neighbours, made without it, and compared with where the map has it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import compose_with_covariance
from robot_vision.places.verification.options import VerificationOptions

Array = NDArray[np.float64]

# As measured on a hand-held Kinect: a fit's variance is nine times that of independent features, and so much
# of the way from the keyframe is uncertain, by intrinsics and scale.
_ALIKE, _WAY_SHARE = 9.0, 0.05
# Keyframes that follow one another share most of these errors: they show about a quarter of a Kinect's.
_SHOWN = 0.25
_LEAST, _MOST = 20, 200  # keyframes that were located, to judge by
_GRID = np.array([0.0, 0.003, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, _SHOWN])


def common_covariance(T_key_query: Array, fit_covariance: Array, distance: float) -> Array:
    """Returns the covariance (6, 6), about the keyframe's axes, that common errors of a Kinect's size add.

    Args:
        T_key_query: (4, 4).
        fit_covariance: (6, 6) of it, for features that err by themselves.
        distance: of what both see, metres.
    """
    way = _WAY_SHARE * float(np.linalg.norm(T_key_query[:3, 3]))
    of_way = np.diag([way**2] * 3 + [(way / distance) ** 2] * 3)
    return np.asarray((_ALIKE - 1) * fit_covariance + of_way)


def map_covariance(options: VerificationOptions) -> Array:
    """Returns the covariance (6, 6) of a keyframe's pose where the map does not tell."""
    sigmas = options.map_sigma_m, np.radians(options.map_sigma_deg)
    return np.diag(np.repeat(np.square(sigmas), 3))


class CommonErrors:
    """Errors of a map's keyframes, located by their neighbours. Memory is bounded."""

    def __init__(self, options: VerificationOptions) -> None:
        self._of_map = map_covariance(options)
        self._found: deque[tuple[Array, Array, Array]] = deque(maxlen=_MOST)

    def add(
        self, T_key_other: NDArray[Any], found: Array, covariance: Array, distance: float
    ) -> None:
        """Takes a keyframe that was located by another one's points.

        Args:
            T_key_other: (4, 4), as the map has it.
            found: (4, 4), as it was located.
            covariance: (6, 6) of that, for features that err by themselves.
            distance: of the points, metres.
        """
        turn = cv2.Rodrigues(found[:3, :3] @ T_key_other[:3, :3].T)[0][:, 0]
        error = np.concatenate([found[:3, 3] - T_key_other[:3, 3], turn])
        _, of_map = compose_with_covariance(np.eye(4), self._of_map, found)
        common = of_map + common_covariance(found, covariance, distance)
        self._found.append((error, covariance, common))

    @property
    def common_share(self) -> float:
        """How large common errors are: a share (0 to 1) of a Kinect's variance, 1 where too little is known.

        The most likely share, all errors being normal (a maximum over a grid).
        """
        if len(self._found) < _LEAST:
            return 1.0
        errors, fits, commons = (np.stack(column) for column in zip(*self._found, strict=True))
        costs = []
        for share in _GRID:
            sigma = fits + share * commons
            square = np.einsum(
                "ni,ni->n", errors, np.linalg.solve(sigma, errors[..., None])[..., 0]
            )
            costs.append(float((np.linalg.slogdet(sigma)[1] + square).sum()))
        return float(_GRID[int(np.argmin(costs))] / _SHOWN)
