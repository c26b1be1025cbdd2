"""Letters on pictures that OpenCV draws: zeros without a slash, readable on any ground.

OpenCV 5 draws its Hershey fonts with a face whose zeros have a slash, as if they were empty sets; its other
face has plain ones, and accents. Earlier versions draw what they always did. OpenCV is loaded when something
is drawn, since launch files import what draws under a Python that need not have it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

_SIZE = 28.0  # pixels of the face at scale 1, where Hershey's letters are as wide


@functools.cache
def _face() -> Any:
    import cv2

    return cv2.FontFace("uni") if hasattr(cv2, "FontFace") else None


def width(text: str, scale: float) -> int:
    """Returns how wide a line is, in pixels."""
    import cv2

    if (face := _face()) is None:
        return int(cv2.getTextSize(_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])
    return int(cv2.getTextSize((1, 1), text, (0, 0), face, _pixels(scale))[2])


def put(
    image: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    scale: float,
    colour: Colour,
    bold: bool = False,
    outline: Colour | None = None,
) -> None:
    """Draws a line of text.

    Args:
        image: uint8 (H, W, 3), altered.
        text: letters that the font lacks become question marks.
        at: left end of the base line (x, y).
        scale: as of OpenCV's fonts; 0.5 is for captions.
        colour: in the order of the image's channels.
        bold: whether strokes are a pixel wider.
        outline: colour around the letters, so that they are seen on any ground.
    """
    x, y = at
    if outline is not None:
        for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1), (-1, 0), (1, 0), (0, -1), (0, 1)):
            _draw(image, text, (x + dx, y + dy), scale, outline)
    _draw(image, text, at, scale, colour)
    if bold:
        _draw(image, text, (x + 1, y), scale, colour)


def _draw(
    image: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, colour: Colour
) -> None:
    import cv2

    if (face := _face()) is None:
        cv2.putText(
            image, _ascii(text), at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA
        )
    else:
        cv2.putText(image, text, at, colour, face, _pixels(scale))


def _pixels(scale: float) -> int:
    return max(6, round(_SIZE * scale))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
