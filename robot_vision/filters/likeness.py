"""How alike a source's errors are from view to view: by its own measurements, against what is assumed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.hypothesis import Measurement
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse

Array = NDArray[np.float64]

_PRIOR = 20.0  # measurements that the assumption is worth
_MEMORY = 200.0  # measurements that are remembered
_APART_S = 0.4  # of the two that are compared: neighbours would show the noise of a pixel
_MOST = 30.0
_GROSS = 3.0  # times the variance: an outlier


@dataclass
class _Source:
    last: deque[tuple[Measurement, Array, float]] = field(default_factory=deque)
    way: float = 0.0  # of the last, in correlation lengths
    differs: float = 0.0  # sum of squared differences, over those of independent errors
    assumed: float = 0.0  # sum of what is assumed of them
    count: float = 0.0


class Likeness:
    """Compares differences of a source's measurements with the motion between, by trusted odometry.

    Errors with the correlation rho differ by a variance of 1 - rho times that of independent ones. The factor
    is that on the way between two views with which the assumed correlation explains the differences. It is
    never below 1: what is assumed is the most that errors are alike.
    """

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def clear(self) -> None:
        """Forgets everything."""
        self._sources.clear()

    def factor(self, source: str) -> float:
        """Returns the factor on the way, from 1 to 30."""
        s = self._sources.get(source)
        if s is None or s.count == 0:
            return 1.0
        assumed = s.assumed / s.count
        differs = (s.differs + _PRIOR * assumed) / (s.count + _PRIOR)
        if differs <= assumed:
            return 1.0
        way = -math.log(max(1e-9, 1 - min(assumed, 1 - 1e-9)))
        return min(_MOST, max(1.0, -math.log(max(1e-9, 1 - differs)) / max(way, 1e-9)))

    def add(self, m: Measurement, path: Array, away: float, odometry: Array) -> None:
        """Takes a measurement that was accepted.

        Args:
            m: the measurement.
            path: motion (4, 4) since the beginning by odometry.
            away: from the source's last measurement, in the assumed correlation lengths.
            odometry: variances (6,) that the odometry adds in a second.
        """
        s = self._sources.setdefault(m.source, _Source())
        if s.last and m.stamp_ns <= s.last[-1][0].stamp_ns:
            return
        s.way += away if math.isfinite(away) else 1e3
        s.last.append((m, path, s.way))
        while len(s.last) > 1 and (m.stamp_ns - s.last[1][0].stamp_ns) * 1e-9 >= _APART_S:
            s.last.popleft()
        before, path_before, way = s.last[0]
        dt_s = (m.stamp_ns - before.stamp_ns) * 1e-9
        if not _APART_S <= dt_s <= 3 * _APART_S:
            return
        moved = inverse(path_before) @ path
        difference = se3.log(inverse(before.T @ moved) @ m.T)
        turn = se3.adjoint(inverse(moved))
        noise = m.covariance + turn @ before.covariance @ turn.T
        root = np.linalg.cholesky(noise + np.diag(odometry * dt_s))
        white = np.linalg.solve(root, difference)
        kept = 1 - 1 / _MEMORY
        s.count = kept * s.count + 1
        s.differs = kept * s.differs + min(_GROSS, float(white @ white) / 6)
        s.assumed = kept * s.assumed + 1 - math.exp(-(s.way - way))
