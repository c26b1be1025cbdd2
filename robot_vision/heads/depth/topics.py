"""Depth as messages, and back: images, points, and what is in the robot's way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.dense_topics import (
    NO_WINDOW,
    Cloud,
    camera_info_topic,
    cloud_topic,
    image_topic,
)
from robot_vision.contract.topics import ImageReader, LeftOut, Shot, Topic
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.obstacles import (
    Corridor,
    Obstacle,
    bearings,
    nearest_obstacle,
    planar_scan,
)
from robot_vision.heads.depth.answer import DepthAnswer
from robot_vision.heads.depth.options import DepthOptions
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.messages.making import Maker
from robot_vision.messages.sensors import range_writer, scan_writer
from robot_vision.messages.types import LASER_SCAN, RANGE

if TYPE_CHECKING:
    from robot_vision.images.window import Window

Write = Callable[[Shot, DepthAnswer, DepthOptions], Any]


def depth_topics(
    topic: Callable[[str], str], key: Callable[[str], str], spec: DepthSpec
) -> tuple[Topic, ...]:
    """Returns the topics of depth.

    Args:
        topic: makes their names.
        key: makes the names of the columns that they are read back to.
        spec: of the head.
    """
    view = _View()
    return (
        image_topic(
            topic("depth"),
            "32FC1",
            "depth of each pixel along the optical axis in metres, NaN where nothing is said",
            lambda answer, options: answer.depth,
            lambda: ImageReader(key("depth"), "float16"),
        ),
        image_topic(
            topic("depth_deviation"),
            "32FC1",
            "its standard deviation in metres",
            lambda answer, options: answer.deviation,
            lambda: ImageReader(key("depth_deviation"), "float16"),
        ),
        camera_info_topic(
            topic("depth/camera_info"),
            "the camera's `camera_info`, scaled to the depth image",
            lambda answer, options: answer.depth.shape,
        ),
        cloud_topic(
            topic("points"),
            "points of the depth image in its rows and columns, in the camera's frame",
            lambda answer, options: Cloud(
                answer.depth, {}, options.points_max_range_m or np.inf, options.points_step
            ),
        ),
        Topic(
            topic("scan"),
            LASER_SCAN,
            "nearest obstacle of each bearing from `base_frame`; infinite for none, NaN for unseen",
            _scan(spec, view),
            of_camera=False,
        ),
        Topic(
            topic("obstacle"),
            RANGE,
            "distance of the nearest obstacle straight ahead of `base_frame`; `max_range` for none",
            _range(spec, view, lambda found: found.distance),
            of_camera=False,
        ),
        Topic(
            topic("obstacle_near"),
            RANGE,
            "lower end of its 90 % interval: what to stop for",
            _range(spec, view, lambda found: found.near),
            of_camera=False,
        ),
    )


def _no_mounting(shot: Shot) -> LeftOut:
    if not shot.base_frame:
        return LeftOut(
            "no_base_frame",
            "base_frame is not set, so nothing says where the floor and the way ahead are, and no obstacle "
            "is published: set it to the robot's frame on the floor",
        )
    return LeftOut(
        "no_transform",
        f"no fixed transform from {shot.base_frame!r} to {shot.frame_id!r} on /tf_static, so no obstacle "
        "is published: publish it, or set camera_to_base",
    )


@functools.lru_cache(maxsize=16)
def _rays(lens: Intrinsics, window: Window, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns x / z, y / z and 1 (n, 3) of a depth image's pixels, NaN where the network saw padding."""
    height, width = size
    xy = lens.rays(window.pixels((height, width)).reshape(-1, 2))
    rays = np.concatenate([xy, np.ones((len(xy), 1))], axis=1).astype(np.float32)
    rays[~window.covered((height, width)).reshape(-1)] = np.nan
    rays.flags.writeable = False
    return rays


@dataclass(frozen=True)
class _Mounted:
    """Where the pixels of a map look in base, while camera and mounting stay as they are.

    Attributes:
        rays: of the camera, as `_rays` returns them.
        T_base_camera: (4, 4).
        ahead: float32 (3, n), the same rays in base.
        camera: float32 (3, 1), where the camera is in base.
        span: the least and the greatest bearing of all pixels.
    """

    rays: NDArray[np.float32]
    T_base_camera: NDArray[np.float64]
    ahead: NDArray[np.float32]
    camera: NDArray[np.float32]
    span: tuple[float, float]

    @classmethod
    def of(cls, rays: NDArray[np.float32], T: NDArray[np.float64]) -> _Mounted:
        """Turns rays into base."""
        ahead = (T[:3, :3] @ rays.T.astype(np.float64)).astype(np.float32)
        return cls(rays, np.array(T), ahead, T[:3, 3:].astype(np.float32), bearings(ahead))


@dataclass(frozen=True, eq=False)
class _Seen:
    """Points (3, n) of an image in base, NaN where nothing is said, and where its pixels look."""

    points: NDArray[np.float32]
    mounted: _Mounted


class _View:
    """What a camera's topics about obstacles share: computed once for an image."""

    def __init__(self) -> None:
        self._seen: tuple[Any, ...] = (None, None, None)
        self._nearest: tuple[Any, ...] = (None, None, None)
        self._mounted: _Mounted | None = None

    def seen(self, shot: Shot, answer: DepthAnswer) -> _Seen | LeftOut:
        """Returns the image's points."""
        if self._seen[0] is not shot or self._seen[1] is not answer:
            self._seen = shot, answer, self._points(shot, answer)
        return cast("_Seen | LeftOut", self._seen[2])

    def nearest(self, shot: Shot, answer: DepthAnswer, corridor: Corridor) -> Obstacle | LeftOut:
        """Returns the nearest obstacle, NaN where nothing is known."""
        seen = self.seen(shot, answer)
        if isinstance(seen, LeftOut):
            return seen
        if self._nearest[0] is not seen or self._nearest[1] != corridor:
            sigma = answer.sigma
            sure = np.zeros(seen.points.shape[1]) if sigma is None else sigma.reshape(-1)
            camera_x = float(seen.mounted.camera[0, 0])
            found = nearest_obstacle(seen.points, sure, camera_x, corridor)
            self._nearest = seen, corridor, found
        return cast(Obstacle, self._nearest[2])

    def _points(self, shot: Shot, answer: DepthAnswer) -> _Seen | LeftOut:
        T = shot.mounting(shot.frame_id) if shot.base_frame else None
        if T is None:
            return _no_mounting(shot)
        lens = shot.intrinsics()
        if isinstance(lens, LeftOut):
            return lens
        if shot.window is None:
            return NO_WINDOW
        rays, mounted = _rays(lens, shot.window, answer.depth.shape), self._mounted
        if (
            mounted is None
            or mounted.rays is not rays
            or not np.array_equal(mounted.T_base_camera, T)
        ):
            mounted = self._mounted = _Mounted.of(rays, T)
        points = mounted.ahead * answer.depth.reshape(1, -1)
        points += mounted.camera
        return _Seen(points, mounted)


def _scan(spec: DepthSpec, view: _View) -> Callable[[Maker], Write]:
    def writer(make: Maker) -> Write:
        message = scan_writer(make)

        def write(shot: Shot, answer: DepthAnswer, options: DepthOptions) -> Any:
            seen = view.seen(shot, answer)
            if isinstance(seen, LeftOut):
                return seen
            beams = answer.depth.shape[1]
            low, high = options.obstacle_low_m, options.obstacle_high_m
            scan = planar_scan(seen.points, seen.mounted.span, low, high, beams)
            ranges = scan.ranges
            ranges[ranges > spec.maximum] = np.inf
            return message(shot, shot.base_frame, ranges, scan.first, scan.step, 0.0, spec.maximum)

        return write

    return writer


def _range(
    spec: DepthSpec, view: _View, distance: Callable[[Obstacle], float]
) -> Callable[[Maker], Write]:
    def writer(make: Maker) -> Write:
        new = range_writer(make)

        def write(shot: Shot, answer: DepthAnswer, options: DepthOptions) -> Any:
            width = options.corridor_width_m
            corridor = Corridor(
                options.obstacle_low_m, options.obstacle_high_m, width, options.obstacle_pixels
            )
            found = view.nearest(shot, answer, corridor)
            if isinstance(found, LeftOut):
                return found
            if np.isnan(found.distance):
                return LeftOut(
                    "no_depth", "nothing is said of any pixel's depth, so no distance to obstacles"
                )
            # As wide as the corridor where the head's range ends.
            angle = 2 * np.arctan2(width / 2, spec.maximum)
            message = new(shot, shot.base_frame, distance(found), angle, 0.0, spec.maximum)
            if hasattr(message, "variance"):  # since Iron
                message.variance = found.deviation**2
            return message

        return write

    return writer
