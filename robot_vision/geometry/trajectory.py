"""Poses over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.geometry.rigid import canonical_xyzw, matrix_from_xyzw, rotation_error_deg
from robot_vision.text.counts import agreeing, counted

# Two poses of one stamp are the same up to a tracker's jitter, or contradict each other.
_CONTRADICTION_M, _CONTRADICTION_DEG = 0.1, 5.0


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of a frame at increasing stamps.

    Attributes:
        stamps_ns: int64 (N,).
        positions: float64 (N, 3), metres.
        xyzw: float64 (N, 4), unit quaternions.
    """

    stamps_ns: NDArray[np.int64]
    positions: NDArray[np.float64]
    xyzw: NDArray[np.float64]

    def at(
        self, stamps_ns: NDArray[np.int64], max_gap_ns: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Interpolates: positions linearly, rotations along the shorter great arc (SLERP).

        Args:
            stamps_ns: int64 (M,).
            max_gap_ns: greatest distance in time of the poses on both sides. A stamp that a pose has
                needs no neighbour. Nothing is extrapolated.

        Returns:
            float64 (M, 4, 4), and which of them hold (M,); the others are the identity.
        """
        poses = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
        if len(self.stamps_ns) == 0:
            return poses, np.zeros(len(stamps_ns), bool)
        last = len(self.stamps_ns) - 1
        after = np.clip(np.searchsorted(self.stamps_ns, stamps_ns), 0, last)
        exact = self.stamps_ns[after] == stamps_ns
        before = np.where(exact, after, np.maximum(after - 1, 0))
        gap = self.stamps_ns[after] - self.stamps_ns[before]
        inside = (self.stamps_ns[before] <= stamps_ns) & (stamps_ns <= self.stamps_ns[after])
        holds = exact | (inside & (gap <= max_gap_ns))
        a, b = before[holds], after[holds]
        u = ((stamps_ns - self.stamps_ns[before]) / np.maximum(gap, 1))[holds, None]
        poses[holds, :3, 3] = (1 - u) * self.positions[a] + u * self.positions[b]
        poses[holds, :3, :3] = matrix_from_xyzw(slerp(self.xyzw[a], self.xyzw[b], u))
        return poses, holds


def slerp(
    a: NDArray[np.float64], b: NDArray[np.float64], t: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Returns the unit quaternions (..., 4) a part `t` of the shorter way from a to b (Shoemake 1985).

    Args:
        a: unit quaternions (..., 4).
        b: the other ones, in the same shape.
        t: from 0 to 1; (..., 1) or one for all.
    """
    # q and -q are one rotation: take the sign that makes the way short.
    b = np.where((a * b).sum(axis=-1, keepdims=True) < 0, -b, b)
    # The chord's length gives the angle where arccos has lost its digits.
    chord = np.linalg.norm(a - b, axis=-1, keepdims=True)
    angle = 2 * np.arcsin(np.minimum(1.0, chord / 2))
    tiny = angle < 1e-9
    ahead = np.where(tiny, 1 - t, np.sin((1 - t) * angle))
    behind = np.where(tiny, t, np.sin(t * angle))
    return canonical_xyzw(ahead * a + behind * b)


class Repeats:
    """Poses with the stamp of one before, as published ground truth has them: counted or refused.

    Args:
        refuse: two that contradict each other are a fault, and not an estimate that was improved (tf).
    """

    def __init__(self, refuse: bool = True) -> None:
        self._refuse = refuse
        self._same: list[str] = []
        self._other: list[str] = []
        self._apart = (0.0, 0.0)

    def add(
        self,
        name: str,
        before: tuple[NDArray[np.float64], NDArray[np.float64]],
        now: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> str:
        """Counts one.

        Args:
            name: where it is.
            before: position (3,) and quaternion (4,) of the pose of the same stamp.
            now: of this one.

        Returns:
            What is wrong, where the two contradict each other; then it is not counted.
        """
        metres = float(np.linalg.norm(before[0] - now[0]))
        degrees = float(rotation_error_deg(before[1], now[1]))
        if self._refuse and (metres > _CONTRADICTION_M or degrees > _CONTRADICTION_DEG):
            return f"and its pose is another, by {metres:.3g} m and {degrees:.3g} deg"
        if metres <= 1e-6 and degrees <= 1e-4:
            self._same.append(name)
        else:
            self._other.append(name)
            self._apart = max(self._apart[0], metres), max(self._apart[1], degrees)
        return ""

    def notes(self) -> list[str]:
        """Returns a line for those that agree, and one for those that differ a little."""
        notes = []
        for names, what in (
            (self._same, "repeat a stamp and its pose: left out"),
            (
                self._other,
                f"repeat a stamp with another pose, up to {self._apart[0]:.3g} m and "
                f"{self._apart[1]:.3g} deg apart: the first of each stamp counts",
            ),
        ):
            if names:
                notes.append(
                    f"{counted(len(names), 'pose')} {agreeing(len(names), what)} (first: "
                    f"{names[0]})"
                )
        return notes


class TrajectoryBuilder:
    """Collects stamped poses and checks them.

    Args:
        name: what they belong to, for errors.
        report: receives each pose that fails its checks, as a `SourceError`; it raises it or counts it.
        ordered: stamps may not go back (a topic of one publisher); else they are sorted (tf).
    """

    def __init__(
        self, name: str, report: Callable[[SourceError], None], ordered: bool = True
    ) -> None:
        self._name, self._report, self._ordered = name, report, ordered
        self._rows: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._latest: int | None = None
        self._count = 0
        self._repeats = Repeats(refuse=ordered)

    def add(self, stamp_ns: int, position: Sequence[float], xyzw: Sequence[float]) -> None:
        """Adds one; the first of those with the same stamp counts."""
        place = f"{self._name}#{self._count}"
        self._count += 1
        p, q = np.array(position, np.float64), np.array(xyzw, np.float64)
        norm = float(np.linalg.norm(q))
        if not (np.all(np.isfinite(p)) and np.all(np.isfinite(q))):
            message = f"{place}: position {p.tolist()}, quaternion {q.tolist()}: all must be finite"
        elif abs(norm - 1) > 2e-3:
            message = (
                f"{place}: the quaternion (xyzw) {q.tolist()} has length {norm:.6g}: it must be 1"
            )
        elif self._ordered and self._latest is not None and stamp_ns < self._latest:
            back = (self._latest - stamp_ns) / 1e9
            message = f"{place}: stamp {stamp_ns / 1e9:.6f} s goes back by {back:.6f} s: stamps must increase"
        elif stamp_ns in self._rows:
            wrong = self._repeats.add(place, self._rows[stamp_ns], (p, q / norm))
            if not wrong:
                return
            message = f"{place}: stamp {stamp_ns / 1e9:.6f} s is there before, {wrong}"
        else:
            self._latest = stamp_ns
            self._rows[stamp_ns] = p, q / norm
            return
        self._report(SourceError(message))

    def notes(self) -> list[str]:
        """Returns what was left out of repeated stamps."""
        return self._repeats.notes()

    def build(self) -> Trajectory:
        """Returns what was added."""
        stamps = sorted(self._rows)
        return Trajectory(
            np.array(stamps, np.int64),
            np.array([self._rows[s][0] for s in stamps]).reshape(-1, 3),
            np.array([self._rows[s][1] for s in stamps]).reshape(-1, 4),
        )
