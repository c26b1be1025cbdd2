"""What was seen a moment ago, where a depth camera measures nothing: it is blind to what is very near."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from robot_vision.labelling.motion import Motion
from robot_vision.labelling.outline import Outline, free_ahead

_SECONDS = 3.0
_IMAGES = 100
_POINTS = 3000  # of an image
_ASIDE_M = 2.0


class Memory:
    """Obstacles of the last images of one drive, moved to where the robot is now by its odometry.

    It can say that something is in the way, and not that the way is free: what came there since, it has not
    seen.

    Args:
        motion: of the drive.
        outline: of the robot.
        reach_m: farther points are not kept.
    """

    def __init__(self, motion: Motion, outline: Outline, reach_m: float) -> None:
        self._motion, self._outline, self._reach_m = motion, outline, reach_m
        self._seen: deque[tuple[int, NDArray[np.float32], int]] = deque(maxlen=_IMAGES)

    def add(self, i: int, points: NDArray[np.float32]) -> None:
        """Keeps the obstacles among the points (3, n) of image i, in base."""
        x, y, z = points
        with np.errstate(invalid="ignore"):  # of NaN, which compares false
            high = (z >= self._outline.low_m) & (z <= self._outline.high_m)
            near = (x > 0) & (x <= self._reach_m) & (np.abs(y) <= _ASIDE_M)
        things = np.flatnonzero(high & near)
        step = max(1, -(-len(things) // _POINTS))
        self._seen.append((i, points[:, things[::step]], step))

    def free_ahead(self, i: int, pixels: int) -> float:
        """Returns how far the robot could go at image i by what it saw before; infinite for all it knows."""
        nearest = np.inf
        for k, things, step in reversed(self._seen):
            late = self._motion.times_s[i] - self._motion.times_s[k]
            if not late <= _SECONDS or not all(self._motion.joined(j) for j in range(k, i)):
                break
            T = self._motion.between(i, k)
            moved = T[:3, :3] @ things + T[:3, 3:]
            if moved.size:
                nearest = min(nearest, free_ahead(moved, self._outline, -(-pixels // step)))
        return nearest
