"""What bundle.yaml says of a depth head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

DECODERS = ("folded", "pyramid")


@dataclass(frozen=True)
class DepthSpec:
    """A decoder that goes from the backbone's coarsest map to its finest, with a skip at each stride.

    Attributes:
        size: rows and columns of the answer; (0, 0) takes those of the finest map, with strides from 4 a
            quarter of the input's sides.
        minimum: least depth in metres; nearer truth is left out.
        maximum: largest depth in metres; farther truth is left out, and an answer this far away says
            nothing.
        strides: of the maps that are read, from the finest to the coarsest, in pixels of the input.
        channels: of the decoder.
        dropout: probability while training, of the coarsest map's channels.
        decoder: `folded` (light, for CPUs: what is trained by default) or `pyramid`, which bundles have that
            do not say.
    """

    KIND: ClassVar[str] = "depth"

    size: tuple[int, ...] = (0, 0)
    minimum: float = 0.2
    maximum: float = 10.0
    strides: tuple[int, ...] = (4, 8, 16, 32)
    channels: int = 64
    dropout: float = 0.1
    decoder: str = "pyramid"

    def __post_init__(self) -> None:
        require(
            len(self.size) == 2 and (min(self.size) >= 1 or max(self.size) == 0),
            "depth size",
            self.size,
            "rows and columns; or 0, 0 for those of the finest map",
        )
        require(
            0 < self.minimum < self.maximum,
            "depth range",
            (self.minimum, self.maximum),
            "two positive numbers of metres, minimum below maximum",
        )
        require(
            len(self.strides) > 0 and list(self.strides) == sorted(set(self.strides)),
            "depth strides",
            self.strides,
            "at least one, from the finest to the coarsest",
        )
        require(8 <= self.channels <= 1024, "depth channels", self.channels, "from 8 to 1024")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        if self.decoder not in DECODERS:
            raise ConfigError(unknown("depth decoder", self.decoder, DECODERS))
