"""What DroNet says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from robot_vision.contract.head import Answer

WORDS = ("steering", "collision")
COLLIDES = 0.5  # from this probability on, an answer counts as a collision


@dataclass(frozen=True)
class DronetAnswer(Answer):
    """Where to steer, and whether something is in the way.

    Attributes:
        steering: from -1 (right) to 1 (left), as its truth was.
        collision: probability.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {"steering": "steering", "collision": "collision"}

    steering: float
    collision: float
