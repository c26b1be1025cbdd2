"""Tables in text files: poses, labels, lists of images.

One reader for all: UTF-8 (or UTF-16) with or without a byte order mark; lines that end as on Unix, Windows or
old Macs; columns parted by commas, semicolons, tabs or blanks; quoted words as CSV has them; lines that begin
with # or % are comments. Names of columns may stand in the first row or in a comment above it.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from robot_vision.errors import SourceError
from robot_vision.truth.pose_checks import where

_LINE_END = re.compile(r"\r\n|\r|\n")
_UNIT = re.compile(r"[\[(]([^\])]*)[\])]")
_COMMENT = ("#", "%")
# What pandas, NumPy and spreadsheets write where a value is missing, spelled as they do.
_MISSING = frozenset(
    ("NaN", "nan", "NA", "<NA>", "N/A", "n/a", "#N/A", "None", "NULL", "null", "NaT")
)


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        number: of the line, from 1.
        words: of its columns, without blanks around them.
    """

    number: int
    words: list[str]


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Attributes:
        file: where they come from.
        rows: without comments, empty lines and the names of the columns.
        columns: for each name asked for that the file has, its index.
        units: what stands in brackets behind the names, such as ns.
        names: of all columns, as written; empty where the file does not name them.
        delimiter: a comma, semicolon or tab; a blank for any blanks.
    """

    file: Path
    rows: list[Row]
    columns: Mapping[str, int]
    units: Mapping[str, str]
    names: tuple[str, ...]
    delimiter: str


def read_text(file: Path) -> str:
    """Returns a text file's content without its byte order mark.

    Raises:
        SourceError: it cannot be read, or is not UTF-8 (nor UTF-16 with a mark).
    """
    try:
        data = file.read_bytes()
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(data[: error.start].decode("latin-1"))) + 1
        raise SourceError(
            f"{where(file, line)}: not {error.encoding.upper()} ({error.reason}): save the file as UTF-8"
        ) from error


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a text file; see `read_text`."""
    lines = _LINE_END.split(read_text(file))
    return lines if lines[-1] else lines[:-1]


def missing_label(word: str) -> str:
    """Returns why a word of a table or topic is no label; empty for a label.

    Names of folders, and of columns that are classes, were chosen by people: any of them is a label.
    """
    if word in _MISSING:
        return f"as the class {word!r} is what programs write for a missing value (rename it, if it is one)"
    return "" if word else "which have no class"


def read_table(
    file: Path, aliases: Mapping[str, tuple[re.Pattern[str], ...]] | None = None, least: int = 2
) -> Table:
    """Reads a table.

    Args:
        file: to read.
        aliases: names of columns that are looked for, and what they may be called, the best first (matched
            against the whole name in lower case, without units).
        least: a line names the columns where it holds this many of them.

    Raises:
        SourceError: it cannot be read, or names a column twice.
    """
    lines = [(n, line) for n, line in enumerate(read_lines(file), 1) if line.strip()]
    comments = [(n, line) for n, line in lines if line.lstrip().startswith(_COMMENT)]
    data = [(n, line) for n, line in lines if not line.lstrip().startswith(_COMMENT)]
    delimiter = _delimiter(data[0][1] if data else "")
    rows = _rows(file, data, delimiter)
    columns: dict[str, int] = {}
    names, units = list[str](), list[str]()
    if aliases:
        # The comment nearest above the first row counts; a first row that names them before any comment.
        above = [(n, line) for n, line in comments if not data or n < data[0][0]]
        heads = [(n, re.sub(r"^[\s#%]+", "", line)) for n, line in reversed(above)]
        for number, line in data[:1] + heads:
            names, units = _names(line)
            columns, twice = _columns(names, aliases)
            if len(columns) >= least:
                if twice:
                    raise SourceError(
                        f"{where(file, number)}: columns {' and '.join(twice)} could be the same: rename one"
                    )
                rows = rows[1:] if data and number == data[0][0] else rows
                break
        else:
            columns, names, units = {}, [], []
    found = {name: units[i] for name, i in columns.items()}
    return Table(file, rows, columns, found, tuple(names), delimiter)


def _delimiter(line: str) -> str:
    plain = re.sub(r'"[^"]*"', "", line)
    return next((mark for mark in "\t;," if mark in plain.strip()), " ")


def _rows(file: Path, lines: list[tuple[int, str]], delimiter: str) -> list[Row]:
    if delimiter == " ":
        return [Row(number, line.split()) for number, line in lines]
    rows = []
    for number, line in lines:
        try:
            words = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error as error:
            raise SourceError(f"{where(file, number)}: not a line of a table: {error}") from error
        rows.append(Row(number, [word.strip() for word in words]))
    return rows


def _names(line: str) -> tuple[list[str], list[str]]:
    """Returns the names and units (empty without) of a line of names."""
    delimiter = _delimiter(line)
    if delimiter == " ":  # a unit behind a blank belongs to the name before it
        line = re.sub(r"\s+(?=[\[(])", "", line)
        words = line.split()
    else:
        words = next(csv.reader([line], delimiter=delimiter), [])
    units = [(_UNIT.search(word) or re.match("()", "")).group(1) for word in words]  # type: ignore[union-attr]
    names = [re.sub(r"^[#%\s]+", "", _UNIT.sub("", word)).strip() for word in words]
    return names, units


def _columns(
    names: list[str], aliases: Mapping[str, tuple[re.Pattern[str], ...]]
) -> tuple[dict[str, int], list[str]]:
    """Returns the index of each known column, and the names of two that mean the same, if any do."""
    found: dict[str, int] = {}
    twice: list[str] = []
    for wanted, patterns in aliases.items():
        for pattern in patterns:
            fits = [i for i, name in enumerate(names) if pattern.fullmatch(name.lower())]
            fits = [i for i in fits if i not in found.values()]
            if fits:
                found[wanted] = fits[0]
                twice = twice or [repr(names[i]) for i in fits if len(fits) > 1]
                break
    return found, twice
