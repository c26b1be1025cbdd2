"""A camera's intrinsics: from pixels of a lens that distorts to rays, for any image that the camera gives.

`camera_of` is the one place that decides what a sensor_msgs/CameraInfo says of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown

Array = NDArray[np.float64]

KINDS = ("auto", "raw", "rectified")
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
_RECTIFIED = ("rect", "rectified", "undistorted")

MODELS = ("plumb_bob", "rational_polynomial", "equidistant")
_MOST = {"plumb_bob": (0, 4, 5), "rational_polynomial": (0, 4, 5, 8, 12, 14), "equidistant": (0, 4)}


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """A pinhole camera behind a lens, as sensor_msgs/CameraInfo describes it.

    Attributes:
        width: of the images in pixels.
        height: of the images in pixels.
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
                "calibrate the camera"
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

    def rays(self, pixels: NDArray[Any]) -> Array:
        """Returns x / z and y / z (N, 2) of pixels (N, 2), undistorted."""
        import cv2  # which a launch file, that reads the parameters' declarations, need not have

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


def is_rectified(topic: str) -> bool:
    """Says whether an image topic is of rectified images by its name, as image_proc and drivers name them.

    A part of the name has the word `rect`, `rectified` or `undistorted`: /left/image_rect_color does.
    """
    parts = [part for part in topic.split("/") if part not in _TRANSPORTS]
    return any(word in _RECTIFIED for part in parts for word in part.lower().split("_"))


def info_topic(images: str) -> str:
    """Returns the topic of the CameraInfo that drivers publish along with a topic's images."""
    folder, slash, _ = images.removesuffix("/compressed").rpartition("/")
    return f"{folder}{slash}camera_info"


def camera_of(
    message: Any, topic: str, kind: str = "auto", size: tuple[int, int] | None = None
) -> Intrinsics:
    """Returns the camera that took a topic's images; see `numbers_of`.

    Raises:
        ConfigError: see `numbers_of`, and numbers that no camera has.
    """
    return Intrinsics(*numbers_of(message, topic, kind, size))


def numbers_of(
    message: Any, topic: str, kind: str = "auto", size: tuple[int, int] | None = None
) -> tuple[int, int, Array, Array, str]:
    """Returns what `Intrinsics` is made of, from the CameraInfo that comes along with a topic's images.

    ROS shares one CameraInfo between the raw images of a camera and the rectified ones. Raw images go with K
    and the lens's distortion D; rectified ones with the left of P and no distortion. Width, height, K and P
    are of the whole sensor: a region of interest and binning change them.

    Args:
        message: sensor_msgs/CameraInfo, from ROS or a bag.
        topic: of the images; its name says whether they are rectified, where `kind` is `auto`.
        kind: one of `KINDS`.
        size: width and height of the images, where they are known.

    Raises:
        ConfigError: an uncalibrated camera, or images of another size than the message says.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("kind of image", kind, KINDS))

    def get(name: str) -> Any:  # ROS 1 writes the names of matrices in capitals
        return getattr(message, name) if hasattr(message, name) else getattr(message, name.upper())

    rectified = kind == "rectified" or (kind == "auto" and is_rectified(topic))
    if rectified:
        K, distortion = np.array(get("p"), np.float64).reshape(3, 4)[:, :3].copy(), np.zeros(0)
        if not np.any(K):
            raise ConfigError(
                f"Images on {topic} are rectified, and their camera_info has no P (all zeros): rectify with "
                "a calibrated camera_info, or say that the images are raw"
            )
    else:
        K, distortion = np.array(get("k"), np.float64).reshape(3, 3).copy(), np.array(get("d"))
        if not np.any(K):
            raise ConfigError(
                f"The camera_info of {topic} has no K (all zeros): calibrate the camera"
            )
    roi = message.roi
    step = np.array([int(message.binning_x) or 1, int(message.binning_y) or 1])
    corner = np.array([int(roi.x_offset), int(roi.y_offset)])
    whole = np.array([int(message.width), int(message.height)])
    # All zeros mean the whole image.
    region = np.array([int(roi.width) or whole[0], int(roi.height) or whole[1]])
    given = region // step
    if size is not None and tuple(given) != tuple(size):
        raise ConfigError(
            f"Images on {topic} are {size[0]} x {size[1]} and their camera_info is of {given[0]} x "
            f"{given[1]} ({whole[0]} x {whole[1]}, region {region[0]} x {region[1]}, binning {step[0]} x "
            f"{step[1]}): publish the camera_info of these images"
        )
    # A pixel's centre is at whole numbers, before and after binning.
    K[:2, 2] = (K[:2, 2] - corner + 0.5) / step - 0.5
    K[[0, 1], [0, 1]] /= step
    model = str(message.distortion_model) or "plumb_bob"
    model = "plumb_bob" if rectified else {"fisheye": "equidistant"}.get(model, model)
    return int(given[0]), int(given[1]), K, distortion, model
