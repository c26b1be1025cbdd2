"""How a head's answers are judged: rows of numbers for each frame, and ONE table of what follows from them.

The table (`Section`, `Metric`) serves metrics.json, the terminal, the report and `--compare`. Per-frame
numbers that are sums (of pixels, say) make a metric of whole images too: it is a function of sums over rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Head, Side
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.statistics.bootstrap import Headline, Resampler, Statistic
from robot_vision.statistics.paired import Bound, PairedEvidence

Columns = dict[str, NDArray[Any]]
Mask = NDArray[np.bool_]
Numbers = Mapping[str, Any]  # a part of metrics.json
ReadImage = Callable[[int, tuple[int, int], float], "NDArray[Any] | None"]
Statistics = Mapping[Any, "Statistic | float"]  # by key, or by several; a number needs no interval


@dataclass(frozen=True, eq=False)
class FrameTruth:
    """What is true of n frames.

    Attributes:
        label: int64 (n,), index among the head's labels; see `contract.rows`.
        positions: float64 (n, 3), of the camera in the map, metres; NaN where there is none.
        xyzw: float64 (n, 4).
        numbers: by name, float64 (n,).
        images: by name, what `image` asks, of a frame of the recording.
        first: number of the first of the frames in the recording.
    """

    label: NDArray[np.int64]
    positions: NDArray[np.float64]
    xyzw: NDArray[np.float64]
    numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    images: Mapping[str, ReadImage] = field(default_factory=dict)
    first: int = 0

    def image(self, word: str, i: int, size: tuple[int, int], none: float) -> NDArray[Any] | None:
        """Reads the image of what is true of frame i, as the network saw it.

        Args:
            word: of `Judge.truth`, such as `image:depth`.
            i: number of the frame among these.
            size: (height, width) of what the head said; each pixel has the nearest of the true image's.
            none: for pixels of which nothing is known, or which the camera did not see.

        Returns:
            (height, width): integers as they are stored, or float32 where they have a unit; None where there
            is no image.
        """
        name = word.removeprefix("image:")
        return self.images[name](self.first + i, size, none) if name in self.images else None


@dataclass(frozen=True, eq=False)
class Frames:
    """Some frames of a recording, in the order of their stamps.

    Attributes:
        stamps_ns: int64 (n,).
        columns: what the head said, by the words of `Head.columns`, (n, ...); absent ones are not there.
            Those of the size of images are read frame by frame, `columns[word][i]`, which may be None.
        truth: of the same frames.
    """

    stamps_ns: NDArray[np.int64]
    columns: Mapping[str, Any]
    truth: FrameTruth

    def taken(self, rows: slice) -> Frames:
        """Returns neighbouring frames."""
        truth = self.truth
        return Frames(
            self.stamps_ns[rows],
            {word: column[rows] for word, column in self.columns.items()},
            FrameTruth(
                truth.label[rows],
                truth.positions[rows],
                truth.xyzw[rows],
                {name: values[rows] for name, values in truth.numbers.items()},
                truth.images,
                truth.first + (rows.start or 0),
            ),
        )

    def pairs(
        self, column: str, word: str, none: float
    ) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        """Yields the number of each frame that has both, what the head said and what is true of each pixel.

        Args:
            column: of the size of images, (height, width, ...) a frame.
            word: see `FrameTruth.image`.
            none: see there.
        """
        for i in range(len(self.stamps_ns)):
            said = self.columns[column][i]
            true = None if said is None else self.truth.image(word, i, said.shape[:2], none)
            if true is not None:
                yield i, said, true


@dataclass(frozen=True, eq=False)
class Reference:
    """A mapping recording, in which answers are looked up.

    Attributes:
        name: of the recording.
        frames: of it, all.
    """

    name: str
    frames: Frames


class Recording(Protocol):
    """Scores one recording. Frames come once, in the order of their stamps, some at a time."""

    def add(self, frames: Frames) -> None:
        """Scores frames; nothing of the size of an image is kept."""

    def finish(self) -> Columns:
        """Returns the columns of all frames by their words."""


class EachAlone:
    """A recording whose rows depend on nothing but their own frames."""

    def __init__(self, score: Callable[[Frames], Columns]) -> None:
        self._score, self._parts = score, list[Columns]()

    def add(self, frames: Frames) -> None:
        """Scores frames."""
        self._parts.append(self._score(frames))

    def finish(self) -> Columns:
        """Returns their columns."""
        return {
            word: np.concatenate([part[word] for part in self._parts]) for word in self._parts[0]
        }


@dataclass(frozen=True)
class Metric:
    """A number of metrics.json, as tables show it.

    Attributes:
        key: its name.
        words: for people.
        unit: `%` for shares, `m`, `deg`, `nats` or none.
        more_is_better: whether a higher value is better.
        more_classes_than: it is shown only where the model has more classes than this.
    """

    key: str
    words: str
    unit: str = ""
    more_is_better: bool = True
    more_classes_than: int = 0

    def text(self, value: float) -> str:
        """Returns a value without an interval, in digits that tell two trained networks apart."""
        if isinstance(value, int):
            return str(value)
        digits = {"%": 2, "m": 3, "deg": 2}.get(self.unit, 4)
        return f"{value * (100 if self.unit == '%' else 1):.{digits}f} {self.unit}".rstrip()


def always(ours: Rows, theirs: Rows) -> bool:
    """Whatever the evaluations, they can be compared frame by frame."""
    return True


def same_labels(ours: Rows, theirs: Rows) -> bool:
    """They can where both models have the same classes."""
    return ours.labels == theirs.labels


def never(ours: Rows, theirs: Rows) -> bool:
    """Only the intervals can be compared."""
    return False


@dataclass(frozen=True)
class Part:
    """Numbers that follow from the same rows.

    Attributes:
        usable: rows that count.
        statistics: of the rows of a mask, by key.
        paired: whether `--compare` may pair the frames of two evaluations.
        optional: whether the keys are left out, and not None, where no row counts.
    """

    usable: Callable[[Rows], Mask]
    statistics: Callable[[Rows, Mask], Statistics]
    paired: Callable[[Rows, Rows], bool] = always
    optional: bool = False


@dataclass(frozen=True)
class Baseline:
    """What an answer without the network would get.

    Attributes:
        words: for people.
        text: a sentence on it.
        statistics: of rows of a mask, by key of the section's metrics.
        usable: which rows of the section's first part count.
        counted: whether metrics.json says how many those are.
        bound: whether it knows the truth, so that nobody is blamed for not reaching it.
    """

    words: str
    text: str | Callable[[Rows], str]
    statistics: Callable[[Rows, Mask], Statistics]
    usable: Callable[[Rows, Mask], Mask] | None = None
    counted: bool = False
    bound: bool = False


@dataclass(frozen=True)
class Shown:
    """A frame to show.

    Attributes:
        row: of the scores.
        lines: what is said beneath it.
        match: the row of a second picture next to it; -1 for none.
        good: a success and not a failure.
    """

    row: int
    lines: tuple[str, ...]
    match: int = -1
    good: bool = False


@dataclass(frozen=True)
class Gallery:
    """Frames that the report shows.

    Attributes:
        title: of them.
        frames: which.
        drawn: whether the head's answer is drawn onto each, next to the camera's picture.
    """

    title: str
    frames: Callable[[Rows], list[Shown]]
    drawn: bool = False


def _frames(rows: Rows, mask: Mask) -> dict[str, Any]:
    return {"frames": int(mask.sum())}


@dataclass(frozen=True)
class Section:
    """A part of metrics.json, of one head. Sections of several heads with one key are joined.

    Attributes:
        key: in metrics.json.
        title: of its tables.
        meaning: what it says, for people; of the settings and its numbers.
        metrics: what tables show, in their order.
        parts: how the numbers are made; a section without any is made of its details alone.
        baselines: by key.
        counts: what comes first in metrics.json, of the rows that any part uses.
        shown: how many frames the tables are of, or words that say it; None takes `frames`.
        details: what comes last: curves, numbers a class.
        figures: SVG, of the rows and the section's numbers.
        galleries: frames to show.
        headline: its part of the one-sentence summary, with the metrics' keys in braces.
        table: of a section without metrics: header and cells.
    """

    key: str
    title: str
    meaning: str | Callable[[Numbers, Numbers], str] = ""
    metrics: Sequence[Metric] = ()
    parts: Sequence[Part] = ()
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    counts: Callable[[Rows, Mask], dict[str, Any]] = _frames
    shown: Callable[[Numbers], int | str] | None = None
    details: Callable[[Rows, Resampler], dict[str, Any]] | None = None
    figures: Callable[[Rows, Numbers], list[str]] | None = None
    galleries: Sequence[Gallery] = ()
    headline: str = ""
    table: Callable[[Numbers], tuple[list[str], list[list[str]]]] | None = None


@dataclass(frozen=True)
class NoSettings:
    """The settings of a judge that has none."""


class Judge(Side):
    """What scores a head's answers. A subclass has `score`, or `begin` where frames depend on others.

    Attributes:
        truth: of `label`, `pose`, `number:NAME`, `image:NAME`: any of these it can judge by.
        needs: columns without which the head said nothing.
        row_columns: see `rows`.
        reference: whether it looks answers up in a mapping recording.
        Settings: frozen dataclass of its part of the settings; names differ from those of other heads.
        trajectory: columns of estimated position and orientation, to be written as a trajectory.
        oriented: whether true positions without orientations, such as those of GPS, are no truth for it.
    """

    truth: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[tuple[str, ...]] = ()
    row_columns: ClassVar[Mapping[str, RowColumn]] = {}
    reference: ClassVar[bool] = False
    Settings: ClassVar[type[Any]] = NoSettings
    trajectory: ClassVar[tuple[str, str] | None] = None
    oriented: ClassVar[bool] = True

    @classmethod
    def missing(cls) -> list[str]:
        """See `Side.missing`."""
        either = cls.score is Judge.score and cls.begin is Judge.begin
        return [*super().missing(), *(["score"] if either else [])]

    def facts(self, spec: Any) -> dict[str, Any]:
        """Returns plain data of the head's settings that rows and scores depend on."""
        return {}

    def rows(self, facts: Mapping[str, Any]) -> Mapping[str, RowColumn]:
        """Returns the columns of a frame's row."""
        return self.row_columns

    def begin(
        self, facts: Mapping[str, Any], settings: Any, reference: Reference | None
    ) -> Recording:
        """Returns what scores a recording."""
        return EachAlone(lambda frames: self.score(frames, facts))

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        """Returns columns of `rows`, of frames that are scored one by one."""
        return {}

    @abstractmethod
    def sections(self) -> Sequence[Section]:
        """Returns its parts of metrics.json."""

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Returns what the same frames prove of a program against float32, by name; nothing for no proof.

        Args:
            float32: rows of the bundle's own graph.
            program: rows of another program on the same frames; what both looked up was said by float32.
            evidence: which frames are alike.
        """
        return {}

    def said(self, rows: Rows) -> list[str]:
        """Returns lines on the answers where there is no truth to judge them by."""
        return []

    def why_not(self, settings: Numbers) -> str:
        """Returns why nothing was scored although there is truth; empty where it cannot say."""
        return ""


def image_words(head: Head[Any, Any]) -> dict[str, str]:
    """Returns the names of true images by which a head is judged, as its judge says and as users do.

    Users call those of a head after the head: `road` for a segmentation that is called so.
    """
    words = [w.partition(":")[2] for w in sorted(head.judge().truth) if w.startswith("image:")]
    return {word: head.name if word == head.kind else head.key(word) for word in words}


def pixel_classes(bound: Sequence[tuple[Head[Any, Any], Any]]) -> dict[str, Sequence[str]]:
    """Returns a model's classes of pixels by the word of truth, empty for words of numbers.

    Args:
        bound: heads that have a judge, and their settings.
    """
    return {
        f"image:{name}": head.judge().facts(spec).get("labels", ())
        for head, spec in bound
        for name in image_words(head).values()
    }


def numbers(statistics: Statistics, rows: Mask, resampler: Resampler) -> dict[str, Headline]:
    """Returns each number with its interval."""
    fixed = {name: s for name, s in statistics.items() if not callable(s)}
    found = resampler.headlines({n: s for n, s in statistics.items() if callable(s)}, rows)
    found.update({n: {"value": v, "low": None, "high": None} for n, v in fixed.items()})
    return found


def measure(given: Sequence[tuple[Rows, Section]], resampler: Resampler) -> dict[str, Any] | None:
    """Returns plain data of the sections of one key; None where there was nothing."""
    rows, section = given[0]
    parts = [(each, part, part.usable(each)) for each, own in given for part in own.parts]
    there = np.zeros(len(rows), bool)
    for _, _, mask in parts:
        there |= mask
    if parts and not there.any():
        return None
    made: dict[str, Any] = section.counts(rows, there) if parts else {}
    for each, part, mask in parts:
        if mask.any() or not part.optional:
            made.update(numbers(part.statistics(each, mask), mask, resampler))
    if section.details is not None:
        made.update(section.details(rows, resampler))
    for name, baseline in section.baselines.items():
        first = parts[0][2]
        mask = first if baseline.usable is None else baseline.usable(rows, first)
        if not (mask.any() or baseline.usable is None):
            continue
        text = baseline.text if isinstance(baseline.text, str) else baseline.text(rows)
        count = {"frames": int(mask.sum())} if baseline.counted else {}
        made.setdefault("baselines", {})[name] = {
            "text": text,
            **count,
            **numbers(baseline.statistics(rows, mask), mask, resampler),
        }
    return made or None
