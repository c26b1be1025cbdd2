"""The network's input: its size, how a camera's image is made to fit, and the graph's normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

RESIZE_RULES = ("squash", "crop", "letterbox")
MAX_SIDE = 4096
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601, as OpenCV)


@dataclass(frozen=True)
class InputSpec:
    """The network's input: uint8 RGB (N, height, width, 3), normalised inside the graph.

    Attributes:
        height: rows in pixels.
        width: columns in pixels.
        resize: how a camera image becomes (height, width): `squash` ignores the aspect ratio, `crop`
            takes the centre, `letterbox` pads with black.
        crop_fraction: with `crop`, the share of the resized image that is kept (torchvision: 224/256).
        mean: per channel, of pixel values scaled to [0, 1]; 0 for grey, unless given.
        std: per channel, in the same units; 1 for grey, unless given.
        channels: 3, or 1 for networks of grey images; the graph takes RGB all the same, and makes the grey
            of it as OpenCV does (0.299 R + 0.587 G + 0.114 B).
    """

    height: int = 224
    width: int = 224
    resize: str = "squash"
    crop_fraction: float = 1.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            require(
                16 <= value <= MAX_SIDE, f"input {name}", value, f"from 16 to {MAX_SIDE} pixels"
            )
        if self.resize not in RESIZE_RULES:
            raise ConfigError(unknown("resize rule", self.resize, RESIZE_RULES))
        require(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "in (0, 1]")
        require(self.channels in (1, 3), "input channels", self.channels, "3 (RGB) or 1 (grey)")
        if self.channels == 1 and (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            object.__setattr__(self, "mean", (0.0,))
            object.__setattr__(self, "std", (1.0,))
        rgb = self.channels == 3
        require(
            len(self.mean) == self.channels,
            "input mean",
            self.mean,
            "three numbers, for R, G and B" if rgb else "one number",
        )
        require(
            len(self.std) == self.channels and min(self.std) > 0,
            "input std",
            self.std,
            "three positive numbers" if rgb else "one positive number",
        )
