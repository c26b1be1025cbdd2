"""The keyframes of a place map as they are seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.images.canvas import colour_of_name
from robot_vision.viewing.scene import Scene

MAP = "/map"
_AHEAD_M = 0.3  # length of the line that says where a keyframe looks


def show_keyframes(
    scene: Scene,
    frame: str,
    ids: NDArray[np.int64],
    positions: NDArray[np.float64],
    quaternions_xyzw: NDArray[np.float64],
    sources: Sequence[str],
) -> None:
    """Shows where keyframes are, by the recordings that they come from, and where they look.

    Args:
        scene: that they are shown in.
        frame: of the map.
        ids: of the keyframes (n,).
        positions: (n, 3), metres.
        quaternions_xyzw: (n, 4), of the cameras.
        sources: names of the recordings (n,).
    """
    ahead = matrix_from_xyzw(quaternions_xyzw)[:, :, 2]
    owners = np.array(sources)
    for source in dict.fromkeys(sources):
        rows = np.flatnonzero(owners == source)
        colour = colour_of_name(source)
        entity = f"{MAP}/{scene.part(source)}"
        start = positions[rows]
        names = [str(ids[row]) for row in rows]
        scene.points(entity, frame, start, colour, names, static=True)
        looks = list(np.stack([start, start + _AHEAD_M * ahead[rows]], axis=1))
        scene.lines(f"{entity}/ahead", frame, looks, [colour] * len(rows), static=True)
