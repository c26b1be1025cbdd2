"""Poses by time: what odometry, a pose topic or tf said of the robot, asked for at an image's stamp."""

from __future__ import annotations

import bisect
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import canonical_xyzw, matrix_from_xyzw
from robot_vision.geometry.trajectory import slerp

Array = NDArray[np.float64]
BACK_S = 1.0  # a stamp that lies further back is a clock that jumped, a nearer one a late message
REGULAR = 2.5  # times the usual period: a gap within it is no interruption ...
LONGEST_S = 2.5  # ... nor one beyond it, of which nobody knows what the way was
# Usual periods that one counts for which hardly moved in the last: a correction of drift
HOLD = 1.5
_REST_M, _REST_COSINE = 0.05, np.cos(np.radians(2.0) / 2)
_GAPS, _FEWEST = 20, 3  # neighbouring ones that tell the period
MAX_SAMPLES = 20_000  # bounds memory at any rate; 100 s of a 200 Hz odometry


class PoseBuffer:
    """The last seconds of one moving frame. Filled by one thread and read by another.

    Args:
        length_s: how far back it reaches.
    """

    def __init__(self, length_s: float = 20.0) -> None:
        self._length_ns = int(length_s * 1e9)
        self._changed = threading.Condition()
        self._stamps: list[int] = []
        self._positions: list[Array] = []
        self._quaternions: list[Array] = []
        self._covariances: list[Array | None] = []

    def add(
        self, stamp_ns: int, position: Any, xyzw: Any, covariance: NDArray[Any] | None = None
    ) -> bool:
        """Adds a pose.

        Args:
            stamp_ns: when it was true.
            position: (3,), metres.
            xyzw: (4,), of any length but zero.
            covariance: (6, 6), or None.

        Returns:
            False if its stamp lies more than `BACK_S` before the newest one: the clock went back, and what
            was kept is forgotten, since two poses of one time would otherwise be mixed. One that is late
            by less, as from a second publisher, is left out.

        Raises:
            ValueError: a number is not finite, or the quaternion is zero.
        """
        point = np.array(position, np.float64)
        if not np.all(np.isfinite(point)):
            raise ValueError(f"position {point.tolist()} is not finite")
        rotation = canonical_xyzw(np.array(xyzw, np.float64))
        with self._changed:
            back_s = (self._stamps[-1] - stamp_ns) * 1e-9 if self._stamps else -1.0
            forward = back_s <= BACK_S
            if not forward:
                self._forget(len(self._stamps))
            elif back_s >= 0:
                return True  # two publishers, or a topic that repeats itself
            self._stamps.append(stamp_ns)
            self._positions.append(point)
            self._quaternions.append(rotation)
            self._covariances.append(covariance)
            old = bisect.bisect_left(self._stamps, stamp_ns - self._length_ns)
            # Lists are cut rarely: each cut moves all that is left.
            if old > len(self._stamps) // 2 or len(self._stamps) > MAX_SAMPLES:
                self._forget(max(old, len(self._stamps) // 2))
            self._changed.notify_all()
            return forward

    def _forget(self, count: int) -> None:
        for values in (self._stamps, self._positions, self._quaternions, self._covariances):
            del values[:count]

    def clear(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._forget(len(self._stamps))

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest pose."""
        with self._changed:
            return self._stamps[-1] if self._stamps else None

    def wait(self, stamp_ns: int, timeout_s: float) -> None:
        """Waits until a pose of this stamp or a newer one has come, or the time is up."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self._stamps) and self._stamps[-1] >= stamp_ns, timeout_s
            )

    def at(self, stamp_ns: int, tolerance_s: float) -> tuple[Array, Array | None] | None:
        """Returns the pose (4, 4) and its covariance at a time, interpolated between neighbours.

        Neighbours may be as far apart as they usually are: a localiser that corrects `map` to `odom` once a
        second has not stopped. Between neighbours that are further apart than that (`REGULAR`) and than
        twice the tolerance (unless they are nearly one pose), and outside of what is known, the nearest
        pose counts if it is within the tolerance; the newest, where it hardly changed, also until the next
        is due. Nothing is extrapolated.

        Returns:
            None if there is no pose for this time; `why` says why.
        """
        tolerance_ns = tolerance_s * 1e9
        with self._changed:
            if not self._stamps:
                return None
            after = bisect.bisect_left(self._stamps, stamp_ns)
            near = min(
                (i for i in (after - 1, after) if 0 <= i < len(self._stamps)),
                key=lambda i: abs(self._stamps[i] - stamp_ns),
            )
            if 0 < after < len(self._stamps):
                gap = self._stamps[after] - self._stamps[after - 1]
                regular_ns = min(REGULAR * self._period_ns(after), LONGEST_S * 1e9)
                if self._rests(after):  # the way between them is known, whatever the period
                    regular_ns = LONGEST_S * 1e9
                if gap <= max(2 * tolerance_ns, regular_ns):
                    share = (stamp_ns - self._stamps[after - 1]) / gap
                    return self._between(after - 1, share), self._covariances[near]
            late_ns = stamp_ns - self._stamps[-1]
            if late_ns > 0 and self._rests(len(self._stamps) - 1):
                # Of the first few, the shortest gap is the period.
                period_ns = self._period_ns(after) or min(np.diff(self._stamps))
                tolerance_ns = max(tolerance_ns, min(HOLD * period_ns, LONGEST_S * 1e9))
            if abs(self._stamps[near] - stamp_ns) > tolerance_ns:
                return None
            return self._between(near, 0.0), self._covariances[near]

    def _rests(self, index: int) -> bool:
        """Says whether a pose and the one before it are nearly one."""
        if index < 1:
            return False
        p, q = self._positions, self._quaternions
        moved = float(np.linalg.norm(p[index] - p[index - 1]))
        return moved < _REST_M and abs(q[index] @ q[index - 1]) > _REST_COSINE

    def _period_ns(self, after: int) -> float:
        """Returns the median of the gaps around the one that ends at a sample, without it; 0 if unknown."""
        low = max(0, after - 1 - _GAPS)
        before = np.diff(self._stamps[low:after])
        later = np.diff(self._stamps[after : after + _GAPS])
        gaps = np.concatenate([before, later])
        return float(np.median(gaps)) if len(gaps) >= _FEWEST else 0.0

    def why(self, stamp_ns: int) -> str:
        """Returns where a time lies to what is known, in words."""
        with self._changed:
            if not self._stamps:
                return "nothing came yet"
            first, last = self._stamps[0], self._stamps[-1]
            if stamp_ns > last:
                period = self._period_ns(len(self._stamps)) * 1e-9
                rate = f", and comes every {period:.2f} s" if period else ""
                return f"its newest is {(stamp_ns - last) * 1e-9:.2f} s older than the image{rate}"
            if stamp_ns < first:
                return f"its oldest is {(first - stamp_ns) * 1e-9:.2f} s newer than the image"
            after = bisect.bisect_left(self._stamps, stamp_ns)
            gap = (self._stamps[after] - self._stamps[max(after - 1, 0)]) * 1e-9
            return f"it has a gap of {gap:.2f} s around the image"

    def _between(self, index: int, share: float) -> Array:
        matrix = np.eye(4)
        p, q = self._positions[index], self._quaternions[index]
        if share > 0:
            p = p + share * (self._positions[index + 1] - p)
            q = slerp(q, self._quaternions[index + 1], share)
        matrix[:3, :3] = matrix_from_xyzw(q)
        matrix[:3, 3] = p
        return matrix
