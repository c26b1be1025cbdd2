"""Whether odometry is followed: not while the measured poses leave where it leads."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.filters.belief import AT_ONCE, SLOW, FilterState
from robot_vision.filters.hypothesis import Measurement
from robot_vision.filters.odometry import OdometryBuffer
from robot_vision.filters.odometry_check import UNNAMED, OdometryCheck, OdometryVerdict
from robot_vision.filters.pose_settings import PoseFilterSettings
from robot_vision.filters.pose_track import Track
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse
from robot_vision.messages.stamps import nanoseconds

Array = NDArray[np.float64]

_LAGS = 22.5  # squared distance of the mean residual: noise alone exceeds it in 0.1 % of cases
_PARTED_S = 0.5  # for which the poses contradict the estimate by odometry and not the one without
_PROVEN_S = 4.0  # for which odometry must agree to be trusted again
_JUDGED_S = 0.3
_LEFT = "the poses leave where it leads"
_STANDS_M_S, _STANDS_RAD_S = 0.05, 0.05
_WANDER_S = 0.5  # over which poses are compared while odometry stands still
_WANDERS = 22.5  # squared distance, as `_LAGS`
_STOPS_IN_S, _BRAKES_M_S2 = 0.1, 3.5  # a robot does not stop from walking pace within that time


class OdometryTrust:
    """Compares odometry and measured poses, and decides which of the two estimates is published.

    Attributes:
        fault: in what the odometry differs, while it is not trusted; empty while it is.
        proven: measured poses have shown the odometry to be right.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.proven = False
        self._check = OdometryCheck()
        self._verdict = OdometryVerdict()
        self._judged_ns = 0
        self._still: deque[Measurement] = deque()  # since odometry stands still

    def clear(self) -> None:
        """Forgets the measurements: the estimate was replaced."""
        self._check.clear()

    def compare(
        self, m: Measurement, accepted: bool, buffer: OdometryBuffer, s: PoseFilterSettings
    ) -> None:
        """Compares odometry and poses, a few times a second."""
        if accepted:
            self._check.add(m)
            if self.proven and self._wanders(m, buffer, s):
                self._unprove()
        if abs(m.stamp_ns - self._judged_ns) * 1e-9 >= _JUDGED_S and len(buffer) > 1:
            self._judged_ns = m.stamp_ns
            self._verdict = self._check.judge(buffer)
            self.proven = self.proven or self._verdict.agrees

    def follow(self, buffer: OdometryBuffer) -> None:
        """Takes notice of new odometry: one that stops dead may have failed, and must be proven again."""
        newest, last_s = buffer.newest_ns, buffer.last_interval_s
        if newest is None or last_s is None or not self.proven:
            return
        width_s = max(_STOPS_IN_S, last_s)
        middle = newest - nanoseconds(width_s)
        after = buffer.between(middle, newest)
        if after is None or _speed(after, width_s) > _STANDS_M_S:
            return
        before = buffer.between(middle - nanoseconds(width_s), middle)
        if before is not None and _speed(before, width_s) > _STANDS_M_S + _BRAKES_M_S2 * width_s:
            self._unprove()

    def _unprove(self) -> None:
        self.proven, self._verdict = False, OdometryVerdict()
        self._check.clear()

    def _wanders(self, m: Measurement, buffer: OdometryBuffer, s: PoseFilterSettings) -> bool:
        """Says whether poses move as none of a robot do that stands still, while the odometry does.

        A driver may die while the robot stands, and then nothing stops. Errors of a source are alike as long
        as the robot stands, so that its poses show the motion long before they are refused.
        """
        still = self._still
        if still and m.stamp_ns <= still[-1].stamp_ns:
            return False
        last = still[-1].stamp_ns if still else m.stamp_ns - nanoseconds(_STOPS_IN_S)
        ends = buffer.between(last, m.stamp_ns)
        seconds = (m.stamp_ns - last) * 1e-9
        if ends is None or _speed(ends, seconds) > _STANDS_M_S or _turns(ends, seconds):
            still.clear()
            return False
        still.append(m)
        while (m.stamp_ns - still[0].stamp_ns) * 1e-9 > _WANDER_S:
            still.popleft()
        first = next(old for old in still if old.source == m.source)
        waited_s = (m.stamp_ns - first.stamp_ns) * 1e-9
        if waited_s < _WANDER_S / 2:
            return False
        differ = -math.expm1(-m.unlike * waited_s / s.correlation_s)
        moved = se3.log(inverse(first.T) @ m.T)
        turn = se3.adjoint(inverse(m.T) @ first.T)
        noise = differ * (m.covariance + turn @ first.covariance @ turn.T)
        return float(moved @ np.linalg.solve(noise, moved)) > _WANDERS

    def decided(self, state: FilterState, m: Measurement) -> FilterState:
        """Returns the state with whether the odometry is trusted, by what the poses say of it."""
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
            lag=AT_ONCE,
            slow_lag=SLOW,
        )
        verdict = self._verdict
        if state.trusted:
            if verdict.text or lags or parted_s >= _PARTED_S:
                self.fault = verdict.text or _LEFT
                return restarted
            return state
        if lags or parted_s >= _PARTED_S / 2:
            return restarted
        if verdict.text:
            if self.fault in (_LEFT, UNNAMED):
                self.fault = verdict.text
            return replace(state, agrees_since_ns=m.stamp_ns)
        agrees_s = (m.stamp_ns - state.agrees_since_ns) * 1e-9
        if agrees_s >= _PROVEN_S and verdict.agrees:
            self.fault = ""
            return replace(state, trusted=True)
        return state

    def doubt(self, track: Track) -> Array:
        """Returns the variances (6, 6) by which trusted odometry may mislead a track."""
        speed = float(np.linalg.norm(track.velocity[:3]))
        if self._verdict.doubt_m <= 0 or speed <= _STANDS_M_S:
            return np.zeros((6, 6))
        along = np.concatenate([track.velocity[:3] / speed, np.zeros(3)])
        return self._verdict.doubt_m**2 * np.outer(along, along)


def _turns(ends: tuple[Array, Array], seconds: float) -> bool:
    """Says whether a robot turns from one pose (4, 4) to another."""
    turned = np.linalg.norm(se3.log(inverse(ends[0]) @ ends[1])[3:])
    return bool(turned / seconds > _STANDS_RAD_S)


def _speed(ends: tuple[Array, Array], seconds: float) -> float:
    """Returns the speed in m/s from one pose (4, 4) to another."""
    return float(np.linalg.norm(ends[1][:3, 3] - ends[0][:3, 3])) / seconds
