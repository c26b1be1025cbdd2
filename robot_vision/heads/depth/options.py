"""What can be set of how depth is published."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.settings.parameters import LIVE, parameter


@dataclass(frozen=True)
class DepthOptions:
    """Settings of the perception node; each field's text is its documentation."""

    depth_max_sigma: float = parameter(
        0.0,
        "Largest standard deviation of a pixel's depth that is published, as a share of it; less sure pixels "
        "are NaN. 0 publishes all.",
        low=0.0,
        high=10.0,
        change=LIVE,
    )
    points_max_range_m: float = parameter(
        0.0,
        "Farthest point of the point cloud, from the camera, in metres. 0 leaves none out.",
        low=0.0,
        high=1e4,
        change=LIVE,
    )
    points_step: int = parameter(
        1,
        "Rows, and columns, of the depth image from one point of the cloud to the next. With 1 each pixel "
        "has a point, as Nav2's semantic layer needs it.",
        low=1,
        high=64,
        change=LIVE,
    )
    obstacle_low_m: float = parameter(
        0.1,
        "Height above base_frame from which something is an obstacle and not the floor, in metres.",
        low=-100.0,
        high=100.0,
        change=LIVE,
    )
    obstacle_high_m: float = parameter(
        1.0,
        "Height above base_frame up to which something is an obstacle: the robot's own height, in metres.",
        low=-100.0,
        high=100.0,
        change=LIVE,
    )
    corridor_width_m: float = parameter(
        0.6,
        "Width of the robot's path straight ahead in which the nearest obstacle is looked for, in metres.",
        low=0.01,
        high=100.0,
        change=LIVE,
    )
    obstacle_pixels: int = parameter(
        5,
        "How many pixels in the path must be at least as near as the obstacle: single ones are often wrong.",
        low=1,
        high=10000,
        change=LIVE,
    )


OPTIONS = DepthOptions
