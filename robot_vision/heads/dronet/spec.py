"""What bundle.yaml says of a DroNet head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robot_vision.settings.checks import require


@dataclass(frozen=True)
class DronetSpec:
    """The head of DroNet: dropout, then a linear layer of two numbers on the tap's flattened features.

    A tap of a backbone that was trained on something else needs more: `reduce_channels` and `hidden`.

    Attributes:
        tap: the backbone's feature tap; empty for the backbone's default.
        dropout: probability while training (0.5 in the paper).
        reduce_channels: of a 1 x 1 convolution with ReLU before the features are flattened; 0 for none.
        hidden: width of a layer with ReLU before the two numbers, with dropout before and after; 0 for none.
    """

    KIND: ClassVar[str] = "dronet"

    tap: str = ""
    dropout: float = 0.5
    reduce_channels: int = 0
    hidden: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(
            0 <= self.reduce_channels <= 4096, "reduce_channels", self.reduce_channels, "0 to 4096"
        )
        require(0 <= self.hidden <= 65536, "hidden", self.hidden, "0 to 65536")
