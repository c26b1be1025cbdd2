"""A picture for people to watch: an image with bars, lines, strips and overlays on it.

What is drawn is laid out at the end, so that nobody who draws knows where the others do. One overlay lies on
the picture itself; several would hide each other, so that each gets a copy of the image, to the right, with
its own bars, lines and scale. OpenCV is loaded
then: launch files read the topics of heads, which draw too, under a Python that need not have it.
"""

from __future__ import annotations

import colorsys
import unicodedata
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from robot_vision.images.window import Window

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_MIN_HEIGHT = 160
_MAX_WIDTH = 2048

Colour = tuple[int, int, int]  # RGB
Pixels = NDArray[np.uint8]


class Canvas:
    """Collects what is to be drawn on an image.

    Args:
        image: RGB uint8 (H, W, 3); not altered.
        window: which part of it the network saw; None for all.
    """

    def __init__(self, image: Pixels, window: Window | None = None) -> None:
        self._image = image
        self._window = window
        self._overlays: list[tuple[Pixels, float]] = []
        self._legends: list[Canvas] = []  # of the overlays
        self._marks: list[tuple[str, Any]] = []  # bars, strips, lines, and legends by their number

    def overlay(self, colours: Pixels, alpha: float = 0.5) -> Canvas:
        """Lays a map of colours (h, w, 3) over what the network saw, enlarged; alpha is their share.

        Returns:
            A canvas for bars, lines and strips that say what the colours mean: they stay with the overlay.
        """
        legend = Canvas(self._image, self._window)
        self._overlays.append((colours, alpha))
        self._legends.append(legend)
        self._marks.append(("legend", legend))
        return legend

    def bars(self, rows: Sequence[tuple[str, float, Colour]]) -> None:
        """Adds horizontal bars to the top: text, length from 0 to 1, and colour of each.

        Those that do not fit into the upper half are left out.
        """
        self._marks.append(("bars", rows))

    def lines(self, *texts: str) -> None:
        """Adds lines of text to the bottom."""
        self._marks += [("line", text) for text in texts]

    def strip(self, colours: Pixels) -> None:
        """Adds a strip of colours (W, 3), from left to right, to the bottom."""
        self._marks.append(("strip", colours))

    def finish(self) -> Pixels:
        """Returns the picture, RGB uint8 (H, W, 3), or (H, n W, 3) where there are several overlays.

        Images of less than 160 rows come back enlarged by a whole factor.
        """
        if len(self._overlays) < 2:
            return self._drawn(self._overlays, self._kept(with_legends=True))
        parts = [self._drawn([], self._kept(with_legends=False))]
        for overlay, legend in zip(self._overlays, self._legends, strict=True):
            parts.append(self._drawn([overlay], legend._kept(with_legends=True)))
        return np.concatenate(parts, axis=1)

    def _kept(self, with_legends: bool) -> list[tuple[str, Any]]:
        """Returns the marks in their order, those of legends in place of them or not at all."""
        found: list[tuple[str, Any]] = []
        for kind, mark in self._marks:
            if kind != "legend":
                found.append((kind, mark))
            elif with_legends:
                found += mark._kept(True)
        return found

    def _drawn(
        self, overlays: Sequence[tuple[Pixels, float]], marks: Sequence[tuple[str, Any]]
    ) -> Pixels:
        import cv2

        canvas = _roomy_copy(self._image)
        height, width = canvas.shape[:2]
        for colours, alpha in overlays:
            _lay_over(canvas, colours, alpha, self._window, self._image.shape[0])
        bars, lines, strips = (
            [mark for kind, mark in marks if kind == wanted] for wanted in ("bars", "line", "strip")
        )
        scale = min(max(height / 480, 0.75), width / 320, 4.0) * 0.55
        line = round(36 * scale) + 4
        fits = max(1, (height // 2) // line // max(len(bars), 1))
        _draw_bars(canvas, [row for rows in bars for row in rows[:fits]], line, scale)
        strip = max(4, line // 3)
        bottom = height - strip * len(strips)
        _draw_lines(canvas, lines, bottom, line, scale)
        for i, colours in enumerate(strips):
            canvas[bottom + i * strip :][:strip] = cv2.resize(
                colours[None], (width, strip), interpolation=cv2.INTER_NEAREST
            )
        return canvas


def _lay_over(
    canvas: Pixels, colours: Pixels, alpha: float, window: Window | None, rows: int
) -> None:
    """Mixes colours into a canvas, which is an image of that many rows enlarged by a whole factor."""
    import cv2

    part = canvas
    if window is not None:
        top, left, height, width = window.region
        factor = canvas.shape[0] // rows
        part = canvas[factor * top :, factor * left :][: factor * height, : factor * width]
        colours = window.to_camera(colours, 0)[top : top + height, left : left + width]
    size = (part.shape[1], part.shape[0])
    over = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
    part[:] = cv2.addWeighted(over, alpha, part, 1 - alpha, 0).reshape(part.shape)


def _roomy_copy(image: Pixels) -> Pixels:
    factor = min(-(-_MIN_HEIGHT // image.shape[0]), max(1, _MAX_WIDTH // image.shape[1]))
    if factor > 1:
        return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    return np.array(image, np.uint8, order="C", copy=True)


def _shade(canvas: Pixels, top: int, bottom: int, left: int, right: int) -> None:
    """Darkens a region so that white text on it can be read on any image."""
    import cv2

    region = canvas[max(top, 0) : bottom, left:right]
    if region.size:
        region[:] = cv2.convertScaleAbs(region, alpha=0.35).reshape(region.shape)


def _draw_bars(
    canvas: Pixels, rows: Sequence[tuple[str, float, Colour]], line: int, scale: float
) -> None:
    import cv2

    if not rows:
        return
    panel = min(canvas.shape[1], round(300 * scale / 0.55))
    _shade(canvas, 0, line * len(rows) + line // 4, 0, panel)
    for i, (text, share, colour) in enumerate(rows):
        top = i * line + line // 4
        right = round(min(max(share, 0.0), 1.0) * (panel - 1))
        cv2.rectangle(canvas, (0, top), (right, top + line - 4), colour, cv2.FILLED)
        _put(canvas, text, top + line - 4 - line // 4, panel, scale)


def _draw_lines(canvas: Pixels, lines: Sequence[str], bottom: int, line: int, scale: float) -> None:
    if not lines:
        return
    _shade(canvas, bottom - line * len(lines) - line // 4, bottom, 0, canvas.shape[1])
    for i, text in enumerate(reversed(lines)):
        _put(canvas, text, bottom - line // 3 - i * line, canvas.shape[1], scale)


def _put(canvas: Pixels, text: str, baseline: int, width: int, scale: float) -> None:
    left = max(2, round(6 * scale))
    from robot_vision.charts import lettering  # who serves a head draws nothing

    needed = lettering.width(text, scale)
    if needed > width - 2 * left:  # smaller down to a limit, then cut
        scale = max(scale * (width - 2 * left) / needed, scale * 0.7)
        while len(text) > 4 and lettering.width(text, scale) > width - 2 * left:
            text = text[:-4] + "..." if text.endswith("...") else text[:-3] + "..."
    bold = scale * 1.6 >= 1.5
    # A bar may be as bright as the letters.
    lettering.put(canvas, text, (left, baseline), scale, _WHITE, bold, _BLACK)


def colour_of_name(name: str) -> Colour:
    """Returns a colour that a name has wherever it is drawn."""
    hashed = zlib.crc32(name.encode())
    hue, saturation, value = (
        hashed % 360,
        0.5 + 0.25 * (hashed // 360 % 3),
        0.6 + 0.2 * (hashed // 1080 % 3),
    )
    r, g, b = colorsys.hsv_to_rgb(hue / 360, saturation, min(value, 1.0))
    return round(255 * r), round(255 * g), round(255 * b)


def plain(text: str) -> str:
    """Returns text in the letters that OpenCV's built-in font has: accents are dropped."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or "?"
