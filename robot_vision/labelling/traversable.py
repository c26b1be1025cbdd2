"""Which pixels show where the robot went next, and which show what it could not have passed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.labelling.outline import Outline
from robot_vision.truth.pixel_classes import NO_CLASS

CLASSES = (("traversable", (60, 160, 60)), ("obstacle", (200, 40, 60)))
_TRAVERSABLE, _OBSTACLE = range(len(CLASSES))
_CELL_M = 0.02


def pixels_of_way(
    points: NDArray[np.float32],
    size: tuple[int, int],
    way: NDArray[np.float64],
    outline: Outline,
    reach_m: float,
) -> NDArray[np.uint8]:
    """Returns the class of each pixel of a depth image, 255 where the way says nothing.

    A pixel is traversable where the point that was measured there is floor that the robot drove over: what
    hides it is nearer, and is not floor. It is an obstacle where the point is as high as one.

    Args:
        points: (3, n) of the pixels in base; NaN where nothing was measured.
        size: (height, width) of the image.
        way: (m, 4, 4) where base was from this image on; see `Motion.way`.
        outline: of the robot; floor is nearer to its base's plane than `low_m`.
        reach_m: farther points are of no class, since depth is not sure enough there.
    """
    x, y, z = points
    classes = np.full(size[0] * size[1], NO_CLASS, np.uint8)
    with np.errstate(invalid="ignore"):  # of NaN, which compares false
        near = np.hypot(x, y) <= reach_m
        floor = np.flatnonzero(near & (np.abs(z) < outline.low_m))
        classes[near & (z >= outline.low_m) & (z <= outline.high_m)] = _OBSTACLE
    side = int(np.ceil(reach_m / _CELL_M))
    swept = np.zeros((2 * side + 1, 2 * side + 1), np.uint8)  # rows to the left, columns ahead
    places = np.rint(way[:, [0, 1], 3] / _CELL_M).astype(np.int32) + side
    width = max(1, round(outline.width_m / _CELL_M))
    if len(places) > 1:
        cv2.polylines(swept, [places.reshape(-1, 1, 2)], False, 1, width)
    rows = np.rint(y[floor] / _CELL_M).astype(np.intp) + side
    columns = np.rint(x[floor] / _CELL_M).astype(np.intp) + side
    classes[floor[swept[rows, columns] > 0]] = _TRAVERSABLE
    return classes.reshape(size)
