"""Files of stamped poses: TUM, EuRoC and KITTI, read to trajectories.

- TUM: `stamp tx ty tz qx qy qz qw`, stamps in seconds. Lines that begin with # are comments.
- EuRoC: comma separated `stamp,tx,ty,tz,qw,qx,qy,qz` and perhaps more columns, stamps in nanoseconds.
- KITTI: the twelve numbers of a 3 x 4 matrix a line; stamps in seconds stand in a file beside it.

Poses are those of a frame in the map, in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.pose_checks import (
    numbers,
    pose_from_matrix,
    rotation_from_quaternion,
    where,
)
from robot_vision.datasets.trajectory import Trajectory
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.geometry import pose_matrix, xyzw_from_matrix

FORMATS = ("auto", "tum", "euroc", "kitti")

Report = Callable[[SourceError], None]


def read_pose_file(
    file: Path, report: Report, form: str = "auto", times: Path | None = None
) -> Trajectory:
    """Reads a file of poses.

    Args:
        file: to read.
        report: is told of each line that fails its checks, as a `SourceError` that names file and line; it
            raises it, or counts it and the line is left out.
        form: one of `FORMATS`; auto tells them apart by the first line's numbers.
        times: of KITTI's poses, a stamp in seconds a line; None takes times.txt beside the file.

    Raises:
        ConfigError: unknown format.
        SourceError: the file cannot be read, or has no pose.
    """
    if form not in FORMATS:
        raise ConfigError(unknown("format of poses", form, FORMATS))
    lines = list(_lines(file))
    if not lines:
        raise SourceError(f"{file} has no pose: every line is empty or a comment")
    if form == "auto":
        form = _form_of(file, *lines[0])
    if form == "kitti":
        beside = times or file.with_name("times.txt")
        stamps = [(n, words[0]) for n, words in _lines(beside)]
        if len(stamps) != len(lines):
            raise SourceError(
                f"{beside} has {len(stamps)} stamps and {file} {len(lines)} poses: each needs one"
            )
    rows: list[tuple[int, NDArray[np.float64]]] = []
    for i, (number, words) in enumerate(lines):
        place = where(file, number)
        try:
            if form == "kitti":
                stamp_ns = seconds_to_ns(stamps[i][1], where(beside, stamps[i][0]))
                matrix = numbers(words, 12, place, "a pose of KITTI").reshape(3, 4)
                pose = pose_from_matrix(matrix, place)
            elif form == "tum":
                stamp_ns = seconds_to_ns(words[0], place)
                pose = tum_pose(words[1:], place)
            else:
                stamp_ns = _nanoseconds(words[0], place)
                pose = _euroc_pose(words[1:], place)
            if rows and stamp_ns <= rows[-1][0]:
                raise SourceError(
                    f"{place}: stamp {words[0] if form != 'kitti' else stamps[i][1]} is not later than the "
                    "one before: stamps must increase"
                )
        except SourceError as error:
            report(error)
            continue
        rows.append((stamp_ns, pose))
    return Trajectory(
        np.array([stamp for stamp, _ in rows], np.int64),
        np.array([pose[:3, 3] for _, pose in rows]).reshape(-1, 3),
        np.array([xyzw_from_matrix(pose[:3, :3]) for _, pose in rows]).reshape(-1, 4),
    )


def seconds_to_ns(word: str, place: str) -> int:
    """Returns the nanoseconds of a stamp in seconds, as written.

    Raises:
        SourceError: it is no such number.
    """
    try:
        # Decimal: a double loses the last digits of nanoseconds since 1970.
        seconds = Decimal(word)
        if (
            not abs(seconds) < 2**63
        ):  # NaN too; a huge exponent would become a number of so many digits
            raise ValueError
        stamp_ns = int((seconds * 10**9).to_integral_value())
    except (ArithmeticError, ValueError):
        raise SourceError(f"{place}: {word!r} is not a stamp in seconds") from None
    return _within_64_bits(stamp_ns, word, "seconds", place)


def tum_pose(words: list[str], place: str) -> NDArray[np.float64]:
    """Returns the pose (4, 4) of `tx ty tz qx qy qz qw`.

    Raises:
        SourceError: it fails its checks.
    """
    values = numbers(words, 7, place, "a pose tx ty tz qx qy qz qw")
    T = np.eye(4)
    T[:3, :3] = rotation_from_quaternion(values[3:], place)
    T[:3, 3] = values[:3]
    return T


def _euroc_pose(words: list[str], place: str) -> NDArray[np.float64]:
    values = numbers(words[:7], 7, place, "a pose tx ty tz qw qx qy qz")
    xyzw = values[[4, 5, 6, 3]]
    rotation_from_quaternion(xyzw, place)
    return pose_matrix(values[:3], xyzw)


def _nanoseconds(word: str, place: str) -> int:
    try:
        return _within_64_bits(int(word), word, "nanoseconds", place)
    except ValueError:
        raise SourceError(f"{place}: {word!r} is not a stamp in nanoseconds") from None


def _within_64_bits(stamp_ns: int, word: str, unit: str, place: str) -> int:
    if abs(stamp_ns) >= 2**63:
        raise SourceError(
            f"{place}: {word} is not a stamp in {unit}: it is more than 292 years from 1970"
        )
    return stamp_ns


def _form_of(file: Path, number: int, words: list[str]) -> str:
    if len(words) == 12:
        return "kitti"
    if len(words) == 8 and not (file.suffix == ".csv" and words[0].isdigit()):
        return "tum"
    if len(words) >= 8 and words[0].isdigit():
        return "euroc"
    raise SourceError(
        f"{where(file, number)}: {len(words)} numbers a line are no known format of poses: TUM has 8, "
        "EuRoC 8 or more with stamps in nanoseconds, KITTI 12"
    )


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the words of each line that is no comment."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if words and not words[0].startswith("#"):
            yield number, words
