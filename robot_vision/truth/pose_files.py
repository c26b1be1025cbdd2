"""Files of stamped poses: TUM, EuRoC, KITTI, and tables that name their columns, read to trajectories.

- TUM: `stamp tx ty tz qx qy qz qw`, stamps in seconds. Lines that begin with # are comments.
- EuRoC: comma separated `stamp,tx,ty,tz,qw,qx,qy,qz` and perhaps more columns, stamps in nanoseconds.
- KITTI: the twelve numbers of a 3 x 4 matrix a line; stamps in seconds stand in a file next to it.

Where a header names the columns, the names decide and not the format. Stamps of 1e11 and more are milli-,
micro- or nanoseconds since 1970, by their size, unless the header gives the unit. Positions are in metres,
unless the header says [mm], [cm] or [km]. Poses are those of a frame in the map.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.geometry.rigid import canonical_xyzw, xyzw_from_matrix
from robot_vision.geometry.trajectory import Repeats, Trajectory
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import (
    numbers,
    pose_from_matrix,
    rotation_from_quaternion,
    where,
)
from robot_vision.truth.tables import Table, read_table

FORMATS = ("auto", "tum", "euroc", "kitti")
Report = Callable[[SourceError], None]

# "tx", "p_RS_R_x [m]", "field.pose.position.x"; but not "v_RS_R_x" nor "t_max".
_PART = r"(?:(?:_[a-z]+)+[._ ]|[._ ]?)"
_POSITION = rf"(?:.*(?:position|translation)[._ /]?|(?:pose|pos|trans|p|t){_PART}|)"
_QUATERNION = rf"(?:.*(?:orientation|rotation|quat(?:ernion)?)[._ /]?|(?:ori(?:ent)?|rot|q){_PART})"
_TIME = r"(?:time ?stamps?|stamp|time)"
# The header's stamp, and not the log's, where a table of messages has both.
STAMP_COLUMN = (
    re.compile(r"(?:.*\.)?header\.stamp"),
    re.compile(rf"(?:.*\.)?{_TIME}(?:_[mun]?s(?:ec(?:ond)?s?)?)?|t(?:_[mun]?s)?"),
)
# A stamp in two columns, as ROS messages have it.
_OF_STAMP = rf"(?:(?:.*[./])?(?:header[./]stamp|{_TIME})[._ /]|)"
_COLUMNS = {
    "sec": (re.compile(rf"{_OF_STAMP}sec(?:ond)?s?"),),
    "nsec": (re.compile(rf"{_OF_STAMP}n(?:ano)?sec(?:ond)?s?"),),
    "stamp": STAMP_COLUMN,
    **{f"q{a}": (re.compile(_QUATERNION + a),) for a in "xyzw"},
    **{f"t{a}": (re.compile(_POSITION + a),) for a in "xyz"},
}
_ORDERS = {
    "tum": ("stamp", "tx", "ty", "tz", "qx", "qy", "qz", "qw"),
    "euroc": ("stamp", "tx", "ty", "tz", "qw", "qx", "qy", "qz"),
}
_EUROC_COLUMNS = 17  # with velocity and the biases of gyroscope and accelerometer
_DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}  # from the unit to nanoseconds
_METRES = {"": 1.0, "m": 1.0, "cm": 0.01, "mm": 0.001, "km": 1000.0}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def read_pose_file(
    file: Path,
    report: Report,
    form: str = "auto",
    times: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Trajectory:
    """Reads a file of poses.

    Args:
        file: to read.
        report: receives each line that fails its checks, as a `SourceError` that names file and line; it
            raises it, or counts it and the line is left out.
        form: one of `FORMATS`; auto tells them apart by the header, or else by the first line's numbers.
        times: of KITTI's poses, a stamp in seconds a line; None takes times.txt next to the file.
        say: receives how the file was read where it leaves that open, and what was left out.

    Raises:
        ConfigError: unknown format.
        SourceError: the file cannot be read, has no pose, or lacks a column.
    """
    if form not in FORMATS:
        raise ConfigError(unknown("format of poses", form, FORMATS))
    table = _plain(read_table(file, _COLUMNS, least=4))
    if not table.rows:
        raise SourceError(f"{file} has no pose: every line is empty or a comment")
    if table.columns and form != "kitti":
        rows = _stamped(
            table, _with_one_stamp(table), "as its header names the columns", report, say
        )
    else:
        form = _form_of(table) if form == "auto" else form
        if form == "kitti":
            rows = _kitti(table, times or file.with_name("times.txt"), report)
        else:
            order = {name: i for i, name in enumerate(_ORDERS[form])}
            rows = _stamped(table, order, f"as {form.upper()}", report, say, form == "euroc")
    return _trajectory(file, rows, report, say)


def _plain(table: Table) -> Table:
    """Returns a table of numbers: blanks part them too, and an empty word at the end is none."""
    for row in table.rows:
        while len(row.words) > 1 and not row.words[-1]:
            row.words.pop()
        if any(" " in word or "\t" in word for word in row.words):
            row.words[:] = " ".join(row.words).split()
    return table


# Line, stamp in ns and as written, position, quaternion xyzw.
Stamped = tuple[int, int, str, NDArray[np.float64], NDArray[np.float64]]


def _kitti(table: Table, times_file: Path, report: Report) -> list[Stamped]:
    if not times_file.is_file():
        raise SourceError(
            f"{table.file} has KITTI's poses, which carry no stamps, and {times_file} does not exist: give a "
            "file with one stamp per line (pose_times)"
        )
    stamps = read_table(times_file).rows
    if len(stamps) != len(table.rows):
        raise SourceError(
            f"{times_file} has {counted(len(stamps), 'stamp')} and {table.file} "
            f"{counted(len(table.rows), 'pose')}: each needs one"
        )
    unit = unit_of_stamps([stamp.words[0] for stamp in stamps])
    rows = []
    for row, stamp in zip(table.rows, stamps, strict=True):
        place = where(table.file, row.number)
        try:
            stamp_ns = to_ns(stamp.words[0], unit, where(times_file, stamp.number))
            matrix = numbers(row.words, 12, place, "a pose of KITTI").reshape(3, 4)
            T = pose_from_matrix(matrix, place)
            xyzw = xyzw_from_matrix(T[:3, :3])
            rows.append((row.number, stamp_ns, stamp.words[0], T[:3, 3], xyzw))
        except SourceError as error:
            report(error)
    return rows


def _with_one_stamp(table: Table) -> dict[str, int]:
    """Returns the columns with one of the stamp; of two, seconds and nanoseconds become one word in place."""
    columns = dict(table.columns)
    parts = {name: columns.pop(name) for name in ("sec", "nsec") if name in columns}
    whole = table.names[columns["stamp"]].lower() if "stamp" in columns else ""
    if not parts or whole.endswith("header.stamp"):
        return columns
    if len(parts) == 1:
        return {"stamp": next(iter(parts.values())), **columns}
    sec, nsec = parts["sec"], parts["nsec"]
    for row in table.rows:
        if len(row.words) > max(sec, nsec):
            fits = row.words[sec].isdecimal() and re.fullmatch(r"\d{1,9}", row.words[nsec])
            row.words[sec] += f".{row.words[nsec]:0>9}" if fits else f" and {row.words[nsec]}"
    return {**columns, "stamp": sec, "nsec": nsec}


def _stamped(
    table: Table,
    columns: dict[str, int],
    how: str,
    report: Report,
    say: Callable[[str], None],
    in_ns: bool = False,
) -> list[Stamped]:
    lacking = [name for name in _ORDERS["tum"] if name not in columns]
    if lacking:
        raise SourceError(
            f"{table.file} names the columns {', '.join(table.names)}: it lacks {', '.join(lacking)} "
            "(the camera's position and a quaternion)"
        )
    names = _ORDERS["tum"]
    needed = max(columns.values()) + 1
    unit = "ns" if in_ns else _unit_of(table, columns["stamp"])
    length, scale = _length_of(table)
    what = "a pose " + " ".join(sorted(names[1:], key=lambda name: columns[name]))
    rows = []
    for row in table.rows:
        place = where(table.file, row.number)
        try:
            if len(row.words) < needed:
                numbers(row.words[1:], needed - 1, place, what)  # says what is missing
            stamp_ns = to_ns(row.words[columns["stamp"]], unit, place)
            values = numbers([row.words[columns[n]] for n in names[1:]], 7, place, what)
            rotation_from_quaternion(values[3:], place)
            word = row.words[columns["stamp"]]
            xyzw = canonical_xyzw(values[3:])
            rows.append((row.number, stamp_ns, word, values[:3] * scale, xyzw))
        except SourceError as error:
            report(error)
    extra = max(len(row.words) for row in table.rows) - len(columns)
    order = " ".join(sorted(names, key=lambda name: columns[name]))
    if tuple(order.split()) != names or unit != "s" or extra > 0 or scale != 1:
        more = f"; {counted(extra, 'more column')} not used" if extra > 0 else ""
        more = f", positions in {length}{more}" if scale != 1 else more
        say(f"{table.file.name} is read {how} ({order}), stamps in {_UNITS[unit]}{more}")
    return rows


def _trajectory(
    file: Path, rows: list[Stamped], report: Report, say: Callable[[str], None]
) -> Trajectory:
    """Returns the rows as a trajectory: of one stamp's poses the first counts."""
    kept: list[Stamped] = []
    repeats = Repeats()
    for row in rows:
        number, stamp_ns, word, position, xyzw = row
        place = where(file, number)
        if kept and stamp_ns < kept[-1][1]:
            wrong = f"is not later than the one before, of line {kept[-1][0]}: stamps must increase"
            report(SourceError(f"{place}: stamp {word} {wrong}"))
        elif kept and stamp_ns == kept[-1][1]:
            wrong = repeats.add(place, kept[-1][3:], (position, xyzw))
            if wrong:
                report(SourceError(f"{place}: stamp {word} is that of line {kept[-1][0]}, {wrong}"))
        else:
            kept.append(row)
    for text in repeats.notes():
        say(text)
    return Trajectory(
        np.array([stamp for _, stamp, *_ in kept], np.int64),
        np.array([position for *_, position, _ in kept]).reshape(-1, 3),
        np.array([xyzw for *_, xyzw in kept]).reshape(-1, 4),
    )


def _unit_of(table: Table, column: int) -> str:
    """Returns the unit of the stamps: as the header says, or by their size."""
    said = f"{table.units.get('stamp', '')} {table.names[column] if table.names else ''}".lower()
    for unit in ("ns", "us", "ms"):
        if re.search(rf"(?:^|[^a-z]){unit}(?:ecs?)?(?:[^a-z]|$)|{_UNITS[unit][:-1]}", said):
            return unit
    if re.search(r"(?:^|[^a-z])s(?:ecs?)?(?:[^a-z]|$)", said):
        return "s"
    return unit_of_stamps([row.words[column] for row in table.rows if len(row.words) > column])


def _length_of(table: Table) -> tuple[str, float]:
    """Returns the unit of the positions that the header gives (empty: none) and its metres."""
    units = {table.units.get(name, "").strip().lower() for name in ("tx", "ty", "tz")}
    unit = min(units)
    if len(units) > 1 or unit not in _METRES:
        raise SourceError(
            f"{table.file}: the header gives positions in {', '.join(sorted(units))}: use one of m, cm, mm, "
            "km for all three"
        )
    return unit, _METRES[unit]


def unit_of_stamps(words: list[str]) -> str:
    """Returns s, ms, us or ns by the size of stamps since 1970; s where they are no such stamps."""
    sizes = []
    for word in words:
        try:
            sizes.append(abs(float(word)))
        except ValueError:
            continue
    middle = float(np.median(sizes)) if sizes else 0.0
    return next(
        (u for u, least in (("ns", 1e17), ("us", 1e14), ("ms", 1e11)) if middle >= least), "s"
    )


def to_ns(word: str, unit: str, place: str) -> int:
    """Returns the nanoseconds of a stamp, as written.

    Args:
        word: the number.
        unit: s, ms, us or ns.
        place: file and line, for errors.

    Raises:
        SourceError: it is no such number.
    """
    try:
        # Decimal: a double loses the last digits of nanoseconds since 1970.
        value = Decimal(word)
        if not abs(value) < 2**63:
            # NaN too; a huge exponent would become a number with that many digits.
            raise ValueError
        if unit == "ns" and value != value.to_integral_value():
            raise ValueError
        stamp_ns = int((value * 10 ** _DIGITS[unit]).to_integral_value())
    except (ArithmeticError, ValueError):
        raise SourceError(f"{place}: {word!r} is not a stamp in {_UNITS[unit]}") from None
    if abs(stamp_ns) >= 2**63:
        raise SourceError(
            f"{place}: {word} is not a stamp in {_UNITS[unit]}: it is more than 292 years from 1970"
        )
    return stamp_ns


def _form_of(table: Table) -> str:
    """Tells the formats apart by the first row, where no header names the columns."""
    words = table.rows[0].words
    if len(words) == 12 and (_is_kitti(words) or not _is_tum(words)):
        return "kitti"
    digits = words[0].isdecimal()
    commas = table.delimiter == ","
    in_ns = unit_of_stamps([row.words[0] for row in table.rows if row.words]) == "ns"
    if len(words) >= 8 and digits and commas and (in_ns or table.file.suffix == ".csv"):
        return "euroc"
    if len(words) == _EUROC_COLUMNS and digits and in_ns:
        return "euroc"
    if len(words) >= 8:
        return "tum"
    raise SourceError(
        f"{where(table.file, table.rows[0].number)}: {len(words)} numbers a line are no known format of "
        "poses: TUM has 8, EuRoC 8 or more with stamps in nanoseconds, KITTI 12"
    )


def _is_kitti(words: list[str]) -> bool:
    try:
        pose_from_matrix(numbers(words, 12, "", "").reshape(3, 4), "")
    except SourceError:
        return False
    return True


def _is_tum(words: list[str]) -> bool:
    try:
        rotation_from_quaternion(numbers(words[4:8], 4, "", ""), "")
    except SourceError:
        return False
    return True
