"""Classes as messages, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robot_vision.contract.topics import Latched, Row, Shot, Topic
from robot_vision.errors import MeasurementError, SourceError
from robot_vision.heads.classifier.answer import UNKNOWN, Classification, Hypothesis
from robot_vision.heads.classifier.hypotheses import from_hypotheses
from robot_vision.heads.classifier.options import ClassifierOptions
from robot_vision.messages.making import Maker, set_header
from robot_vision.messages.types import CLASSIFICATION, LABEL_INFO

MAX_CLASS_ID = 65535  # uint16

Results = list[tuple[str, float]]


def class_topic(name: str, info: str, labels: Sequence[str], key: Callable[[str], str]) -> Topic:
    """Returns the topic of classes.

    Args:
        name: of the topic.
        info: name of the latched topic of the labels.
        labels: of the network; empty where it is not known.
        key: of the columns that it is read back to.
    """
    return Topic(
        name,
        CLASSIFICATION,
        "the `top_k` classes, most probable first; `class_id` is the label, `score` its probability. Below "
        "the open-set threshold the first one is `unknown`, its `score` the share of known images that look "
        "more familiar and at least 0.5; the classes share what it leaves of 1",
        _writer,
        lambda: _Reader(info, tuple(labels), key),
    )


def label_topic(name: str, labels: Sequence[str]) -> Latched:
    """Returns the latched topic of the labels by their index in the network, and the threshold or 0."""

    def writer(make: Maker) -> Callable[[Any, ClassifierOptions], Any]:
        new, entry = make(LABEL_INFO), make("vision_msgs/msg/VisionClass")

        def write(stamp: Any, options: ClassifierOptions) -> Any:
            message = new()
            message.header.stamp.sec, message.header.stamp.nanosec = stamp.sec, stamp.nanosec
            message.class_map = [
                entry(class_id=i, class_name=label)
                for i, label in enumerate(labels[: MAX_CLASS_ID + 1])
            ]
            threshold = options.unknown_threshold
            message.threshold = float(threshold) if np.isfinite(threshold) else 0.0
            return message

        return write

    return Latched(name, LABEL_INFO, "the labels", writer)


def hypotheses_writer(make: Maker) -> Callable[[Any, Sequence[Hypothesis]], Any]:
    """Returns what writes the classes of an image, in the order given; `class_id` is the label itself."""
    new, result = make(CLASSIFICATION), make("vision_msgs/msg/ObjectHypothesis")

    def write(header: Any, hypotheses: Sequence[Hypothesis]) -> Any:
        message = new()
        set_header(message.header, header)
        message.results = [result(class_id=h.label, score=float(h.score)) for h in hypotheses]
        return message

    return write


def _writer(make: Maker) -> Callable[[Shot, Classification, ClassifierOptions], Any]:
    write = hypotheses_writer(make)
    return lambda shot, answer, options: write(
        shot, answer.top_k(options.top_k, options.unknown_threshold)
    )


class _Reader:
    """A classification holds the `top_k` best classes, and which there are is known at the end."""

    def __init__(self, info: str, labels: tuple[str, ...], key: Callable[[str], str]) -> None:
        self._info, self._labels, self._key = info, labels, key
        self._rows: dict[Row, Results] = {}

    def add(self, row: Row, message: Any) -> None:
        self._rows[row] = [(h.class_id, h.score) for h in message.results]

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        listed = {c for said in self._rows.values() for c, _ in said if c != UNKNOWN}
        if not listed:
            return {}
        info = latched.get(self._info)
        labels = tuple(c.class_name for c in info.class_map) if info else self._labels
        if not labels:
            labels = tuple(sorted(listed))
            self._refuse_unseen(labels)
            notes.append(
                "label_info was not recorded: the labels are those that were ever published"
            )
        found = self._columns(rows, labels, notes)
        if not (found["kept"] == 0).any():
            del found["kept"]
        columns = {self._key(name): values for name, values in found.items()}
        # Labels of the recording are those of the head that is named as its kind.
        return {"labels": labels, **columns} if self._key("labels") == "labels" else columns

    def _refuse_unseen(self, labels: tuple[str, ...]) -> None:
        """Refuses classes of which some were never among the best that a recording holds.

        Raises:
            SourceError: all classes that were ever published are there, and leave something of 1.
        """
        said = self._rows.values()
        sums = [sum(score for _, score in row) for row in said if {c for c, _ in row} == {*labels}]
        short = [total for total in sums if total < 0.99]
        if short:
            raise SourceError(
                f"{len(short)} of {len(said)} classifications hold all classes that were ever published "
                f"({', '.join(labels)}), and their scores sum to {min(short):.2g}: other classes are "
                "missing. Give the bundle that made them (--model), or record label_info"
            )

    def _columns(
        self, rows: Sequence[Row], labels: tuple[str, ...], notes: list[str]
    ) -> dict[str, Any]:
        """Returns columns; NaN where nothing was said.

        `probabilities` (N, K) are given that it is one of the classes: those published, and an even share
        of the rest for the others. `known_score` (N,) is the highest score of a class as it was published,
        `kept` (N,) 0 where the answer is `unknown`, else 1.
        """
        found = {
            "probabilities": np.full((len(rows), len(labels)), np.nan),
            "known_score": np.full(len(rows), np.nan),
            "kept": np.full(len(rows), np.nan),
        }
        fewest = len(labels)
        for i, row in enumerate(rows):
            if row not in self._rows:
                continue
            said = self._rows[row]
            try:
                found["probabilities"][i], refused = from_hypotheses(labels, said)
            except MeasurementError as error:
                raise SourceError(
                    f"A classification of the recording cannot be read: {error}; if its classes differ, give "
                    "the bundle that made it"
                ) from error
            listed = [score for label, score in said if label in labels]
            found["known_score"][i] = max(listed, default=0.0)
            found["kept"][i] = not refused
            fewest = min(fewest, len(listed))
        if fewest < len(labels):
            notes.append(
                f"classifications hold {fewest} of {len(labels)} classes: the rest of the probability is "
                "spread evenly, so that log likelihood, Brier score and top-5 are estimates (record with "
                f"top_k:={len(labels)})"
            )
        notes.append(
            "known scores are not recorded: the published score of the best class is used instead"
        )
        return found
