"""Poses read from files, checked: every error names the file and the line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.geometry.rigid import matrix_from_xyzw, orthonormalised
from robot_vision.text.counts import agreeing, counted

# A quaternion printed with three decimals is off by up to 1e-3; one that is off by more is something else.
UNIT_TOLERANCE = 2e-3
ROTATION_TOLERANCE = 1e-3


def where(file: Any, line: int | None = None) -> str:
    """Returns `file:line`, as editors and terminals understand it."""
    return f"{file}" if line is None else f"{file}:{line}"


def numbers(words: Sequence[str], count: int, place: str, what: str) -> NDArray[np.float64]:
    """Returns `count` finite numbers from words.

    Raises:
        SourceError: another count, no number, or not finite.
    """
    if len(words) != count:
        raise SourceError(f"{place}: {what} needs {count} numbers, and there are {len(words)}")
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        raise SourceError(f"{place}: {what} has {' '.join(words)!r}: not all are numbers") from None
    if not np.all(np.isfinite(values)):
        raise SourceError(f"{place}: {what} is {' '.join(words)!r}: all must be finite")
    return values


def pose_from_matrix(matrix: NDArray[Any], place: str) -> NDArray[np.float64]:
    """Returns a checked pose (4, 4) with an exact rotation; rounding within `ROTATION_TOLERANCE` is removed.

    Args:
        matrix: (4, 4) or (3, 4).
        place: file and line, for errors.

    Raises:
        SourceError: wrong shape or last row, not finite, or no rotation.
    """
    m = np.asarray(matrix, np.float64)
    if m.shape not in ((3, 4), (4, 4)) or not np.all(np.isfinite(m)):
        raise SourceError(f"{place}: a pose must be a finite 4 x 4 matrix, not {m.tolist()}")
    if m.shape == (4, 4) and not np.allclose(m[3], [0, 0, 0, 1], atol=1e-6):
        raise SourceError(f"{place}: the last row of a pose is {m[3].tolist()}: it must be 0 0 0 1")
    try:
        rotation = orthonormalised(m[:3, :3])
    except ValueError:
        rotation = np.full((3, 3), np.inf)
    off = float(np.abs(rotation - m[:3, :3]).max())
    if off > ROTATION_TOLERANCE:
        text = np.array2string(m[:3, :3], precision=4, separator=" ").replace("\n", "")
        raise SourceError(
            f"{place}: {text} is not a rotation matrix (orthonormal to {ROTATION_TOLERANCE:g}, "
            f"determinant 1; this one has {np.linalg.det(m[:3, :3]):.4g})"
        )
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = m[:3, 3]
    return pose


def rotation_from_quaternion(xyzw: NDArray[Any], place: str) -> NDArray[np.float64]:
    """Returns the rotation (3, 3) of a quaternion that is of unit length up to rounding.

    Raises:
        SourceError: it is not finite, or not of unit length.
    """
    q = np.asarray(xyzw, np.float64)
    norm = float(np.linalg.norm(q))
    if not abs(norm - 1) <= UNIT_TOLERANCE:  # also catches NaN
        raise SourceError(
            f"{place}: the quaternion (xyzw) {q.tolist()} has length {norm:.6g}: it must be 1"
        )
    return matrix_from_xyzw(q)


MISSING_IMAGE = "whose image does not exist"


class Skipped:
    """Frames that are left out, counted by reason, with a few names each."""

    NOTE = re.compile(r"\d+ frames? skipped, ")  # how its notes begin

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Counts one."""
        self._names.setdefault(reason, []).append(name)

    def notes(self) -> list[str]:
        """Returns a line for each reason."""
        lines = []
        for reason, names in self._names.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            skipped = f"{counted(len(names), 'frame')} skipped, {agreeing(len(names), reason)}"
            lines.append(f"{skipped}: {', '.join(names[:3])}{more}")
        return lines
