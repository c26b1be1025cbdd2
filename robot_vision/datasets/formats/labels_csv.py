"""Labels in a table: a CSV file (or TSV, or words with blanks) with a column of images and one of classes.

The header says which is which (`file_name`, `image`, `id`, ...; `label`, `class`, ...; perhaps `split`), or
`image_column` and `label_column` do. Without a header the column whose words are image files is that of the
images, and the only other one that of the classes. A table with a column for each class, 1 in one of them
and 0 in the others, has its class there.

Further columns, of the names in `truth`, are what heads learn: classes, or numbers. Their cells may be empty.

Layouts: one file, with or without a column `split` of train, val and test; or a folder with train.csv and
perhaps val.csv and test.csv. What no table says is drawn as from image folders. Images are looked for next to
the table and below, by their path, or by their name where it is the only one; an id may leave the suffix out.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from robot_vision.datasets.formats import image_folder
from robot_vision.datasets.image_files import FileImage, listed_file, listed_path, unlisted_note
from robot_vision.datasets.sample import Sample, Splits, labels_of
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.files import find_images, image_notes, some
from robot_vision.recordings.image_formats import IMAGE_SUFFIXES, is_image
from robot_vision.settings.declared import names_in, option
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import Skipped, where
from robot_vision.truth.tables import Row, Table, missing_label, read_table

_STAMP = re.compile(r"time|stamp|date", re.IGNORECASE)  # which no column of classes is called
_ENDS = (".csv", ".tsv", ".txt")
_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
_IMAGE = r"(?:image|img|file|photo|picture|frame)s?"
_COLUMNS = {
    "image": (
        re.compile(rf"(?:{_IMAGE}[ _]?)?(?:file[ _]?)?(?:names?|paths?|files?)"),
        re.compile(_IMAGE),
        re.compile(rf"(?:{_IMAGE}[ _]?)?id|fname"),
    ),
    "label": (
        re.compile(r"(?:label|class|category)[ _]?names?"),
        re.compile(r"labels?|class(?:es)?|categor(?:y|ies)"),
        re.compile(r"targets?|tags?|(?:label|class|category)[ _]?id|ground[ _]?truth|y"),
    ),
    "split": (re.compile(r"(?:data[ _]?)?(?:split|set|subset)|partition|phase|usage"),),
}


@dataclass(frozen=True)
class Options(image_folder.Options):
    """Options of the format."""

    images: str = option("", "folder of the images; empty: the folder of the table")
    image_column: str = option(
        "", "name of the column of images, if the header does not make it clear"
    )
    label_column: str = option(
        "", "name of the column of classes, if the header does not make it clear"
    )
    truth: str = option(
        "",
        "further columns, separated by commas: label:NAME for classes in column NAME, number:NAME for "
        "numbers; training asks for those that its heads learn",
    )


@dataclass
class _Found:
    """Images under a folder, by their path or by a name that only one of them has."""

    base: Path
    by_name: dict[str, list[Path]] | None = None

    def image(self, word: str) -> Path | None:
        path = listed_path(word)
        found = listed_file(self.base, word, IMAGE_SUFFIXES)
        if found is not None and is_image(found):
            return found
        if self.by_name is None:
            self.by_name = {}
            for file in find_images(self.base).files:
                for key in {file.name, file.stem}:
                    self.by_name.setdefault(key, []).append(file)
        alike = self.by_name.get(PurePosixPath(path).name, [])
        tail = [file for file in alike if file.as_posix().endswith(f"/{path}")] or alike
        return tail[0] if len(tail) == 1 else None


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`, a table or its folder; see `registry.open_dataset`."""
    notes: list[str] = []
    tables = _tables(root, notes)
    folder = root if root.is_dir() else root.parent
    base = folder / Path(options.images).expanduser() if options.images else folder
    if not base.is_dir():
        raise ConfigError(f"Option images is {options.images!r}: {base} is not a folder")
    found, skipped = _Found(base), Skipped()
    parts: dict[str, list[Sample]] = {}
    seen: dict[Path, tuple[str, str]] = {}  # the classes, and where
    files: list[Path] = []
    for part, file in tables.items():
        table = _read(file, options)
        if not _words_of(table.columns) and part and part != "train":
            notes.append(
                f"{file.name} has no column of classes and is left out: {counted(len(table.rows), 'row')}"
            )
            continue
        if not _words_of(table.columns):
            raise SourceError(f"{file} has no column of classes")
        notes += _unused_columns(table)
        for sample, place, role in _samples(table, found, skipped, files, notes):
            path = Path(str(sample.source))
            mine = " ".join(str(v) for v in (sample.label, *sample.truth.values()) if v is not None)
            label, before = seen.setdefault(path, (mine, place))
            if before != place and label == mine:
                skipped.add("which is listed before with the same class", sample.name)
            elif before != place:
                raise SourceError(
                    f"{place}: {sample.name} is {mine!r}, and {label!r} in {before}: an image has "
                    "one class"
                )
            else:
                parts.setdefault(role or part or "train", []).append(sample)
    notes = [*skipped.notes(), *notes, *unlisted_note(files), *image_notes(files)]
    classes = len(labels_of(sample for samples in parts.values() for sample in samples))
    if classes > 10 and classes > len(seen) / 2:
        notes.append(
            f"{counted(classes, 'class for', 'classes for')} {counted(len(seen), 'image')}: set "
            "label_column if these are not classes"
        )
    if not parts.get("train"):
        why = f" ({'; '.join(notes)})" if notes else ""
        raise SourceError(f"{root} has no image to train on{why}")
    train, validation, test = (_in_order(parts.get(part)) for part in _PARTS)
    return image_folder.completed(train or [], validation, test, options, notes)


def _in_order(samples: list[Sample] | None) -> list[Sample] | None:
    if samples is None:
        return None
    return sorted(samples, key=lambda s: [natural_key(part) for part in s.name.split("/")])


def _tables(root: Path, notes: list[str]) -> dict[str, Path]:
    """Returns the table of each part; of "" where there is one for all."""
    if not root.is_dir():
        return {"": root}
    below = sorted(p for p in root.iterdir() if p.suffix.lower() in _ENDS and p.is_file())
    csv = [p for p in below if p.suffix.lower() != ".txt"] or below
    by_part = {part: p for part, names in _PARTS.items() for p in csv if p.stem.lower() in names}
    if "train" in by_part:
        if others := [p.name for p in csv if p not in by_part.values()]:
            notes.append(f"not read, since there is {by_part['train'].name}: {some(others)}")
        return by_part
    if len(csv) != 1:
        there = ", ".join(p.name for p in csv) or "none"
        raise SourceError(f"{root} has not one table of labels (there: {there}): give the file")
    return {"": csv[0]}


def _unused_columns(table: Table) -> list[str]:
    """Returns a note that names the columns that are neither image, class nor split."""
    used = table.columns
    classes = [used[word] for word in _words_of(used)]
    if max(classes) >= len(table.names):  # no names, or all others are classes
        return []
    rest = [name for i, name in enumerate(table.names) if i not in used.values()]
    named = " and ".join(repr(table.names[i]) for i in sorted(classes))
    chosen = f"{table.names[used['image']]!r} are the images and {named} the classes"
    return (
        [f"{table.file.name}: {chosen}, and other columns are not used: {some(rest)}"]
        if rest
        else []
    )


def _read(file: Path, options: Options) -> Table:
    """Returns the table with its columns image, label and perhaps split; classes in columns made one."""
    wanted = dict(_COLUMNS)
    given = {"image": options.image_column, "label": options.label_column}
    further = {word: word.partition(":")[2] for word in names_in(options.truth)}
    for word in further:
        if word.partition(":")[0] not in ("label", "number"):
            raise ConfigError(
                f"Option truth has {word!r}: a table gives label:NAME or number:NAME, of column NAME"
            )
    for name, column in {**given, **further}.items():
        if column:
            wanted[name] = (re.compile(re.escape(column.lower())),)
    # Further columns first: one that is called lights, or class, is not the label's as well.
    table = read_table(file, {**{word: wanted.pop(word) for word in further}, **wanted}, least=1)
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in table.names):
        table = read_table(file)  # a first row with an image is none of names
    if not table.rows:
        raise SourceError(f"{file} has no row")
    for name, column in {**given, **further}.items():
        if column and name not in table.columns:
            kind = "classes" if name.startswith("label:") else "numbers"
            what = f"column of {kind}" if name in further else f"{name}_column"
            raise ConfigError(f"{unknown(what, column, table.names or ['none'])} (in {file})")
    columns = dict(table.columns)
    width = len(table.names) or len(table.rows[0].words)
    if "image" not in columns:
        columns["image"] = _column_of_images(table, width)
    rest = [i for i in range(width) if i not in columns.values()]
    if "label" not in columns and rest and not further:
        if len(rest) == 1 and not (table.names and _STAMP.match(table.names[rest[0]])):
            columns["label"] = rest[0]
        elif table.names and _one_hot(table, rest):
            return _with_classes(table, columns, rest)
        else:
            names = [table.names[i] for i in rest] if table.names else [str(i + 1) for i in rest]
            raise SourceError(
                f"{file}: which column has the classes? Set label_column to one of {', '.join(names)}"
                + ("" if table.names else " (in a header, which the table lacks)")
            )
    return Table(file, table.rows, columns, {}, table.names, table.delimiter)


def _column_of_images(table: Table, width: int) -> int:
    first = table.rows[:20]
    for i in range(width):
        if all(len(r.words) > i and r.words[i].lower().endswith(IMAGE_SUFFIXES) for r in first):
            return i
    names = ", ".join(table.names) or "none"
    raise SourceError(
        f"{table.file}: no column of images (columns: {names}): set image_column, or name one file_name"
    )


def _one_hot(table: Table, columns: Sequence[int]) -> bool:
    def flag(word: str) -> bool:
        return word in ("0", "1", "0.0", "1.0", "")

    return all(i < len(r.words) and flag(r.words[i]) for r in table.rows for i in columns)


def _with_classes(table: Table, columns: dict[str, int], classes: Sequence[int]) -> Table:
    rows = []
    for row in table.rows:
        here = [table.names[i] for i in classes if row.words[i] in ("1", "1.0")]
        if len(here) > 1:
            raise SourceError(
                f"{where(table.file, row.number)}: classes {' and '.join(here)} in one row: an image has "
                "one class"
            )
        rows.append(Row(row.number, [*row.words, *(here or [""])]))
    width = len(table.names)
    return Table(table.file, rows, {**columns, "label": width}, {}, table.names, table.delimiter)


def _samples(
    table: Table, found: _Found, skipped: Skipped, files: list[Path], notes: list[str]
) -> list[tuple[Sample, str, str]]:
    """Returns each sample with its file and line, and its part (empty where no column says)."""
    at = table.columns
    needed = max(at.values()) + 1
    words = _words_of(at)
    width = max(needed, len(table.names) or len(table.rows[0].words))
    in_names = at.get("label", 0) >= len(table.names) > 0  # of the columns
    samples = []
    left_out: Counter[tuple[str, str]] = Counter()  # cells of images that have other truth
    for row in table.rows:
        place = where(table.file, row.number)
        if len(row.words) < needed or (table.delimiter == " " and len(row.words) > needed):
            raise SourceError(
                f"{place}: {counted(len(row.words), 'word')} in a row of {needed} columns"
            )
        if any(row.words[width:]):  # of "living room, large" only the first part would be the class
            raise SourceError(
                f"{place}: {counted(len(row.words), 'word')} in a table of {width} columns: put quotes "
                "round a word "
                "that holds the delimiter, or name all columns in the header"
            )
        word, classes = row.words[at["image"]], {w: row.words[at[w]] for w in words}
        part = _part(row.words[at["split"]], place) if "split" in at else ""
        file = found.image(word)
        if file is None:
            skipped.add(
                f"whose image is not under {found.base}, or whose name is that of several", word
            )
            continue
        files.append(file)
        missing = {w: missing_label(c) for w, c in classes.items() if not (c and in_names)}
        truth: dict[str, Any] = {
            w: _value(w, c, place) for w, c in classes.items() if not missing.get(w)
        }
        if not truth:
            skipped.add(next(iter(missing.values())), word)
            continue
        left_out.update((w, c) for w, c in classes.items() if c and missing.get(w))
        label = truth.pop("label", None)
        name = os.path.relpath(file, found.base).replace(os.sep, "/")
        sequence = name.rpartition("/")[0] or found.base.name
        samples.append(
            (
                Sample(name, label, None, None, sequence, FileImage(str(file)), truth=truth),
                place,
                part,
            )
        )
    notes += [
        f"{table.file.name}: {counted(count, 'cell')} of {w.partition(':')[2] or w} left out: {cell!r} is "
        "what programs write for a missing value"
        for (w, cell), count in left_out.items()
    ]
    return samples


def _words_of(columns: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the words of truth among the columns: label, label:NAME and number:NAME."""
    return tuple(word for word in columns if word == "label" or ":" in word)


def _value(word: str, text: str, place: str) -> str | float:
    """Returns a cell as its word of truth has it."""
    if not word.startswith("number:"):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        name = word.partition(":")[2]
        raise SourceError(f"{place}: {name} is {text!r}: use a number, or leave it empty")
    return number


def _part(word: str, place: str) -> str:
    for part, names in _PARTS.items():
        if word.lower() in names:
            return part
    raise SourceError(f"{place}: split is {word!r}: use train, val or test")
