"""When is a pose sure? When verified poses of several views agree, as far as the odometry between them tells.

One verified view is not enough: two rooms with one poster, or two equal doors, fit as well as the right
place does. Other views of the wrong place do not fit, or say another pose; another image of the same view
errs alike. So views count that are turned or moved from each other, and each that disagrees takes another
one to outweigh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import apart, inverse

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AgreementOptions:
    """When views agree.

    Attributes:
        views: that have to agree, more than disagree.
        apart_m: views that are moved by so much are different ones,
        apart_deg: and those that are turned by so much.
        within_m: poses agree that are not further apart,
        within_deg: nor turned by more; the odometry's error while the robot looks round is in it.
    """

    views: int = 2
    apart_m: float = 0.2
    apart_deg: float = 10.0
    within_m: float = 0.3
    within_deg: float = 8.0


class Agreement:
    """Collects verified poses and says when the pose is sure. Not thread safe.

    Args:
        options: when they agree.
    """

    def __init__(self, options: AgreementOptions | None = None) -> None:
        self.options = options or AgreementOptions()
        self.reset()

    def reset(self) -> None:
        """Forgets all views."""
        self._views: list[tuple[Array, Array]] = []  # T_odom_camera, T_map_odom

    def __len__(self) -> int:
        return len(self._views)

    def add(self, T_map_camera: Array, T_odom_camera: Array) -> Array | None:
        """Takes a verified pose, and returns the pose that is sure now, (4, 4), or None.

        Args:
            T_map_camera: (4, 4), verified, of the camera (or the robot: of one of them throughout).
            T_odom_camera: (4, 4), the same by the odometry, in any frame that stays put.
        """
        self._views.append((T_odom_camera, T_map_camera @ inverse(T_odom_camera)))
        o = self.options
        # Poses are compared where the robot is now: at the odometry's origin their angles' errors would count
        # as metres.
        agree, differ = list[Array](), list[Array]()
        for at, T_map_odom in self._views:
            gap = apart(T_map_odom @ T_odom_camera, T_map_camera)
            (agree if gap[0] <= o.within_m and gap[1] <= o.within_deg else differ).append(at)
        if self._different(agree) - self._different(differ) < o.views:
            return None
        return T_map_camera

    def _different(self, views: list[Array]) -> int:
        """Returns how many of the views are moved or turned from each other."""
        o, kept = self.options, list[Array]()
        for T in views:
            gaps = [apart(T, other) for other in kept]
            if all(m >= o.apart_m or deg >= o.apart_deg for m, deg in gaps):
                kept.append(T)
        return len(kept)
