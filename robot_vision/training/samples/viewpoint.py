"""Changes of viewpoint whose effect on pose and intrinsics is known exactly: turning and zooming a camera.

Turning a camera about its own centre moves pixels by a homography that no scene depth enters, so the image
that the turned camera would have seen can be made from the one that there is. Moving it cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

Image = NDArray[np.uint8]
Array = NDArray[np.float64]
FILL = (124, 116, 104)  # the mean of ImageNet: zero for the network, after normalisation


@dataclass(frozen=True)
class ViewpointSettings:
    """How far a camera is turned and zoomed.

    Attributes:
        camera_matrix: (fx, fy, cx, cy) in pixels of the images as they come here, which are the network's
            input. Empty: a horizontal field of view of 60 degrees, centred; that is exact for the roll
            where the pixels' aspect is right and the principal point is the centre.
        pixel_aspect: width over height of a pixel, where camera_matrix is empty; not 1 where images were
            squashed.
        roll_deg: largest turn about the optical axis.
        tilt_deg: largest turn about the image's x and y axes. It needs the true camera_matrix.
        zoom: largest factor of the focal length, drawn in [1 / zoom, zoom]; 1 is none. The pose stays
            true, but the camera becomes another one: a network that is to serve one camera learns
            distances from apparent sizes and is misled by it.
    """

    camera_matrix: tuple[float, ...] = ()
    pixel_aspect: float = 1.0
    roll_deg: float = 5.0
    tilt_deg: float = 0.0
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if self.camera_matrix and (
            len(self.camera_matrix) != 4 or min(self.camera_matrix[:2]) <= 0
        ):
            raise ConfigError(f"camera_matrix is {self.camera_matrix}: it must be fx, fy, cx, cy")
        if not 0.05 <= self.pixel_aspect <= 20:
            raise ConfigError(f"pixel_aspect is {self.pixel_aspect!r}: it must be from 0.05 to 20")
        for name, high in (("roll_deg", 180.0), ("tilt_deg", 45.0)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ConfigError(f"{name} is {value!r}: it must be from 0 to {high:g}")
        if not 1 <= self.zoom <= 4:
            raise ConfigError(f"zoom is {self.zoom!r}: it must be from 1 to 4")
        if self.tilt_deg and not self.camera_matrix:
            raise ConfigError("tilt_deg needs the camera's own camera_matrix: give fx, fy, cx, cy")

    @property
    def moves(self) -> bool:
        """Whether anything is turned or zoomed."""
        return bool(self.roll_deg or self.tilt_deg or self.zoom > 1)

    def matrix(self, height: int, width: int) -> Array:
        """Returns K (3, 3) for images of that size. Pixel (0, 0)'s centre is at (0, 0)."""
        focal = 0.5 * width / math.tan(math.radians(30))
        centre = (width - 1) / 2, (height - 1) / 2
        numbers = self.camera_matrix or (focal, focal * self.pixel_aspect, *centre)
        fx, fy, cx, cy = numbers
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def draw_turn(settings: ViewpointSettings, rng: np.random.Generator) -> tuple[Array, float]:
    """Returns a rotation R_camera_turned (3, 3) and a zoom factor."""
    x, y, z, zoom = rng.uniform(-1, 1, 4)
    angles = np.radians([x * settings.tilt_deg, y * settings.tilt_deg, z * settings.roll_deg])
    return np.asarray(cv2.Rodrigues(angles)[0], np.float64), float(settings.zoom**zoom)


def seen_before(K: Array, turned_K: Array, rotation: Array) -> Array:
    """Returns the homography (3, 3) from pixels of a turned and zoomed camera to those of the camera.

    Its third coordinate is by how much further along its axis the camera saw a point than the turned one.

    Args:
        K: (3, 3) of the camera, in pixels.
        turned_K: (3, 3) of the turned one.
        rotation: `R_camera_turned` (3, 3).
    """
    return np.asarray(K @ rotation @ np.linalg.inv(turned_K))


def turn(
    image: Image, T_map_camera: NDArray[Any], K: Array, rotation: Array, zoom: float
) -> tuple[Image, Array, Array]:
    """Returns the image that a turned and zoomed camera sees, its pose, and its K.

    A point that the camera sees at p (its own frame) the turned camera sees at `R^T p`, so pixels move by
    `K' R^T K^-1`, and `T_map_turned = T_map_camera @ R`. What was out of view is filled with one colour.

    Args:
        image: RGB uint8 (H, W, 3).
        T_map_camera: (4, 4); anything, for images without a pose.
        K: (3, 3), in pixels.
        rotation: `R_camera_turned` (3, 3).
        zoom: factor of the focal lengths.
    """
    turned_K = K.copy()
    turned_K[:2, :2] *= zoom
    homography = turned_K @ rotation.T @ np.linalg.inv(K)
    size = (image.shape[1], image.shape[0])
    if zoom < 1:  # shrinking needs smoothing first, or fine texture turns into noise
        sigma = 0.5 * math.sqrt(max(1 / zoom**2 - 1, 0.0))
        image = (
            np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) if sigma > 0.1 else image
        )
    warped = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_LINEAR, borderValue=FILL)
    T_map_turned = np.asarray(T_map_camera, np.float64).copy()
    T_map_turned[:3, :3] = T_map_turned[:3, :3] @ rotation
    return np.asarray(warped, np.uint8), T_map_turned, turned_K
