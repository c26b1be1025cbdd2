"""Where the robot is: measured poses of any source and delay, fused with odometry; wrong ones are refused.

The estimate is a `Track`. A measured pose whose squared Mahalanobis distance exceeds the gate is refused.
Those that are refused, and all while there is no estimate, draw a second track, the challenger. When it has
agreed with enough measurements in a row, all of which the estimate contradicts, it takes the estimate's
place: a robot that was carried away, or that was lost from the beginning, is found again.

Errors of one source are alike from view to view. With the correlation rho of two of them, a measurement adds
(1 - rho) / (1 + rho) of what an independent one would (two are worth 2 / (1 + rho)), and so its covariance is
multiplied by the inverse of that. rho = exp(-(metres / correlation_m + degrees / correlation_deg + seconds /
correlation_s)), of what the camera moved since the source's last measurement: a robot that stands still does
not become certain by looking again.

Measurements are taken at their own time. One that is newer than the odometry waits for it. One that is older
than others that were already used is put in its place, and those after it are used again.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters import se3
from robot_vision.filters.alike import inflation
from robot_vision.filters.gate import chi_squared_6
from robot_vision.filters.odometry import OdometryBuffer
from robot_vision.filters.pose_settings import (
    ACCEPTED,
    CONTRADICTED,
    INITIALISED,
    INITIALISING,
    LOCALISED,
    PENDING,
    REINITIALISED,
    REJECTED,
    UNCERTAIN,
    WAITING,
    Outcome,
    PoseEstimate,
    PoseFilterSettings,
)
from robot_vision.filters.pose_track import Track
from robot_vision.filters.refusal import MeasurementError
from robot_vision.geometry import inverse, symmetrised

__all__ = [
    "ACCEPTED",
    "CONTRADICTED",
    "INITIALISED",
    "INITIALISING",
    "LOCALISED",
    "PENDING",
    "REINITIALISED",
    "REJECTED",
    "UNCERTAIN",
    "WAITING",
    "Outcome",
    "PoseEstimate",
    "PoseFilterSettings",
    "PoseFilter",
]

Array = NDArray[np.float64]

_TOO_OLD_IN_A_ROW = 10  # and nothing newer meanwhile: it was not them, the clock was set back


@dataclass(frozen=True, eq=False)
class _Measurement:
    stamp_ns: int
    number: int  # in the order of arrival: two of one time keep it
    source: str
    T: Array  # (4, 4)
    covariance: Array  # (6, 6), in its own frame

    def __lt__(self, other: _Measurement) -> bool:
        return (self.stamp_ns, self.number) < (other.stamp_ns, other.number)


@dataclass(frozen=True, eq=False)
class _Challenger:
    track: Track
    count: int
    seen: Mapping[str, tuple[int, Array]]


@dataclass(frozen=True, eq=False)
class _State:
    """All that a measurement changes; never altered, so that an earlier one can be taken up again."""

    track: Track | None = None
    seen: Mapping[str, tuple[int, Array]] = field(default_factory=lambda: MappingProxyType({}))
    challenger: _Challenger | None = None
    refused: int = 0  # in a row
    refused_since_ns: int = 0


class PoseFilter:
    """The filter; see the module's text.

    Args:
        settings: what is assumed.

    Attributes:
        resets: how often a clock that was set back made it forget everything.
        replays: how often measurements had to be used again, because an older one came late.
        without_odometry: how often one was used before the odometry of its time came.
    """

    def __init__(self, settings: PoseFilterSettings | None = None) -> None:
        self.settings = settings or PoseFilterSettings()
        self.resets = 0
        self.replays = 0
        self.without_odometry = 0
        self._number = 0
        self._too_old, self._too_old_for = 0, 0
        self._forget_all()

    def _forget_all(self) -> None:
        s = self.settings
        self._buffer = OdometryBuffer(length_s=2 * s.history_s + s.odometry_timeout_s + 5.0)
        self._state = _State()
        self._before: list[
            tuple[_Measurement, _State]
        ] = []  # each measurement and the state before it
        self._pending: list[_Measurement] = []
        self._live: Track | None = None  # the estimate at the newest odometry

    def reset(self) -> None:
        """Forgets everything."""
        self._forget_all()

    def change(self, settings: PoseFilterSettings) -> None:
        """Replaces what is assumed, from the next measurement on; the estimate is kept."""
        self.settings = settings

    # What comes in

    def add_odometry(
        self, stamp_ns: int, T_odom_base: NDArray[np.float64]
    ) -> tuple[list[Outcome], str]:
        """Takes a pose (4, 4) of the robot in the odometry's frame.

        Returns:
            What became of measurements that waited for it, and why it does not join the odometry before
            (empty if it does).

        Raises:
            MeasurementError: not finite, or not newer than the last.
        """
        newest = self._buffer.newest_ns
        if newest is not None and (newest - stamp_ns) * 1e-9 > self.settings.reset_after_s:
            self._forget_all()
            self.resets += 1
        why = self._buffer.add(int(stamp_ns), T_odom_base) or ""
        outcomes = self._use_pending()
        self._keep_within_buffer()
        self._advance_live()
        return outcomes, why

    def add_pose(
        self,
        stamp_ns: int,
        T_map_base: NDArray[np.float64],
        covariance: NDArray[np.float64],
        source: str = "",
    ) -> list[Outcome]:
        """Takes a measured pose.

        Args:
            stamp_ns: of its image.
            T_map_base: (4, 4).
            covariance: (6, 6), about the map's axes, as in `PoseEstimate`.
            source: errors of one source are alike from view to view.

        Returns:
            What became of it, and of others that waited.

        Raises:
            MeasurementError: not finite, a covariance that is none, or too old.
        """
        measurement = self._checked(int(stamp_ns), T_map_base, covariance, source)
        newest = self._buffer.newest_ns
        if newest is not None and measurement.stamp_ns > newest:
            insort(self._pending, measurement)
            outcomes = self._use_pending()
            return outcomes or [Outcome(PENDING, source)]
        return [self._use(measurement)]

    def _checked(
        self, stamp_ns: int, T: NDArray[np.float64], covariance: NDArray[np.float64], source: str
    ) -> _Measurement:
        if T.shape != (4, 4) or not np.all(np.isfinite(T)):
            raise MeasurementError("non_finite", "the pose is not finite")
        C = np.asarray(covariance, np.float64)
        if C.shape != (6, 6) or not np.all(np.isfinite(C)):
            raise MeasurementError("covariance", "the covariance is not finite")
        scale = float(np.abs(np.diagonal(C)).max())
        if np.abs(C - C.T).max() > 1e-6 * scale or np.linalg.eigvalsh(symmetrised(C))[0] <= 0:
            raise MeasurementError(
                "covariance", "the covariance is not symmetric and positive definite"
            )
        last = self._before[-1][0].stamp_ns if self._before else None
        newest = max((t for t in (last, self._buffer.newest_ns) if t is not None), default=stamp_ns)
        if (newest - stamp_ns) * 1e-9 > self.settings.history_s:
            # While others are at the newest time, this source alone is late.
            self._too_old = self._too_old + 1 if newest == self._too_old_for else 1
            self._too_old_for = newest
            if self._too_old < _TOO_OLD_IN_A_ROW:
                raise MeasurementError(
                    "too_old",
                    f"a pose of source {source!r} is {(newest - stamp_ns) * 1e-9:.1f} s older than the "
                    f"newest data, and {self.settings.history_s:g} s are kept (history_s)",
                )
            self._forget_all()
            self.resets += 1
        self._too_old = 0
        self._number += 1
        body = symmetrised(se3.body_covariance(T, C))
        return _Measurement(stamp_ns, self._number, source, np.array(T, np.float64), body)

    def _use_pending(self) -> list[Outcome]:
        """Uses the measurements whose odometry is there, or which waited too long for it."""
        newest = self._buffer.newest_ns
        outcomes = []
        while self._pending and newest is not None:
            waited_s = (self._pending[-1].stamp_ns - newest) * 1e-9
            if self._pending[0].stamp_ns > newest and waited_s <= self.settings.odometry_timeout_s:
                break
            self.without_odometry += self._pending[0].stamp_ns > newest
            outcomes.append(self._use(self._pending.pop(0)))
        return outcomes

    # What is made of it

    def _use(self, measurement: _Measurement) -> Outcome:
        later = []
        while self._before and measurement < self._before[-1][0]:
            used, self._state = self._before.pop()
            later.append(used)
        outcome = self._step(measurement)
        if later:
            self.replays += 1
        for used in reversed(later):
            self._step(used)
        oldest = self._before[-1][0].stamp_ns - round(self.settings.history_s * 1e9)
        while len(self._before) > 1 and self._before[0][0].stamp_ns < oldest:
            self._before.pop(0)
        self._live = None
        return outcome

    def _step(self, m: _Measurement) -> Outcome:
        """Applies a measurement that is the newest of those applied."""
        before = self._state
        self._before.append((m, before))
        track = self._moved(before.track, m.stamp_ns)
        if track is None:
            challenger, agreed = self._challenged(before.challenger, m)
            if agreed and challenger.count >= self.settings.initialise_count:
                self._state = _State(challenger.track, challenger.seen)
                return Outcome(INITIALISED, m.source)
            self._state = _State(challenger=challenger)
            return Outcome(INITIALISING, m.source)
        drawn, distance = self._drawn(track, before.seen, m)
        if drawn is not None:
            seen = {**before.seen, m.source: (m.stamp_ns, drawn.path)}
            self._state = _State(drawn, seen)
            return Outcome(ACCEPTED, m.source, distance)
        challenger, agreed = self._challenged(before.challenger, m)
        refused = before.refused + 1
        since = before.refused_since_ns if before.refused else m.stamp_ns
        lasted_s = (m.stamp_ns - since) * 1e-9
        if (
            agreed
            and challenger.count >= self.settings.reinitialise_count
            and lasted_s >= self.settings.reinitialise_after_s
        ):
            self._state = _State(challenger.track, challenger.seen)
            return Outcome(REINITIALISED, m.source, distance)
        self._state = replace(
            before, track=track, challenger=challenger, refused=refused, refused_since_ns=since
        )
        return Outcome(REJECTED, m.source, distance)

    def _challenged(
        self, challenger: _Challenger | None, m: _Measurement
    ) -> tuple[_Challenger, bool]:
        """Returns the challenger after a measurement, and whether it agrees; if not, it is a new one."""
        if challenger is not None:
            track = self._moved(challenger.track, m.stamp_ns)
            assert track is not None
            drawn, _ = self._drawn(track, challenger.seen, m)
            if drawn is not None:
                seen = {**challenger.seen, m.source: (m.stamp_ns, drawn.path)}
                return _Challenger(drawn, challenger.count + 1, seen), True
        track = Track.begin(m.stamp_ns, m.T, m.covariance, self.settings.motion)
        return _Challenger(track, 1, {m.source: (m.stamp_ns, track.path)}), (
            self.settings.initialise_count == 1 or self.settings.reinitialise_count == 1
        )

    def _drawn(
        self, track: Track, seen: Mapping[str, tuple[int, Array]], m: _Measurement
    ) -> tuple[Track | None, float]:
        """Returns the track drawn by a measurement, None if the gate refuses it; and its distance."""
        try:
            innovation = track.innovation(m.T, m.covariance)
        except np.linalg.LinAlgError:  # rounding, of a covariance with very different variances
            return None, math.inf
        if not innovation.distance <= chi_squared_6(self.settings.gate_probability):
            return None, innovation.distance
        away = self._away(track, seen.get(m.source), m.stamp_ns)
        covariance = m.covariance * inflation(away)
        return track.corrected(innovation.residual, covariance), innovation.distance

    def _away(self, track: Track, last: tuple[int, Array] | None, stamp_ns: int) -> float:
        if last is None:
            return math.inf
        s = self.settings
        motion = se3.log(inverse(last[1]) @ track.path)
        metres, radians = float(np.linalg.norm(motion[:3])), float(np.linalg.norm(motion[3:]))
        away = metres / s.correlation_m + math.degrees(radians) / s.correlation_deg
        seconds = (stamp_ns - last[0]) * 1e-9
        return away + seconds / s.correlation_s

    def _moved(self, track: Track | None, stamp_ns: int) -> Track | None:
        if track is None:
            return None
        motion = self.settings.motion
        for step in self._buffer.steps(track.stamp_ns, stamp_ns):
            track = track.moved(step, motion)
        return track

    def _keep_within_buffer(self) -> None:
        """Moves tracks along that no measurement drew for long: the odometry of their time is forgotten."""
        newest, state = self._buffer.newest_ns, self._state
        history_ns = round(self.settings.history_s * 1e9)
        if newest is None:
            return
        # No measurement can come before this, so none can need the tracks as they were.
        limit = newest - history_ns
        behind = limit - 1_000_000_000  # once a second, not with every message
        if state.track is not None and state.track.stamp_ns < behind:
            state = replace(state, track=self._moved(state.track, limit))
        challenger = state.challenger
        if challenger is not None and challenger.track.stamp_ns < behind:
            track = self._moved(challenger.track, limit)
            assert track is not None
            state = replace(state, challenger=replace(challenger, track=track))
        self._state = state

    def _advance_live(self) -> None:
        newest = self._buffer.newest_ns
        start = self._live or self._state.track
        if start is not None and newest is not None:
            self._live = self._moved(start, newest)

    # What comes out

    def estimate(self, stamp_ns: int | None = None) -> PoseEstimate | None:
        """Returns where the robot is: at a time, or else at that of the newest data; None if that is unknown.

        A time before the last measurement gives the estimate of that measurement.
        """
        if self._state.track is None:
            return None
        self._advance_live()
        track = self._live or self._state.track
        if stamp_ns is not None:
            if stamp_ns < track.stamp_ns:
                track = self._state.track
            moved = self._moved(track, int(stamp_ns))
            assert moved is not None
            track = moved
        covariance = symmetrised(se3.map_covariance(track.T, track.pose_covariance))
        return PoseEstimate(track.stamp_ns, se3.orthonormal(track.T), covariance)

    def T_map_odom(self) -> Array | None:
        """Returns the transform (4, 4) from the odometry's frame to the map at the newest odometry."""
        newest = self._buffer.newest_ns
        estimate = self.estimate()
        if estimate is None or newest is None or estimate.stamp_ns != newest:
            return None
        T_odom_base = self._buffer.pose_at(newest)
        return None if T_odom_base is None else estimate.T @ inverse(T_odom_base)

    def condition(self, estimate: PoseEstimate | None = None) -> str:
        """Returns `localised`, or why the robot does not know where it is.

        Args:
            estimate: to judge; None for that of the newest data.
        """
        s, state = self.settings, self._state
        if state.track is None:
            return INITIALISING if state.challenger else WAITING
        if state.refused >= s.reinitialise_count:
            last = self._before[-1][0].stamp_ns
            if (last - state.refused_since_ns) * 1e-9 >= s.reinitialise_after_s:
                return CONTRADICTED
        estimate = estimate or self.estimate()
        assert estimate is not None
        sure = estimate.sigma_m <= s.localised_m and estimate.sigma_deg <= s.localised_deg
        return LOCALISED if sure else UNCERTAIN

    @property
    def refused_in_a_row(self) -> int:
        """Measurements that were refused since the last one that was not."""
        return self._state.refused

    @property
    def odometry_ns(self) -> int | None:
        """Stamp of the newest odometry; None without any."""
        return self._buffer.newest_ns
