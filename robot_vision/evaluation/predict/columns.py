"""What a network said about the frames of one recording, as columns of NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract import registry
from robot_vision.contract.head import Head
from robot_vision.contract.prediction import Prediction
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.arrays import load_npz
from robot_vision.text.counts import counted

FORMAT = "robot_vision.predictions/1"

# Number of dimensions of each column; the first is always the frame.
_DIMENSIONS = {
    "stamps_ns": 1,
    "log_ns": 1,
    "probabilities": 2,
    "known_score": 1,
    "position": 2,
    "orientation_xyzw": 2,
    "covariance": 3,
    "descriptor": 2,
    "mutual_information": 1,
    "spread": 3,
    "kept": 1,
}

_OF_FRAMES = ("stamps_ns", "log_ns")

_ROUNDING = 0.01  # of float16 and of numbers that somebody wrote with few digits


@dataclass(frozen=True, eq=False)
class Predictions:
    """Columns over the N frames of one recording. A head that there is not is None.

    A frame for which a head said nothing has NaN in that head's columns.

    Attributes:
        stamps_ns: int64 (N,), of the images' headers, in any order; `association` sorts them.
        log_ns: int64 (N,), when each image was recorded; None where it is not known.
        labels: names of the K classes.
        probabilities: float (N, K).
        known_score: float (N,), high for images like those trained on.
        position: float (N, 3), metres in the map.
        orientation_xyzw: float (N, 4), unit.
        covariance: float (N, 6, 6), the order and axes of `robot_vision.geometry.rigid`.
        descriptor: float32 (N, D), L2 norm 1.
        recording: name of the recording: a bag's file name.
        meta: hashes of bag and bundle, and whatever else belongs to it; plain data.
        mutual_information: float (N,), nats, where the classifier answers several times.
        spread: float (N, 6, 6), the part of the covariance by which several answers differ.
        more: columns (N, ...) of other heads, and of heads by another name than their kind, by name.
        kept: float (N,), 0 where the robot said `unknown`, else 1; None where the known score tells.

    Raises:
        ConfigError: columns that do not fit each other, or numbers that are not what they are said to be.
    """

    stamps_ns: NDArray[np.int64]
    log_ns: NDArray[np.int64] | None = None
    labels: tuple[str, ...] = ()
    probabilities: NDArray[Any] | None = None
    known_score: NDArray[Any] | None = None
    position: NDArray[Any] | None = None
    orientation_xyzw: NDArray[Any] | None = None
    covariance: NDArray[Any] | None = None
    descriptor: NDArray[Any] | None = None
    recording: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    mutual_information: NDArray[Any] | None = None
    spread: NDArray[Any] | None = None
    kept: NDArray[Any] | None = None
    more: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.stamps_ns)
        widths = {"probabilities": len(self.labels), "position": 3, "orientation_xyzw": 4}
        for name, dimensions in _DIMENSIONS.items():
            column = getattr(self, name)
            if column is None:
                continue
            shape = column.shape
            width = widths.get(name, shape[-1] if dimensions > 1 else 0)
            if len(shape) != dimensions or shape[0] != n or (dimensions > 1 and shape[-1] != width):
                raise ConfigError(
                    f"Column {name} has shape {shape}: it must have {dimensions} dimensions, "
                    f"{counted(n, 'frame')}{f' and {width} numbers a frame' if dimensions > 1 else ''}"
                )
        for name in ("covariance", "spread"):
            column = getattr(self, name)
            if column is not None and column.shape[1:] != (6, 6):
                raise ConfigError(f"Column {name} has shape {column.shape}: use (N, 6, 6)")
        for name, column in self.more.items():
            if len(column) != n:
                raise ConfigError(f"Column {name} has {len(column)} rows: it must have {n}")
        self._check_numbers()
        if (self.position is None) != (self.orientation_xyzw is None):
            raise ConfigError(
                "Columns position and orientation_xyzw go together: give both or none"
            )

    def _check_numbers(self) -> None:
        """Refuses columns that hold something else than they say, such as logits."""
        if self.probabilities is not None and self.probabilities.size:
            p = np.asarray(self.probabilities)
            said = np.isfinite(p).all(axis=1)
            total = p.sum(axis=1, dtype=np.float64)
            low, high = p.min(axis=1), p.max(axis=1)
            with np.errstate(invalid="ignore"):
                bad = said & ((np.abs(total - 1) > _ROUNDING) | (low < -_ROUNDING))
            if bad.any():
                i = int(bad.argmax())
                raise ConfigError(
                    f"Column probabilities is no distribution in {int(bad.sum())} of {len(p)} frames: those "
                    f"of frame {i} have the sum {total[i]:.4g} ({low[i]:.4g} to {high[i]:.4g}), where 1 is "
                    "right; of logits take the softmax, independent scores are no distribution"
                )
        if self.orientation_xyzw is not None and self.orientation_xyzw.size:
            norm = np.linalg.norm(np.asarray(self.orientation_xyzw, np.float64), axis=1)
            # A quaternion of zeros is that of no estimate.
            bad = np.isfinite(norm) & (norm > 0) & (np.abs(norm - 1) > _ROUNDING)
            if bad.any():
                i = int(bad.argmax())
                raise ConfigError(
                    f"Column orientation_xyzw is no unit quaternion in {int(bad.sum())} of {len(norm)} "
                    f"frames: that of frame {i} has the norm {norm[i]:.4g}; divide by it"
                )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.stamps_ns)

    @classmethod
    def of(
        cls,
        stamps_ns: Sequence[int],
        predictions: Sequence[Prediction],
        recording: str = "",
        log_ns: Sequence[int] | None = None,
        meta: dict[str, Any] | None = None,
        heads: Sequence[Head[Any, Any]] = (),
    ) -> Predictions:
        """Makes columns of the results of `Pipeline`, one of which each frame has.

        Args:
            stamps_ns: of the images.
            predictions: of the same.
            recording: name of it.
            log_ns: when each was recorded.
            meta: plain data.
            heads: that answered; without them each is of the kind that its name says.
        """
        names = dict.fromkeys(name for p in predictions for name in p.answers)
        labels: tuple[str, ...] = ()
        columns: dict[str, NDArray[Any]] = {}
        for head in heads or [registry.head(name) for name in names]:
            answers = [p.get(head.name) for p in predictions]
            first = next((a for a in answers if a is not None), None)
            if first is None:
                continue
            if head.name == head.kind:
                labels = labels or getattr(first, "labels", ())
            packed = [{} if a is None else head.pack(a) for a in answers]
            for name in head.pack(first):
                column = _column([row.get(name) for row in packed])
                if column is not None:
                    columns[name] = column
        return cls.of_columns(stamps_ns, log_ns, {"labels": labels, **columns}, recording, meta)

    @classmethod
    def of_columns(
        cls,
        stamps_ns: Sequence[int],
        log_ns: Sequence[int] | None,
        columns: Mapping[str, Any],
        recording: str = "",
        meta: dict[str, Any] | None = None,
    ) -> Predictions:
        """Makes predictions of columns by name, and `labels`."""
        own = {n: v for n, v in columns.items() if n in _DIMENSIONS or n == "labels"}
        return cls(
            np.array(stamps_ns, np.int64),
            None if log_ns is None else np.array(log_ns, np.int64),
            recording=recording,
            meta=meta or {},
            more={n: v for n, v in columns.items() if n not in own and isinstance(v, np.ndarray)},
            **own,
        )

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What the heads said, by name; columns that are None are not there."""
        own = {name: getattr(self, name) for name in _DIMENSIONS if name not in _OF_FRAMES}
        return {**{name: c for name, c in own.items() if c is not None}, **self.more}

    def row(self, i: int, names: Iterable[str]) -> dict[str, Any]:
        """Returns what some columns say of frame i; those that are not there are left out."""
        columns = self.columns
        return {name: columns[name][i] for name in names if name in columns}

    def take(self, index: NDArray[Any]) -> Predictions:
        """Returns the frames of an index or mask."""
        taken: dict[str, Any] = {}
        for name in _DIMENSIONS:
            column = getattr(self, name)
            taken[name] = None if column is None else column[index]
        return replace(self, **taken, more={n: c[index] for n, c in self.more.items()})

    def save(self, path: str | Path) -> None:
        """Writes an .npz file that holds no pickle."""
        arrays = {n: getattr(self, n) for n in _DIMENSIONS if getattr(self, n) is not None}
        arrays.update(self.more)
        head = {
            "format": FORMAT,
            "recording": self.recording,
            "labels": list(self.labels),
            "meta": self.meta,
            "more": list(self.more),
        }
        with open(path, "wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Reads what `save` wrote.

        Raises:
            SourceError: it cannot be read or is something else.
        """
        try:
            arrays = load_npz(path)
            head = json.loads(str(arrays.pop("head")))
        except (OSError, KeyError, ValueError, RecursionError) as error:
            raise SourceError(f"{path} cannot be read as predictions: {error}") from error
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise SourceError(f"{path} is not of format {FORMAT}: write it again")
        known = {f.name for f in fields(cls)}
        more = {name: arrays.pop(name) for name in head.get("more", ()) if name in arrays}
        if not set(arrays) <= known or "stamps_ns" not in arrays:
            raise SourceError(f"{path} has columns {', '.join(arrays)}: write it again")
        try:
            return cls(
                **arrays,
                labels=tuple(head["labels"]),
                recording=head["recording"],
                meta=head["meta"],
                more=more,
            )
        except (ConfigError, KeyError) as error:
            raise SourceError(f"{path}: {error}") from error


def _column(values: Sequence[Any]) -> NDArray[Any] | None:
    """Returns the values stacked, NaN (of integers 0) where one is None; None where all are."""
    first = next((np.asarray(v) for v in values if v is not None), None)
    if first is None:
        return None
    missing = np.full(first.shape, np.nan if first.dtype.kind == "f" else 0, first.dtype)
    return np.array([missing if v is None else v for v in values], first.dtype)
