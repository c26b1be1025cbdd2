"""What `robot-vision infer` writes: JSON lines for programs, a table for people."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.recordings import Frame

_ROWS = 24


class JsonLines:
    """One JSON object a frame, whole lines only, so that an interrupted file can still be read.

    Args:
        path: the file; `-` for standard output; None writes nothing.
        spec: the network.
        top_k: labels per frame.
        descriptors: whether descriptors are written.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: str | None, spec: NetworkSpec, top_k: int, descriptors: bool) -> None:
        self._spec = spec
        self._top_k = top_k
        self._descriptors = descriptors
        self._file: IO[str] | None = None
        self._path = path
        if path == "-":
            self._file = sys.stdout
        elif path is not None:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "w", encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"--output {path} cannot be written: {error}") from error

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is sys.stdout:
            self._file.flush()
        elif self._file is not None:
            self._file.close()

    def prediction(self, frame: Frame, prediction: Prediction) -> None:
        """Writes a frame's prediction."""
        if self._file is None:
            return
        record = _frame(frame)
        if prediction.classification is not None and self._spec.classifier is not None:
            threshold = self._spec.classifier.unknown_threshold
            best = prediction.classification.top_k(self._top_k, threshold)
            record["classification"] = {
                "results": [{"label": h.label, "score": _short(h.score)} for h in best],
                "known_score": _short(prediction.classification.known_score),
            }
        if prediction.pose is not None and self._spec.pose is not None:
            record["pose"] = {
                "frame_id": self._spec.pose.map_frame,
                "position": _numbers(prediction.pose.position),
                "orientation_xyzw": prediction.pose.orientation_xyzw.tolist(),
                "covariance": _numbers(prediction.pose.covariance.reshape(-1)),
            }
        if prediction.descriptor is not None and self._descriptors:
            record["descriptor"] = _numbers(prediction.descriptor)
        self._write(record)

    def error(self, frame: Frame, reason: str, message: str) -> None:
        """Writes that a frame could not be decoded, or has no answer."""
        if self._file is not None:
            self._write({**_frame(frame), "error": {"reason": reason, "message": message}})

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        # One write call: an interrupt comes before or after the line, not within it.
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "stamp_ns": frame.stamp_ns,
        "source": frame.name,
        "topic": frame.topic,
        "frame_id": frame.frame_id,
    }


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _numbers(values: NDArray[Any]) -> list[float]:
    return [_short(float(v)) for v in values]


class SampledTable:
    """A table of the frames, thinned out evenly when they are many, and a count of first labels."""

    def __init__(self, spec: NetworkSpec, top_k: int) -> None:
        self._spec = spec
        self._top_k = top_k
        self._rows: list[tuple[int, list[str]]] = []
        self._stride = 1
        self._count = 0
        self._labels: Counter[str] = Counter()

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Takes a frame; keeps it if it falls on the present stride."""
        number = self._count
        self._count += 1
        cells = [frame.name, f"{frame.stamp_ns / 1e9:.3f}"]
        if prediction.classification is not None and self._spec.classifier is not None:
            threshold = self._spec.classifier.unknown_threshold
            best = prediction.classification.top_k(self._top_k, threshold)
            self._labels[best[0].label] += 1
            cells.append(", ".join(f"{h.label} {100 * h.score:.0f}%" for h in best))
        if number % self._stride:
            return
        if prediction.pose is not None:
            cells.append(_pose(prediction.pose))
        if prediction.descriptor is not None:
            head = " ".join(f"{v:+.2f}" for v in prediction.descriptor[:3])
            cells.append(f"{head} ... ({len(prediction.descriptor)})")
        self._rows.append((number, cells))
        if len(self._rows) > 2 * _ROWS:
            self._stride *= 2
            self._rows = [row for row in self._rows if row[0] % self._stride == 0]

    def render(self) -> Group:
        """Returns what rich prints."""
        table = Table(title_justify="left")
        table.add_column("frame", overflow="fold")
        table.add_column("stamp, s", justify="right", no_wrap=True)
        if self._spec.classifier:
            table.add_column("labels", overflow="fold")
        if self._spec.pose:
            table.add_column(f"pose in {self._spec.pose.map_frame}")
        if self._spec.place:
            table.add_column("descriptor")
        for _, cells in self._rows:
            table.add_row(*(Text(cell) for cell in cells))
        parts: list[Table | Text] = [table] if self._rows else []
        if self._stride > 1:
            parts.append(Text(f"one of every {self._stride} of {self._count} frames is shown"))
        if self._count > 1 and self._labels:
            counts = ", ".join(f"{label} {n}" for label, n in self._labels.most_common(10))
            more = len(self._labels) - 10
            parts.append(Text(f"first labels: {counts}" + (f", {more} more" if more > 0 else "")))
        return Group(*parts)


def _pose(pose: CameraPose) -> str:
    x, y, z = pose.position
    spread = float(np.sqrt(np.trace(pose.covariance[:3, :3])))
    return f"({x:.2f}, {y:.2f}, {z:.2f}) ± {spread:.2f} m"
