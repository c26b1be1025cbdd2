"""What a depth image or a scan measured, as points in the robot's frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import TruthImage, true_values
from robot_vision.errors import ConfigError, ImageError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.labelling.outline import Outline, Section

_LAYERS = 8  # of the corridor's cross-section
_BEYOND_M = 1e6  # where a beam ends that met nothing
_SAME_SHAPE = 0.02  # by how much the sides of two images may be scaled differently


@dataclass(frozen=True, eq=False)
class View:
    """What was measured at one time.

    Attributes:
        points: float32 (3, n) in base; NaN where nothing was measured.
        size: (height, width) of the depth image, whose pixels the points are; None for a scan.
        looked_at: share of the corridor's cross-section of which it says something.
    """

    points: NDArray[np.float32]
    size: tuple[int, int] | None
    looked_at: float


@dataclass(eq=False)
class Eyes:
    """Turns measurements of one recording's sensor into views.

    Args:
        outline: of the robot.
        ahead_m: from its front, where the corridor's cross-section is looked at.
        pixels: how many of a depth image must be as near as an obstacle.
        T_base_sensor: (4, 4); of a depth camera its optical frame.
        lens: of the depth camera; None for a scanner.
        same_pixels: whether its pixels are the images'.
    """

    outline: Outline
    ahead_m: float
    pixels: int
    T_base_sensor: NDArray[np.float64]
    lens: Intrinsics | None = None
    same_pixels: bool = True
    _rays: dict[Any, tuple[NDArray[np.float32], Section]] = field(default_factory=dict)

    def of_depth(self, truth: TruthImage) -> View:
        """Returns the points of a depth image.

        Raises:
            ImageError: it cannot be read, or is of another shape than its camera's images.
        """
        depth = true_values(truth, "float32", np.nan)
        height, width = depth.shape
        rays, section = self._directions(height, width, str(truth))
        points = rays * depth.reshape(1, -1)
        points += self.T_base_sensor[:3, 3:].astype(np.float32)
        return View(points, (height, width), section.looked_at(np.isfinite(points[0])))

    def of_scan(self, message: Any) -> View:
        """Returns the points of a sensor_msgs/LaserScan, at a height at which they are obstacles.

        By REP 117 a beam that met nothing is infinite, and one that says nothing NaN or too near.
        """
        ranges = np.asarray(message.ranges, np.float64)
        key = len(ranges), float(message.angle_min), float(message.angle_increment)
        if key not in self._rays:
            angles = key[1] + key[2] * np.arange(key[0])
            flat = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)])
            self._rays[key] = self._cut((self.T_base_sensor[:3, :3] @ flat).astype(np.float32), 1)
        rays, section = self._rays[key]
        with np.errstate(invalid="ignore"):
            none = np.isnan(ranges) | (ranges < message.range_min)
            free = (ranges > message.range_max) if message.range_max > 0 else np.isposinf(ranges)
        ranges = np.where(none, np.nan, np.where(free | np.isposinf(ranges), _BEYOND_M, ranges))
        points = (rays * ranges + self.T_base_sensor[:3, 3:]).astype(np.float32)
        points[2] = np.where(none, np.nan, (self.outline.low_m + self.outline.high_m) / 2)
        return View(points, None, section.looked_at(~none))

    def _directions(
        self, height: int, width: int, name: str
    ) -> tuple[NDArray[np.float32], Section]:
        if (height, width) not in self._rays:
            lens = self.lens
            assert lens is not None
            across, down = width / lens.width, height / lens.height
            if abs(across / down - 1) > _SAME_SHAPE:
                raise ImageError(
                    "encoding",
                    f"{name} has {width} x {height} pixels, and its camera's images {lens.width} x "
                    f"{lens.height}",
                )
            columns, rows = np.meshgrid(np.arange(width), np.arange(height))
            pixels = np.stack(
                [(columns.ravel() + 0.5) / across - 0.5, (rows.ravel() + 0.5) / down - 0.5], axis=1
            )
            rays = np.concatenate([lens.rays(pixels).T, np.ones((1, width * height))])
            self._rays[height, width] = self._cut(
                (self.T_base_sensor[:3, :3] @ rays).astype(np.float32), _LAYERS
            )
        return self._rays[height, width]

    def _cut(self, rays: NDArray[np.float32], layers: int) -> tuple[NDArray[np.float32], Section]:
        origin = self.T_base_sensor[:3, 3]
        section = Section.of(rays, origin, self.outline, self.ahead_m, layers)
        if not len(section.rays):
            raise ConfigError(
                f"the sensor does not see the corridor {self.ahead_m:g} m ahead of the robot, from "
                f"{self.outline.low_m:g} to {self.outline.high_m:g} m above base: check where it is on the "
                "robot (--camera-to-base, /tf_static), --obstacle-height and --blocked"
            )
        return rays, section
