"""Where the robot is: measured poses of any source and delay, fused with odometry; wrong ones are refused.

The estimate is a `Track`. A measured pose whose squared Mahalanobis distance exceeds the gate is refused.
Those that are refused, and all while there is no estimate, draw a second track, the challenger. When it has
agreed with enough measurements in a row, all of which the estimate contradicts, it takes the estimate's
place: a robot that was carried away, or that was lost from the beginning, is found again. So is one whose
covariance has grown in a gap: no single pose brings it back.

A second estimate runs without odometry. Where the poses leave the first and not the second, or
where the motions of both differ (`odometry_check.py`), the odometry is distrusted and the second is
published, until the odometry agrees again.

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
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import MeasurementError
from robot_vision.filters.belief import FilterState, leap, mixture, reach, spread
from robot_vision.filters.hypothesis import (
    CellMeasurement,
    Measurement,
    PoseHypothesis,
    sigmas,
)
from robot_vision.filters.likeness import Likeness
from robot_vision.filters.odometry import Continuity, OdometryBuffer, Step
from robot_vision.filters.odometry_trust import OdometryTrust
from robot_vision.filters.pose_settings import (
    ACCEPTED,
    CELLS_AGAINST,
    CELLS_EARLY,
    CELLS_ELSEWHERE,
    CELLS_USED,
    CONTRADICTED,
    INITIALISED,
    INITIALISING,
    LOCALISED,
    PENDING,
    REINITIALISED,
    REJECTED,
    UNCERTAIN,
    WAITING,
    MeasurementOutcome,
    PoseEstimate,
    PoseFilterSettings,
)
from robot_vision.filters.pose_track import Track
from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry import se3
from robot_vision.geometry.published_covariance import MIN_VARIANCE
from robot_vision.geometry.rigid import inverse, symmetrised
from robot_vision.messages.stamps import nanoseconds

__all__ = [
    "ACCEPTED",
    "CELLS_AGAINST",
    "CELLS_EARLY",
    "CELLS_ELSEWHERE",
    "CELLS_USED",
    "CONTRADICTED",
    "INITIALISED",
    "INITIALISING",
    "LOCALISED",
    "PENDING",
    "REINITIALISED",
    "REJECTED",
    "UNCERTAIN",
    "WAITING",
    "MeasurementOutcome",
    "PoseEstimate",
    "PoseFilterSettings",
    "PoseFilter",
]

Array = NDArray[np.float64]

_LOST_S = 0.5  # without a measurement: what knows no odometry is begun again
_NEVER = 1 << 62
AGAINST, FOR = 0.5, 2.0  # agreement of cells: how much more probable they are there than anywhere
_LEAST_SHARE = 1e-13  # of a covariance's largest variance
_TOO_OLD_IN_A_ROW = 10  # and nothing newer meanwhile: it was not them, the clock was set back


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
        self._buffer = OdometryBuffer(
            2 * s.history_s + s.odometry_timeout_s + 5.0, Continuity(s.speed_m_s, s.turn_deg_s)
        )
        self._state = FilterState()
        self._before: list[
            tuple[Measurement | CellMeasurement, FilterState]
        ] = []  # each one and the state before it
        self._pending: list[Measurement | CellMeasurement] = []
        self._live: Track | None = None  # the estimate at the newest odometry
        self._trust = OdometryTrust()
        self._likeness = Likeness()

    def reset(self) -> None:
        """Forgets everything."""
        self._forget_all()

    def change(self, settings: PoseFilterSettings) -> None:
        """Replaces what is assumed, from the next measurement on; the estimate is kept."""
        self.settings = settings

    # What comes in

    def add_odometry(
        self, stamp_ns: int, T_odom_base: NDArray[np.float64]
    ) -> tuple[list[MeasurementOutcome], str]:
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
        self._trust.follow(self._buffer)
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
    ) -> list[MeasurementOutcome]:
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
        return self._take(measurement)

    def add_cells(
        self,
        stamp_ns: int,
        cells: PositionCells,
        source: str = "",
        point: NDArray[np.float64] | None = None,
    ) -> list[MeasurementOutcome]:
        """Takes probabilities of where a point of the robot is; see `position_cells`.

        Cells know no orientation: they begin no estimate and replace none by themselves. They narrow the one
        there is, contradict it, and count with the poses that are to replace it.

        Args:
            stamp_ns: of its image.
            cells: where the point may be.
            source: errors of one source are alike from view to view.
            point: (3,), metres in the robot's frame; None for its origin.

        Returns:
            What became of it, and of others that waited.

        Raises:
            MeasurementError: too old.
        """
        self._newest(int(stamp_ns), f"an answer of cells of source {source!r}")
        where = np.zeros(3) if point is None else np.array(point, np.float64)
        return self._take(CellMeasurement(int(stamp_ns), self._number, source, cells, where))

    def _take(self, measurement: Measurement | CellMeasurement) -> list[MeasurementOutcome]:
        newest = self._buffer.newest_ns
        if newest is not None and measurement.stamp_ns > newest:
            insort(self._pending, measurement)
            outcomes = self._use_pending()
            return outcomes or [MeasurementOutcome(PENDING, measurement.source)]
        return [self._use(measurement)]

    def _checked(
        self, stamp_ns: int, T: NDArray[np.float64], covariance: NDArray[np.float64], source: str
    ) -> Measurement:
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
        newest = self._newest(stamp_ns, f"a pose of source {source!r}")
        # A variance may be the smallest double there is, and its inverse infinite; or so small next to
        # another that rounding makes it negative.
        body = symmetrised(se3.body_covariance(T, C))
        variances = np.linalg.eigvalsh(body)
        least = max(MIN_VARIANCE, _LEAST_SHARE * float(variances[-1]))
        body = body + max(0.0, least - float(variances[0])) * np.eye(6)
        return Measurement(
            stamp_ns,
            self._number,
            source,
            np.array(T, np.float64),
            body,
            max(newest, stamp_ns),
            self._likeness.factor(source),
        )

    def _newest(self, stamp_ns: int, what: str) -> int:
        """Returns the stamp of the newest data, and counts what came; raises if it came too late."""
        last = self._before[-1][0].stamp_ns if self._before else None
        newest = max((t for t in (last, self._buffer.newest_ns) if t is not None), default=stamp_ns)
        if (newest - stamp_ns) * 1e-9 > self.settings.history_s:
            # While others are at the newest time, this source alone is late.
            self._too_old = self._too_old + 1 if newest == self._too_old_for else 1
            self._too_old_for = newest
            if self._too_old < _TOO_OLD_IN_A_ROW:
                raise MeasurementError(
                    "too_old",
                    f"{what} is {(newest - stamp_ns) * 1e-9:.1f} s older than the newest data, and "
                    f"{self.settings.history_s:g} s are kept (history_s)",
                )
            self._forget_all()
            self.resets += 1
        self._too_old = 0
        self._number += 1
        return newest

    def _use_pending(self) -> list[MeasurementOutcome]:
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

    def _use(self, measurement: Measurement | CellMeasurement) -> MeasurementOutcome:
        later = []
        while self._before and measurement < self._before[-1][0]:
            used, self._state = self._before.pop()
            later.append(used)
        outcome = self._step(measurement)
        if isinstance(measurement, Measurement):
            accepted = outcome.verdict == ACCEPTED
            self._trust.compare(measurement, accepted, self._buffer, self.settings)
            if accepted:
                self._liken(measurement)
        if later:
            self.replays += 1
        for used in reversed(later):
            self._step(used)
        oldest = self._before[-1][0].stamp_ns - nanoseconds(self.settings.history_s)
        while len(self._before) > 1 and self._before[0][0].stamp_ns < oldest:
            self._before.pop(0)
        self._live = None
        return outcome

    def _liken(self, m: Measurement) -> None:
        """Learns from a measurement that was accepted how alike its source's errors are."""
        before, state = self._before[-1][1], self._state
        if not state.trusted:
            self._likeness.clear()  # it was learnt by that odometry
        elif before.estimate is not None and len(self._buffer) > 1:
            assert state.estimate is not None
            moved = before.estimate.at(state.estimate.track)
            noise = self.settings.noise.variances(np.zeros(6), 1.0)
            self._likeness.add(
                m, state.estimate.track.path, moved.away(m, self.settings) / m.unlike, noise
            )

    def _step(self, m: Measurement | CellMeasurement) -> MeasurementOutcome:
        """Applies a measurement that is the newest of those applied."""
        before, s = self._state, self.settings
        self._before.append((m, before))
        if isinstance(m, CellMeasurement):
            return self._weigh(before, m)
        estimate = self._hypothesis(before.estimate, m.stamp_ns, True)
        without = self._hypothesis(before.without, m.stamp_ns, False)
        if without is not None and without.grown(s):
            without = None
        moved = replace(before, estimate=estimate, without=without)
        main = estimate if before.trusted else without
        if main is None or main.grown(s):
            return self._found(moved, m, s.initialise_count, INITIALISING, INITIALISED)
        assert estimate is not None
        drawn, distance, residual = estimate.drawn(m, s)
        other, other_distance, other_residual = None, math.inf, np.zeros(6)
        P, share = estimate.track.pose_covariance, estimate.worth(m, s)
        lag = before.lag.added(m, residual, P, 0.0)
        slow_lag = before.slow_lag.added(m, residual, P, share)
        lag_without = before.lag_without
        if without is not None:
            other, other_distance, other_residual = without.drawn(m, s)
            P = without.track.pose_covariance
            lag_without = lag_without.added(m, other_residual, P, without.worth(m, s))
        parted = None
        if drawn is None and other is not None:
            parted = m.stamp_ns if before.parted_since_ns is None else before.parted_since_ns
        if other is None and drawn is not None and (without is None or before.trusted):
            other = self._restarted_without(without, drawn, m)
        state = replace(
            moved,
            estimate=drawn or estimate,
            without=other or without,
            lag=lag,
            slow_lag=slow_lag,
            lag_without=lag_without,
            parted_since_ns=parted,
        )
        state = self._trust.decided(state, m)
        if state.trusted and state.without is None:
            # Nothing draws it any more, but a pose that was refused makes no surer of the odometry.
            state = replace(state, without=before.without)
        accepted = drawn if before.trusted else other
        distance = distance if before.trusted else other_distance
        if accepted is not None or state.trusted != before.trusted:
            self._state = self._judged(state.accepting(m), m)
            return MeasurementOutcome(ACCEPTED, m.source, distance)
        state = state.refusing(m)
        count = s.reinitialise_count if state.established else s.initialise_count
        lasted_s = (m.stamp_ns - state.refused_since_ns) * 1e-9
        if parted is not None or (state.established and lasted_s < s.reinitialise_after_s):
            count = _NEVER  # what knows no odometry agrees: the fault is the odometry's
        return self._found(state, m, count, REJECTED, REINITIALISED, distance)

    def _weigh(self, before: FilterState, m: CellMeasurement) -> MeasurementOutcome:
        """Applies cells: to the estimate, to its like without odometry, and to what challenges it."""
        s = self.settings
        estimate = self._hypothesis(before.estimate, m.stamp_ns, True)
        without = self._hypothesis(before.without, m.stamp_ns, False)
        challenger = self._hypothesis(before.challenger, m.stamp_ns, before.trusted)
        if without is not None and without.grown(s):
            without = None
        main = estimate if before.trusted else without
        if main is None or main.grown(s):
            return MeasurementOutcome(CELLS_EARLY, m.source)
        weighed = main.weighed(m, s)
        if weighed is None:
            return MeasurementOutcome(CELLS_ELSEWHERE, m.source)
        agreement = weighed[1]
        found = challenger.weighed(m, s) if challenger is not None and before.refused else None
        if agreement < AGAINST:
            since = before.against_since_ns if before.against else m.stamp_ns
            state = replace(before, against=before.against + 1, against_since_ns=since)
            if found is not None and found[1] > FOR:
                state = replace(state, challenger=replace(found[0], count=found[0].count + 1))
            self._state = state
            return MeasurementOutcome(CELLS_AGAINST, m.source)

        def drawn(hypothesis: PoseHypothesis | None) -> PoseHypothesis | None:
            if hypothesis is None or hypothesis is main:
                return weighed[0] if hypothesis is main else None
            of_it = hypothesis.weighed(m, s)
            return of_it[0] if of_it is not None and of_it[1] >= AGAINST else hypothesis

        self._state = replace(before, estimate=drawn(estimate), without=drawn(without), against=0)
        return MeasurementOutcome(CELLS_USED, m.source)

    def _restarted_without(
        self, without: PoseHypothesis | None, drawn: PoseHypothesis, m: Measurement
    ) -> PoseHypothesis | None:
        """Returns what runs without odometry, begun with the estimate where it has lost its way."""
        last = (
            max((seen.stamp_ns for seen, _ in without.seen.values()), default=0) if without else 0
        )
        return drawn if (m.stamp_ns - last) * 1e-9 > _LOST_S else None

    def _found(
        self,
        state: FilterState,
        m: Measurement,
        count: int,
        waits: str,
        found: str,
        distance: float = math.nan,
    ) -> MeasurementOutcome:
        """Draws the challenger; it becomes the estimate when `count` measurements agree."""
        challenger, agreed = self._challenged(state, m)
        if (agreed or count == 1) and challenger.count >= count:
            trusted = state.trusted
            self._state = FilterState(
                challenger, challenger, trusted=trusted, agrees_since_ns=m.stamp_ns
            )
            self._state = self._judged(self._state, m)
            self._trust.clear()
            return MeasurementOutcome(found, m.source, distance)
        self._state = self._judged(replace(state, challenger=challenger), m)
        return MeasurementOutcome(waits, m.source, distance)

    def _challenged(self, state: FilterState, m: Measurement) -> tuple[PoseHypothesis, bool]:
        """Returns the challenger after a measurement, and whether it agrees; if not, it is a new one."""
        challenger = self._hypothesis(state.challenger, m.stamp_ns, state.trusted)
        if challenger is not None:
            drawn, _, _ = challenger.drawn(m, self.settings)
            if drawn is not None:
                return drawn, True
        return PoseHypothesis.begin(m, self.settings), False

    def _judged(self, state: FilterState, m: Measurement) -> FilterState:
        """Returns the state with whether the robot is localised at this measurement."""
        state, main = replace(state, posed_ns=m.stamp_ns), state.main
        if main is None:
            return replace(state, localised=False)
        found = sigmas(self._spread(state, main.track))
        return state.judged(state.condition(self.settings, m.arrived_ns, found), m)

    def _spread(self, state: FilterState, track: Track) -> Array:
        """Returns the covariance (6, 6) by which it is judged whether the robot is localised."""
        return spread(state, track, self._trust.doubt(track) if state.trusted else np.zeros((6, 6)))

    def _unsettled(self, state: FilterState, track: Track) -> Array:
        """Returns the variances (6, 6) of what the next measurements settle, which is published only."""
        other = self._hypothesis(state.challenger, track.stamp_ns, state.trusted)
        found = reach(track, other.track if other else None) + leap(state.main, track.stamp_ns)
        if state.trusted and state.without is not None and not self._trust.proven:
            without = self._moved(state.without.track, track.stamp_ns, False)
            found += mixture(track, without, self.settings.odometry_unproven)
        return found

    def _hypothesis(
        self, hypothesis: PoseHypothesis | None, stamp_ns: int, odometry: bool
    ) -> PoseHypothesis | None:
        if hypothesis is None:
            return None
        return hypothesis.at(self._moved(hypothesis.track, stamp_ns, odometry))

    def _moved(self, track: Track, stamp_ns: int, odometry: bool = True) -> Track:
        motion = self.settings.motion
        if not odometry:
            dt_s = (stamp_ns - track.stamp_ns) * 1e-9
            return track.moved(Step(dt_s, None), motion) if dt_s > 0 else track
        for step in self._buffer.steps(track.stamp_ns, stamp_ns):
            track = track.moved(step, motion)
        return track

    def _keep_within_buffer(self) -> None:
        """Moves tracks along that no measurement drew for long: the odometry of their time is forgotten."""
        newest, state = self._buffer.newest_ns, self._state
        history_ns = nanoseconds(self.settings.history_s)
        if newest is None:
            return
        # No measurement can come before this, so none can need the tracks as they were.
        limit = newest - history_ns
        behind = limit - 1_000_000_000  # once a second, not with every message
        if state.estimate is not None and state.estimate.track.stamp_ns < behind:
            state = replace(state, estimate=self._hypothesis(state.estimate, limit, True))
        challenger = state.challenger
        if challenger is not None and challenger.track.stamp_ns < behind:
            state = replace(state, challenger=self._hypothesis(challenger, limit, state.trusted))
        self._state = state

    def _advance_live(self) -> None:
        newest, main = self._buffer.newest_ns, self._state.main
        start = self._live or (main.track if main else None)
        if start is not None and newest is not None and newest > start.stamp_ns:
            if self._state.trusted:
                self._live = self._moved(start, newest)
            else:
                assert main is not None
                self._live = self._moved(main.track, newest, False)

    # What comes out

    def estimate(self, stamp_ns: int | None = None) -> PoseEstimate | None:
        """Returns where the robot is: at a time, or else at that of the newest data; None if that is unknown.

        A time before the last measurement gives the estimate of that measurement. The covariance covers what
        the estimate lags behind the measurements, and the place where a contradicted one may be instead.
        """
        if self._state.main is None:
            return None
        track, state = self._at(stamp_ns), self._state
        P = self._spread(state, track) + self._unsettled(state, track)
        covariance = symmetrised(se3.map_covariance(track.T, P))
        return PoseEstimate(track.stamp_ns, se3.orthonormal(track.T), covariance)

    def _at(self, stamp_ns: int | None) -> Track:
        """Returns the track that is published, at a time or at that of the newest data."""
        main = self._state.main
        assert main is not None
        self._advance_live()
        track = self._live or main.track
        if stamp_ns is None:
            return track
        if stamp_ns < track.stamp_ns:
            track = main.track
        return self._moved(track, int(stamp_ns), self._state.trusted)

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
        state = self._state
        if state.main is None:
            return INITIALISING if state.challenger else WAITING
        track, last = self._at(estimate.stamp_ns if estimate else None), self._before[-1][0]
        newest = max(track.stamp_ns, last.stamp_ns)
        return state.condition(self.settings, newest, sigmas(self._spread(state, track)))

    @property
    def refused_in_a_row(self) -> int:
        """Measurements that were refused since the last one that was not."""
        return self._state.refused

    @property
    def odometry_fault(self) -> str:
        """In what the odometry differs from the measured poses; empty while it is trusted."""
        return self._trust.fault

    @property
    def odometry_trusted(self) -> bool:
        """Whether the estimate follows the odometry: not while the measured poses contradict it."""
        return self._state.trusted
