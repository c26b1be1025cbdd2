"""Topics of heads that say something of each pixel: maps as images, their calibration, and point clouds.

A map covers the network's input and has a size of its own; `Shot.window` says where in the camera's image
it lies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.topics import HIDDEN, PLAIN, LeftOut, Look, Reader, Shot, Topic, always
from robot_vision.messages.making import Maker, set_header, set_pixels
from robot_vision.messages.sensors import Planes, camera_info_writer, cloud_writer
from robot_vision.messages.types import CAMERA_INFO, IMAGE, POINT_CLOUD

if TYPE_CHECKING:
    from robot_vision.geometry.intrinsics import Intrinsics
    from robot_vision.images.window import Window

Size = tuple[int, int]
_FURTHEST = 1e9  # metres: what is further is not known

NO_FRAME = LeftOut(
    "no_frame_id",
    "its images name no frame, so nobody knows where a point cloud lies: set the driver's frame_id",
)
NO_WINDOW = LeftOut(
    "no_image_size", "the size of its images is not known, so neither is what the map shows of them"
)


def image_topic(
    name: str,
    encoding: str,
    text: str,
    pixels: Callable[[Any, Any], NDArray[Any] | None],
    reader: Callable[[], Reader] | None = None,
    wanted: Callable[[Any], bool] = always,
    look: Look = PLAIN,
) -> Topic:
    """Returns the topic of a map as an image.

    Args:
        name: of the topic.
        encoding: of `sensor_msgs/Image`, such as `mono8`, `16UC1` or `32FC1`.
        text: what it holds, for the docs.
        pixels: of answer and options: (h, w) of the encoding's type; None where the answer has no such map.
        reader: makes what reads it back.
        wanted: says of the options in force whether it is published.
        look: how a viewer shows it.
    """

    def writer(make: Maker) -> Callable[[Shot, Any, Any], Any]:
        new = make(IMAGE)

        def write(shot: Shot, answer: Any, options: Any) -> Any:
            values = pixels(answer, options)
            if values is None:
                return LeftOut(
                    "no_such_map", f"the model gives nothing for {name}: train it with that"
                )
            message = new()
            set_header(message.header, shot)
            set_pixels(message, values, encoding)
            return message

        return write

    return Topic(name, IMAGE, text, writer, reader, wanted, f"`{encoding}`", look=look)


def camera_info_topic(
    name: str,
    text: str,
    size: Callable[[Any, Any], Size],
    wanted: Callable[[Any], bool] = always,
) -> Topic:
    """Returns the topic of a map's calibration; its head needs `camera_info`.

    Args:
        name: of the topic: `camera_info` below or next to that of the map.
        text: what it holds, for the docs.
        size: of answer and options: (height, width) of the map.
        wanted: says of the options in force whether it is published.
    """

    def writer(make: Maker) -> Callable[[Shot, Any, Any], Any]:
        message = camera_info_writer(make)

        def write(shot: Shot, answer: Any, options: Any) -> Any:
            lens = shot.intrinsics()
            if isinstance(lens, LeftOut):
                return lens
            if shot.window is None:
                return NO_WINDOW
            of_map = size(answer, options)
            return message(shot, lens, _matrix(lens, shot.window, tuple(of_map)), of_map)

        return write

    return Topic(name, CAMERA_INFO, text, writer, wanted=wanted, look=HIDDEN)


@functools.lru_cache(maxsize=16)
def _matrix(lens: Intrinsics, window: Window, size: Size) -> NDArray[np.float64]:
    """Returns the camera matrix of a map; the same array while nothing changes."""
    K = window.intrinsics(lens.K, size)
    K.flags.writeable = False
    return K


@dataclass(frozen=True, eq=False)
class Cloud:
    """What a point cloud is made of.

    Attributes:
        z_m: float (h, w), metres along the optical axis; 0, NaN or infinity where nothing is known.
        others: name to uint8 (h, w): further fields.
        far_m: points further away than this are left out; infinity for none.
        step: of the rows and columns that have points, from one to the next.
    """

    z_m: NDArray[np.floating]
    others: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    far_m: float = np.inf
    step: int = 1

    @property
    def some(self) -> tuple[slice, slice]:
        """The rows and columns that have points."""
        return slice(None, None, self.step), slice(None, None, self.step)


def cloud_topic(
    name: str,
    text: str,
    cloud: Callable[[Any, Any], Cloud],
    wanted: Callable[[Any], bool] = always,
) -> Topic:
    """Returns the topic of an organised point cloud in the camera's frame; its head needs camera_info.

    With a step of 1 it has a point for each pixel of the map, so that it can be read along with another map
    of the same size.

    Args:
        name: of the topic.
        text: what it holds, for the docs.
        cloud: of answer and options.
        wanted: says of the options in force whether it is published.
    """

    def writer(make: Maker) -> Callable[[Shot, Any, Any], Any]:
        message = cloud_writer(make)
        rays = _Rays()

        def write(shot: Shot, answer: Any, options: Any) -> Any:
            if not shot.frame_id:
                return NO_FRAME
            lens = shot.intrinsics()
            if isinstance(lens, LeftOut):
                return lens
            if shot.window is None:
                return NO_WINDOW
            made = cloud(answer, options)
            some = made.some
            points = rays.to(lens, shot.window, made)
            return message(shot, points, {key: v[some] for key, v in made.others.items()})

        return write

    return Topic(name, POINT_CLOUD, text, writer, wanted=wanted, form="`x y z`")


class _Rays:
    """Where the pixels of a camera's map look, kept while camera and sizes stay.

    What is computed on the way has its place too: fresh memory costs more than the work on it.
    """

    def __init__(self) -> None:
        self._of: tuple[Any, ...] = ()

    def to(self, lens: Intrinsics, window: Window, cloud: Cloud) -> Planes:
        """Returns x, y and z (h, w) of points, NaN where there is none; valid until the next call."""
        of = (window, cloud.z_m.shape, cloud.step)
        if not self._of or self._of[0] is not lens or self._of[1:] != of:
            self._look(lens, window, cloud)
            self._of = (lens, *of)
        x, y, z = self._points
        z[:] = cloud.z_m[cloud.some]
        with np.errstate(invalid="ignore"):  # of NaN, which compares false
            np.multiply(z, self._length, out=x)
            unknown = ~((z > 0) & (x <= min(cloud.far_m, _FURTHEST)))
        z[unknown] = np.nan
        np.multiply(z, self._x, out=x)
        np.multiply(z, self._y, out=y)
        return x, y, z

    def _look(self, lens: Intrinsics, window: Window, cloud: Cloud) -> None:
        """Keeps x / z, y / z and distance / z of the pixels; the last is NaN where the map shows no image."""
        height, width = cloud.z_m.shape
        rays = lens.rays(window.pixels((height, width)).reshape(-1, 2)).reshape(height, width, 2)
        length = np.sqrt(1 + np.sum(rays**2, axis=2))
        length[~window.covered((height, width))] = np.nan
        x, y, length = (
            np.ascontiguousarray(plane[cloud.some], np.float32)
            for plane in (rays[..., 0], rays[..., 1], length)
        )
        self._x, self._y, self._length = x, y, length
        self._points = (np.empty_like(x), np.empty_like(x), np.empty_like(x))
