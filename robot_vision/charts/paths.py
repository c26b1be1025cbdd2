"""Pictures of cameras' paths from above, drawn with OpenCV."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.charts import lettering
from robot_vision.charts.lettering import Colour

INK: Colour = (60, 60, 60)
_MARGIN = 70
_MOST_ARROWS = 2000


def ground_axes(rotations: NDArray[np.float64]) -> tuple[int, int, bool]:
    """Returns the map's axes to draw rightwards and upwards, and whether the second is flipped.

    Up is the axis that the cameras' up (-y) is nearest to on average, so that maps with z up and those of
    a hand-held camera's first frame both are seen from above; z without rotations.

    Args:
        rotations: of cameras in the map (N, 3, 3).
    """
    mean = -rotations[:, :, 1].mean(axis=0) if len(rotations) else np.array([0.0, 0.0, 1.0])
    axis = int(np.abs(mean).argmax())
    a, b = (i for i in range(3) if i != axis)
    up = np.sign(mean[axis]) * np.eye(3)[axis]
    # Seen from above, right x upwards on the page is up.
    return a, b, bool(np.cross(np.eye(3)[a], np.eye(3)[b]) @ up < 0)


class FromAbove:
    """A white square page with a scale that holds all positions.

    Args:
        positions: (N, 3), N >= 1, metres, map frame.
        rotations: of the cameras (N, 3, 3), or of none of them (0, 3, 3).
        size: pixels a side.
        reach_m: how far from each position the page reaches in its viewing direction.
        least_m: what the page is wide at least.

    Attributes:
        image: RGB uint8 (size, size, 3).
        pixels: of the positions (N, 2).
        directions: of view on the page (N, 2), shorter than 1 where a camera looks up or down.
        scale: pixels a metre.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        rotations: NDArray[np.float64],
        size: int,
        reach_m: float = 0.0,
        least_m: float = 1.0,
    ) -> None:
        a, b, flipped = ground_axes(rotations)
        self.image: NDArray[np.uint8] = np.full((size, size, 3), 255, np.uint8)
        self._size = size
        points = positions[:, [a, b]]
        looks = rotations[:, [a, b], 2]
        seen = np.vstack((points, points[: len(looks)] + looks * reach_m))
        low, high = seen.min(axis=0), seen.max(axis=0)
        self.scale = (size - 2 * _MARGIN) / max(float((high - low).max()), least_m)
        turn = np.array([self.scale, self.scale if flipped else -self.scale])
        self.pixels = size / 2 + (points - (low + high) / 2) * turn
        self.directions = looks * np.sign(turn)
        self._axes = f"right: {'xyz'[a]}, up: {'-' if flipped else ''}{'xyz'[b]}"

    def line(self, rows: NDArray[np.int64], colour: Colour) -> None:
        """Joins positions by a line."""
        points = np.rint(self.pixels[rows]).astype(np.int32)
        cv2.polylines(self.image, [points], False, colour, 1, cv2.LINE_AA)

    def cameras(self, rows: NDArray[np.int64], colour: Colour, radius: int = 3) -> None:
        """Draws positions as dots, each with its viewing direction where it is known."""
        shown = rows[rows < len(self.directions)]
        for i in shown[:: max(1, len(shown) // _MOST_ARROWS)]:
            end = self.pixels[i] + self.directions[i] * 14
            cv2.line(self.image, at(self.pixels[i]), at(end), colour, 1, cv2.LINE_AA)
        for i in rows:
            cv2.circle(self.image, at(self.pixels[i]), radius, colour, -1, cv2.LINE_AA)

    def finish(self, title: str) -> NDArray[np.uint8]:
        """Adds a title, the axes and a bar of a round length, and returns the picture."""
        write(self.image, title, (12, 24))
        write(self.image, self._axes, (12, self._size - 12))
        wanted = 0.2 * self._size / self.scale
        power = 10.0 ** math.floor(math.log10(wanted))
        metres = max(m * power for m in (1, 2, 5) if m * power <= wanted)
        right, y = self._size - 20, self._size - 24
        left = round(right - metres * self.scale)
        cv2.line(self.image, (left, y), (right, y), INK, 2)
        for x in (left, right):
            cv2.line(self.image, (x, y - 5), (x, y + 5), INK, 2)
        write(self.image, f"{metres:g} m", (left, y - 10))
        return self.image


def at(pixel: NDArray[np.float64]) -> tuple[int, int]:
    """Returns a pixel (2,) as OpenCV takes it."""
    return round(float(pixel[0])), round(float(pixel[1]))


def write(
    image: NDArray[np.uint8], text: str, where: tuple[int, int], colour: Colour = INK
) -> None:
    """Writes a line."""
    lettering.put(image, text, where, 0.5, colour)
