"""What is left of a frame once it was compared with the truth: a row of numbers.

All metrics follow from these rows, and no row depends on another recording. So the rows of many recordings,
evaluated wherever, put together give exactly what one evaluation of all of them gives. Each head says which
columns it has (`Judge.rows`); those of a head under another name than its kind carry the name.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract import registry
from robot_vision.contract.head import Head
from robot_vision.errors import ConfigError, SourceError
from robot_vision.text.counts import counted

UNKNOWN_LABEL = -2
NO_LABEL = -1


@dataclass(frozen=True)
class RowColumn:
    """One number, or a few, of each frame.

    Attributes:
        dtype: `<f8`, NaN where there is nothing, or `<i8`, then -1.
        width: numbers a frame.
        text: what it is.
        optional: whether files may lack it: those of earlier versions, and of models without the head.
        identity: whether it tells that two recordings hold one frame: it follows from the frame alone.
        label: whether it is an index into the head's labels.
        names: of the numbers, where there are several and they are no axes: of the classes, say.
    """

    dtype: str
    width: int
    text: str
    optional: bool = False
    identity: bool = False
    label: bool = False
    names: tuple[str, ...] = ()

    def empty(self, count: int) -> NDArray[Any]:
        """Returns the column with nothing in it."""
        shape = (count,) if self.width == 1 else (count, self.width)
        return np.full(shape, -1 if self.dtype == "<i8" else np.nan, self.dtype)


TRUE_LABEL = "true_label"
SHARED = {
    "stamps_ns": RowColumn("<i8", 1, "of the image"),
    "source_index": RowColumn("<i8", 1, "row of the predictions given"),
    TRUE_LABEL: RowColumn(
        "<i8",
        1,
        "index in `labels`; -1: none; -2: a label that the model does not know",
        label=True,
    ),
    "true_position": RowColumn("<f8", 3, "m", identity=True),
    "true_xyzw": RowColumn("<f8", 4, "true orientation", identity=True),
}


def label_indices(names: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int64]:
    """Returns each name's index among the model's labels; -1: none; -2: not among them."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array(
        [NO_LABEL if n is None else index.get(n, UNKNOWN_LABEL) for n in names], np.int64
    )


def heads_of(names: Sequence[str], facts: Mapping[str, Mapping[str, Any]]) -> list[Head[Any, Any]]:
    """Returns the heads that an evaluation may have numbers of: the package's own, and all that it names.

    Args:
        names: of the heads that were evaluated.
        facts: of those that have any (`Judge.facts`); `kind` where it is not the name.

    Raises:
        ConfigError: the package of a head is not installed.
    """
    kinds = {name: name for name in registry.BUILT_IN}
    kinds.update((name, facts.get(name, {}).get("kind", name)) for name in names)
    return [registry.head(kinds[n]).named(n) for n in registry.in_order(kinds.items())]


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows of one or more recordings.

    Attributes:
        columns: by name, (N,) or (N, numbers); all of `table` are there.
        recordings: plain data of each recording, in the order of the rows: name, frames, association,
            meta. Rows of a recording are in the order of their stamps.
        labels: the model's classes.
        heads: names of those that were evaluated.
        has_map: whether places were looked up in a map and not in the recording itself.
        extra: facts of the map.
        facts: of heads that go by another name than their kind: `kind`, and what their columns depend on.
    """

    columns: dict[str, NDArray[Any]]
    recordings: tuple[dict[str, Any], ...]
    labels: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    has_map: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.columns["stamps_ns"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Returns a column."""
        return self.columns[name]

    @property
    def table(self) -> dict[str, RowColumn]:
        """Which columns there are."""
        return table(self.heads, self.facts)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First row and end of each recording."""
        ends = np.cumsum([r["frames"] for r in self.recordings]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    @property
    def owner(self) -> NDArray[np.int64]:
        """Which recording (N,) each row is of."""
        return np.repeat(np.arange(len(self.recordings)), [b - a for a, b in self.bounds])

    @property
    def relative_s(self) -> NDArray[np.float64]:
        """Seconds (N,) since the first frame of each recording."""
        stamps = self["stamps_ns"]
        parts = [(stamps[a:b] - stamps[a]) / 1e9 if b > a else stamps[a:b] for a, b in self.bounds]
        return np.concatenate([*parts, np.zeros(0)]).astype(np.float64)

    def each(self) -> Iterator[Rows]:
        """Yields the rows as each head sees them, the package's own heads first."""
        for head in heads_of(self.heads, self.facts):
            yield Rows(self, head)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as one head sees them: its columns by their words, and those that all share.

    Attributes:
        scores: all rows.
        head: under its name.
        settings: of its judge; None where nothing is measured.
    """

    scores: Scores
    head: Head[Any, Any]
    settings: Any = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, word: str) -> NDArray[Any]:
        """Returns a column of the head, or of another head or all by its name."""
        columns = self.scores.columns
        name = self.head.key(word)
        return columns[name if name in columns else word]

    @property
    def labels(self) -> tuple[str, ...]:
        """The head's classes."""
        own = self.scores.facts.get(self.head.name, {}).get("labels")
        return self.scores.labels if own is None else tuple(own)

    def apart(self, order: NDArray[Any], count: int) -> list[int]:
        """Returns the first of an order that are a second apart: neighbours in time look all the same."""
        owner, stamps = self.scores.owner, self["stamps_ns"]
        chosen: list[int] = []
        for i in order:
            near = any(
                owner[i] == owner[j] and abs(int(stamps[i]) - int(stamps[j])) < 1e9 for j in chosen
            )
            if not near:
                chosen.append(int(i))
                if len(chosen) == count:
                    break
        return chosen


def table(
    names: Sequence[str] = (), facts: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, RowColumn]:
    """Returns all columns by their names; see `heads_of`.

    Raises:
        ConfigError: two heads have one of the same name.
    """
    found, owners = dict(SHARED), dict[str, str]()
    for head in heads_of(names, facts or {}):
        judge = head.judge()
        own = dict(judge.rows((facts or {}).get(head.name, {})))
        if "label" in judge.truth and head.name != head.kind:
            own[TRUE_LABEL] = SHARED[TRUE_LABEL]
        for word, column in own.items():
            key, optional = head.key(word), column.optional or head.name not in names
            if owners.setdefault(key, head.name) != head.name:
                raise ConfigError(
                    f"The {owners[key]} and the {head.name} head both have rows with a column {key}: one of "
                    "their packages must call it otherwise"
                )
            found[key] = replace(column, optional=optional)
    return found


def joined(parts: Sequence[Scores]) -> Scores:
    """Returns the rows of all parts, recordings in the order of their names.

    Raises:
        ConfigError: nothing to join, models, labels or maps that differ, or frames that are there twice.
    """
    if not parts:
        raise ConfigError("There is nothing to merge: give at least one evaluation")
    singles = [single for part in parts for single in _split(part)]
    singles.sort(key=lambda s: s.recordings[0]["name"])
    names = [s.recordings[0]["name"] for s in singles]
    for a, b in zip(names, names[1:], strict=False):
        if a == b:
            raise ConfigError(f"Recording {a!r} occurs twice: its frames may count once only")
    _require_one_model(singles)
    first, facts = parts[0], dict[str, dict[str, Any]]()
    for part in parts:
        shared = facts.keys() & part.facts.keys()
        if (part.labels and first.labels and part.labels != first.labels) or any(
            facts[name] != part.facts[name] for name in shared
        ):
            raise ConfigError("The evaluations are of models with different labels: evaluate again")
        if part.has_map != first.has_map or part.extra != first.extra:
            raise ConfigError("The evaluations looked places up in different maps: evaluate again")
        facts.update(part.facts)
    heads = {name for part in parts for name in part.heads}
    ordered = tuple(head.name for head in heads_of(sorted(heads), facts) if head.name in heads)
    columns = table(ordered, facts)
    _require_once(singles, columns)
    return Scores(
        {
            name: np.concatenate([s.columns.get(name, column.empty(len(s))) for s in singles])
            for name, column in columns.items()
        },
        tuple(s.recordings[0] for s in singles),
        next((p.labels for p in parts if p.labels), ()),
        ordered,
        first.has_map,
        first.extra,
        facts,
    )


def model_of(recording: Mapping[str, Any]) -> tuple[str, str]:
    """Returns sha256 and name of the model that a recording was evaluated with; empty if unknown."""
    meta = recording.get("meta") or {}
    text = str(meta.get("model") or "")
    name, _, sha256 = text.partition(" sha256:")
    sha256 = sha256 or str((meta.get("key") or {}).get("bundle_sha256") or "")
    return sha256, f"{name or 'a model'} sha256:{sha256[:12]}" if sha256 else ""


def what_ran(recording: Mapping[str, Any]) -> str:
    """Returns program and engine that a recording was predicted with, for people; empty if unknown."""
    meta = recording.get("meta") or {}
    key = meta.get("key") or {}
    if key.get("precision"):
        engine = str(key.get("engine", "")).partition(" on ")[0]  # recordings do not say the device
        return f"{key['precision']} with {engine}".removesuffix(" with ")
    words = dict(word.partition(":")[::2] for word in str(meta.get("model") or "").split())
    return f"{words['program']} with {words.get('engine', '')}" if "program" in words else ""


def _require_one_model(singles: Sequence[Scores]) -> None:
    first: tuple[str, str, str] | None = None
    for single in singles:
        sha256, name = model_of(single.recordings[0])
        if not sha256:
            continue
        recording = single.recordings[0]["name"]
        if first is None:
            first = sha256, name, recording
        elif sha256 != first[0]:
            raise ConfigError(
                f"Recording {first[2]} was evaluated with {first[1]} and {recording} with {name}: one "
                "table is of one model; merge those of each, and set them side by side with --compare"
            )


def _require_once(singles: Sequence[Scores], columns: Mapping[str, RowColumn]) -> None:
    """Refuses frames that are in two recordings: a bag under another name, or parts that overlap.

    They have one stamp and, to the bit, the same answers and truth.
    """
    stamps = np.concatenate([s["stamps_ns"] for s in singles])
    owner = np.repeat(np.arange(len(singles)), [len(s) for s in singles])
    _, which, count = np.unique(stamps, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(count[which.reshape(-1)] > 1)
    if not len(suspects):
        return
    parts = []
    for name in ("stamps_ns", *(n for n, c in columns.items() if c.identity)):
        column = np.concatenate(
            [s.columns.get(name, columns[name].empty(len(s))) for s in singles]
        )[suspects]
        parts.append(column.reshape(len(suspects), -1).astype(np.float64))
    rows = np.concatenate(parts, axis=1)
    said = np.isfinite(rows[:, 1:]).any(axis=1)
    rows, owner = rows[said], owner[suspects][said]
    rows[~np.isfinite(rows)] = 0
    rows += 0.0  # -0 and 0 are one number, and not the same bytes
    keys = np.ascontiguousarray(rows).view(f"V{rows.itemsize * rows.shape[1]}").reshape(-1)
    which = np.unique(keys, return_inverse=True)[1].reshape(-1)
    pairs = np.unique(np.stack([which, owner], axis=1), axis=0)  # each row once for each recording
    again = np.flatnonzero(np.diff(pairs[:, 0]) == 0)
    if not len(again):
        return
    a, b = int(pairs[again[0], 1]), int(pairs[again[0] + 1, 1])
    shared = sum({a, b} <= {int(pairs[i, 1]), int(pairs[i + 1, 1])} for i in again)
    one, two = (
        f"{singles[i].recordings[0]['name']!r} ({counted(len(singles[i]), 'frame')})"
        for i in (a, b)
    )
    raise ConfigError(
        f"Recordings {one} and {two} share {counted(shared, 'frame')}, by stamp, answers and truth: they "
        "are one recording under two names, or parts that overlap, and its frames may count once only; leave "
        "one out"
    )


def _split(part: Scores) -> list[Scores]:
    # Without columns of classes that this part does not know: another part may.
    known = {n: c for n, c in part.columns.items() if 0 not in c.shape[1:]}
    return [
        Scores({n: c[a:b] for n, c in known.items()}, (recording,))
        for recording, (a, b) in zip(part.recordings, part.bounds, strict=True)
    ]


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode()


def to_json(scores: Scores) -> dict[str, Any]:
    """Returns plain data; columns are little-endian arrays, deflated, in base64: exact, NaN included."""
    columns = scores.table
    found = {
        "count": len(scores),
        "columns": {
            name: _packed(np.asarray(scores[name], column.dtype))
            for name, column in columns.items()
        },
        "types": {name: [column.dtype, column.width] for name, column in columns.items()},
        "recordings": list(scores.recordings),
        "labels": list(scores.labels),
        "heads": list(scores.heads),
        "has_map": scores.has_map,
        "extra": scores.extra,
    }
    if scores.facts:
        found["facts"] = scores.facts
    return found


def _unpacked(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def from_json(data: dict[str, Any]) -> Scores:
    """Reads what `to_json` gave.

    Raises:
        SourceError: it is something else.
        ConfigError: it is of a head whose package is not installed.
    """
    try:
        count = int(data["count"])
        heads, facts = tuple(data["heads"]), dict(data.get("facts", {}))
        columns = {}
        for name, column in table(heads, facts).items():
            columns[name] = column.empty(count)
            if name in data["columns"] or not column.optional:
                flat = _unpacked(data["columns"][name], column.dtype)
                columns[name] = flat.reshape(columns[name].shape).copy()
        scores = Scores(
            columns,
            tuple(data["recordings"]),
            tuple(data["labels"]),
            heads,
            bool(data["has_map"]),
            dict(data["extra"]),
            facts,
        )
        if sum(r["frames"] for r in scores.recordings) != count:
            raise ValueError(f"its recordings do not have {count} frames")
        return scores
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise SourceError(f"The rows of an evaluation cannot be read: {error}") from error
