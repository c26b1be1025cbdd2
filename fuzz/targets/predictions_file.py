"""predictions.npz from somebody else, to compare with."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np

from fuzz import scratch
from robot_vision.errors import SourceError
from robot_vision.evaluation.predict.columns import FORMAT, Predictions
from robot_vision.files.array_stream import Stream, StreamWriter

MAX_LEN = 1 << 12
ALLOWED_S = 5.0


def one_input(data: bytes) -> None:
    """The whole file."""
    try:
        read = Predictions.load(scratch.file("predictions.npz", data))
    except SourceError:
        return
    assert read.stamps_ns.ndim == 1
    for column in read.columns.values():
        if isinstance(column, Stream) and len(column):
            with contextlib.suppress(SourceError):
                column[0]


def seeds() -> list[bytes]:
    """Returns a small file, one with pickled objects, and one with a column of arrays."""
    head = {"format": FORMAT, "recording": "a", "labels": ["x", "y"], "meta": {}}
    inputs = []
    for stamps in (np.arange(3), np.array([{}, {}], object)):
        buffer = io.BytesIO()
        np.savez(buffer, head=np.array(json.dumps(head)), stamps_ns=stamps)
        inputs.append(buffer.getvalue())
    writer = StreamWriter()
    writer.put("ids", 1, np.ones((2, 3), np.uint8))
    ids = writer.stream("ids", np.array([-1, 1]), "uint8")
    file = scratch.file("predictions.npz", b"")
    Predictions(np.arange(2), more={"ids": ids}).save(file)
    return [*inputs, file.read_bytes()]
