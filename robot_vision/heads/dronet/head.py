"""DroNet's head, as all who use its answers see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Arrays, Column, Head, Material, Output, short
from robot_vision.contract.topics import Topic
from robot_vision.heads.dronet.answer import COLLIDES, WORDS, DronetAnswer
from robot_vision.heads.dronet.spec import DronetSpec
from robot_vision.heads.dronet.topics import collision_topic, steering_topic
from robot_vision.images.canvas import Canvas

_STEERING, _FREE, _COLLISION = (90, 150, 220), (80, 200, 120), (230, 90, 60)  # RGB


class DronetHead(Head[DronetSpec, DronetAnswer]):
    """Steering and the probability of a collision."""

    kind: ClassVar[str] = "dronet"
    answer_key: ClassVar[str] = "dronet"
    Spec = DronetSpec
    Answer = DronetAnswer
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.dronet.judging:DronetJudge",
        "trainer": "robot_vision.heads.dronet.training:DronetTrainer",
    }

    def outputs(self, spec: DronetSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        return {self.key(word): Output() for word in WORDS}

    def decoder(
        self, spec: DronetSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[DronetAnswer]]:
        steering, collision = map(self.key, WORDS)
        # The network is linear in its steering, so that it can say more than full lock.
        return lambda outputs: [
            DronetAnswer(*numbers)
            for numbers in zip(
                np.clip(outputs[steering], -1, 1).tolist(), outputs[collision].tolist(), strict=True
            )
        ]

    def topics(self, spec: DronetSpec | None) -> Sequence[Topic]:
        return (
            steering_topic(self.topic("steering"), self.key("steering")),
            collision_topic(self.topic("collision"), self.key("collision")),
        )

    def draw(self, canvas: Canvas, answer: DronetAnswer, spec: DronetSpec, options: Any) -> None:
        title = "" if self.name == self.kind else f"{self.name} "
        side = "left" if answer.steering > 0 else "right"
        canvas.bars(
            [
                (
                    f"{title}steering {answer.steering:+.2f} {side}",
                    abs(answer.steering),
                    _STEERING,
                ),
                (
                    f"{title}collision {100 * answer.collision:.0f}%",
                    answer.collision,
                    _COLLISION if answer.collision >= COLLIDES else _FREE,
                ),
            ]
        )

    def json(self, answer: DronetAnswer, spec: DronetSpec, options: Any, attach: Any) -> Any:
        return {word: short(getattr(answer, word)) for word in WORDS}

    def cell(self, answer: DronetAnswer, spec: DronetSpec, options: Any) -> str:
        return f"steering {answer.steering:+.2f}, collision {100 * answer.collision:.0f}%"

    def tally(self, answer: DronetAnswer, spec: DronetSpec, options: Any) -> str | None:
        return "collision" if answer.collision >= COLLIDES else "free"

    def about(self, spec: DronetSpec) -> str:
        return "DroNet, steering in [-1, 1] and probability of a collision"

    def columns(self, spec: DronetSpec) -> Mapping[str, Column]:
        return {self.key(word): Column() for word in WORDS}

    def pack(self, answer: DronetAnswer) -> dict[str, Any]:
        return {self.key(word): getattr(answer, word) for word in WORDS}

    def unpack(self, row: Mapping[str, Any], spec: DronetSpec, material: Material) -> DronetAnswer:
        return DronetAnswer(*(float(row[self.key(word)]) for word in WORDS))


HEAD = DronetHead()
