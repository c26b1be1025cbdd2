"""Odometry of the last seconds: what moved between two times, and how far that can be trusted."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.filters import se3
from robot_vision.filters.refusal import MeasurementError
from robot_vision.geometry import inverse

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OdometryNoise:
    """How odometry drifts: standard deviations after one metre, one radian or one second, growing as a root.

    Attributes:
        position_per_m: m after one metre.
        rotation_per_m_deg: degrees after one metre.
        rotation_per_rad_deg: degrees after turning by one radian.
        position_per_s: m after one second, moving or not.
        rotation_per_s_deg: degrees after one second.
    """

    position_per_m: float = 0.05
    rotation_per_m_deg: float = 1.0
    rotation_per_rad_deg: float = 2.0
    position_per_s: float = 0.005
    rotation_per_s_deg: float = 0.1

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


@dataclass(frozen=True, eq=False)
class Step:
    """What happened between two times.

    Attributes:
        dt_s: seconds.
        motion: tangent vector (6,) in the moving frame; None where nothing is known.
    """

    dt_s: float
    motion: Array | None


class OdometryBuffer:
    """Poses of the robot in the odometry's frame, of the last seconds.

    Args:
        length_s: how long a pose is kept.
        gap_s: over a longer silence the odometry may have been restarted: nothing is known of it.
        speed_m_s: a faster motion is a jump: the odometry was reset.
        turn_deg_s: likewise.
    """

    def __init__(
        self,
        length_s: float = 10.0,
        gap_s: float = 5.0,
        speed_m_s: float = 20.0,
        turn_deg_s: float = 1000.0,
    ) -> None:
        self._length_ns = round(length_s * 1e9)
        self._gap_ns = round(gap_s * 1e9)
        self._fastest = np.array([speed_m_s, math.radians(turn_deg_s)])
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

    def clear(self) -> None:
        """Forgets everything."""
        self._stamps, self._poses, self._motions = [], [], []

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
        motion, why = None, None
        if self._stamps:
            dt_s = (stamp_ns - self._stamps[-1]) * 1e-9
            motion = se3.log(inverse(self._poses[-1]) @ T_odom_base)
            size = np.array([np.linalg.norm(motion[:3]), np.linalg.norm(motion[3:])])
            # A tenth of a second at least: two stamps close to each other are no proof of speed.
            if np.any(size > self._fastest * max(dt_s, 0.1)):
                turned = math.degrees(size[1])
                why = f"odometry jumped by {size[0]:.3g} m and {turned:.3g} deg in {dt_s:.3g} s"
            elif stamp_ns - self._stamps[-1] > self._gap_ns:
                why = f"odometry was silent for {dt_s:.3g} s"
            motion = None if why else motion
        self._stamps.append(int(stamp_ns))
        self._poses.append(np.asarray(T_odom_base, np.float64))
        self._motions.append(motion)
        self._forget()
        return why

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
