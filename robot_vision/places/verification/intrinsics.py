"""A camera's intrinsics: from pixels of a lens that distorts to rays, for any image that the camera gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown

Array = NDArray[np.float64]

MODELS = ("plumb_bob", "rational_polynomial", "equidistant")
_MOST = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 4, 5, 8, 12, 14), "equidistant": (0, 4)}


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """A pinhole camera behind a lens, as sensor_msgs/CameraInfo describes it.

    Attributes:
        width: of the images in pixels.
        height: likewise.
        K: float64 (3, 3), pixels; no skew.
        distortion: float64 (n,), coefficients of the model; empty for rectified images.
        model: `plumb_bob`, `rational_polynomial` or `equidistant` (fisheye).

    Raises:
        ConfigError: numbers that no camera has.
    """

    width: int
    height: int
    K: Array
    distortion: Array
    model: str = "plumb_bob"

    def __post_init__(self) -> None:
        K, d = np.asarray(self.K, np.float64), np.asarray(self.distortion, np.float64).ravel()
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "distortion", d)
        if self.width < 16 or self.height < 16:
            raise ConfigError(f"Camera image of {self.width} x {self.height} is too small")
        if K.shape != (3, 3) or not np.all(np.isfinite(K)) or not np.allclose(K[2], (0, 0, 1)):
            raise ConfigError(f"Camera matrix {K.tolist()}: give [fx 0 cx, 0 fy cy, 0 0 1]")
        fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        side = max(self.width, self.height)
        if not (0.1 * side < fx < 20 * side and 0.5 < fx / fy < 2 if fy > 0 else False):
            raise ConfigError(
                f"Camera matrix has fx {fx:g} and fy {fy:g} for {self.width} x {self.height} pixels: "
                "calibrate the camera; all zeros in a CameraInfo mean that nobody has"
            )
        if not (0 < cx < self.width and 0 < cy < self.height):
            raise ConfigError(
                f"Camera matrix has its centre ({cx:g}, {cy:g}) outside of the image of "
                f"{self.width} x {self.height}: it belongs to another resolution"
            )
        if self.model not in MODELS:
            raise ConfigError(unknown("distortion model", self.model, MODELS))
        if len(d) not in _MOST[self.model] or not np.all(np.isfinite(d)):
            raise ConfigError(
                f"Distortion {d.tolist()}: {self.model} has {_MOST[self.model]} finite numbers"
            )

    @classmethod
    def of_matrix(cls, K: NDArray[Any], width: int, height: int) -> Intrinsics:
        """Returns those of rectified images."""
        return cls(width, height, np.asarray(K, np.float64), np.zeros(0))

    @classmethod
    def from_camera_info(cls, message: Any) -> Intrinsics:
        """Returns those of a CameraInfo of raw images, from ROS or a bag.

        Raises:
            ConfigError: an uncalibrated camera, or a distortion model that is not known.
        """
        K = np.array(getattr(message, "k", None) if hasattr(message, "k") else message.K)
        d = np.array(getattr(message, "d", None) if hasattr(message, "d") else message.D)
        model = str(message.distortion_model) or "plumb_bob"
        model = {"fisheye": "equidistant"}.get(model, model)
        return cls(int(message.width), int(message.height), K.reshape(3, 3), d, model)

    def rays(self, pixels: NDArray[Any]) -> Array:
        """Returns x / z and y / z (N, 2) of pixels (N, 2), undistorted."""
        points = np.ascontiguousarray(pixels, np.float64).reshape(-1, 1, 2)
        if not len(points):
            return np.zeros((0, 2))
        if self.model == "equidistant" and len(self.distortion):
            found = cv2.fisheye.undistortPoints(points, self.K, self.distortion)
        elif len(self.distortion):
            found = cv2.undistortPoints(points, self.K, self.distortion)
        else:
            centre, focal = self.K[:2, 2], self.K[[0, 1], [0, 1]]
            return np.asarray((points[:, 0] - centre) / focal)
        return np.asarray(found, np.float64).reshape(-1, 2)

    @property
    def focal(self) -> float:
        """The mean focal length in pixels: what turns an angle into an error in pixels."""
        return float((self.K[0, 0] + self.K[1, 1]) / 2)
