"""Teach and repeat without a map: the taught commands again, corrected by the nearest taught image.

Zhang & Kleeman (2009), "Robust Appearance Based Visual Route Following for Navigation in Large-scale Outdoor
Environments": the taught image that is most like the present one, near where the robot was, by the normalised
cross-correlation over horizontal shifts; the shift says where to turn. Departures: the images are pinhole
ones, not panoramas, and the taught speed and turn rate are driven, as Krajnik et al. (2018), "Navigation
without localisation", do, not a course between taught images by odometry.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

VIEW = 90, 120  # height and width of an image that is compared
_PATCH = 15  # pixels over which brightness and contrast are evened out
_TEMPLATE = 0.5  # share of a taught image's width that is looked for
_BACK, _AHEAD = 2, 6  # taught images, from where the robot was last
_GAIN = 1.5  # rad/s for each radian
_RATE_HZ = 10.0  # of the taught images


def small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an RGB image (H, W, 3) as `VIEW`, grey."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, VIEW[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _even(view: NDArray[np.uint8]) -> NDArray[np.float32]:
    found = view.astype(np.float32)
    mean = cv2.blur(found, (_PATCH, _PATCH))
    spread = cv2.blur((found - mean) ** 2, (_PATCH, _PATCH))
    return np.asarray((found - mean) / np.sqrt(spread + 4.0), np.float32)


class NearestImage:
    """Steers by the nearest taught image.

    Args:
        views: (n, `VIEW`) uint8, the taught ones, ten a second.
        poses: (n, 3) x, y and yaw by the odometry of the taught drive, metres and radians.
        focal: of the camera, by its image's width.
    """

    def __init__(self, views: NDArray[np.uint8], poses: NDArray[np.float64], focal: float) -> None:
        width = VIEW[1]
        margin = round(width * (1 - _TEMPLATE) / 2)
        self._taught = [np.ascontiguousarray(_even(v)[:, margin : width - margin]) for v in views]
        self._focal, self._margin = focal * width, margin
        steps = np.diff(poses, axis=0, append=poses[-1:])
        self._speed = np.hypot(steps[:, 0], steps[:, 1]) * _RATE_HZ
        self._turn = steps[:, 2] * _RATE_HZ
        self._at: int | None = None

    @property
    def left(self) -> int:
        """Taught images that are left."""
        return len(self._taught) - 1 - (self._at or 0)

    def drive(self, image: NDArray[np.uint8]) -> tuple[float, float]:
        """Takes an image (H, W, 3) and returns the speed, m/s, and the turn rate, rad/s."""
        now = _even(small(image))
        low, high = 0, len(self._taught)
        if self._at is not None:
            low, high = max(self._at - _BACK, 0), min(self._at + _AHEAD + 1, high)
        best, shift = -1.0, 0
        for i in range(low, high):
            _, score, _, (x, _) = cv2.minMaxLoc(
                cv2.matchTemplate(now, self._taught[i], cv2.TM_CCOEFF_NORMED)
            )
            if score > best:
                best, shift, self._at = score, x - self._margin, i
        assert self._at is not None
        turned = math.atan2(shift, self._focal)  # what was ahead is to the right by that
        return float(self._speed[self._at]), float(self._turn[self._at]) - _GAIN * turned
