"""A map from above: keyframes by their sources, where they look, and what they cover."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.lettering import Colour
from robot_vision.charts.paths import INK, FromAbove, at, write
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.places.map.base import PlaceMap
from robot_vision.text.counts import counted

_COVER = (214, 232, 214)
# RGB, distinguishable by people who cannot tell red from green (Okabe and Ito).
_COLOURS = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
)  # fmt: skip
_LEGEND = 12


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
    poses, info = places.poses(), places.info
    title = (
        f"{counted(len(poses.ids), 'keyframe')} of {info.bundle_name} in frame {info.frame_id!r}"
    )
    if not len(poses.ids):
        empty = np.full((size, size, 3), 255, np.uint8)
        write(empty, f"{title}: the map is empty", (12, 24))
        return empty
    page = FromAbove(poses.positions, matrix_from_xyzw(poses.quaternions_xyzw), size, sight_m)
    _cover(page, sight_m, field_deg)
    sources = list(dict.fromkeys(poses.sources))
    colours = {s: _COLOURS[i % len(_COLOURS)] for i, s in enumerate(sources)}
    for source in sources:
        page.cameras(np.flatnonzero(np.array(poses.sources) == source), colours[source])
    texts = [f"{source} ({poses.sources.count(source)})" for source in sources[:_LEGEND]]
    if len(sources) > _LEGEND:
        texts.append(f"and {len(sources) - _LEGEND} more recordings")
    for line, text in enumerate(texts):
        y = 46 + 18 * line
        if line < _LEGEND:
            _keyframe(page.image, (20, y - 5), colours[sources[line]])
        write(page.image, text, (48, y))
    y = 46 + 18 * len(texts)
    page.image[y - 12 : y + 2, 12:40] = _COVER
    write(page.image, f"seen by a keyframe: up to {sight_m:g} m, {field_deg:g} deg wide", (48, y))
    write(page.image, "dot and line: a keyframe, and where it looks", (48, y + 18))
    _keyframe(page.image, (20, y + 13), INK)
    return page.finish(title)


def _keyframe(image: NDArray[np.uint8], where: tuple[int, int], colour: Colour) -> None:
    """Draws a keyframe of the legend as the page draws those of the map."""
    cv2.line(image, where, (where[0] + 14, where[1]), colour, 1, cv2.LINE_AA)
    cv2.circle(image, where, 3, colour, -1, cv2.LINE_AA)


def _cover(page: FromAbove, sight_m: float, field_deg: float) -> None:
    """Shades what keyframes look at; a camera that looks up or down covers what is around it."""
    for pixel, direction in zip(page.pixels, page.directions, strict=True):
        length = float(np.hypot(*direction))
        yaw = math.degrees(math.atan2(direction[1], direction[0]))
        half = field_deg / 2 if length > 0.3 else 180.0
        radius = max(1, round(page.scale * sight_m * max(length, 0.3)))
        ends = (0.0, yaw - half, yaw + half)
        cv2.ellipse(page.image, at(pixel), (radius, radius), *ends, _COVER, -1)
