"""Steering and collision as messages, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robot_vision.contract.topics import Row, Shot, Topic, stack
from robot_vision.heads.dronet.answer import DronetAnswer
from robot_vision.messages.making import Maker, set_header
from robot_vision.messages.types import CLASSIFICATION

TWIST = "geometry_msgs/msg/TwistStamped"
COLLISION, FREE = "collision", "free"


def steering_topic(name: str, column: str) -> Topic:
    """Returns the topic of steering: angular z of a twist.

    Args:
        name: of the topic.
        column: that it is read back to.
    """

    def writer(make: Maker) -> Callable[[Shot, DronetAnswer, Any], Any]:
        new = make(TWIST)

        def write(shot: Shot, answer: DronetAnswer, options: Any) -> Any:
            message = new()
            set_header(message.header, shot)
            message.twist.angular.z = answer.steering
            return message

        return write

    return Topic(
        name,
        TWIST,
        "steering in [-1, 1], positive to the left; all other numbers are zero",
        writer,
        lambda: _Reader(column, lambda message: float(message.twist.angular.z)),
        form="`angular.z`",
    )


def collision_topic(name: str, column: str) -> Topic:
    """Returns the topic of the probability of a collision: two classes, the more probable one first.

    Args:
        name: of the topic.
        column: that it is read back to.
    """

    def writer(make: Maker) -> Callable[[Shot, DronetAnswer, Any], Any]:
        new, result = make(CLASSIFICATION), make("vision_msgs/msg/ObjectHypothesis")

        def write(shot: Shot, answer: DronetAnswer, options: Any) -> Any:
            message = new()
            set_header(message.header, shot)
            scores = {COLLISION: answer.collision, FREE: 1.0 - answer.collision}
            message.results = [
                result(class_id=word, score=scores[word])
                for word in sorted(scores, key=lambda word: -scores[word])
            ]
            return message

        return write

    def read(message: Any) -> float:
        return next(float(h.score) for h in message.results if h.class_id == COLLISION)

    return Topic(
        name,
        CLASSIFICATION,
        "probability of a collision, as the classes `collision` and `free`",
        writer,
        lambda: _Reader(column, read),
    )


class _Reader:
    def __init__(self, column: str, read: Callable[[Any], float]) -> None:
        self._column, self._read = column, read
        self._rows: dict[Row, float] = {}

    def add(self, row: Row, message: Any) -> None:
        self._rows[row] = self._read(message)

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        return {self._column: stack(self._rows, rows)} if self._rows else {}
