"""What a network said about the frames of one recording, as columns of NumPy arrays."""

from __future__ import annotations

import json
import zipfile
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
from robot_vision.files.array_stream import Stream, StreamWriter, is_member, put, streams_of
from robot_vision.files.arrays import load_npz
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.settings.mappings import from_mapping
from robot_vision.text.counts import counted

FORMAT = "robot_vision.predictions/1"
STREAMED = "robot_vision.predictions/2"  # with columns that are read when they are asked for
UNJUDGED = "{} is not judged, since that needs its settings: give the model"

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
    "image_size": 2,
}

_OF_FRAMES = ("stamps_ns", "log_ns", "image_size")

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
        more: columns (N, ...) of other heads, and of heads by another name than their kind, by name; those of
            the size of images are `Stream`s, and a frame for which the head said nothing has None there.
        kept: float (N,), 0 where the robot said `unknown`, else 1; None where the known score tells.
        image_size: int32 (N, 2), height and width of the camera's images; None where no answer is of their
            size. `meta["input"]` then holds the network's input, as `plain(InputSpec)`.

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
    more: dict[str, Any] = field(default_factory=dict)
    image_size: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        n = len(self.stamps_ns)
        widths = {"probabilities": len(self.labels), "position": 3, "orientation_xyzw": 4}
        widths["image_size"] = 2
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
        bound: Sequence[tuple[Head[Any, Any], Any]] = (),
    ) -> Predictions:
        """Makes columns of the results of `Pipeline`, one of which each frame has; see `Gathered`.

        Args:
            stamps_ns: of the images.
            predictions: of the same.
            recording: name of it.
            log_ns: when each was recorded.
            meta: plain data.
            bound: heads that answered, with their settings; without them each is of the kind that its name
                says, and everything is kept in memory.
        """
        names = dict.fromkeys(name for p in predictions for name in p.answers)
        gathered = Gathered(bound or [(registry.head(name), None) for name in names])
        for prediction in predictions:
            gathered.add(prediction)
        return cls.of_columns(stamps_ns, log_ns, gathered.finish(), recording, meta)

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
        kinds = (np.ndarray, Stream)
        return cls(
            np.array(stamps_ns, np.int64),
            None if log_ns is None else np.array(log_ns, np.int64),
            recording=recording,
            meta=meta or {},
            more={n: v for n, v in columns.items() if n not in own and isinstance(v, kinds)},
            **own,
        )

    @property
    def columns(self) -> dict[str, Any]:
        """What the heads said, by name: arrays and `Stream`s; columns that are None are not there."""
        own = {name: getattr(self, name) for name in _DIMENSIONS if name not in _OF_FRAMES}
        return {**{name: c for name, c in own.items() if c is not None}, **self.more}

    def window(self, i: int, camera: tuple[int, int] | None = None) -> Window | None:
        """Returns which part of the camera's image of frame i the network saw; None where it is not known.

        Args:
            i: number of the frame.
            camera: (height, width) of the image, where `image_size` is None.
        """
        size = camera if self.image_size is None else self.image_size[i].tolist()
        if size is None or "input" not in self.meta:
            return None
        spec = from_mapping(InputSpec, "input", self.meta["input"])
        return Window.of((size[0], size[1]), spec)

    def row(self, i: int, names: Iterable[str]) -> dict[str, Any]:
        """Returns what some columns say of frame i; those that are not there are left out."""
        columns = self.columns
        row = {name: columns[name][i] for name in names if name in columns}
        return {name: value for name, value in row.items() if value is not None}

    def take(self, index: NDArray[Any]) -> Predictions:
        """Returns the frames of an index or mask."""
        taken: dict[str, Any] = {}
        for name in _DIMENSIONS:
            column = getattr(self, name)
            taken[name] = None if column is None else column[index]
        return replace(self, **taken, more={n: c[index] for n, c in self.more.items()})

    def save(self, path: str | Path) -> None:
        """Writes an .npz file that holds no pickle; with streamed columns a zip of further arrays."""
        arrays = {n: getattr(self, n) for n in _DIMENSIONS if getattr(self, n) is not None}
        streams = {n: c for n, c in self.more.items() if isinstance(c, Stream)}
        arrays.update({n: c for n, c in self.more.items() if n not in streams})
        head = {
            "format": STREAMED if streams or self.image_size is not None else FORMAT,
            "recording": self.recording,
            "labels": list(self.labels),
            "meta": self.meta,
            "more": [n for n in self.more if n not in streams],
        }
        if streams:
            head["streams"] = {n: c.dtype.name for n, c in streams.items()}
        with open(path, "wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), **arrays)
        if streams:
            with zipfile.ZipFile(path, "a") as archive:
                for i in range(len(self)):
                    for name, column in streams.items():
                        if (array := column[i]) is not None:
                            put(archive, name, i, array)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Reads what `save` wrote; the file must stay as long as streamed columns are read.

        Raises:
            SourceError: it cannot be read or is something else.
        """
        try:
            arrays = load_npz(path, wanted=lambda entry: not is_member(entry))
            head = json.loads(str(arrays.pop("head")))
        except (OSError, KeyError, ValueError, RecursionError) as error:
            raise SourceError(f"{path} cannot be read as predictions: {error}") from error
        if not isinstance(head, dict) or head.get("format") not in (FORMAT, STREAMED):
            raise SourceError(f"{path} is not of format {FORMAT} or {STREAMED}: write it again")
        known = {f.name for f in fields(cls)}
        more: dict[str, Any] = {
            name: arrays.pop(name) for name in head.get("more", ()) if name in arrays
        }
        if not set(arrays) <= known or "stamps_ns" not in arrays:
            raise SourceError(f"{path} has columns {', '.join(arrays)}: write it again")
        try:
            if streams := head.get("streams"):
                more |= streams_of(Path(path), dict(streams).items(), len(arrays["stamps_ns"]))
            return cls(
                **arrays,
                labels=tuple(head["labels"]),
                recording=head["recording"],
                meta=head["meta"],
                more=more,
            )
        except (ConfigError, KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path}: {error}") from error


class Gathered:
    """Columns of answers that come one by one; of an answer of the size of an image nothing stays in memory.

    Args:
        bound: heads with their settings; without settings (None) all is kept in memory.
        folder: on whose disk streamed columns lie meanwhile.
    """

    def __init__(
        self, bound: Sequence[tuple[Head[Any, Any], Any]], folder: Path | None = None
    ) -> None:
        self._heads = [head for head, _ in bound]
        self._streamed = {
            head.name: {n: c.dtype for n, c in head.columns(spec).items() if c.stream}
            for head, spec in bound
            if spec is not None
        }
        self._folder = folder
        self._writer: StreamWriter | None = None
        self._frames: dict[str, list[int]] = {}  # of which a streamed column has an array
        self._rows: dict[str, list[dict[str, Any]]] = {head.name: [] for head in self._heads}
        self._labels: tuple[str, ...] = ()
        self._count = 0

    @property
    def streams(self) -> bool:
        """Whether there are columns of the size of images."""
        return any(self._streamed.values())

    def add(self, prediction: Prediction) -> None:
        """Takes what was said of the next frame."""
        for head in self._heads:
            answer = prediction.get(head.name)
            row = {} if answer is None else head.pack(answer)
            if head.name == head.kind and answer is not None:
                self._labels = self._labels or getattr(answer, "labels", ())
            for name, dtype in self._streamed.get(head.name, {}).items():
                array = row.pop(name, None)
                if array is not None:
                    self._writer = self._writer or StreamWriter(self._folder)
                    self._writer.put(name, self._count, np.asarray(array, dtype))
                    self._frames.setdefault(name, []).append(self._count)
            self._rows[head.name].append(row)
        self._count += 1

    def finish(self) -> dict[str, Any]:
        """Returns the columns for `Predictions.of_columns`."""
        columns: dict[str, Any] = {"labels": self._labels}
        for head in self._heads:
            rows = self._rows[head.name]
            for name in next(filter(None, rows), {}):
                column = _column([row.get(name) for row in rows])
                if column is not None:
                    columns[name] = column
            for name, dtype in self._streamed.get(head.name, {}).items():
                if self._writer is not None and name in self._frames:
                    numbers = np.full(self._count, -1, np.int64)
                    numbers[self._frames[name]] = self._frames[name]
                    columns[name] = self._writer.stream(name, numbers, dtype)
        return columns


def _column(values: Sequence[Any]) -> NDArray[Any] | None:
    """Returns the values stacked, NaN (of integers 0) where one is None; None where all are."""
    first = next((np.asarray(v) for v in values if v is not None), None)
    if first is None:
        return None
    missing = np.full(first.shape, np.nan if first.dtype.kind == "f" else 0, first.dtype)
    return np.array([missing if v is None else v for v in values], first.dtype)
