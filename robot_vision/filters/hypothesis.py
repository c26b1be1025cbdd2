"""A track with what drew it: the estimate, its like without odometry, and the one that challenges it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.alike import inflation
from robot_vision.filters.pose_settings import PoseFilterSettings
from robot_vision.filters.pose_track import Track
from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse
from robot_vision.statistics.normal import chi_squared_quantile

Array = NDArray[np.float64]


class _InOrder:
    """What came, in the order of its stamps, and two of one stamp in that of their arrival."""

    stamp_ns: int
    number: int

    def __lt__(self, other: _InOrder) -> bool:
        return (self.stamp_ns, self.number) < (other.stamp_ns, other.number)


@dataclass(frozen=True, eq=False)
class Measurement(_InOrder):
    """A measured pose.

    Attributes:
        stamp_ns: of its image.
        number: in the order of arrival: two of one time keep it.
        source: who measured.
        T: (4, 4).
        covariance: (6, 6), in its own frame.
        arrived_ns: stamp of the newest data when it came.
        unlike: factor on the way to its source's last one, see `Likeness`.
    """

    stamp_ns: int
    number: int
    source: str
    T: Array
    covariance: Array
    arrived_ns: int
    unlike: float = 1.0


@dataclass(frozen=True, eq=False)
class CellMeasurement(_InOrder):
    """Probabilities of cells in which a point of the robot is.

    Attributes:
        stamp_ns: of its image.
        number: in the order of arrival.
        source: who measured.
        cells: where the point may be.
        point: (3,), metres in the robot's frame.
    """

    stamp_ns: int
    number: int
    source: str
    cells: PositionCells
    point: Array


@dataclass(frozen=True, eq=False)
class PoseHypothesis:
    """A track and the measurements that drew it; never altered.

    Attributes:
        track: the pose.
        seen: of each source, its last measurement and the track's path then.
        count: measurements that drew it.
        since_ns: stamp of the first of them.
        sigma_m: of the position, along its worst axis, after the last of them.
        sigma_rad: of the rotation, in the same way.
        leapt_from: tangent vector (6,), m and rad, to the pose from which a measurement drew it further
            than its source's errors differ from one to the next; zero if none did of late.
        leapt_ns: stamp of that measurement.
        cells_seen: of each source of cells, the stamp of its last answer and the track's path then.
    """

    track: Track
    seen: Mapping[str, tuple[Measurement, Array]]
    count: int
    since_ns: int
    sigma_m: float
    sigma_rad: float
    leapt_from: Array = field(default_factory=lambda: np.zeros(6))
    leapt_ns: int = 0
    cells_seen: Mapping[str, tuple[int, Array]] = field(default_factory=dict)

    @classmethod
    def begin(cls, m: Measurement, settings: PoseFilterSettings) -> PoseHypothesis:
        """Begins with a measurement."""
        track = Track.begin(m.stamp_ns, m.T, m.covariance, settings.motion)
        return cls(
            track,
            {m.source: (m, track.path)},
            1,
            m.stamp_ns,
            *sigmas(track.pose_covariance),
        )

    def at(self, track: Track) -> PoseHypothesis:
        """Returns the hypothesis with its track moved."""
        return replace(self, track=track)

    def drawn(
        self, m: Measurement, s: PoseFilterSettings
    ) -> tuple[PoseHypothesis | None, float, Array]:
        """Returns the hypothesis drawn by a measurement of its time; None if the gate refuses it.

        Returns:
            It; the squared Mahalanobis distance; and the residual (6,), in the measurement's frame.
        """
        try:
            innovation = self.track.innovation(m.T, m.covariance)
        except np.linalg.LinAlgError:  # rounding, of a covariance with very different variances
            return None, math.inf, np.zeros(6)
        if not innovation.distance <= chi_squared_quantile(s.gate_probability, 6):
            return None, innovation.distance, innovation.residual
        factor = inflation(self.away(m, s))
        track = self.track.corrected(innovation.residual, m.covariance, factor)
        leapt, leapt_ns = self.leapt_from, self.leapt_ns
        if (m.stamp_ns - leapt_ns) * 1e-9 >= LEAP_S:
            leapt = np.zeros(6)
            if self._leaps(m, s):
                leapt, leapt_ns = se3.log(inverse(track.T) @ self.track.T), m.stamp_ns
        seen = {**self.seen, m.source: (m, track.path)}
        found = PoseHypothesis(
            track,
            seen,
            self.count + 1,
            self.since_ns,
            *sigmas(track.pose_covariance),
            leapt,
            leapt_ns,
            self.cells_seen,
        )
        return found, innovation.distance, innovation.residual

    def weighed(
        self, m: CellMeasurement, s: PoseFilterSettings
    ) -> tuple[PoseHypothesis, float] | None:
        """Returns the hypothesis after cells of its time, and their agreement; None if none is near."""
        axes, track = list(m.cells.axes), self.track
        mean, H = track.point(m.point)
        mean, H = mean[axes], H[axes]
        P = track.pose_covariance
        V = H @ P @ H.T
        if not m.cells.holds(mean, V):
            return None
        share, last = CELLS_WORTH, self.cells_seen.get(m.source)
        if last is not None:
            share /= inflation(self._since(last[1], (m.stamp_ns - last[0]) * 1e-9, s))
        agreement, moved, rest = m.cells.weighed(mean, V, share)
        track = track.conditioned(H, V, moved - mean, rest)
        seen = {**self.cells_seen, m.source: (m.stamp_ns, track.path)}
        return replace(self, track=track, cells_seen=seen), agreement

    def _leaps(self, m: Measurement, s: PoseFilterSettings) -> bool:
        """Says whether a measurement is further from its source's last than motion and noise explain."""
        if m.source not in self.seen:
            return False
        last, path = self.seen[m.source]
        dt_s = (m.stamp_ns - last.stamp_ns) * 1e-9
        if dt_s <= 0:  # two of one image: neither motion nor noise explains anything
            return False
        moved = inverse(path) @ self.track.path
        turn = se3.adjoint(inverse(moved))
        differ = -math.expm1(-self.away(m, s))
        noise = differ * (m.covariance + turn @ last.covariance @ turn.T)
        noise = noise + dt_s**2 * np.diag(s.motion.velocity_variances)
        difference = se3.log(inverse(last.T @ moved) @ m.T)
        return float(difference @ np.linalg.solve(noise, difference)) > chi_squared_quantile(
            _USUAL, 6
        )

    def worth(self, m: Measurement, s: PoseFilterSettings) -> float:
        """Returns what share of an independent measurement one is worth after its source's last."""
        return 1 / inflation(self.away(m, s))

    def away(self, m: Measurement, s: PoseFilterSettings) -> float:
        """Returns how far it is from its source's last measurement, in correlation lengths."""
        last = self.seen.get(m.source)
        if last is None:
            return math.inf
        return m.unlike * self._since(last[1], (m.stamp_ns - last[0].stamp_ns) * 1e-9, s)

    def _since(self, path: Array, dt_s: float, s: PoseFilterSettings) -> float:
        motion = se3.log(inverse(path) @ self.track.path)
        metres, radians = float(np.linalg.norm(motion[:3])), float(np.linalg.norm(motion[3:]))
        away = metres / s.correlation_m + math.degrees(radians) / s.correlation_deg
        return away + dt_s / s.correlation_s

    def grown(self, s: PoseFilterSettings) -> bool:
        """Says whether its covariance has grown so much since a measurement that it must be found again."""
        metres, radians = sigmas(self.track.pose_covariance)
        return (metres > STAYS * s.localised_m and metres > 2 * self.sigma_m) or (
            radians > STAYS * math.radians(s.localised_deg) and radians > 2 * self.sigma_rad
        )


CELLS_WORTH = 0.5  # of what they say: images of one cell are rounded alike
LEAP_S = 0.4  # for which it is not settled whether the place before was right
_USUAL = 0.95  # share of good measurements that are no leap
STAYS = (
    1.3  # a robot stays localised up to this multiple of the deviations with which it becomes so
)


def sigmas(P: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the largest standard deviations of position (m) and rotation (rad) of a covariance (6, 6)."""
    position, rotation = np.linalg.eigvalsh(P[:3, :3])[-1], np.linalg.eigvalsh(P[3:, 3:])[-1]
    return math.sqrt(max(0.0, float(position))), math.sqrt(max(0.0, float(rotation)))
