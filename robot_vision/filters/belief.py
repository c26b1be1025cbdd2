"""What is believed of the estimate: whether the robot is localised, and how wide the covariance must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.hypothesis import LEAP_S, STAYS, Measurement, PoseHypothesis
from robot_vision.filters.odometry_check import Lag
from robot_vision.filters.pose_settings import (
    CONTRADICTED,
    INITIALISING,
    LOCALISED,
    UNCERTAIN,
    PoseFilterSettings,
)
from robot_vision.filters.pose_track import Track
from robot_vision.geometry import inverse, se3

Array = NDArray[np.float64]

CONTRADICTED_S = 0.2  # of refusals: longer than a few outliers, shorter than a planner's reaction
_AGREEING = 3  # measurements that must agree after that
_BEGUN_S = 0.4  # for which measurements must agree before the first estimate is believed
_ESTABLISHED_S = (
    1.0  # after which an estimate is given up as reinitialise_* say, not as it was begun
)
_REACH = 2.0  # standard deviations within which every place lies that refused poses speak for

AT_ONCE, SLOW = Lag(0.3, 3.0), Lag(1.5, 3.0)


@dataclass(frozen=True, eq=False)
class FilterState:
    """All that a measurement changes; never altered, so that an earlier one can be taken up again."""

    estimate: PoseHypothesis | None = None  # moved by the odometry
    without: PoseHypothesis | None = None  # its like, that knows no odometry
    challenger: PoseHypothesis | None = None
    trusted: bool = True  # the odometry
    agrees_since_ns: int = 0  # the odometry that is not trusted
    parted_since_ns: int | None = None  # since when `estimate` is refused what `without` accepts
    lag: Lag = AT_ONCE  # of `estimate`
    slow_lag: Lag = SLOW  # the same, for what is too small to be seen at once
    lag_without: Lag = SLOW
    localised: bool = False  # when the last measurement was used
    established: bool = False
    refused: int = 0  # in a row
    refused_since_ns: int = 0
    refused_seen_ns: int = 0  # the newest data when the first of them came
    doubt: tuple[int, float] = (0, 0.0)  # measurements and seconds until it is believed again
    agreed: int = 0  # since then
    agreed_since_ns: int = 0
    posed_ns: int = 0  # stamp of the last measured pose
    against: int = 0  # answers of cells in a row, since the last pose that was accepted
    against_since_ns: int = 0

    @property
    def main(self) -> PoseHypothesis | None:
        """The one that is published."""
        return self.estimate if self.trusted else self.without

    def accepting(self, m: Measurement) -> FilterState:
        """Returns the state after a measurement that agrees: after a contradiction it takes more than one."""
        agreed, since = self.agreed + 1, self.agreed_since_ns if self.agreed else m.stamp_ns
        count, seconds = self.doubt
        settled = agreed >= count and (m.stamp_ns - since) * 1e-9 >= seconds
        return replace(
            self,
            challenger=None,
            refused=0,
            doubt=(0, 0.0) if settled else self.doubt,
            agreed=agreed,
            agreed_since_ns=since,
            against=0,
        )

    def contradicted_by_cells(self, stamp_ns: int) -> bool:
        """Says whether cells have said for long enough that the robot is not where it is believed to be."""
        lasted_s = (stamp_ns - self.against_since_ns) * 1e-9
        return self.against >= _AGREEING and lasted_s >= CONTRADICTED_S

    def refusing(self, m: Measurement) -> FilterState:
        """Returns the state after a measurement that was refused."""
        refused = self.refused + 1
        since = self.refused_since_ns if self.refused else m.stamp_ns
        lasted_s, doubt = (m.stamp_ns - since) * 1e-9, self.doubt
        if lasted_s >= CONTRADICTED_S:
            # As many and as long as those that were refused, up to what it takes at the start.
            doubt = min(_AGREEING, refused - 1), min(CONTRADICTED_S, lasted_s / 2)
        return replace(
            self,
            refused=refused,
            refused_since_ns=since,
            refused_seen_ns=self.refused_seen_ns if self.refused else m.arrived_ns,
            doubt=doubt,
            agreed=0,
        )

    def judged(self, condition: str, m: Measurement) -> FilterState:
        """Returns the state with whether the robot is localised at this measurement, by its condition."""
        main, held = self.main, condition == LOCALISED
        lasted_s = (m.stamp_ns - main.since_ns) * 1e-9 if main else 0.0
        return replace(
            self,
            localised=held,
            established=self.established or (held and lasted_s >= _ESTABLISHED_S),
        )

    def condition(
        self,
        s: PoseFilterSettings,
        now_ns: int,
        sigmas: tuple[float, float],
    ) -> str:
        """Returns `localised`, or why not.

        Args:
            s: what is assumed.
            now_ns: of the newest data.
            sigmas: of the estimate's position (m) and rotation (rad).
        """
        assert self.main is not None
        last_ns = self.posed_ns
        if self.contradicted_by_cells(now_ns):
            return CONTRADICTED
        if self.refused and (
            (last_ns - self.refused_since_ns) * 1e-9 >= CONTRADICTED_S
            or (now_ns - self.refused_seen_ns) * 1e-9 >= CONTRADICTED_S
        ):
            return CONTRADICTED
        count, seconds = self.doubt
        if self.agreed < count or (last_ns - self.agreed_since_ns) * 1e-9 < seconds:
            return CONTRADICTED
        if s.initialise_count > 1 and (last_ns - self.main.since_ns) * 1e-9 < _BEGUN_S:
            return INITIALISING
        most = STAYS if self.localised else 1.0
        metres, radians = sigmas
        sure = metres <= most * s.localised_m and radians <= most * math.radians(s.localised_deg)
        return LOCALISED if sure else UNCERTAIN


def spread(state: FilterState, track: Track, doubt: Array) -> Array:
    """Returns the covariance (6, 6) of a track, with what it lags behind the measurements.

    Args:
        state: the track's.
        track: where the robot is.
        doubt: variances (6, 6) that the odometry may mislead by.
    """
    lags = (state.lag, state.slow_lag) if state.trusted else (state.lag_without,)
    excess = max((lag.excess() for lag in lags), key=np.trace)
    return np.asarray(track.pose_covariance + excess + doubt)


def reach(track: Track, other: Track | None) -> Array:
    """Returns the variances (6, 6) with which a track's covariance reaches the place of the refused poses.

    A robot that was carried away and a few outliers look alike at first. Until it is settled which it is, the
    place that the refused poses speak for lies within two standard deviations.
    """
    if other is None:
        return np.zeros((6, 6))
    apart = se3.log(inverse(track.T) @ other.T) / _REACH
    return np.outer(apart, apart)


def leap(hypothesis: PoseHypothesis | None, stamp_ns: int) -> Array:
    """Returns the variances (6, 6) with which a covariance reaches the place that a pose drew it from.

    Whether that pose or the place before was wrong is settled by those that follow.
    """
    if hypothesis is None or (stamp_ns - hypothesis.leapt_ns) * 1e-9 >= LEAP_S:
        return np.zeros((6, 6))
    apart = hypothesis.leapt_from / _REACH
    return np.outer(apart, apart)


def mixture(track: Track, other: Track, probability: float) -> Array:
    """Returns the variances (6, 6) that a track's covariance lacks to be that of one of two tracks.

    Args:
        track: by odometry that nothing has proven yet.
        other: by the measured poses alone, at the same time.
        probability: of the other.
    """
    apart = se3.log(inverse(track.T) @ other.T)
    more = np.outer(apart, apart) + other.pose_covariance - track.pose_covariance
    return np.asarray(probability * more)
