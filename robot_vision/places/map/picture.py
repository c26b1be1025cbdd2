"""A map from above: keyframes by their sources, where they look, and what they cover."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry import rigid as geometry
from robot_vision.places.map.base import PlaceMap
from robot_vision.words import counted

_MARGIN = 70
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _GRID, _COVER = (60, 60, 60), (228, 228, 228), (214, 232, 214)
# RGB, distinguishable by people who cannot tell red from green (Okabe and Ito).
_COLOURS = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
)  # fmt: skip
_LEGEND = 12
_MOST_ARROWS = 2000


def ground_axes(rotations: NDArray[np.float64]) -> tuple[int, int, bool]:
    """Returns the map's axes to draw rightwards and upwards, and whether the second is flipped.

    Up is the axis that the cameras' up (-y) is nearest to on average, so that maps with z up and those of
    a hand-held camera's first frame both are seen from above.
    """
    mean = -rotations[:, :, 1].mean(axis=0)
    axis = int(np.abs(mean).argmax())
    a, b = (i for i in range(3) if i != axis)
    up = np.sign(mean[axis]) * np.eye(3)[axis]
    return a, b, bool(np.cross(np.eye(3)[a], np.eye(3)[b]) @ up < 0)


def draw_map(
    places: PlaceMap, size: int = 1000, sight_m: float = 3.0, field_deg: float = 60.0
) -> NDArray[np.uint8]:
    """Returns RGB uint8 (size, size, 3).

    Args:
        places: the map.
        size: pixels a side.
        sight_m: how far a keyframe is taken to cover what it looks at.
        field_deg: and how wide.
    """
    picture = np.full((size, size, 3), 255, np.uint8)
    poses, info = places.poses(), places.info
    title = (
        f"{counted(len(poses.ids), 'keyframe')} of {info.bundle_name} in frame {info.frame_id!r}"
    )
    if not len(poses.ids):
        _write(picture, f"{title}: the map is empty", (12, 24))
        return picture
    rotations = geometry.matrix_from_xyzw(poses.quaternions_xyzw)
    a, b, flipped = ground_axes(rotations)
    points = poses.positions[:, [a, b]]
    looks = rotations[:, [a, b], 2]
    seen = np.vstack((points, points + looks * sight_m))
    low, high = seen.min(axis=0), seen.max(axis=0)
    extent = max(float((high - low).max()), 1.0)
    scale = (size - 2 * _MARGIN) / extent  # pixels a metre
    turn = np.array([scale, scale if flipped else -scale])
    pixels = size / 2 + (points - (low + high) / 2) * turn
    directions = looks * np.sign(turn)
    _cover(picture, pixels, directions, sight_m * scale, field_deg)
    _ruler(picture, scale, size)
    sources = list(dict.fromkeys(poses.sources))
    colours = {s: _COLOURS[i % len(_COLOURS)] for i, s in enumerate(sources)}
    step = max(1, len(pixels) // _MOST_ARROWS)
    for i in range(0, len(pixels), step):
        end = pixels[i] + directions[i] * 14
        cv2.line(picture, _at(pixels[i]), _at(end), colours[poses.sources[i]], 1, cv2.LINE_AA)
    for i, pixel in enumerate(pixels):
        cv2.circle(picture, _at(pixel), 3, colours[poses.sources[i]], -1, cv2.LINE_AA)
    _write(picture, title, (12, 24))
    _write(picture, f"right: {'xyz'[a]}, up: {'-' if flipped else ''}{'xyz'[b]}", (12, size - 12))
    counts = {s: poses.sources.count(s) for s in sources[:_LEGEND]}
    for line, (source, count) in enumerate(counts.items()):
        _write(picture, f"{source} ({count})", (12, 46 + 18 * line), colours[source])
    if len(sources) > _LEGEND:
        _write(picture, f"and {len(sources) - _LEGEND} more", (12, 46 + 18 * _LEGEND))
    return picture


def _cover(
    picture: NDArray[np.uint8],
    pixels: NDArray[np.float64],
    directions: NDArray[np.float64],
    reach: float,
    field_deg: float,
) -> None:
    """Shades what keyframes look at; a camera that looks up or down covers what is around it."""
    for pixel, direction in zip(pixels, directions, strict=True):
        length = float(np.hypot(*direction))
        yaw = math.degrees(math.atan2(direction[1], direction[0]))
        half = field_deg / 2 if length > 0.3 else 180.0
        radius = max(1, round(reach * max(length, 0.3)))
        cv2.ellipse(picture, _at(pixel), (radius, radius), 0.0, yaw - half, yaw + half, _COVER, -1)


def _ruler(picture: NDArray[np.uint8], scale: float, size: int) -> None:
    """Draws a bar of a round length."""
    wanted = 0.2 * size / scale
    power = 10.0 ** math.floor(math.log10(wanted))
    metres = max(m * power for m in (1, 2, 5) if m * power <= wanted)
    right, y = size - 20, size - 24
    left = round(right - metres * scale)
    cv2.line(picture, (left, y), (right, y), _INK, 2)
    for x in (left, right):
        cv2.line(picture, (x, y - 5), (x, y + 5), _INK, 2)
    _write(picture, f"{metres:g} m", (left, y - 10))


def _at(pixel: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(pixel[0])), round(float(pixel[1]))


def _write(
    picture: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    colour: tuple[int, int, int] = _INK,
) -> None:
    # OpenCV's font has ASCII only.
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(picture, ascii_text, at, _FONT, 0.5, colour, 1, cv2.LINE_AA)
