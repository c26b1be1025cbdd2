"""What bundle.yaml says of a DroNet head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robot_vision.settings.checks import require


@dataclass(frozen=True)
class DronetSpec:
    """The head of DroNet: dropout, then a linear layer of two numbers on the tap's flattened features.

    Attributes:
        tap: the backbone's feature tap; empty for the backbone's default.
        dropout: probability while training (0.5 in the paper).
    """

    KIND: ClassVar[str] = "dronet"

    tap: str = ""
    dropout: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
