"""What is true of a recording's frames: labels and camera poses over time, whatever they come from.

`reading` reads them from a bag or from files next to it; tests and other data give arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.geometry.trajectory import Trajectory
from robot_vision.truth.images import ImageTrack

LABEL, POSE = "label", "pose"  # words of truth; `label:NAME` is that of a head called so
FOREVER_NS = np.iinfo(np.int64).max

Lookup = Callable[[NDArray[np.int64]], tuple[NDArray[np.float64], NDArray[np.bool_]]]


@dataclass(frozen=True, eq=False)
class LabelTrack:
    """Labels that hold for spans of time, which do not overlap.

    Attributes:
        starts_ns: int64 (L,), increasing.
        ends_ns: int64 (L,), exclusive.
        names: (L,); empty where a span says that there is none.
        by_log: times are compared with the recording's log, not with the images' stamps.
        text: where they come from, for people.
    """

    starts_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    names: tuple[str, ...]
    by_log: bool = False
    text: str = ""

    @classmethod
    def held(
        cls,
        times_ns: Sequence[int],
        names: Sequence[str],
        hold_ns: int | None = None,
        by_log: bool = False,
        text: str = "",
    ) -> LabelTrack:
        """Makes a track of labels that hold until the next one, and for `hold_ns` at most.

        The last of several at one time counts.
        """
        rows = {int(t): n.strip() for t, n in zip(times_ns, names, strict=True)}
        starts = np.array(sorted(rows), np.int64)
        ends = np.append(starts[1:], FOREVER_NS)[: len(starts)]
        if hold_ns is not None:
            ends = np.minimum(ends, starts + hold_ns + 1)  # the hold's last nanosecond counts
        return cls(starts, ends, tuple(rows[int(t)] for t in starts), by_log, text)

    def at(self, times_ns: NDArray[np.int64]) -> list[str | None]:
        """Returns the label at each time, None where there is none."""
        i = np.searchsorted(self.starts_ns, times_ns, side="right") - 1
        if len(self.starts_ns) == 0:
            return [None] * len(times_ns)
        inside = (i >= 0) & (times_ns < self.ends_ns[np.maximum(i, 0)])
        return [(self.names[j] or None) if ok else None for j, ok in zip(i, inside, strict=True)]


@dataclass(frozen=True, eq=False)
class NumberTrack:
    """Numbers that hold for spans of time, which do not overlap.

    Attributes:
        starts_ns: int64 (L,), increasing.
        ends_ns: int64 (L,), exclusive.
        values: float64 (L,).
        by_log: times are compared with the recording's log, not with the images' stamps.
        text: where they come from, for people.
    """

    starts_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    by_log: bool = False
    text: str = ""

    @classmethod
    def held(
        cls,
        times_ns: NDArray[np.int64],
        values: NDArray[np.float64],
        hold_ns: int | None = None,
        by_log: bool = False,
        text: str = "",
    ) -> NumberTrack:
        """Makes a track of numbers that hold until the next one, and for `hold_ns` at most.

        The last of several at one time counts.
        """
        order = np.argsort(times_ns, kind="stable")
        starts, values = times_ns[order], values[order]
        last = np.append(np.diff(starts) > 0, True)[: len(starts)]
        starts, values = starts[last], values[last]
        ends = np.append(starts[1:], FOREVER_NS)[: len(starts)]
        if hold_ns is not None:
            ends = np.minimum(ends, starts + hold_ns + 1)  # the hold's last nanosecond counts
        return cls(starts, ends, values, by_log, text)

    @classmethod
    def of_label(cls, labels: LabelTrack, label: str) -> NumberTrack:
        """Makes a track that is 1 where a label holds, and 0 where another does."""
        named = np.array([bool(name) for name in labels.names], bool)
        values = np.array([name == label for name in labels.names], np.float64)[named]
        starts, ends = labels.starts_ns[named], labels.ends_ns[named]
        return cls(starts, ends, values, labels.by_log, f"{label} in {labels.text}")

    def at(self, times_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the number at each time, NaN where there is none."""
        if len(self.starts_ns) == 0:
            return np.full(len(times_ns), np.nan)
        i = np.maximum(np.searchsorted(self.starts_ns, times_ns, side="right") - 1, 0)
        inside = (times_ns >= self.starts_ns[i]) & (times_ns < self.ends_ns[i])
        return np.where(inside, self.values[i], np.nan)


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Poses of the camera in the map over time.

    Attributes:
        at: `T_map_camera` (M, 4, 4) at stamps int64 (M,), interpolated, and which of them hold (M,).
        stamps_ns: int64 (L,), of the poses themselves; None where they are a chain of several (tf).
        map_frame: name of the poses' frame.
        text: where they come from, for people.
        oriented: whether they are poses, and not positions alone.
    """

    at: Lookup
    stamps_ns: NDArray[np.int64] | None = None
    map_frame: str = "map"
    text: str = ""
    oriented: bool = True

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        max_gap_ns: int = 500_000_000,
        T_base_camera: NDArray[np.float64] | None = None,
        map_frame: str = "map",
        text: str = "",
    ) -> PoseTrack:
        """Makes a track of poses, moved by a fixed transform on their right."""

        def at(stamps_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
            poses, holds = trajectory.at(stamps_ns, max_gap_ns)
            return (poses if T_base_camera is None else poses @ T_base_camera), holds

        return cls(at, trajectory.stamps_ns, map_frame, text)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one recording.

    Attributes:
        labels: None where there are none.
        poses: None where there are none.
        refused: how many entries failed their checks and were left out, by what they are.
        notes: for people, a line each.
        others: labels for heads by another name than their kind, by that name.
        numbers: by name.
        images: by name.
    """

    labels: LabelTrack | None = None
    poses: PoseTrack | None = None
    refused: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    others: dict[str, LabelTrack] = field(default_factory=dict)
    numbers: dict[str, NumberTrack] = field(default_factory=dict)
    images: dict[str, ImageTrack] = field(default_factory=dict)

    @property
    def words(self) -> set[str]:
        """Which truth there is."""
        there = {word for word, track in ((LABEL, self.labels), (POSE, self.poses)) if track}
        there |= {f"{LABEL}:{name}" for name in self.others}
        there |= {f"number:{name}" for name in self.numbers}
        return there | {f"image:{name}" for name in self.images}

    @classmethod
    def of_arrays(
        cls,
        stamps_ns: NDArray[np.int64],
        labels: Sequence[str | None] | None = None,
        positions: NDArray[Any] | None = None,
        xyzw: NDArray[Any] | None = None,
        max_gap_ns: int = 500_000_000,
    ) -> Truth:
        """Makes truth of arrays with a row a stamp; each label holds at its own stamp only.

        Args:
            stamps_ns: int64 (N,), increasing.
            labels: (N,), None where there is none.
            positions: (N, 3), metres.
            xyzw: (N, 4), unit.
            max_gap_ns: poses are interpolated over gaps up to it.

        Raises:
            SourceError: stamps do not increase, or a pose is not finite or its quaternion not of unit length.
        """
        stamps = np.asarray(stamps_ns, np.int64)
        back = np.flatnonzero(np.diff(stamps) <= 0)
        if len(back):
            raise SourceError(
                f"True stamp {stamps[back[0] + 1]} ns, row {back[0] + 1}, is not later than the one "
                "before: stamps must increase"
            )
        poses = None
        if positions is not None and xyzw is not None:
            p, q = np.asarray(positions, np.float64), np.asarray(xyzw, np.float64)
            fine = np.isfinite(p).all(1) & (np.abs(np.linalg.norm(q, axis=1) - 1) <= 2e-3)
            if not fine.all():
                row = int(np.argmin(fine))
                raise SourceError(
                    f"True pose of row {row} is {p[row].tolist()}, {q[row].tolist()}: it must be finite "
                    "with a unit quaternion (xyzw)"
                )
            poses = PoseTrack.of(Trajectory(stamps, p, canonical_xyzw(q)), max_gap_ns)
        track = None
        if labels is not None:
            track = LabelTrack.held(stamps.tolist(), [n or "" for n in labels], 0)
        return cls(track, poses)
