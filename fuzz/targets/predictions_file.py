"""predictions.npz from somebody else, to compare with."""

from __future__ import annotations

import io
import json

import numpy as np

from fuzz import scratch
from robot_vision.errors import SourceError
from robot_vision.evaluation.predict.columns import FORMAT, Predictions

MAX_LEN = 1 << 12
ALLOWED_S = 5.0


def one_input(data: bytes) -> None:
    """The whole file."""
    try:
        read = Predictions.load(scratch.file("predictions.npz", data))
    except SourceError:
        return
    assert read.stamps_ns.ndim == 1


def seeds() -> list[bytes]:
    """Returns a small file, and one with pickled objects."""
    head = {"format": FORMAT, "recording": "a", "labels": ["x", "y"], "meta": {}}
    inputs = []
    for stamps in (np.arange(3), np.array([{}, {}], object)):
        buffer = io.BytesIO()
        np.savez(buffer, head=np.array(json.dumps(head)), stamps_ns=stamps)
        inputs.append(buffer.getvalue())
    return inputs
