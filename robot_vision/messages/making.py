"""Makes messages of ROS, of rclpy's classes or of those of `rosbags`: the same code fills both.

A `Maker` looks up a type and gives what makes an empty message of it, whose fields are then set as in any
node. Look types up once: making is then as cheap as by hand.
"""

from __future__ import annotations

import array
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.published_covariance import covariance_numbers
from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.messages.types import POSE_WITH_COVARIANCE_STAMPED, TRANSFORM_STAMPED

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

Maker = Callable[[str], Any]  # "std_msgs/msg/Header" -> what makes an empty one


def rclpy_maker(kind: str) -> Any:
    """A `Maker` of rclpy's classes."""
    package, _, name = kind.partition("/msg/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def rosbags_maker(types: Typestore) -> Maker:
    """Returns a `Maker` of the classes of `rosbags`; empty fields have the values that ROS gives them."""
    from rosbags.interfaces import Nodetype

    def maker(kind: str) -> Callable[..., Any]:
        made = types.types[kind]
        blanks = {name: blank(about) for name, about in types.fielddefs[kind][1]}
        return lambda **given: made(
            **{name: given[name] if name in given else new() for name, new in blanks.items()}
        )

    def blank(field: Any) -> Callable[[], Any]:
        nodetype, about = field
        if nodetype == Nodetype.NAME:
            return maker(about)
        if nodetype == Nodetype.BASE:
            value = "" if about[0] == "string" else np.zeros((), _dtype(about[0])).item()
            return lambda: value
        (inner, name), length = about
        if inner == Nodetype.BASE and name[0] != "string":
            return lambda: np.zeros(length, _dtype(name[0]))
        return lambda: []

    def _dtype(name: str) -> str:
        return "uint8" if name in ("byte", "char") else name

    return maker


def set_header(header: Any, source: Any, frame_id: str | None = None) -> None:
    """Copies stamp and frame of a header-like object, or sets another frame."""
    header.stamp.sec, header.stamp.nanosec = source.stamp.sec, source.stamp.nanosec
    header.frame_id = source.frame_id if frame_id is None else frame_id


def set_pixels(message: Any, pixels: NDArray[Any], encoding: str) -> None:
    """Sets a `sensor_msgs/Image` from (H, W) or (H, W, C), in little endian."""
    data = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    message.height, message.width = data.shape[:2]
    message.encoding, message.is_bigendian = encoding, 0
    message.step = data.nbytes // data.shape[0]
    message.data = sequence_of(data.reshape(-1).view(np.uint8), message.data)


def sequence_of(values: NDArray[Any], field: Any) -> Any:
    """Returns numbers (N,) for a field that is a sequence of their type, of rclpy or of `rosbags`."""
    if isinstance(field, np.ndarray):
        return values
    # rclpy takes an array.array as it is, and checks every number of anything else.
    numbers = array.array(field.typecode)
    numbers.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return numbers


def pose_writer(make: Maker) -> Callable[..., Any]:
    """Returns what writes a pose in the map: the image's stamp, the map's frame."""
    new = make(POSE_WITH_COVARIANCE_STAMPED)

    def write(
        header: Any, pose: CameraPose, map_frame: str, scale: float = 1.0, signed: bool = False
    ) -> Any:
        """Returns the message of a pose.

        Args:
            header: of the image.
            pose: of the camera, or of the robot's base, in the map.
            map_frame: the frame's name.
            scale: the covariance is multiplied by it.
            signed: see `covariance_numbers`.

        Raises:
            ValueError: position or orientation are not finite.
        """
        if not np.all(np.isfinite(pose.position)):
            raise ValueError(f"position {pose.position.tolist()} is not finite")
        message = new()
        set_header(message.header, header, map_frame)
        _set_xyz(message.pose.pose.position, pose.position)
        _set_xyzw(message.pose.pose.orientation, pose.orientation_xyzw)
        message.pose.covariance = covariance_numbers(pose.covariance, scale, signed)
        return message

    return write


def transform_writer(make: Maker) -> Callable[[Any, CameraPose, str, str], Any]:
    """Returns what writes a pose as the transform from the map to a child frame, for `/tf`."""
    new = make(TRANSFORM_STAMPED)

    def write(header: Any, pose: CameraPose, map_frame: str, child_frame: str) -> Any:
        message = new()
        set_header(message.header, header, map_frame)
        message.child_frame_id = child_frame
        _set_xyz(message.transform.translation, pose.position)
        _set_xyzw(message.transform.rotation, pose.orientation_xyzw)
        return message

    return write


def _set_xyz(target: Any, values: NDArray[np.float64]) -> None:
    target.x, target.y, target.z = (float(v) for v in values)


def _set_xyzw(target: Any, values: NDArray[np.float64]) -> None:
    target.x, target.y, target.z, target.w = (float(v) for v in canonical_xyzw(values))
