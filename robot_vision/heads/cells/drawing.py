"""Draws the most probable cells as bars."""

from __future__ import annotations

from robot_vision.heads.cells.answer import CellsAnswer
from robot_vision.images.canvas import Canvas

SHOWN = 3
_BARS = ((80, 200, 120), (90, 150, 220), (150, 150, 170))  # RGB: first, second, other cells


def draw_cells(canvas: Canvas, answer: CellsAnswer, title: str = "") -> None:
    """Draws the most probable cells, each with a bar of its probability's length, and the entropy."""
    ground = answer.ground
    canvas.bars(
        [
            (
                f"{100 * answer.probabilities[i]:3.0f}% {title}{ground.text(ground.centres[i])}",
                float(answer.probabilities[i]),
                _BARS[min(rank, len(_BARS) - 1)],
            )
            for rank, i in enumerate(answer.top(SHOWN))
        ]
    )
