"""Descriptors as messages, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.topics import HIDDEN, Row, Shot, Topic, stack
from robot_vision.errors import SourceError
from robot_vision.heads.place.answer import Descriptor
from robot_vision.messages.making import Maker, set_header, set_pixels
from robot_vision.messages.types import IMAGE


def descriptor_topic(name: str, column: str) -> Topic:
    """Returns the topic of descriptors: an image of one row and D columns.

    Args:
        name: of the topic.
        column: that it is read back to.
    """
    return Topic(
        name,
        IMAGE,
        "L2-normalised global descriptor: the dot product of two says how similar two places look",
        _writer,
        lambda: _Reader(column),
        form="`32FC1`, 1 x D",
        look=HIDDEN,
    )


def _writer(make: Maker) -> Callable[[Shot, Descriptor, Any], Any]:
    new = make(IMAGE)

    def write(shot: Shot, answer: Descriptor, options: Any) -> Any:
        message = new()
        set_header(message.header, shot)
        set_pixels(message, np.asarray(answer.values, np.float32)[None], "32FC1")
        return message

    return write


class _Reader:
    def __init__(self, column: str) -> None:
        self._column = column
        self._rows: dict[Row, NDArray[np.float32]] = {}

    def add(self, row: Row, message: Any) -> None:
        order = ">" if message.is_bigendian else "<"
        self._rows[row] = np.frombuffer(bytes(message.data), f"{order}f4").astype(np.float32)

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        sizes = sorted({v.size for v in self._rows.values()})
        if len(sizes) > 1:
            raise SourceError(f"descriptors have {' and '.join(map(str, sizes))} numbers")
        return {self._column: stack(self._rows, rows, np.float32)} if sizes else {}
