"""How a robot moved: its speed, how it turned, and the way that it drove from each image on.

REP 103: base's x is ahead, its z up, and a turn to the left is positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_GAP_S = 0.5  # no motion is known across a longer one
_LEAP_M = 1.0  # nor across a jump: two images of a robot that was carried
_STANDS_M_S = 0.03
_SPEED_OVER_S = 0.2


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of one drive.

    Args:
        times_s: (n,), of its images; NaN where nothing says it.
        T_map_base: (n, 4, 4) then; NaN where nothing says it.
    """

    times_s: Array
    T_map_base: Array

    def between(self, i: int, k: int) -> Array:
        """Returns `T_base_base` (4, 4): where the robot was at image k, seen from where it was at i."""
        R, p = self.T_map_base[i, :3, :3], self.T_map_base[i, :3, 3]
        found = np.eye(4)
        found[:3, :3] = R.T @ self.T_map_base[k, :3, :3]
        found[:3, 3] = R.T @ (self.T_map_base[k, :3, 3] - p)
        return found

    def joined(self, i: int) -> bool:
        """Whether it is known how the robot came from image i to the next."""
        if i + 1 >= len(self.times_s):
            return False
        step = self.T_map_base[i + 1, :3, 3] - self.T_map_base[i, :3, 3]
        late = self.times_s[i + 1] - self.times_s[i]
        # Comparisons with NaN are false; without stamps only leaps are seen.
        return bool(np.linalg.norm(step) <= _LEAP_M) and not bool(late > _GAP_S)

    def later(self, i: int, after_s: float) -> int | None:
        """Returns the first image at least that much later, None where the motion until then is not known."""
        for k in range(i, len(self.times_s)):
            if self.times_s[k] - self.times_s[i] >= after_s - 1e-6:
                return k
            if not self.joined(k):
                return None
        return None

    def speed_m_s(self, i: int) -> float:
        """Returns how fast the robot drove ahead at image i, from before it to after it; NaN if unknown."""
        first = i - 1 if i and self.joined(i - 1) else i
        last = self.later(i, _SPEED_OVER_S / 2)
        last = i if last is None else last
        late = self.times_s[last] - self.times_s[first]
        if not late > 0:
            return float("nan")
        x = self.between(i, last)[0, 3] - self.between(i, first)[0, 3]
        return float(x / late)

    def turn_rad_s(self, i: int, over_s: float) -> float:
        """Returns the mean turn rate from image i on, to the left; NaN where it is not known."""
        k = self.later(i, over_s)
        if k is None or k == i:
            return float("nan")
        T = self.between(i, k)
        return float(np.arctan2(T[1, 0], T[0, 0]) / (self.times_s[k] - self.times_s[i]))

    def way(self, i: int, reach_m: float, stops: bool = True) -> Array:
        """Returns where base was from image i on, seen from there (m, 4, 4); the first is the identity.

        Args:
            i: number of the image.
            reach_m: it ends after so much way.
            stops: it ends where the robot stood, too; what it drove after that begins a new way.
        """
        places, gone = [np.eye(4)], 0.0
        for k in range(i, len(self.times_s) - 1):
            if not self.joined(k) or gone >= reach_m:
                break
            step = float(np.linalg.norm(self.T_map_base[k + 1, :3, 3] - self.T_map_base[k, :3, 3]))
            late = self.times_s[k + 1] - self.times_s[k]
            if stops and step < _STANDS_M_S * late:
                break
            gone += step
            places.append(self.between(i, k + 1))
        return np.array(places)
