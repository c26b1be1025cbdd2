"""A picture of a drive: the world from above with the true and the estimated path, and what the robot saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.charts import lettering
from robot_vision.charts.lettering import Colour
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.world import World

Image = NDArray[np.uint8]
_INK, _GREY, _PAPER = (30, 32, 36), (110, 114, 120), (250, 250, 248)
_TRUE, _ESTIMATE, _ERROR = (24, 90, 200), (232, 96, 20), (240, 170, 130)
_JUMP = (190, 30, 110)
_EYE_M = 80.0  # so high that the walls hardly lean
_MARGIN_M = 0.3  # of paper around the rooms


@dataclass(frozen=True)
class PictureShot:
    """One frame of the drive, to be shown next to the map.

    Attributes:
        image: RGB uint8 (H, W, 3).
        title: what the network said, short.
        detail: a second line.
        right: whether it was right; a wrong answer is marked.
        position: (2,) or more, metres: where the camera was.
    """

    image: Image
    title: str
    detail: str
    right: bool
    position: NDArray[np.float64]


class FloorPlan:
    """The world seen from above, without ceilings.

    Args:
        world: what is drawn.
        pixels_per_m: scale.
    """

    def __init__(self, world: World, pixels_per_m: float = 72.0) -> None:
        low, high = world.bounds()
        self._low, self._high, self._scale = low, high, pixels_per_m
        width, height = np.ceil((high - low + 2 * _MARGIN_M) * pixels_per_m).astype(int)
        f = pixels_per_m * _EYE_M
        camera = Camera(int(width), int(height), f, f, (width - 1) / 2, (height - 1) / 2)
        T_map_camera = np.eye(4)
        # x to the right, y up the page, looking down
        T_map_camera[:3, :3] = np.diag([1.0, -1.0, -1.0])
        T_map_camera[:3, 3] = [*(low + high) / 2, _EYE_M]
        image, rooms = Renderer(world, camera).render_with_rooms(T_map_camera)
        image[rooms < 0] = _PAPER
        self.image: Image = image
        for room in world.rooms:
            self._name(room.name, (room.low[0] + 0.85, room.low[1] + 0.4))

    def pixel(self, xy: NDArray[np.float64]) -> tuple[int, int]:
        """Returns the pixel (x, y) of a point on the floor of the map."""
        x = (xy[0] - self._low[0] + _MARGIN_M) * self._scale
        y = (self._high[1] + _MARGIN_M - xy[1]) * self._scale
        return round(float(x)), round(float(y))

    def _name(self, text: str, centre: tuple[float, float]) -> None:
        self._boxed(text, self.pixel(np.array(centre)), 0.6, _INK, 0.75)

    def _boxed(
        self, text: str, centre: tuple[int, int], scale: float, ink: Colour, paper: float
    ) -> None:
        """Writes around a point, on paper that hides that share of what is below."""
        w, (x, y) = lettering.width(text, scale), centre
        box = self.image[max(y - 19, 0) : y + 8, max(x - w // 2 - 8, 0) : x + w // 2 + 8]
        box[:] = ((1 - paper) * box + paper * np.array(_PAPER)).astype(np.uint8)
        lettering.put(self.image, text, (x - w // 2, y), scale, ink)

    def scale_bar(self, metres: int = 2) -> None:
        """Draws a length in the lower right corner."""
        length = round(metres * self._scale)
        right, y = self.image.shape[1] - 14, self.image.shape[0] - 12
        self.image[y - 26 : y + 10, right - length - 8 : right + 10] = _PAPER
        cv2.line(self.image, (right - length, y), (right, y), _INK, 2)
        for x in (right - length, right):
            cv2.line(self.image, (x, y - 5), (x, y + 5), _INK, 2)
        _centred(self.image, f"{metres} m", (right - length // 2, y - 8), 0.5)

    def path(self, positions: NDArray[np.float64]) -> None:
        """Draws the true path (N, 2 or 3) as a line."""
        points = np.array([self.pixel(p) for p in positions], np.int32)
        cv2.polylines(self.image, [points], False, _PAPER, 5, cv2.LINE_AA)
        cv2.polylines(self.image, [points], False, _TRUE, 2, cv2.LINE_AA)

    def jump(self, start: NDArray[np.float64], end: NDArray[np.float64]) -> None:
        """Marks that the camera was carried from one point (2 or 3) to another."""
        a, b = np.array(self.pixel(start), float), np.array(self.pixel(end), float)
        length = max(float(np.linalg.norm(b - a)), 1.0)
        for at in np.arange(0, length - 10, 18):  # dashes
            p, q = a + (b - a) * at / length, a + (b - a) * min(at + 9, length) / length
            cv2.line(self.image, _rounded(p), _rounded(q), _PAPER, 5, cv2.LINE_AA)
            cv2.line(self.image, _rounded(p), _rounded(q), _JUMP, 2, cv2.LINE_AA)
        tail = b - (b - a) * min(24 / length, 1.0)
        cv2.arrowedLine(self.image, _rounded(tail), _rounded(b), _JUMP, 2, cv2.LINE_AA, 0, 0.6)
        x, y = _rounded(a + 0.35 * (b - a))
        self._boxed("kidnapped", (x + 62, y), 0.6, _JUMP, 0.9)

    def estimates(self, true: NDArray[np.float64], estimated: NDArray[np.float64]) -> None:
        """Draws estimates as dots, each joined by a line to where the camera really was."""
        for t, e in zip(true, estimated, strict=True):
            cv2.line(self.image, self.pixel(t), self.pixel(e), _ERROR, 1, cv2.LINE_AA)
        for e in estimated:
            cv2.circle(self.image, self.pixel(e), 3, _ESTIMATE, -1, cv2.LINE_AA)

    def hits(self, positions: NDArray[np.float64]) -> None:
        """Marks where a robot hit something (N, 2)."""
        for position in positions:
            cv2.circle(self.image, self.pixel(position), 6, _JUMP, -1, cv2.LINE_AA)

    def number(self, n: int, position: NDArray[np.float64]) -> None:
        """Marks where a shot was taken."""
        x, y = self.pixel(position)
        cv2.circle(self.image, (x, y), 11, _PAPER, -1, cv2.LINE_AA)
        cv2.circle(self.image, (x, y), 11, _INK, 1, cv2.LINE_AA)
        _centred(self.image, str(n), (x, y + 5), 0.5)


def compose(
    plan: FloorPlan,
    shots: Sequence[PictureShot],
    title: str,
    lines: Sequence[str],
    legend: Callable[[Image, int, int], None] | None = None,
) -> Image:
    """Puts the plan, the shots in two columns, a title and the summary's lines on one page (RGB).

    `legend` draws the legend at a point of the page; by default that of estimated poses.
    """
    for i, shot in enumerate(shots):
        plan.number(i + 1, shot.position)
    pad, head, foot, caption = 16, 52, 20 + 24 * len(lines), 44
    rows = max(-(-len(shots) // 2), 1)
    body = plan.image.shape[0]
    tile_h = (body - (rows - 1) * pad) // rows - caption
    tile_w = tile_h * 4 // 3
    width = plan.image.shape[1] + 2 * (tile_w + pad) + 2 * pad
    page = np.full((head + body + foot + pad, width, 3), _PAPER, np.uint8)
    lettering.put(page, title, (pad, 35), 0.85, _INK, bold=True)
    (legend or _legend)(page, width - 2 * (tile_w + pad) - pad, 30)
    page[head : head + body, pad : pad + plan.image.shape[1]] = plan.image
    for i, shot in enumerate(shots):
        x = pad + plan.image.shape[1] + pad + (i % 2) * (tile_w + pad)
        y = head + (i // 2) * (tile_h + caption + pad)
        small = cv2.resize(shot.image, (tile_w, tile_h), interpolation=cv2.INTER_AREA)
        page[y : y + tile_h, x : x + tile_w] = small
        cv2.rectangle(page, (x, y), (x + 26, y + 24), _PAPER, -1)
        _centred(page, str(i + 1), (x + 12, y + 18), 0.55)
        ink = _INK if shot.right else (200, 30, 30)
        lettering.put(page, shot.title, (x, y + tile_h + 19), 0.5, ink)
        lettering.put(page, shot.detail, (x, y + tile_h + 38), 0.45, _GREY)
    for i, line in enumerate(lines):
        at = (pad, head + body + 28 + 24 * i)
        lettering.put(page, line, at, 0.55, _INK)
    return page


def _rounded(point: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _legend(page: Image, x: int, y: int) -> None:
    cv2.line(page, (x, y - 5), (x + 34, y - 5), _TRUE, 3, cv2.LINE_AA)
    lettering.put(page, "true path", (x + 42, y), 0.5, _INK)
    cv2.line(page, (x + 150, y - 5), (x + 176, y - 5), _ERROR, 1, cv2.LINE_AA)
    cv2.circle(page, (x + 176, y - 5), 4, _ESTIMATE, -1, cv2.LINE_AA)
    text = "estimate from one frame, and its error"
    lettering.put(page, text, (x + 190, y), 0.5, _INK)


def legend_of_driving(page: Image, x: int, y: int) -> None:
    """Explains a path and where the robot hit something."""
    cv2.line(page, (x, y - 5), (x + 34, y - 5), _TRUE, 3, cv2.LINE_AA)
    lettering.put(page, "path", (x + 42, y), 0.5, _INK)
    cv2.circle(page, (x + 110, y - 5), 6, _JUMP, -1, cv2.LINE_AA)
    text = "collision; then it was carried to where it has room"
    lettering.put(page, text, (x + 124, y), 0.5, _INK)


def _centred(image: Image, text: str, at: tuple[int, int], scale: float) -> None:
    w = lettering.width(text, scale)
    lettering.put(image, text, (at[0] - w // 2, at[1]), scale, _INK)
