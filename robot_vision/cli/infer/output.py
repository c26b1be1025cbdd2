"""What `robot-vision infer` writes: JSON lines for programs, a table for people."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from robot_vision.contract.attachments import Attachments
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import Frame

_ROWS = 24


class JsonLines:
    """One JSON object a frame, whole lines only, so that an interrupted file can still be read.

    Args:
        path: the file; `-` for standard output; None writes nothing.
        pipeline: whose answers they are; where its bundle has programs, each line names the one that runs.
        options: heads' names to their options in force.
        large: whether answers of many numbers, descriptors, are written.
        attached: folder for the answers to each pixel; None leaves them out.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | None,
        pipeline: Pipeline,
        options: Mapping[str, Any],
        large: bool,
        attached: Path | None = None,
    ) -> None:
        bound = pipeline.bundle.spec.bound
        self._heads = [(head, own) for head, own in bound if large or not head.large_json]
        self._ran = (
            {"program": pipeline.program, "engine": pipeline.engine.name}
            if pipeline.bundle.programs
            else {}
        )
        self._options = options
        self._file: IO[str] | None = None
        self._attached = attached
        self._seen_from = Path() if path in (None, "-") else Path(str(path)).parent
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

    def prediction(self, frame: Frame, prediction: Prediction, number: int) -> None:
        """Writes a frame's prediction.

        Args:
            frame: that was predicted.
            prediction: of it.
            number: of the frame, which files that the line points to begin with.
        """
        if self._file is None:
            return
        record, attach = {**_frame(frame), **self._ran}, None
        if self._attached is not None:
            attach = Attachments(self._attached, f"{number:06d}", self._seen_from)
        for head, own in self._heads:
            if (answer := prediction.get(head.name)) is not None:
                record[head.json_key] = head.json(answer, own, self._options[head.name], attach)
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


class SampledTable:
    """A table of the frames, thinned out evenly when they are many, and a count of first labels.

    Args:
        spec: the network.
        options: heads' names to their options in force.
    """

    def __init__(self, spec: NetworkSpec, options: Mapping[str, Any]) -> None:
        self._heads = spec.bound
        self._options = options
        self._rows: list[tuple[int, list[str]]] = []
        self._stride = 1
        self._count = 0
        self._tallies: dict[str, Counter[str]] = {head.name: Counter() for head, _ in spec.bound}

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """Takes a frame; keeps it if it falls on the present stride."""
        number = self._count
        self._count += 1
        answers = [
            (h, a, own) for h, own in self._heads if (a := prediction.get(h.name)) is not None
        ]
        for head, answer, own in answers:
            if (word := head.tally(answer, own, self._options[head.name])) is not None:
                self._tallies[head.name][word] += 1
        if number % self._stride:
            return
        cells = [frame.name, f"{frame.stamp_ns / 1e9:.3f}"]
        cells += [head.cell(answer, own, self._options[head.name]) for head, answer, own in answers]
        self._rows.append((number, cells))
        if len(self._rows) > 2 * _ROWS:
            self._stride *= 2
            self._rows = [row for row in self._rows if row[0] % self._stride == 0]

    def render(self) -> Group:
        """Returns what rich prints."""
        table = Table(title_justify="left")
        table.add_column("frame", overflow="fold")
        table.add_column("stamp, s", justify="right", no_wrap=True)
        for head, own in self._heads:
            table.add_column(head.heading(own), overflow="fold")
        for _, cells in self._rows:
            table.add_row(*(Text(cell) for cell in cells))
        parts: list[Table | Text] = [table] if self._rows else []
        if self._stride > 1:
            parts.append(Text(f"one of every {self._stride} of {self._count} frames is shown"))
        for name, tally in self._tallies.items():
            if self._count > 1 and tally:
                counts = ", ".join(f"{word} {n}" for word, n in tally.most_common(10))
                more = f", {len(tally) - 10} more" if len(tally) > 10 else ""
                of = f" of {name}" if sum(map(bool, self._tallies.values())) > 1 else ""
                parts.append(Text(f"first labels{of}: {counts}{more}"))
        return Group(*parts)
