"""Where to look next, until the pose is sure: `ActiveLocaliser`.

The robot turns to the side that makes the pose sure soonest: for each side and each turn, the probability
that one of the views up to there is verified, by the time that the turn takes. Views that it has had show
nothing new. Where nothing new is to be seen, it drives on, as far as the reflex lets it, and looks round
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from robot_vision.places.localising.agreement import Agreement, AgreementOptions
from robot_vision.places.localising.next_view import TURNS, MapViews

Array = NDArray[np.float64]

TURN, DRIVE, STAND = "turn", "drive", "stand"
_LOOKED = np.radians(12.0)  # a view so near to one that was had shows nothing new
_ALIKE = np.radians(20.0)  # deviation in which views fail alike
_VERIFIED = 0.95  # of a verified pose, which is not sure yet
_LEAST = 0.1  # chance that a whole turn makes the pose sure, below which it is not worth the time
_BACK = 0.35  # radians that it could have turned while it brakes and turns back
_SAME_PLACE_M = 0.3  # from where other views are others


@dataclass(frozen=True)
class LocaliserOptions:
    """How the robot looks round.

    Attributes:
        turn_rad_s: its turn rate.
        drive_m: way to the next place where it looks round; 0 only turns,
        drive_s: and the time that it takes at most.
        agreement: when the pose is sure.
    """

    turn_rad_s: float = 1.0
    drive_m: float = 1.0
    drive_s: float = 5.0
    agreement: AgreementOptions = field(default_factory=AgreementOptions)


@dataclass(frozen=True, eq=False)
class Step:
    """What to do next.

    Attributes:
        what: `turn` on the spot, `drive` as the reflex says, or `stand`: the pose is sure.
        side: 1 to the left, -1 to the right; of a turn.
        pose: (4, 4), the sure one.
    """

    what: str
    side: float = 0.0
    pose: Array | None = None


class ActiveLocaliser:
    """Chooses turns and drives from image to image. Not thread safe.

    Args:
        views: of the map; None knows nothing of it, and turns once round before it drives on.
        options: how it looks round.
    """

    def __init__(
        self, views: MapViews | None = None, options: LocaliserOptions | None = None
    ) -> None:
        self.views, self.options = views, options or LocaliserOptions()
        self.agreement = Agreement(self.options.agreement)
        self.reset()

    def reset(self) -> None:
        """Begins again, as after the robot was carried."""
        self.agreement.reset()
        self._sure: Array | None = None
        self._last: tuple[Array, Array] | None = None  # T_map_camera, T_odom_camera: verified
        self._drives: tuple[int, Array] | None = None  # since when, and from where
        self._begin()

    def _begin(self) -> None:
        """Looks round at a new place."""
        self._from: Array | None = None
        self._had: list[float] = []  # headings, radians to the left of the first one
        self._side = 1.0

    def look(
        self,
        stamp_ns: int,
        T_odom_camera: Array,
        found: Sequence[tuple[Array, float]],
        verified: Array | None,
    ) -> Step:
        """Takes what an image says, and returns what to do until the next.

        Args:
            stamp_ns: of the image.
            T_odom_camera: (4, 4), the camera by the odometry.
            found: poses (4, 4) of the camera at places, most probable first, and their probabilities.
            verified: (4, 4), the camera in the map, by geometry; None where nothing fits.
        """
        if verified is not None:
            self._last = verified, T_odom_camera
            self._sure = self.agreement.add(verified, T_odom_camera)
            if self._sure is not None:
                return Step(STAND, pose=self._sure)
        if self._from is None or self._moved(self._from, T_odom_camera) > _SAME_PLACE_M:
            self._begin()
            self._from = T_odom_camera
        heading = self._heading(T_odom_camera)
        self._had.append(heading)
        if self._drives is not None:
            since_ns, start = self._drives
            on = self._moved(start, T_odom_camera) < self.options.drive_m
            if on and (stamp_ns - since_ns) * 1e-9 < self.options.drive_s:
                return Step(DRIVE)
            self._drives = None
        side, chance = self._side_of(self._chances(heading, T_odom_camera, found))
        if chance < _LEAST and self.options.drive_m > 0:
            self._drives = stamp_ns, T_odom_camera
            return Step(DRIVE)
        # It can only turn: another round may meet another light, or nobody in the way
        if chance < _LEAST:
            self._had = [heading]
        self._side = side
        return Step(TURN, side)

    @staticmethod
    def _moved(a: Array, b: Array) -> float:
        return float(np.linalg.norm(a[:3, 3] - b[:3, 3]))

    def _heading(self, T_odom_camera: Array) -> float:
        assert self._from is not None
        ahead = self._from[:3, :3].T @ T_odom_camera[:3, 2]  # y is down
        return float(np.arctan2(-ahead[0], ahead[2]))

    def _chances(
        self, heading: float, T_odom_camera: Array, found: Sequence[tuple[Array, float]]
    ) -> Array:
        """Returns for each of `TURNS` the chance (m,) of a view that verifies the pose."""
        if self.views is None:
            chances = np.ones(len(TURNS))
        elif self._last is not None:
            at = self._last[0] @ np.linalg.inv(self._last[1]) @ T_odom_camera
            chances = self.views.chances([at], np.array([_VERIFIED]))
        else:
            chances = self.views.chances(*self.views.hypotheses(found))
        away = np.abs(np.angle(np.exp(1j * (heading + TURNS[:, None] - np.array(self._had)[None]))))
        nearest = away.min(axis=1)
        if self._last is None:  # a view next to one that could not be verified fails, too
            chances = chances * (1 - np.exp(-((nearest / _ALIKE) ** 2) / 2))
        return np.where(nearest <= _LOOKED, 0.0, chances)

    def _side_of(self, chances: Array) -> tuple[float, float]:
        """Returns the side that is worth most for its time, and the chance of a whole turn to it."""
        best = (0.0, self._side, 0.0)
        for side in (self._side, -self._side):
            order = np.argsort(side * TURNS % (2 * np.pi))[1:]  # without the present view
            reached = 1 - np.cumprod(1 - np.minimum(chances[order], 0.999))
            angle = side * TURNS[order] % (2 * np.pi)
            if side != self._side and len(self._had) > 1:
                angle = angle + _BACK
            worth = float((reached / angle).max())
            if worth > best[0] * (1 + 1e-9):
                best = (worth, side, float(reached[-1]))
        return best[1], best[2]
