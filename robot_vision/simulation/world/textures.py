"""Procedural textures: a finish and a size in metres become pixels, always the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.errors import ConfigError, unknown
from robot_vision.simulation.world.world import Finish

Image = NDArray[np.uint8]
Painter = Callable[["TextureCanvas"], None]


class TextureCanvas:
    """An RGB texture while it is painted; lengths are in metres from its top left corner."""

    def __init__(
        self, finish: Finish, width: float, height: float, density: float, seed: int
    ) -> None:
        self.finish, self.width, self.height, self.density = finish, width, height, density
        self.rng = np.random.default_rng(seed)
        shape = (max(round(height * density), 4), max(round(width * density), 4), 3)
        self.image: Image = np.full(shape, finish.colour, np.uint8)

    def px(self, x: float, y: float) -> tuple[int, int]:
        """Returns the pixel of a point."""
        return round(x * self.density), round(y * self.density)

    def rect(
        self, x: float, y: float, w: float, h: float, colour: ArrayLike, line: int = -1
    ) -> None:
        """Draws a rectangle, filled unless `line` gives a thickness in pixels."""
        x1, y1 = self.px(x + w, y + h)
        cv2.rectangle(self.image, self.px(x, y), (x1 - 1, y1 - 1), _rgb(colour), line)

    def tint(self, amount: float, base: ArrayLike | None = None) -> tuple[int, int, int]:
        """Returns a colour near `base` (default: the finish's), darker or lighter by chance."""
        colour = self.finish.colour if base is None else base
        return _rgb(np.multiply(colour, 1 + self.rng.uniform(-amount, amount)))

    def noise(self, amount: float, cell: float) -> None:
        """Multiplies by smooth noise of relative size `amount` and grain `cell` metres."""
        h, w = self.image.shape[:2]
        step = max(cell * self.density, 1.0)
        coarse = self.rng.normal(1, amount, (int(h / step) + 2, int(w / step) + 2)).astype(
            np.float32
        )
        field = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
        self.image = np.clip(self.image * field[..., None], 0, 255).astype(np.uint8)


def paint(finish: Finish, width: float, height: float, density: float, seed: int) -> Image:
    """Paints a finish.

    Args:
        finish: style and colours.
        width: metres.
        height: metres.
        density: pixels a metre.
        seed: of whatever is random in the style.

    Returns:
        RGB uint8 (round(height * density), round(width * density), 3), at least 4 x 4.

    Raises:
        ConfigError: the style is unknown.
    """
    painter = STYLES.get(finish.style)
    if painter is None:
        raise ConfigError(unknown("style of a finish", finish.style, STYLES))
    canvas = TextureCanvas(finish, width, height, density, seed)
    painter(canvas)
    return canvas.image


def _rgb(colour: ArrayLike) -> tuple[int, int, int]:
    r, g, b = np.clip(colour, 0, 255)
    return int(r), int(g), int(b)


def _plain(c: TextureCanvas) -> None:
    pass


def _plaster(c: TextureCanvas) -> None:
    c.noise(0.03, 0.3)
    c.noise(0.02, 0.04)


def _concrete(c: TextureCanvas) -> None:
    for _ in range(int(c.width * c.height * 3)):  # stains
        x, y = c.px(c.rng.uniform(0, c.width), c.rng.uniform(0, c.height))
        cv2.circle(c.image, (x, y), int(c.rng.integers(2, 16)), c.tint(0.12), -1)
    c.noise(0.06, 0.5)
    c.noise(0.05, 0.03)
    for joint in np.arange(1.5, c.width, 1.5):
        c.rect(joint, 0, 0.02, c.height, c.finish.accent)


def _carpet(c: TextureCanvas) -> None:
    for x in np.arange(0, c.width, 0.5):
        for y in np.arange(0, c.height, 0.5):
            c.rect(x, y, 0.5, 0.5, c.tint(0.14))
    c.noise(0.1, 0.02)


def _grid(
    c: TextureCanvas, w: float, h: float, joint: float, spread: float, offset: float = 0.0
) -> None:
    c.image[:] = c.finish.accent
    for row, y in enumerate(np.arange(0, c.height, h)):
        shift = offset * w * (row % 2)
        for x in np.arange(-shift, c.width, w):
            c.rect(x + joint / 2, y + joint / 2, w - joint, h - joint, c.tint(spread))


def _tiles(c: TextureCanvas) -> None:
    _grid(c, 0.25, 0.25, 0.02, 0.04)


def _bricks(c: TextureCanvas) -> None:
    _grid(c, 0.3, 0.12, 0.02, 0.2, 0.5)
    c.noise(0.05, 0.03)


def _panels(c: TextureCanvas) -> None:
    _grid(c, 0.6, 0.6, 0.03, 0.03)


def _planks(c: TextureCanvas) -> None:
    along = c.width >= c.height
    long, short = (c.width, c.height) if along else (c.height, c.width)
    for s in np.arange(0, short, 0.16):
        start = -c.rng.uniform(0, 1.4)
        while start < long:
            length = c.rng.uniform(0.8, 1.6)
            x, y, w, h = (start, s, length, 0.155) if along else (s, start, 0.155, length)
            c.rect(x, y, w, h, c.tint(0.16))
            c.rect(x, y, w, h, c.finish.accent, 1)
            start += length
    c.noise(0.05, 0.03)


def _checker(c: TextureCanvas) -> None:
    for i, x in enumerate(np.arange(0, c.width, 0.4)):
        for j, y in enumerate(np.arange(0, c.height, 0.4)):
            c.rect(
                x, y, 0.4, 0.4, c.tint(0.05, c.finish.colour if (i + j) % 2 else c.finish.accent)
            )


def _terrazzo(c: TextureCanvas) -> None:
    for _ in range(int(c.width * c.height * 250)):
        x, y = c.px(c.rng.uniform(0, c.width), c.rng.uniform(0, c.height))
        cv2.circle(c.image, (x, y), 1, c.tint(0.4, c.finish.accent), -1)


def _stripes(c: TextureCanvas) -> None:
    for x in np.arange(0, c.width, 0.4):
        c.rect(x, 0, 0.2, c.height, c.finish.accent)
    c.rect(0, c.height - 0.12, c.width, 0.12, (236, 236, 232))


def _wallpaper(c: TextureCanvas) -> None:
    for j, y in enumerate(np.arange(0.15, c.height, 0.3)):
        for x in np.arange(0.15 + 0.15 * (j % 2), c.width, 0.3):
            cv2.ellipse(c.image, c.px(x, y), (4, 7), 0, 0, 360, c.finish.accent, -1)
    c.rect(0, c.height - 0.1, c.width, 0.1, (244, 240, 232))


def _wainscot(c: TextureCanvas) -> None:
    c.noise(0.02, 0.3)
    top = max(c.height - 1.0, 0.0)
    c.rect(0, top, c.width, 1.0, c.finish.accent)
    for x in np.arange(0.1, c.width, 0.5):
        c.rect(x, top + 0.15, 0.3, 0.65, c.tint(0.05, np.multiply(c.finish.accent, 1.2)))
    c.rect(0, top - 0.04, c.width, 0.04, (150, 130, 90))


def _runner(c: TextureCanvas) -> None:
    c.image[:] = c.finish.accent
    c.noise(0.06, 0.05)
    c.rect(0, c.height / 2 - 0.5, c.width, 1.0, c.finish.colour)
    for x in np.arange(0.3, c.width, 0.6):
        diamond = [
            c.px(x + dx, c.height / 2 + dy) for dx, dy in ((-0.2, 0), (0, -0.3), (0.2, 0), (0, 0.3))
        ]
        cv2.fillConvexPoly(c.image, np.array(diamond), c.tint(0.4, (210, 170, 90)))
    for edge in (-0.5, 0.44):
        c.rect(0, c.height / 2 + edge, c.width, 0.06, (226, 196, 130))


def _cabinet(c: TextureCanvas) -> None:
    count = max(round(c.width / 0.55), 1)
    step = c.width / count
    for i in range(count):
        c.rect(i * step, 0, step, c.height, np.multiply(c.finish.colour, 0.6), 1)
        c.rect(i * step + 0.06, 0.08, step - 0.12, c.height - 0.2, c.tint(0.08), -1)
        handle = i * step + (step - 0.1 if i % 2 == 0 else 0.06)
        c.rect(handle, c.height * 0.35, 0.035, 0.2, c.finish.accent)
    c.rect(0, c.height - 0.08, c.width, 0.08, (50, 50, 50))


def _drawers(c: TextureCanvas) -> None:
    for y in np.arange(0, c.height - 0.1, 0.24):
        for x in np.arange(0, c.width, 0.8):
            w = min(0.8, c.width - x)
            c.rect(x, y, w, 0.24, c.tint(0.07))
            c.rect(x, y, w, 0.24, np.multiply(c.finish.colour, 0.55), 1)
            c.rect(x + w / 2 - 0.1, y + 0.08, 0.2, 0.04, c.finish.accent)


def _fridge(c: TextureCanvas) -> None:
    c.rect(0, c.height * 0.36, c.width, 0.03, c.finish.accent)
    c.rect(0.06, 0.2, 0.04, 0.4, c.finish.accent)
    c.rect(0.06, c.height * 0.45, 0.04, 0.5, c.finish.accent)
    for _ in range(6):  # notes and magnets
        x, y = c.rng.uniform(0.15, max(c.width - 0.2, 0.2)), c.rng.uniform(0.1, 0.55)
        c.rect(x, y, 0.1, 0.1, c.rng.integers(60, 255, 3))


def _oven(c: TextureCanvas) -> None:
    c.rect(0.04, 0.06, c.width - 0.14, c.height - 0.12, c.finish.accent)
    c.rect(0.07, 0.09, c.width - 0.2, c.height - 0.18, (70, 40, 30))


def _screen(c: TextureCanvas) -> None:
    c.rect(0, 0, c.width, c.height, (20, 20, 22), 2)
    for y in np.arange(0.05, c.height - 0.05, 0.05):
        c.rect(0.05 + 0.05 * c.rng.integers(0, 3), y, c.rng.uniform(0.1, 0.4) * c.width, 0.02,
               c.tint(0.3, c.finish.accent))  # fmt: skip


def _books(c: TextureCanvas) -> None:
    c.image[:] = c.finish.accent
    for y in np.arange(0.04, c.height - 0.2, 0.33):
        x = 0.04
        while x < c.width - 0.06:
            w, h = c.rng.uniform(0.03, 0.08), c.rng.uniform(0.2, 0.28)
            if c.rng.random() < 0.9:
                c.rect(x, y + 0.29 - h, w, h, c.rng.integers(40, 230, 3))
            x += w
        c.rect(0, y + 0.29, c.width, 0.03, c.finish.colour)


def _shelf(c: TextureCanvas) -> None:
    c.image[:] = (70, 72, 76)
    for y in np.arange(0.05, c.height - 0.3, 0.45):
        for x in np.arange(0.05, c.width - 0.2, 0.3):
            base = c.finish.accent if c.rng.random() < 0.6 else (220, 140, 40)
            c.rect(x, y + 0.12, 0.24, 0.28, c.tint(0.3, base))
        c.rect(0, y + 0.4, c.width, 0.04, c.finish.colour)


def _crate(c: TextureCanvas) -> None:
    _planks(c)
    c.rect(0, 0, c.width, c.height, c.finish.accent, 4)
    cv2.line(c.image, (0, 0), c.px(c.width, c.height), c.finish.accent, 4)


def _hazard(c: TextureCanvas) -> None:
    for x in np.arange(-c.height, c.width, 0.4):
        slant = [(x, c.height), (x + 0.2, c.height), (x + 0.2 + c.height, 0), (x + c.height, 0)]
        cv2.fillConvexPoly(c.image, np.array([c.px(*p) for p in slant]), c.finish.accent)


def _pegboard(c: TextureCanvas) -> None:
    for x in np.arange(0.1, c.width, 0.1):
        for y in np.arange(0.1, c.height, 0.1):
            cv2.circle(c.image, c.px(x, y), 1, (120, 104, 76), -1)
    for x in np.arange(0.12, c.width - 0.15, 0.22):  # tools
        y, h = c.rng.uniform(0.1, 0.25), c.rng.uniform(0.3, 0.6)
        c.rect(x + 0.04, y, 0.05, h, c.finish.accent)
        c.rect(
            x,
            y,
            0.13,
            0.1,
            c.rng.choice([(200, 40, 40), (40, 80, 180), (230, 180, 30), (60, 60, 60)]),
        )


def _quilt(c: TextureCanvas) -> None:
    for i, x in enumerate(np.arange(0, c.width, 0.3)):
        for j, y in enumerate(np.arange(0, c.height, 0.3)):
            c.rect(
                x,
                y,
                0.3,
                0.3,
                c.tint(0.1, c.finish.accent if (i + j) % 3 == 0 else c.finish.colour),
            )


def _foliage(c: TextureCanvas) -> None:
    for _ in range(int(c.width * c.height * 900) + 20):
        x, y = c.px(c.rng.uniform(0, c.width), c.rng.uniform(0, c.height))
        angle = float(c.rng.uniform(0, 360))
        colour = c.tint(0.4, c.finish.colour if c.rng.random() < 0.7 else c.finish.accent)
        cv2.ellipse(c.image, (x, y), (5, 2), angle, 0, 360, colour, -1)


def _frame(c: TextureCanvas) -> None:
    c.rect(0, 0, c.width, 0.05, c.finish.accent)
    c.rect(0, c.height - 0.05, c.width, 0.05, c.finish.accent)
    c.rect(0, 0, 0.05, c.height, c.finish.accent)
    c.rect(c.width - 0.05, 0, 0.05, c.height, c.finish.accent)


def _art(c: TextureCanvas) -> None:
    palette = [c.finish.colour, *(_rgb(p) for p in c.rng.integers(30, 250, (4, 3)))]
    for _ in range(14):
        x, y = c.px(c.rng.uniform(0, c.width), c.rng.uniform(0, c.height))
        colour = palette[c.rng.integers(len(palette))]
        size = int(c.rng.uniform(0.08, 0.3) * c.density)
        if c.rng.random() < 0.5:
            cv2.circle(c.image, (x, y), size, colour, -1)
        else:
            points = np.array([x, y]) + c.rng.integers(-size, size + 1, (3, 2)) * 2
            cv2.fillConvexPoly(c.image, points.astype(np.int32), colour)
    _frame(c)


def _window(c: TextureCanvas) -> None:
    h = c.image.shape[0]
    fade = np.linspace(1.1, 0.85, h)[:, None, None]
    c.image = np.clip(c.image * fade, 0, 255).astype(np.uint8)
    horizon = c.height * 0.68
    for x in np.arange(0, c.width, 0.12):  # trees
        r = int(c.rng.uniform(0.08, 0.2) * c.density)
        cv2.circle(c.image, c.px(x, horizon), r, c.tint(0.3, (80, 110, 70)), -1)
    c.rect(0, horizon, c.width, c.height - horizon, np.multiply(c.finish.colour, (0.5, 0.6, 0.4)))
    c.rect(c.width / 2 - 0.025, 0, 0.05, c.height, c.finish.accent)
    _frame(c)


def _mirror(c: TextureCanvas) -> None:
    for x in np.arange(-c.height, c.width, 0.35):
        cv2.line(c.image, c.px(x, c.height), c.px(x + c.height, 0), c.tint(0.1), 5)
    _frame(c)


def _whiteboard(c: TextureCanvas) -> None:
    for y in np.arange(0.15, c.height - 0.1, 0.14):
        x = 0.12
        while x < c.width * 0.6:
            w = c.rng.uniform(0.04, 0.16)
            c.rect(x, y, w, 0.03, c.finish.accent)
            x += w + 0.05
    cv2.circle(
        c.image, c.px(c.width * 0.8, c.height * 0.4), int(0.16 * c.density), (200, 50, 50), 2
    )
    c.rect(c.width * 0.7, c.height * 0.65, 0.35, 0.18, (40, 140, 70), 2)
    c.rect(0, 0, c.width, c.height, (150, 154, 158), 3)


def _chart(c: TextureCanvas) -> None:
    for i, x in enumerate(np.arange(0.1, c.width - 0.12, 0.16)):
        h = c.rng.uniform(0.15, 0.75) * (c.height - 0.25)
        c.rect(x, c.height - 0.1 - h, 0.1, h, c.finish.accent if i % 2 else (70, 74, 80))
    c.rect(0.06, c.height - 0.1, c.width - 0.12, 0.02, (40, 40, 40))
    c.rect(0, 0, c.width, c.height, (90, 90, 90), 2)


STYLES: dict[str, Painter] = {
    "plain": _plain, "plaster": _plaster, "concrete": _concrete, "carpet": _carpet, "tiles": _tiles,
    "bricks": _bricks, "panels": _panels, "planks": _planks, "checker": _checker,
    "terrazzo": _terrazzo, "stripes": _stripes, "wallpaper": _wallpaper, "wainscot": _wainscot,
    "runner": _runner, "cabinet": _cabinet, "drawers": _drawers, "fridge": _fridge, "oven": _oven,
    "screen": _screen, "books": _books, "shelf": _shelf, "crate": _crate, "hazard": _hazard,
    "pegboard": _pegboard, "quilt": _quilt, "foliage": _foliage, "art": _art, "window": _window,
    "mirror": _mirror, "whiteboard": _whiteboard, "chart": _chart,
}  # fmt: skip
