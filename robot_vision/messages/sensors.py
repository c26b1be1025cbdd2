"""Messages of sensors that a camera stands in for: calibration, point clouds, scans and ranges.

What is written is what Nav2 reads: its obstacle and voxel layers and its collision monitor, and the
semantic segmentation layer of kiwicampus. docs/dense.md says what each of them asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.messages.making import Maker, sequence_of, set_header
from robot_vision.messages.types import CAMERA_INFO, LASER_SCAN, POINT_CLOUD, RANGE

_UINT8, _FLOAT32 = 2, 7  # of sensor_msgs/PointField
_XYZ_BYTES = 12

Planes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def camera_info_writer(
    make: Maker,
) -> Callable[[Any, Intrinsics, NDArray[np.float64], tuple[int, int]], Any]:
    """Returns what writes the calibration of a map of a camera's image.

    It takes the image's header, the lens, the map's camera matrix (3, 3) and its size (height, width). The
    map is as distorted as the image is, and what would rectify it only scales: R is the identity, P is K.
    What was made of a matrix is used again while the same array comes.
    """
    new = make(CAMERA_INFO)
    made: list[NDArray[np.float64]] = []  # of a matrix: itself, and k, r and p

    def write(header: Any, lens: Intrinsics, K: NDArray[np.float64], size: tuple[int, int]) -> Any:
        message = new()
        set_header(message.header, header)
        message.height, message.width = size
        message.distortion_model = lens.model
        # plumb_bob has five coefficients, and a lens that does not distort five zeros.
        d = lens.distortion if len(lens.distortion) else np.zeros(5)
        message.d = sequence_of(d, message.d)
        if not made or made[0] is not K:
            P = np.hstack((K, np.zeros((3, 1))))
            made[:] = [K, K.reshape(-1), np.eye(3).reshape(-1), P.reshape(-1)]
        _, message.k, message.r, message.p = made
        return message

    return write


def cloud_writer(make: Maker) -> Callable[..., Any]:
    """Returns what writes an organised `sensor_msgs/PointCloud2`."""
    new, field = make(POINT_CLOUD), make("sensor_msgs/msg/PointField")
    place: list[NDArray[np.float32]] = []  # that a point cloud is put together in, used again

    def write(
        header: Any, xyz: Planes, others: Mapping[str, NDArray[np.uint8]] = MappingProxyType({})
    ) -> Any:
        """Returns the message.

        Args:
            header: of the image: its stamp, and the camera's optical frame.
            xyz: three of float32 (h, w), metres; NaN in all three where there is no point.
            others: name to uint8 (h, w): further fields, such as classes.
        """
        height, width = xyz[0].shape
        words = 3 + -(-len(others) // 4)  # of four bytes, which floats lie on
        if not place or place[0].shape != (height, width, words):
            place[:] = [np.zeros((height, width, words), "<f4")]
        for i, plane in enumerate(xyz):
            place[0][..., i] = plane
        data, step = place[0].view(np.uint8), 4 * words
        message = new()
        set_header(message.header, header)
        message.height, message.width = height, width
        message.fields = [
            field(name=name, offset=4 * i, datatype=_FLOAT32, count=1)
            for i, name in enumerate("xyz")
        ]
        for i, (name, values) in enumerate(others.items(), _XYZ_BYTES):
            data[..., i] = values
            message.fields.append(field(name=name, offset=i, datatype=_UINT8, count=1))
        message.is_bigendian, message.is_dense = False, False
        message.point_step, message.row_step = step, step * width
        octets = data.reshape(-1)
        message.data = sequence_of(octets, message.data)
        if message.data is octets:
            message.data = octets.copy()
        return message

    return write


def scan_writer(make: Maker) -> Callable[..., Any]:
    """Returns what writes a `sensor_msgs/LaserScan`."""
    new = make(LASER_SCAN)

    def write(
        header: Any,
        frame_id: str,
        ranges: NDArray[np.float32],
        angle_min: float,
        angle_step: float,
        near_m: float,
        far_m: float,
    ) -> Any:
        """Returns the message.

        Args:
            header: of the image, for its stamp.
            frame_id: x forward, z up; not a camera's optical frame.
            ranges: (N,), metres; infinite where nothing is within `far_m`, NaN where nothing is known.
            angle_min: of the first, radians from x towards y.
            angle_step: from one to the next, radians.
            near_m: smallest range that may be said.
            far_m: largest range that may be said.
        """
        message = new()
        set_header(message.header, header, frame_id)
        message.angle_min, message.angle_increment = float(angle_min), float(angle_step)
        message.angle_max = float(angle_min + angle_step * (len(ranges) - 1))
        message.range_min, message.range_max = float(near_m), float(far_m)
        message.ranges = sequence_of(np.asarray(ranges, np.float32), message.ranges)
        return message

    return write


def range_writer(make: Maker) -> Callable[..., Any]:
    """Returns what writes a `sensor_msgs/Range` as an infrared sensor's."""
    new = make(RANGE)

    def write(
        header: Any,
        frame_id: str,
        range_m: float,
        field_of_view: float,
        near_m: float,
        far_m: float,
    ) -> Any:
        """Returns the message.

        Args:
            header: of the image, for its stamp.
            frame_id: x forward; not a camera's optical frame.
            range_m: to the nearest obstacle, kept within the limits; `far_m` where there is none, as finite
                numbers alone are believed.
            field_of_view: of the cone about x, radians, at most pi.
            near_m: smallest range that may be said.
            far_m: largest range that may be said.

        Raises:
            ValueError: the range is NaN.
        """
        if math.isnan(range_m):
            raise ValueError("the range is not a number")
        message = new()
        set_header(message.header, header, frame_id)
        message.radiation_type = 1
        message.field_of_view = float(field_of_view)
        message.min_range, message.max_range = float(near_m), float(far_m)
        message.range = float(min(max(range_m, near_m), far_m))
        return message

    return write
