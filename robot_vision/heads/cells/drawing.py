"""Draws the most probable cells as bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.squares import centres
from robot_vision.heads.cells.answer import CellsAnswer
from robot_vision.images.canvas import Canvas

SHOWN = 3
_BARS = ((80, 200, 120), (90, 150, 220), (150, 150, 170))  # RGB: first, second, other cells


def draw_cells(canvas: Canvas, answer: CellsAnswer, plane: str, title: str = "") -> None:
    """Draws the most probable cells, each with a bar of its probability's length, and the entropy."""
    middles = centres(answer.cells)
    canvas.bars(
        [
            (
                f"{100 * answer.probabilities[i]:3.0f}% {title}{place(middles[i], plane)} m",
                float(answer.probabilities[i]),
                _BARS[min(rank, len(_BARS) - 1)],
            )
            for rank, i in enumerate(answer.top(SHOWN))
        ]
    )


def place(position: Sequence[float] | NDArray[np.float64], plane: str) -> str:
    """Returns coordinates with the names of their axes, such as `x +1.25 y -0.50`."""
    first, second = position
    return f"{plane[0]} {first:+.2f} {plane[1]} {second:+.2f}"
