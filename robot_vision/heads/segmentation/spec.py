"""What bundle.yaml says of a segmentation head."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

DECODERS = {  # to the strides of the backbone's maps that they read, the coarsest first
    "lraspp": (32, 16, 8, 4),
    "fcn32s": (32,),
    "fcn16s": (32, 16),
    "fcn8s": (32, 16, 8),
}
STRIDES = (1, 2, 4, 8)
MAX_CLASSES = 255
_COLOUR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class SegmentationSpec:
    """A class for each pixel: a decoder on several maps of the backbone, then the most probable class.

    Attributes:
        labels: class names in the order of the ids, at most 255.
        decoder: `lraspp` (light, for CPUs), or `fcn32s`, `fcn16s`, `fcn8s` (Long et al. 2015).
        stride: of the answer, in pixels of the input: 4 gives a quarter of the input's sides. It changes no
            weight.
        height: rows of the answer; they follow from the input and the stride. 0 is not known yet.
        width: columns of the answer.
        coarsest: largest stride of the maps that `lraspp` reads, for a backbone that is cut short.
        channels: of `lraspp`.
        dropout: probability while training, before the classes are scored.
        confidence: whether the graph also says how sure it is of each pixel, 0 to 255.
        temperature: logits are divided by it before the softmax (Guo et al. 2017, eq. 9).
        colours: of the classes in pictures, such as `#804080`; empty takes one for each name.
    """

    KIND: ClassVar[str] = "segmentation"

    labels: tuple[str, ...]
    decoder: str = "lraspp"
    stride: int = 4
    height: int = 0
    width: int = 0
    coarsest: int = 32
    channels: int = 64
    dropout: float = 0.1
    confidence: bool = True
    temperature: float = 1.0
    colours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.labels)
        require(2 <= count <= MAX_CLASSES, "number of labels", count, f"from 2 to {MAX_CLASSES}")
        require(len(set(self.labels)) == count, "labels", self.labels, "all different")
        bad = [label for label in self.labels if not label.strip() or "\n" in label]
        require(not bad, "label", bad[:1], "a non-empty single line")
        if self.decoder not in DECODERS:
            raise ConfigError(unknown("decoder", self.decoder, tuple(DECODERS)))
        require(self.stride in STRIDES, "stride", self.stride, "1, 2, 4 or 8")
        strides = DECODERS["lraspp"] if self.decoder == "lraspp" else (32,)
        require(
            self.coarsest in strides and self.coarsest >= self.stride,
            f"coarsest stride of {self.decoder}",
            self.coarsest,
            f"{' or '.join(map(str, strides))}, and not below the answer's ({self.stride})",
        )
        for name in ("height", "width"):
            require(0 <= getattr(self, name) <= 4096, name, getattr(self, name), "0 to 4096")
        require(8 <= self.channels <= 1024, "channels", self.channels, "from 8 to 1024")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        ok = self.temperature > 0 and math.isfinite(self.temperature)
        require(ok, "temperature", self.temperature, "positive and finite")
        wrong = [colour for colour in self.colours if not _COLOUR.fullmatch(colour)]
        require(not wrong, "colour", wrong[:1], "such as #804080")
        ok = len(self.colours) in (0, count)
        require(ok, "number of colours", len(self.colours), f"none, or {count}: one a label")

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the backbone's maps that the decoder reads; none is finer than the answer."""
        return tuple(s for s in DECODERS[self.decoder] if self.stride <= s <= self.coarsest)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the answer."""
        return self.height, self.width
