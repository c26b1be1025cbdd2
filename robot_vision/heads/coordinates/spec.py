"""What bundle.yaml says of a head of scene coordinates."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.settings.checks import require

CELL = 8  # pixels of the camera that the settings speak of, for each cell of the map along an axis
MOST_M = 1e8  # of a coordinate


@dataclass(frozen=True)
class CoordinatesSpec:
    """Cells of the image to points of the map, and how a pose follows from them.

    Attributes:
        size: rows and columns of the answer.
        camera: fx, fy, cx and cy of the training images' camera, in pixels of an image of 8 times `size` that
            covers what the network sees.
        distortion: of its lens, of rays; empty for none.
        lens: model of the distortion (`Intrinsics.model`).
        centre: point of the map from which coordinates are counted, metres.
        map_frame: frame of the coordinates.
        strides: of the backbone's maps that are read, finest first, in pixels of the input.
        channels: of the decoder.
        blocks: residual blocks of the decoder.
        dropout: probability while training, of the maps' channels.
        minimum: least depth in metres that counts as truth.
        maximum: largest depth that does.
        error_px: reprojection error of an inlier, in pixels of the image that `camera` speaks of.
        least_inliers: poses on which a smaller share of the cells agrees are refused.
        position_scale: factor of the variances of the position that residuals show (calibrated).
        rotation_scale: the same of the rotation.
    """

    KIND: ClassVar[str] = "coordinates"

    size: tuple[int, ...]
    camera: tuple[float, ...]
    distortion: tuple[float, ...] = ()
    lens: str = "plumb_bob"
    centre: tuple[float, ...] = (0.0, 0.0, 0.0)
    map_frame: str = "map"
    strides: tuple[int, ...] = (4, 8, 16, 32)
    channels: int = 128
    blocks: int = 3
    dropout: float = 0.1
    minimum: float = 0.2
    maximum: float = 10.0
    error_px: float = 8.0
    least_inliers: float = 0.1
    position_scale: float = 1.0
    rotation_scale: float = 1.0

    def __post_init__(self) -> None:
        require(
            len(self.size) == 2 and 2 <= min(self.size) and max(self.size) <= 1024,
            "size of coordinates",
            self.size,
            "rows and columns, from 2 to 1024",
        )
        require(len(self.camera) == 4, "camera", self.camera, "fx, fy, cx, cy")
        require(
            len(self.centre) == 3 and all(abs(c) <= MOST_M for c in self.centre),
            "centre of coordinates",
            self.centre,
            f"x, y and z of at most {MOST_M:g} m",
        )
        require(bool(self.map_frame), "map_frame", self.map_frame, "a frame's name")
        require(
            len(self.strides) > 0 and list(self.strides) == sorted(set(self.strides)),
            "strides of coordinates",
            self.strides,
            "at least one, from the finest to the coarsest",
        )
        require(8 <= self.channels <= 1024, "channels", self.channels, "from 8 to 1024")
        require(0 <= self.blocks <= 16, "blocks", self.blocks, "from 0 to 16")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(
            0 < self.minimum < self.maximum,
            "range of true depth",
            (self.minimum, self.maximum),
            "two positive numbers of metres, minimum below maximum",
        )
        require(0.1 <= self.error_px <= 100, "error_px", self.error_px, "from 0.1 to 100")
        require(0 < self.least_inliers <= 1, "least_inliers", self.least_inliers, "in (0, 1]")
        for name in ("position_scale", "rotation_scale"):
            value = getattr(self, name)
            require(1e-6 <= value <= 1e6, name, value, "from 1e-6 to 1e6")
        try:
            self.intrinsics()
        except ConfigError as error:
            raise ConfigError(f"camera of coordinates: {error}") from error

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image that `camera` speaks of."""
        return CELL * self.size[0], CELL * self.size[1]

    @property
    def max_error(self) -> float:
        """Reprojection error of an inlier, on the rays."""
        return self.error_px / float((self.camera[0] + self.camera[1]) / 2)

    def intrinsics(self) -> Intrinsics:
        """Returns the camera of the training images, of what the network sees.

        Raises:
            ConfigError: numbers that no camera has.
        """
        fx, fy, cx, cy = self.camera
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
        height, width = self.image_size
        return Intrinsics(width, height, K, np.array(self.distortion, np.float64), self.lens)

    def rays(self) -> NDArray[np.float64]:
        """Returns x / z and y / z (h, w, 2) of the cells' centres in that camera; not to be changed."""
        return _rays(self)


@functools.lru_cache(maxsize=16)
def _rays(spec: CoordinatesSpec) -> NDArray[np.float64]:
    rows, columns = spec.size
    y, x = (CELL * (np.arange(n) + 0.5) - 0.5 for n in (rows, columns))
    pixels = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).reshape(-1, 2)
    found = spec.intrinsics().rays(pixels).reshape(rows, columns, 2)
    found.flags.writeable = False
    return found
