"""Depth of the pixels of another camera than the one that measured it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import TruthImage
from robot_vision.errors import ConfigError

Pinhole = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels


@dataclass(frozen=True, slots=True)
class RegisteredDepth:
    """A `sample.TruthImage`: depth that another one has, for the pixels of the camera next to it.

    Each measured point goes to the pixel that shows it; of several the nearest counts, since it hides the
    others. Pixels to which none goes have no truth: those out of the depth camera's view, behind an edge that
    only it sees past, or between two points.

    Attributes:
        measured: whole numbers, of which 0 says nothing.
        depth: the camera that measured it.
        colour: the camera whose pixels are asked for; the axes of both are parallel.
        x_m: where the depth camera is on the colour camera's x axis, metres.
    """

    measured: TruthImage
    depth: Pinhole
    colour: Pinhole
    x_m: float

    def __str__(self) -> str:
        return str(self.measured)

    @property
    def none(self) -> tuple[float, ...]:
        """See `TrueImage.none`."""
        return self.measured.none

    @property
    def unit(self) -> float:
        """See `TrueImage.unit`."""
        return self.measured.unit

    def load(self) -> NDArray[np.uint16]:
        """See `TrueImage.load`."""
        stored = self.measured.load()
        height, width = stored.shape
        known = ~np.isin(stored, self.none)
        rows, columns = np.nonzero(known)
        numbers = stored[known]
        fx, fy, cx, cy = self.depth
        own_fx, own_fy, own_cx, own_cy = self.colour
        # Parallel axes: what is that far from one camera is that far from the other.
        x = (columns - cx) / fx + self.x_m / (numbers * np.float64(self.unit))
        column = np.rint(own_fx * x + own_cx)
        row = np.rint(own_fy * (rows - cy) / fy + own_cy)
        seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = (row[seen] * width + column[seen]).astype(np.intp)
        nearest = np.full(height * width, np.iinfo(np.uint16).max, np.uint16)
        np.minimum.at(nearest, at, numbers[seen])
        nearest[nearest == np.iinfo(np.uint16).max] = 0
        return nearest.reshape(height, width)

    def encoded(self) -> bytes:
        """See `TruthImage.encoded`."""
        return repr((self.depth, self.colour, self.x_m)).encode() + self.measured.encoded()


def parse_depth_camera(text: str) -> tuple[Pinhole, float]:
    """Returns the pinhole and the x of `RegisteredDepth` of `fx,fy,cx,cy,x`.

    Raises:
        ConfigError: not five finite numbers with positive focal lengths.
    """
    try:
        fx, fy, cx, cy, x = (float(v) for v in text.replace(",", " ").split())
    except ValueError:
        fx = fy = cx = cy = x = np.nan
    if not np.isfinite([fx, fy, cx, cy, x]).all() or min(fx, fy) <= 0:
        raise ConfigError(
            f"Option depth_camera is {text!r}: use fx,fy,cx,cy,x in pixels and metres, with "
            "positive focal lengths"
        )
    return (fx, fy, cx, cy), x
