"""What is true of every pixel: label images by a table of classes, and images of distances.

A table of classes is a text file: a line each with a name, perhaps an id (else the first line has 0), and
perhaps a colour as three numbers. Names of columns (`id`, `name`, `r`, `g`, `b`) may stand above; without
them a line is `NAME`, `ID NAME`, `R G B NAME`, `NAME R G B` or `ID NAME R G B`. Lines of one name are one
class.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import PixelClasses
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.images.planes import as_stored, palette_of
from robot_vision.recordings.bag_file import BagImage
from robot_vision.recordings.files import readable
from robot_vision.recordings.image_formats import file_bytes
from robot_vision.settings.declared import names_in
from robot_vision.truth.pixel_classes import NO_CLASS
from robot_vision.truth.pose_checks import where
from robot_vision.truth.tables import read_table

MOST_CLASSES = 255
_UNKNOWN = -1
_UNNAMED = re.compile(r"void|unlabell?ed|ignored?|unknown|background/void", re.IGNORECASE)
_COLUMNS = {
    "name": (
        re.compile(r"(?:class|label|category)?[ _]?names?"),
        re.compile(r"class|label|category"),
    ),
    "id": (re.compile(r"(?:class|label|category)?[ _]?(?:id|index|value)"),),
    "r": (re.compile(r"r|red"),),
    "g": (re.compile(r"g|green"),),
    "b": (re.compile(r"b|blue"),),
}
# Numbers in front of a name are an id, a colour, or both.
_LINE = re.compile(
    r"(?:(?P<id>\d+) )??(?P<before>\d+ \d+ \d+ )?"
    r"(?P<name>[^\d ]\S*(?: (?!\d+\b)\S+)*)(?P<behind>(?: \d+){3})?"
)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """A line of a table: what pixels of an id, or of a colour, are."""

    id: int
    name: str
    colour: Colour | None = None


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Turns label images into classes of pixels, 0 to K - 1, and 255.

    Attributes:
        classes: of the pixels.
        by_id: stored id to class.
        by_colour: stored colour, as 0xRRGGBB, to class; empty where the table has no colours.
    """

    classes: PixelClasses
    by_id: Mapping[int, int]
    by_colour: Mapping[int, int]

    @classmethod
    def of(cls, entries: Sequence[Entry], ignore: str, notes: list[str]) -> LabelTable:
        """Makes it of lines.

        Args:
            entries: several of one name are one class.
            ignore: names or ids of what is no truth, with commas; 255 and what is called void or unlabelled
                are none either.
            notes: where it is said what is left out by its name.

        Raises:
            ConfigError: two lines have one id or colour, `ignore` names what is not there, or there are no
                classes or too many.
        """
        words = set(names_in(ignore))
        known = {e.name for e in entries} | {str(e.id) for e in entries}
        if strange := sorted(w for w in words - known if not w.isdecimal()):
            raise ConfigError(
                f"Option ignore names {strange[0]!r}, and no class has that name or id"
            )
        void = sorted({e.name for e in entries if _UNNAMED.fullmatch(e.name)} - words)
        if void:
            notes.append(f"pixels of {', '.join(void)} count as pixels without truth")
        out = words | set(void)
        kept = [
            e for e in entries if e.name not in out and str(e.id) not in out and e.id != NO_CLASS
        ]
        names = list(dict.fromkeys(e.name for e in kept))
        if not 0 < len(names) <= MOST_CLASSES:
            raise ConfigError(f"{len(names)} classes of pixels: there may be 1 to {MOST_CLASSES}")
        index = {name: i for i, name in enumerate(names)}
        by_id: dict[int, int] = {int(w): NO_CLASS for w in words if w.isdecimal()} | {
            NO_CLASS: NO_CLASS
        }
        by_colour: dict[int, int] = {}
        seen: dict[Any, str] = {}
        for entry in entries:
            where_to = index[entry.name] if entry in kept else NO_CLASS
            keys: list[Any] = [entry.id] if entry.colour is None else [entry.id, entry.colour]
            for key in keys:
                if key in seen:
                    raise ConfigError(
                        f"{seen[key]} and {entry.name} both have {'colour' * (key != entry.id) or 'id'} {key}"
                    )
                seen[key] = entry.name
            by_id[entry.id] = where_to
            if entry.colour is not None:
                by_colour[_code(entry.colour)] = where_to
        first = {e.name: e.colour for e in reversed(kept)}
        colours = [colour for name in names if (colour := first[name]) is not None]
        shown = tuple(colours) if len(colours) == len(names) else ()
        return cls(PixelClasses(tuple(names), shown), by_id, by_colour)

    def of_ids(self, ids: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Returns the classes (H, W) of stored ids.

        Raises:
            ImageError: an id that the table does not have; the message counts them.
        """
        if ids.dtype.kind != "u":
            raise ImageError("encoding", f"{name} holds {ids.dtype} numbers, and ids are whole")
        classes = self._lookup[ids if ids.dtype == np.uint8 else np.minimum(ids, 256)]
        if (classes == _UNKNOWN).any():
            self._refuse(name, ids[classes == _UNKNOWN], "ids", str)
        return np.asarray(classes, np.uint8)

    def of_colours(self, bgr: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """Returns the classes (H, W) of colours (H, W, 3 or 4), blue first; raises as `of_ids`."""
        if not self.by_colour:
            raise ImageError(
                "encoding", f"{name} has colours, and the table of classes has none: add them to it"
            )
        blue, green, red = (bgr[..., i].astype(np.int32) for i in range(3))
        codes = (red << 16) | (green << 8) | blue
        known = np.array(sorted(self.by_colour), np.int32)
        at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        wrong = known[at] != codes
        if wrong.any():
            self._refuse(name, codes[wrong], "colours", lambda c: f"#{c:06x}")
        classes = np.array([self.by_colour[code] for code in known.tolist()], np.uint8)
        return np.asarray(classes[at])

    @functools.cached_property
    def _lookup(self) -> NDArray[np.int16]:
        table = np.full(257, _UNKNOWN, np.int16)
        for stored, index in self.by_id.items():
            if stored <= 255:
                table[stored] = index
        return table

    @staticmethod
    def _refuse(name: str, wrong: NDArray[Any], what: str, text: Any) -> None:
        values, counts = np.unique(wrong, return_counts=True)
        order = np.argsort(-counts)[:5]
        some = ", ".join(f"{text(int(values[i]))} ({counts[i]})" for i in order)
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        remedy = "add them to it, or leave ids out by ignore" if what == "ids" else "add them to it"
        raise ImageError(
            "encoding",
            f"{name}: {wrong.size} pixels have {what} that the table of classes lacks: {some}{more}; "
            f"{remedy}",
        )


@dataclass(frozen=True, slots=True)
class PixelFile:
    """A `sample.TruthImage` over a file: PNG, or another format without losses.

    Attributes:
        path: of the file.
        none: see `TruthImage`.
        unit: see `TruthImage`.
        table: of its classes; None for numbers as they are stored.
    """

    path: str
    none: tuple[float, ...] = ()
    unit: float = 1.0
    table: LabelTable | None = None

    def __str__(self) -> str:
        return readable(self.path)

    def load(self) -> NDArray[Any]:
        """See `TruthImage.load`."""
        data = np.frombuffer(self.encoded(), np.uint8)
        image = as_stored(data, str(self))
        if self.table is None:
            if image.ndim != 2:
                raise ImageError(
                    "encoding", f"{self} has colours, and must have one number per pixel"
                )
            return image
        if image.ndim == 2:
            return self.table.of_ids(image, str(self))
        palette = palette_of(data)
        try:
            return self.table.of_colours(image, str(self))
        except ImageError:
            if palette is None:
                raise
        # OpenCV gives a palette's colours in place of its numbers.
        entries = [
            Entry(i, str(i), (int(c[0]), int(c[1]), int(c[2]))) for i, c in enumerate(palette)
        ]
        first = {_code(e.colour): e.id for e in reversed(entries) if e.colour is not None}
        as_numbers = LabelTable(PixelClasses(()), {}, first)
        return self.table.of_ids(as_numbers.of_colours(image, str(self)), str(self))

    def encoded(self) -> bytes:
        """See `TruthImage.encoded`."""
        try:
            return file_bytes(Path(self.path))
        except OSError as error:
            raise ImageError("corrupt", f"{self}: {error}") from error


@dataclass(frozen=True, slots=True)
class PixelMessage:
    """A `sample.TruthImage` over a message of a bag: an image with one number a pixel.

    Attributes:
        source: the message.
        none: see `TruthImage`.
        unit: see `TruthImage`.
        table: of its classes; None for numbers as they are stored.
    """

    source: BagImage
    none: tuple[float, ...] = ()
    unit: float = 1.0
    table: LabelTable | None = None

    def __str__(self) -> str:
        return str(self.source)

    def load(self) -> NDArray[Any]:
        """See `TruthImage.load`."""
        plane = self.source.plane()
        return plane if self.table is None else self.table.of_ids(plane, str(self))

    def encoded(self) -> bytes:
        """See `TruthImage.encoded`."""
        return self.source.encoded()


def read_classes(text: str, folder: Path, ignore: str, notes: list[str]) -> LabelTable:
    """Returns the table of classes that an option names.

    Args:
        text: a file, from `folder` or absolute; or the names with commas, whose ids are 0, 1, ...
        folder: of the data set.
        ignore: see `LabelTable.of`.
        notes: for the data set's notes.

    Raises:
        ConfigError: it is neither, or see `LabelTable.of`.
        SourceError: a line of the file is no line of such a table.
    """
    file = folder / Path(text).expanduser()
    if file.is_file():
        entries = read_entries(file)
        try:
            return LabelTable.of(entries, ignore, notes)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error
    if "," not in text:
        raise ConfigError(
            f"Option classes is {text!r}: {file} is no file; separate names by commas"
        )
    return LabelTable.of([Entry(i, n) for i, n in enumerate(names_in(text))], ignore, notes)


def read_entries(file: Path) -> list[Entry]:
    """Returns the lines of a table of classes.

    Raises:
        SourceError: a line of the file has another form.
    """
    table = read_table(file, _COLUMNS)
    entries: list[Entry] = []
    for row in table.rows:
        words = " ".join(row.words).split()  # between R G B and a name may be a tab
        place = where(file, row.number)
        if table.columns:
            named = {key: row.words[i] for key, i in table.columns.items() if i < len(row.words)}
            name, numbers = named.get("name", ""), [named.get(key, "") for key in "rgb"]
            id_text = named.get("id", "")
        else:
            match = _LINE.fullmatch(" ".join(words))
            name = match["name"] if match else ""
            id_text = (match["id"] or "") if match else ""
            numbers = (match["before"] or match["behind"] or "").split() if match else []
        if not name or len([n for n in numbers if n]) not in (0, 3):
            raise SourceError(
                f"{place}: {' '.join(words)!r} is not NAME optionally with ID and R G B"
            )
        try:
            id = int(id_text) if id_text else len(entries)
            levels = [int(n) for n in numbers if n]
        except ValueError:
            raise SourceError(
                f"{place}: {' '.join(words)!r} has a word where a whole number is expected"
            ) from None
        if not 0 <= id <= 255 or any(not 0 <= level <= 255 for level in levels):
            raise SourceError(f"{place}: ids and colours are from 0 to 255")
        colour = (levels[0], levels[1], levels[2]) if levels else None
        entries.append(Entry(id, name, colour))
    return entries


def _code(colour: Sequence[int]) -> int:
    red, green, blue = colour
    return (int(red) << 16) | (int(green) << 8) | int(blue)
