"""What is left of a frame once it was compared with the truth: a row of numbers.

All metrics follow from these rows, and no row depends on another recording. So the rows of many recordings,
evaluated wherever, put together give exactly what one evaluation of all of them gives.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, SourceError
from robot_vision.text.counts import counted

# Columns by name: type, numbers a frame, meaning. Floats are NaN and integers -1 where there is nothing.
COLUMNS: dict[str, tuple[str, int, str]] = {
    "stamps_ns": ("<i8", 1, "of the image"),
    "source_index": ("<i8", 1, "row of the predictions given"),
    "true_label": (
        "<i8",
        1,
        "index in `labels`; -1: none; -2: a label that the model does not know",
    ),
    "predicted_label": ("<i8", 1, "index of the most probable class"),
    "label_rank": ("<i8", 1, "how many classes come before the true one"),
    "confidence": ("<f8", 1, "probability of the predicted class"),
    "true_probability": ("<f8", 1, "probability of the true class"),
    "brier": ("<f8", 1, "squared distance of probabilities and truth, from 0 to 2"),
    "known_score": ("<f8", 1, "high for images like those trained on"),
    "kept": ("<i8", 1, "1: the known score reaches the model's threshold; 0: called unknown"),
    "mutual_information": ("<f8", 1, "of several answers, nats"),
    "spread_m": (
        "<f8",
        1,
        "by which several answers differ: root of the trace of their covariance",
    ),
    "spread_deg": ("<f8", 1, "by which the rotations of several answers differ, degrees"),
    "position": ("<f8", 3, "estimated, m"),
    "xyzw": ("<f8", 4, "estimated"),
    "true_position": ("<f8", 3, "m"),
    "true_xyzw": ("<f8", 4, "true orientation"),
    "pose_error": ("<f8", 6, "m along and rad about the map's axes, from estimate to truth"),
    "error_m": ("<f8", 1, "position error"),
    "error_deg": ("<f8", 1, "rotation error"),
    "sigma_m": ("<f8", 1, "predicted: root of the position covariance's trace"),
    "sigma_deg": ("<f8", 1, "predicted: root of the rotation covariance's trace"),
    "nees": ("<f8", 1, "normalised estimation error squared, 6 degrees of freedom"),
    "nees_position": ("<f8", 1, "3 degrees of freedom"),
    "nees_rotation": ("<f8", 1, "3 degrees of freedom"),
    "place_match": ("<i8", 1, "the most similar image: row here, or of the map"),
    "place_similarity": ("<f8", 1, "cosine of the most similar image"),
    "place_rank": ("<i8", 1, "how many images come before the first that shows the same place"),
    "place_positives": ("<i8", 1, "images that show the same place"),
    "place_database": ("<i8", 1, "images that were looked up in"),
    "place_error_m": ("<f8", 1, "true distance of the most similar image's camera"),
    "place_error_deg": ("<f8", 1, "true rotation to it"),
    "nearest_error_m": (
        "<f8",
        1,
        "distance of the nearest image's pose: what retrieval could do at best",
    ),
    "nearest_error_deg": ("<f8", 1, "rotation to it"),
}

_LATER = (
    "kept",
    "mutual_information",
    "spread_m",
    "spread_deg",
)  # not in files of the first releases

# What does not depend on the recording that a frame is in: its stamp, its truth and the answers to it. The
# stamp is first.
_OF_A_FRAME = (
    "stamps_ns",
    "confidence",
    "brier",
    "known_score",
    "position",
    "xyzw",
    "true_position",
    "true_xyzw",
)

UNKNOWN_LABEL = -2
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows of one or more recordings.

    Attributes:
        columns: by the names of `COLUMNS`, (N,) or (N, numbers); all are there.
        recordings: plain data of each recording, in the order of the rows: name, frames, association,
            meta. Rows of a recording are in the order of their stamps.
        labels: the model's classes.
        heads: which of classifier, pose, place were evaluated.
        has_map: whether places were looked up in a map and not in the recording itself.
    """

    columns: dict[str, NDArray[Any]]
    recordings: tuple[dict[str, Any], ...]
    labels: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    has_map: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.columns["stamps_ns"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Returns a column."""
        return self.columns[name]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First row and end of each recording."""
        ends = np.cumsum([r["frames"] for r in self.recordings]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    @property
    def relative_s(self) -> NDArray[np.float64]:
        """Seconds (N,) since the first frame of each recording."""
        stamps = self["stamps_ns"]
        parts = [(stamps[a:b] - stamps[a]) / 1e9 if b > a else stamps[a:b] for a, b in self.bounds]
        return np.concatenate([*parts, np.zeros(0)]).astype(np.float64)


def empty_columns(count: int) -> dict[str, NDArray[Any]]:
    """Returns all columns with nothing in them."""
    columns = {}
    for name, (dtype, width, _) in COLUMNS.items():
        shape = (count,) if width == 1 else (count, width)
        columns[name] = np.full(shape, -1 if dtype == "<i8" else np.nan, dtype)
    return columns


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
    first = parts[0]
    for part in parts[1:]:
        if part.labels and first.labels and part.labels != first.labels:
            raise ConfigError("The evaluations are of models with different labels: evaluate again")
        if part.has_map != first.has_map or part.extra != first.extra:
            raise ConfigError("The evaluations looked places up in different maps: evaluate again")
    _require_once(singles)
    return Scores(
        {name: np.concatenate([s.columns[name] for s in singles]) for name in COLUMNS},
        tuple(s.recordings[0] for s in singles),
        next((p.labels for p in parts if p.labels), ()),
        tuple(h for h in ("classifier", "pose", "place") if any(h in p.heads for p in parts)),
        first.has_map,
        first.extra,
    )


def model_of(recording: Mapping[str, Any]) -> tuple[str, str]:
    """Returns sha256 and name of the model that a recording was evaluated with; empty if unknown."""
    meta = recording.get("meta") or {}
    text = str(meta.get("model") or "")
    name, _, sha256 = text.partition(" sha256:")
    sha256 = sha256 or str((meta.get("key") or {}).get("bundle_sha256") or "")
    return sha256, f"{name or 'a model'} sha256:{sha256[:12]}" if sha256 else ""


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


def _require_once(singles: Sequence[Scores]) -> None:
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
    for name in _OF_A_FRAME:
        column = np.concatenate([s.columns[name] for s in singles])[suspects]
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
        f"Recordings {one} and {two} share {counted(shared, 'frame')}, by stamp, answers and truth: "
        "they are one "
        "recording under two names, or parts that overlap, and its frames may count once only; leave one out"
    )


def _split(part: Scores) -> list[Scores]:
    return [
        Scores({n: c[a:b] for n, c in part.columns.items()}, (recording,))
        for recording, (a, b) in zip(part.recordings, part.bounds, strict=True)
    ]


def to_json(scores: Scores) -> dict[str, Any]:
    """Returns plain data; columns are little-endian arrays, deflated, in base64: exact, NaN included."""
    columns = {
        name: base64.b64encode(
            zlib.compress(np.ascontiguousarray(values, COLUMNS[name][0]).tobytes(), 6)
        ).decode()
        for name, values in scores.columns.items()
    }
    return {
        "count": len(scores),
        "columns": columns,
        "types": {name: [dtype, width] for name, (dtype, width, _) in COLUMNS.items()},
        "recordings": list(scores.recordings),
        "labels": list(scores.labels),
        "heads": list(scores.heads),
        "has_map": scores.has_map,
        "extra": scores.extra,
    }


def from_json(data: dict[str, Any]) -> Scores:
    """Reads what `to_json` gave.

    Raises:
        SourceError: it is something else.
    """
    try:
        count = int(data["count"])
        columns = empty_columns(count)
        for name, (dtype, width, _) in COLUMNS.items():
            if name in _LATER and name not in data["columns"]:
                continue
            flat = np.frombuffer(zlib.decompress(base64.b64decode(data["columns"][name])), dtype)
            columns[name] = flat.reshape((count,) if width == 1 else (count, width)).copy()
        scores = Scores(
            columns,
            tuple(data["recordings"]),
            tuple(data["labels"]),
            tuple(data["heads"]),
            bool(data["has_map"]),
            dict(data["extra"]),
        )
        if sum(r["frames"] for r in scores.recordings) != count:
            raise ValueError(f"its recordings do not have {count} frames")
        return scores
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise SourceError(f"The rows of an evaluation cannot be read: {error}") from error


def label_indices(names: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int64]:
    """Returns each name's index among the model's labels; -1: none; -2: not among them."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array(
        [NO_LABEL if n is None else index.get(n, UNKNOWN_LABEL) for n in names], np.int64
    )
