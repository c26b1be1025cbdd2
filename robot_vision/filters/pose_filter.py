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
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import MeasurementError
from robot_vision.filters.hypothesis import STAYS, Hypothesis, Measurement, sigmas
from robot_vision.filters.likeness import Likeness
from robot_vision.filters.odometry import Continuity, OdometryBuffer, Step
from robot_vision.filters.odometry_check import UNNAMED, Lag, OdometryCheck, Verdict
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
from robot_vision.geometry import se3
from robot_vision.geometry.published_covariance import MIN_VARIANCE
from robot_vision.geometry.rigid import inverse, symmetrised
from robot_vision.messages.stamps import nanoseconds

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

_CONTRADICTED_S = 0.2  # of refusals: longer than a few outliers, shorter than a planner's reaction
_AGREEING = 3  # measurements that must agree after that
_BEGUN_S = 0.4  # for which measurements must agree before the first estimate is believed
_ESTABLISHED_S = (
    1.0  # after which an estimate is given up as reinitialise_* say, not as it was begun
)
_LOST_S = 0.5  # without a measurement: what knows no odometry is begun again
_LAGS = 22.5  # squared distance of the mean residual: noise alone exceeds it in 0.1 % of cases
_PARTED_S = 0.5  # for which the poses contradict the estimate by odometry and not the one without
_PROVEN_S = 4.0  # for which odometry must agree to be trusted again
_JUDGED_S = 0.3
_LEFT = "the poses leave where it leads"
_STANDS_M_S = 0.05
_NEVER = 1 << 62
_TOO_OLD_IN_A_ROW = 10  # and nothing newer meanwhile: it was not them, the clock was set back


_AT_ONCE, _SLOW = Lag(0.3, 3.0), Lag(1.5, 3.0)


@dataclass(frozen=True, eq=False)
class _State:
    """All that a measurement changes; never altered, so that an earlier one can be taken up again."""

    estimate: Hypothesis | None = None  # moved by the odometry
    without: Hypothesis | None = None  # its like, that knows no odometry
    challenger: Hypothesis | None = None
    trusted: bool = True  # the odometry
    agrees_since_ns: int = 0  # the odometry that is not trusted
    parted_since_ns: int | None = None  # since when `estimate` is refused what `without` accepts
    lag: Lag = _AT_ONCE  # of `estimate`
    slow_lag: Lag = _SLOW  # the same, for what is too small to be seen at once
    lag_without: Lag = _SLOW
    localised: bool = False  # when the last measurement was used
    established: bool = False
    refused: int = 0  # in a row
    refused_since_ns: int = 0
    refused_seen_ns: int = 0  # the newest data when the first of them came
    doubt: tuple[int, float] = (
        0,
        0.0,
    )  # measurements and seconds that it takes to be believed again
    agreed: int = 0  # since then
    agreed_since_ns: int = 0

    @property
    def main(self) -> Hypothesis | None:
        return self.estimate if self.trusted else self.without


class PoseFilter:
    """The filter; see the module's text.

    Args:
        settings: what is assumed.

    Attributes:
        resets: how often a clock that was set back made it forget everything.
        replays: how often measurements had to be used again, because an older one came late.
        without_odometry: how often one was used before the odometry of its time came.
        odometry_fault: in what the odometry differs from the measured poses, while it is not trusted; empty
            while it is.
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
        self._state = _State()
        self._before: list[
            tuple[Measurement, _State]
        ] = []  # each measurement and the state before it
        self._pending: list[Measurement] = []
        self._live: Track | None = None  # the estimate at the newest odometry
        self._check = OdometryCheck()
        self._likeness = Likeness()
        self._verdict = Verdict()
        self._judged_ns = 0
        self.odometry_fault = ""

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
        # A variance may be the smallest double there is, and its inverse infinite.
        body = symmetrised(se3.body_covariance(T, C))
        least = np.linalg.eigvalsh(body)[0]
        body = body + max(0.0, MIN_VARIANCE - least) * np.eye(6)
        return Measurement(
            stamp_ns,
            self._number,
            source,
            np.array(T, np.float64),
            body,
            max(newest, stamp_ns),
            self._likeness.factor(source),
        )

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

    def _use(self, measurement: Measurement) -> Outcome:
        later = []
        while self._before and measurement < self._before[-1][0]:
            used, self._state = self._before.pop()
            later.append(used)
        outcome = self._step(measurement)
        self._compare(measurement, outcome)
        if later:
            self.replays += 1
        for used in reversed(later):
            self._step(used)
        oldest = self._before[-1][0].stamp_ns - nanoseconds(self.settings.history_s)
        while len(self._before) > 1 and self._before[0][0].stamp_ns < oldest:
            self._before.pop(0)
        self._live = None
        return outcome

    def _compare(self, m: Measurement, outcome: Outcome) -> None:
        """Compares odometry and poses, a few times a second."""
        before, state = self._before[-1][1], self._state
        if outcome.verdict == ACCEPTED:
            self._check.add(m)
            if state.trusted and before.estimate is not None and len(self._buffer) > 1:
                assert state.estimate is not None
                moved = before.estimate.at(state.estimate.track)
                noise = self.settings.noise.variances(np.zeros(6), 1.0)
                self._likeness.add(
                    m, state.estimate.track.path, moved.away(m, self.settings) / m.unlike, noise
                )
        if abs(m.stamp_ns - self._judged_ns) * 1e-9 >= _JUDGED_S and len(self._buffer) > 1:
            self._judged_ns = m.stamp_ns
            self._verdict = self._check.judge(self._buffer)

    def _step(self, m: Measurement) -> Outcome:
        """Applies a measurement that is the newest of those applied."""
        before, s = self._state, self.settings
        self._before.append((m, before))
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
        state = self._trusting(state, m)
        accepted = drawn if before.trusted else other
        distance = distance if before.trusted else other_distance
        if accepted is not None or state.trusted != before.trusted:
            self._state = self._judged(_accepted(state, m), m)
            return Outcome(ACCEPTED, m.source, distance)
        state = replace(
            state,
            refused=state.refused + 1,
            refused_since_ns=state.refused_since_ns if state.refused else m.stamp_ns,
            refused_seen_ns=state.refused_seen_ns if state.refused else m.arrived_ns,
            agreed=0,
        )
        count = s.reinitialise_count if state.established else s.initialise_count
        lasted_s = (m.stamp_ns - state.refused_since_ns) * 1e-9
        if parted is not None or (state.established and lasted_s < s.reinitialise_after_s):
            count = _NEVER  # what knows no odometry agrees: the fault is the odometry's
        return self._found(state, m, count, REJECTED, REINITIALISED, distance)

    def _restarted_without(
        self, without: Hypothesis | None, drawn: Hypothesis, m: Measurement
    ) -> Hypothesis | None:
        """Returns what runs without odometry, begun with the estimate where it has lost its way."""
        last = max((stamp for stamp, _ in without.seen.values()), default=0) if without else 0
        return drawn if (m.stamp_ns - last) * 1e-9 > _LOST_S else None

    def _found(
        self,
        state: _State,
        m: Measurement,
        count: int,
        waits: str,
        found: str,
        distance: float = math.nan,
    ) -> Outcome:
        """Draws the challenger; it becomes the estimate when `count` measurements agree."""
        challenger, agreed = self._challenged(state, m)
        if (agreed or count == 1) and challenger.count >= count:
            trusted = state.trusted
            self._state = _State(
                challenger, challenger, trusted=trusted, agrees_since_ns=m.stamp_ns
            )
            self._state = self._judged(self._state, m)
            self._check.clear()
            return Outcome(found, m.source, distance)
        self._state = self._judged(replace(state, challenger=challenger), m)
        return Outcome(waits, m.source, distance)

    def _challenged(self, state: _State, m: Measurement) -> tuple[Hypothesis, bool]:
        """Returns the challenger after a measurement, and whether it agrees; if not, it is a new one."""
        challenger = self._hypothesis(state.challenger, m.stamp_ns, state.trusted)
        if challenger is not None:
            drawn, _, _ = challenger.drawn(m, self.settings)
            if drawn is not None:
                return drawn, True
        return Hypothesis.begin(m, self.settings), False

    def _trusting(self, state: _State, m: Measurement) -> _State:
        """Decides whether the odometry is trusted, by what the poses say of it."""
        estimate, without = state.estimate, state.without
        if estimate is None or without is None:
            return state
        lag = state.slow_lag.distance
        lags = lag > _LAGS and state.lag_without.distance < lag / 2
        parted_s = 0.0
        if state.parted_since_ns is not None:
            parted_s = (m.stamp_ns - state.parted_since_ns) * 1e-9
        restarted = replace(
            state,
            estimate=without,
            trusted=False,
            agrees_since_ns=m.stamp_ns,
            parted_since_ns=None,
            lag=_AT_ONCE,
            slow_lag=_SLOW,
        )
        if state.trusted:
            if self._verdict.text or lags or parted_s >= _PARTED_S:
                self.odometry_fault = self._verdict.text or _LEFT
                self._likeness.clear()  # it was learnt by that odometry
                return restarted
            return state
        if lags or parted_s >= _PARTED_S / 2:
            return restarted
        verdict = self._verdict
        if verdict.text:
            if self.odometry_fault in (_LEFT, UNNAMED):
                self.odometry_fault = verdict.text
            return replace(state, agrees_since_ns=m.stamp_ns)
        agrees_s = (m.stamp_ns - state.agrees_since_ns) * 1e-9
        if agrees_s >= _PROVEN_S and verdict.agrees:
            self.odometry_fault = ""
            return replace(state, trusted=True)
        return state

    def _judged(self, state: _State, m: Measurement) -> _State:
        """Returns the state with whether the robot is localised at this measurement."""
        main = state.main
        if main is None:
            return replace(state, localised=False)
        localised = self._condition(
            state, m.stamp_ns, m.arrived_ns, *self._sigmas(state, main.track)
        )
        held = localised == LOCALISED
        lasted_s = (m.stamp_ns - main.since_ns) * 1e-9
        return replace(
            state,
            localised=held,
            established=state.established or (held and lasted_s >= _ESTABLISHED_S),
        )

    def _hypothesis(
        self, hypothesis: Hypothesis | None, stamp_ns: int, odometry: bool
    ) -> Hypothesis | None:
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
        main = self._state.main
        if main is None:
            return None
        self._advance_live()
        track = self._live or main.track
        if stamp_ns is not None:
            if stamp_ns < track.stamp_ns:
                track = main.track
            track = self._moved(track, int(stamp_ns), self._state.trusted)
        P = self._covering(self._state, track)
        covariance = symmetrised(se3.map_covariance(track.T, P))
        return PoseEstimate(track.stamp_ns, se3.orthonormal(track.T), covariance)

    def _covering(self, state: _State, track: Track) -> Array:
        """Returns the covariance (6, 6) of the pose, wide enough for what contradicts it."""
        lags = (state.lag, state.slow_lag) if state.trusted else (state.lag_without,)
        excess = max((lag.excess() for lag in lags), key=np.trace)
        P = track.pose_covariance + excess
        speed = float(np.linalg.norm(track.velocity[:3]))
        if state.trusted and self._verdict.doubt_m > 0 and speed > _STANDS_M_S:
            along = np.concatenate([track.velocity[:3] / speed, np.zeros(3)])
            P = P + self._verdict.doubt_m**2 * np.outer(along, along)
        if state.challenger is not None and state.refused > 1 and state.challenger.count > 1:
            other = self._moved(state.challenger.track, track.stamp_ns, state.trusted)
            apart = se3.log(inverse(track.T) @ other.T)
            P = P + np.outer(apart, apart)
        return P

    def _sigmas(self, state: _State, track: Track) -> tuple[float, float]:
        metres, radians = sigmas(self._covering(state, track))
        return metres, math.degrees(radians)

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
        estimate = estimate or self.estimate()
        assert estimate is not None
        last = self._before[-1][0]
        newest = max(estimate.stamp_ns, last.stamp_ns)
        return self._condition(state, last.stamp_ns, newest, estimate.sigma_m, estimate.sigma_deg)

    def _condition(
        self, state: _State, last_ns: int, now_ns: int, sigma_m: float, sigma_deg: float
    ) -> str:
        s, main = self.settings, state.main
        assert main is not None
        if state.refused and (
            (last_ns - state.refused_since_ns) * 1e-9 >= _CONTRADICTED_S
            or (now_ns - state.refused_seen_ns) * 1e-9 >= _CONTRADICTED_S
        ):
            return CONTRADICTED
        count, seconds = state.doubt
        if state.agreed < count or (last_ns - state.agreed_since_ns) * 1e-9 < seconds:
            return CONTRADICTED
        if s.initialise_count > 1 and (last_ns - main.since_ns) * 1e-9 < _BEGUN_S:
            return INITIALISING
        most = STAYS if state.localised else 1.0
        sure = sigma_m <= most * s.localised_m and sigma_deg <= most * s.localised_deg
        return LOCALISED if sure else UNCERTAIN

    @property
    def refused_in_a_row(self) -> int:
        """Measurements that were refused since the last one that was not."""
        return self._state.refused

    @property
    def odometry_trusted(self) -> bool:
        """Whether the estimate follows the odometry: not while the measured poses contradict it."""
        return self._state.trusted

    @property
    def odometry_ns(self) -> int | None:
        """Stamp of the newest odometry; None without any."""
        return self._buffer.newest_ns


def _accepted(state: _State, m: Measurement) -> _State:
    """Returns the state after a measurement that agrees: after a contradiction it takes more than one."""
    lasted_s = (m.stamp_ns - state.refused_since_ns) * 1e-9 if state.refused > 1 else 0.0
    doubt, agreed, since = state.doubt, state.agreed + 1, state.agreed_since_ns
    if lasted_s >= _CONTRADICTED_S:
        # As many and as long as those that were refused, up to what it takes at the start.
        doubt = min(_AGREEING, state.refused - 1), min(_CONTRADICTED_S, lasted_s / 2)
        agreed, since = 1, m.stamp_ns
    elif agreed >= doubt[0] and (m.stamp_ns - since) * 1e-9 >= doubt[1]:
        doubt = (0, 0.0)
    elif state.agreed == 0:
        since = m.stamp_ns
    return replace(
        state, challenger=None, refused=0, doubt=doubt, agreed=agreed, agreed_since_ns=since
    )
