"""Draws a classifier's labels as bars."""

from __future__ import annotations

from collections.abc import Sequence

from robot_vision.heads.classifier.answer import UNKNOWN, Hypothesis
from robot_vision.images.canvas import Canvas, plain

_BARS = ((80, 200, 120), (90, 150, 220), (150, 150, 170))  # RGB: first, second, other labels
_UNKNOWN_BAR = (230, 150, 60)


def draw_labels(canvas: Canvas, best: Sequence[Hypothesis], title: str = "") -> None:
    """Draws labels, the best first, each with a bar of its score's length."""
    canvas.bars(
        [
            (
                f"{100 * min(max(h.score, 0.0), 1.0):3.0f}% {title}{plain(h.label)}",
                h.score,
                _UNKNOWN_BAR if h.label == UNKNOWN else _BARS[min(i, len(_BARS) - 1)],
            )
            for i, h in enumerate(best)
        ]
    )
