"""Odometry of the last seconds: what moved between two times, and how far that can be trusted."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, MeasurementError
from robot_vision.geometry import se3
from robot_vision.geometry.rigid import inverse
from robot_vision.messages.stamps import nanoseconds

Array = NDArray[np.float64]

SPEED_M_S, TURN_DEG_S = (
    1.5,
    45.0,
)  # standard deviations of a usual robot's velocity, along each axis
_FASTEST = 5.0  # standard deviations of the velocity: what is faster is no motion
_LEAST_S = 0.05  # two stamps close to each other are no proof of speed
_SCALE_S = 2.5  # for which a wrong scale errs one way, until poses and turns have made up for it
_SHORT_GAP_S = 0.25  # and four intervals of late: a driver needs as long to start again
_ORIGIN_M, _ORIGIN_RAD = 0.3, 0.3  # where a driver that has just been started is


@dataclass(frozen=True)
class OdometryNoise:
    """How odometry drifts: standard deviations after one metre, one radian or one second, growing as a root.

    Attributes:
        position_per_m: m after one metre.
        rotation_per_m_deg: degrees after one metre.
        rotation_per_rad_deg: degrees after turning by one radian.
        position_per_s: m after one second, moving or not.
        rotation_per_s_deg: degrees after one second.
        scale: share of each motion by which it is too long or too short throughout, along the way and about
            the axis of the turn: wheels err by their size and their distance.
    """

    position_per_m: float = 0.05
    rotation_per_m_deg: float = 1.0
    rotation_per_rad_deg: float = 2.0
    position_per_s: float = 0.005
    rotation_per_s_deg: float = 0.1
    scale: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}: it must be at least 0 and finite")

    def variances(self, motion: NDArray[np.float64], dt_s: float) -> Array:
        """Returns the variances (6,) that a motion (6,), a tangent vector, adds in its own frame."""
        metres, radians = float(np.linalg.norm(motion[:3])), float(np.linalg.norm(motion[3:]))
        position = self.position_per_m**2 * metres + self.position_per_s**2 * dt_s
        degrees = (
            self.rotation_per_m_deg**2 * metres
            + self.rotation_per_rad_deg**2 * radians
            + self.rotation_per_s_deg**2 * dt_s
        )
        return np.repeat([position, degrees * math.radians(1) ** 2], 3)

    def covariance(self, motion: NDArray[np.float64], dt_s: float) -> Array:
        """Returns the covariance (6, 6) that a motion adds: `variances`, and a wrong scale along it."""
        whole = np.diag(self.variances(motion, dt_s))
        if self.scale > 0 and dt_s > 0:
            for part in (slice(0, 3), slice(3, 6)):
                error = self.scale * motion[part]
                whole[part, part] += np.outer(error, error) * (_SCALE_S / dt_s)
        return whole


USUAL_NOISE = OdometryNoise(0.022, 0.5, 1.1, 0.005, 0.1, scale=0.02)  # wheels with a gyroscope


@dataclass(frozen=True, eq=False)
class Step:
    """What happened between two times.

    Attributes:
        dt_s: seconds.
        motion: tangent vector (6,) in the moving frame; None where nothing is known.
    """

    dt_s: float
    motion: Array | None


class Continuity:
    """Says whether odometry goes on where it was: not after a reset, a restart of its driver, or a long gap.

    What is impossible is a motion that is faster than `_FASTEST` times the usual speed and than twice the
    odometry's own of late. A restart is a gap after which the odometry is at its origin again.

    Args:
        speed_m_s: standard deviation of the robot's velocity along each axis.
        turn_deg_s: the same about each axis.
        gap_s: over a longer silence the odometry may have been restarted, wherever it is.

    Attributes:
        at_origin: the last pose broke off and is where odometry begins: it was reset or restarted.
    """

    def __init__(self, speed_m_s: float, turn_deg_s: float, gap_s: float = 5.0) -> None:
        self._fastest = _FASTEST * np.array([speed_m_s, math.radians(turn_deg_s)])
        self._gap_s = gap_s
        self._last: tuple[int, Array] | None = None
        self.at_origin = False
        self._sizes: deque[Array] = deque(maxlen=5)  # speeds of late (2,)
        self._intervals: deque[float] = deque(maxlen=5)

    def forget(self) -> None:
        """Begins with the next pose."""
        self._last = None
        self._sizes.clear()
        self._intervals.clear()

    def add(self, stamp_ns: int, T_odom_base: NDArray[np.float64]) -> tuple[Array | None, str]:
        """Takes a pose (4, 4) that is newer than the last.

        Returns:
            The motion since the last, a tangent vector (6,), and why it is no motion (empty if it is one);
            None for the first pose.
        """
        self.at_origin = False
        last, self._last = self._last, (stamp_ns, np.asarray(T_odom_base, np.float64))
        if last is None:
            return None, ""
        dt_s = (stamp_ns - last[0]) * 1e-9
        motion = se3.log(inverse(last[1]) @ T_odom_base)
        size = np.array([np.linalg.norm(motion[:3]), np.linalg.norm(motion[3:])])
        fastest = self._fastest
        if len(self._sizes) >= 3:
            fastest = np.maximum(fastest, 2 * np.median(self._sizes, axis=0))
        gap = self._intervals and dt_s > max(_SHORT_GAP_S, 4 * float(np.median(self._intervals)))
        self._intervals.append(dt_s)
        self._sizes.append(size / max(dt_s, _LEAST_S))
        turned = math.degrees(size[1])
        begins = _restarted(last[1], T_odom_base)
        if np.any(size > fastest * max(dt_s, _LEAST_S)):
            self.at_origin = begins
            return (
                motion,
                f"odometry jumped by {size[0]:.3g} m and {turned:.3g} deg in {dt_s:.3g} s",
            )
        if dt_s > self._gap_s:
            return motion, f"odometry was silent for {dt_s:.3g} s"
        if gap and begins:
            self.at_origin = True
            return motion, (
                f"odometry was silent for {dt_s:.3g} s and is at its origin again, {size[0]:.3g} m away: "
                "its driver was restarted"
            )
        return motion, ""


def _restarted(before: Array, after: NDArray[np.float64]) -> bool:
    """Says whether odometry is at its origin again, having been away from it."""
    was, now = se3.log(before), se3.log(np.asarray(after, np.float64))
    here = np.linalg.norm(now[:3]) < _ORIGIN_M and np.linalg.norm(now[3:]) < _ORIGIN_RAD
    away = np.linalg.norm(was[:3]) > 2 * _ORIGIN_M or np.linalg.norm(was[3:]) > 2 * _ORIGIN_RAD
    return bool(here and away)


class OdometryBuffer:
    """Poses of the robot in the odometry's frame, of the last seconds.

    Args:
        length_s: how long a pose is kept.
        continuity: says what joins; None for that of a robot of usual speed.
    """

    def __init__(self, length_s: float = 10.0, continuity: Continuity | None = None) -> None:
        self._length_ns = nanoseconds(length_s)
        self._continuity = continuity or Continuity(SPEED_M_S, TURN_DEG_S)
        self._stamps: list[int] = []
        self._poses: list[Array] = []
        self._motions: list[Array | None] = []  # from the pose before; None where that is not known

    def __len__(self) -> int:
        """Number of poses."""
        return len(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the last pose; None without any."""
        return self._stamps[-1] if self._stamps else None

    @property
    def last_interval_s(self) -> float | None:
        """Seconds between the last two poses; None without two."""
        return (self._stamps[-1] - self._stamps[-2]) * 1e-9 if len(self) > 1 else None

    def clear(self) -> None:
        """Forgets everything."""
        self._stamps, self._poses, self._motions = [], [], []
        self._continuity.forget()

    def add(self, stamp_ns: int, T_odom_base: NDArray[np.float64]) -> str | None:
        """Adds a pose; returns why it does not join the one before, or None.

        Raises:
            MeasurementError: not finite, or not newer than the last.
        """
        if not np.all(np.isfinite(T_odom_base)):
            raise MeasurementError("non_finite", "the odometry's pose is not finite")
        if self._stamps and stamp_ns <= self._stamps[-1]:
            raise MeasurementError(
                "out_of_order",
                f"odometry of {stamp_ns} ns is not newer than the last, {self._stamps[-1]} ns",
            )
        motion, why = self._continuity.add(int(stamp_ns), T_odom_base)
        self._stamps.append(int(stamp_ns))
        self._poses.append(np.asarray(T_odom_base, np.float64))
        self._motions.append(None if why else motion)
        self._forget()
        return why or None

    def _forget(self) -> None:
        # One pose before the window is kept, to interpolate from. In bulk: lists are slow at their head.
        old = bisect_left(self._stamps, self._stamps[-1] - self._length_ns) - 1
        if old > 256 or (old > 0 and old > len(self._stamps) // 2):
            del self._stamps[:old], self._poses[:old], self._motions[:old]

    def steps(self, start_ns: int, end_ns: int) -> Iterator[Step]:
        """Yields what happened from one time to a later one, pose by pose.

        Within an interval of two poses the motion is taken to be even. Before the first and after the last
        pose nothing is known.
        """
        at = start_ns
        while at < end_ns:
            i = bisect_right(self._stamps, at)  # the first pose after this time
            if i == len(self._stamps):
                yield Step((end_ns - at) * 1e-9, None)
                return
            until = min(self._stamps[i], end_ns)
            motion = self._motions[i] if i > 0 else None
            if motion is not None:
                motion = motion * ((until - at) / (self._stamps[i] - self._stamps[i - 1]))
            yield Step((until - at) * 1e-9, motion)
            at = until

    def pose_at(self, stamp_ns: int) -> Array | None:
        """Returns `T_odom_base` (4, 4) at a time; None where it is not known."""
        i = bisect_left(self._stamps, stamp_ns)
        if i < len(self._stamps) and self._stamps[i] == stamp_ns:
            return self._poses[i]
        if i in (0, len(self._stamps)) or self._motions[i] is None:
            return None
        share = (stamp_ns - self._stamps[i - 1]) / (self._stamps[i] - self._stamps[i - 1])
        motion = self._motions[i]
        assert motion is not None
        return self._poses[i - 1] @ se3.exp(motion * share)

    def between(self, start_ns: int, end_ns: int) -> tuple[Array, Array] | None:
        """Returns the poses (4, 4) at two times; None unless the whole motion between is known."""
        first, last = bisect_right(self._stamps, start_ns), bisect_left(self._stamps, end_ns)
        if any(motion is None for motion in self._motions[first : last + 1]):
            return None
        start, end = self.pose_at(start_ns), self.pose_at(end_ns)
        return None if start is None or end is None else (start, end)
