"""Makes messages of ROS, of rclpy's classes or of those of `rosbags`: the same code fills both.

A `Maker` looks up a type and gives what makes an empty message of it, whose fields are then set as in any node.
Look types up once: making is then as cheap as by hand.
"""

from __future__ import annotations

import array
import importlib
from collections.abc import Callable
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from robot_vision.geometry.rigid import canonical_xyzw

Maker = Callable[[str], Callable[..., Any]]  # "std_msgs/msg/Header" -> what makes an empty one


def rclpy_maker(kind: str) -> Callable[..., Any]:
    """A `Maker` of rclpy's classes, which must be installed."""
    package, _, name = kind.partition("/msg/")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{package}.msg"), name)
    return found


def rosbags_maker(types: Typestore) -> Maker:
    """Returns a `Maker` of the classes of `rosbags`, whose fields get the values that ROS gives empty ones."""

    def maker(kind: str) -> Callable[[], Any]:
        made = types.types[kind]
        fields = {name: blank(what) for name, what in types.fielddefs[kind][1]}
        return lambda: made(**{name: new() for name, new in fields.items()})

    def blank(what: Any) -> Callable[[], Any]:
        nodetype, about = what
        if nodetype == Nodetype.NAME:
            return maker(about)
        if nodetype == Nodetype.BASE:
            value = "" if about[0] == "string" else np.dtype(_DTYPES.get(about[0], about[0])).type(0).item()
            return lambda: value
        (inner, name), length = about
        if inner == Nodetype.BASE and name[0] != "string":
            return lambda: np.zeros(length, _DTYPES.get(name[0], name[0]))
        return lambda: []

    return maker


_DTYPES = {"byte": "uint8", "char": "uint8"}


def set_header(header: Any, source: Any, frame_id: str | None = None) -> None:
    """Copies stamp and frame of a header-like object; another frame instead if one is given."""
    header.stamp.sec, header.stamp.nanosec = source.stamp.sec, source.stamp.nanosec
    header.frame_id = source.frame_id if frame_id is None else frame_id


def set_xyz(target: Any, values: NDArray[np.float64]) -> None:
    """Sets a Point or Vector3."""
    target.x, target.y, target.z = (float(v) for v in values)


def set_xyzw(target: Any, values: NDArray[np.float64]) -> None:
    """Sets a Quaternion, with w >= 0."""
    target.x, target.y, target.z, target.w = (float(v) for v in canonical_xyzw(values))


def set_pixels(message: Any, pixels: NDArray[Any], encoding: str) -> None:
    """Sets a `sensor_msgs/Image` from (H, W) or (H, W, C), in little endian."""
    data = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    message.height, message.width = data.shape[:2]
    message.encoding, message.is_bigendian = encoding, 0
    message.step = data.nbytes // max(data.shape[0], 1)
    octets = data.reshape(-1).view(np.uint8)
    if isinstance(message.data, np.ndarray):
        message.data = octets
        return
    # rclpy takes an array.array as it is, and checks every byte of a list or of bytes.
    message.data = array.array("B")
    message.data.frombytes(octets.data)
