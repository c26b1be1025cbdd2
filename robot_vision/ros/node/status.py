"""Predictions to standard messages. Every result carries the header of its image."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass, VisionInfo

from robot_vision.bundle.bundle import ModelBundle, model_text
from robot_vision.contract.prediction import Prediction
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.published_covariance import covariance_numbers
from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.heads.classifier.answer import Hypothesis

MAX_CLASS_ID = 65535  # uint16


def header_message(header: Any) -> Header:
    """Returns a `std_msgs/Header` with the stamp and frame of a header-like object."""
    return Header(
        stamp=Time(sec=header.stamp.sec, nanosec=header.stamp.nanosec), frame_id=header.frame_id
    )


def classification_message(header: Header, hypotheses: Sequence[Hypothesis]) -> Classification:
    """Returns the classes of an image, in the order given; `class_id` is the label itself."""
    results = [ObjectHypothesis(class_id=h.label, score=float(h.score)) for h in hypotheses]
    return Classification(header=header, results=results)


def descriptor_message(header: Header, descriptor: NDArray[np.float32]) -> Image:
    """Returns a descriptor float32 (D,) as an image of one row and D columns."""
    data = np.ascontiguousarray(descriptor, dtype="<f4")
    return Image(
        header=header,
        height=1,
        width=data.size,
        encoding="32FC1",
        is_bigendian=0,
        step=data.nbytes,
        data=_octets(data),
    )


def image_message(header: Header, image: NDArray[np.uint8]) -> Image:
    """Returns an RGB uint8 (H, W, 3) image as `rgb8`."""
    height, width = image.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=_octets(np.ascontiguousarray(image)),
    )


def _octets(values: NDArray[Any]) -> Any:
    # rclpy takes an array.array as it is, and checks every byte of a list or of bytes.
    data = array.array("B")
    data.frombytes(values.reshape(-1).view(np.uint8).data)
    return data


def pose_message(
    header: Header, pose: CameraPose, map_frame: str, scale: float = 1.0, signed: bool = False
) -> PoseWithCovarianceStamped:
    """Returns a pose in the map: the image's stamp, the map's frame.

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
    message = PoseWithCovarianceStamped()
    message.header.stamp = header.stamp
    message.header.frame_id = map_frame
    _set_xyz(message.pose.pose.position, pose.position)
    _set_xyzw(message.pose.pose.orientation, pose.orientation_xyzw)
    message.pose.covariance = covariance_numbers(pose.covariance, scale, signed)
    return message


def uncertainty_message(header: Header, camera: str, prediction: Prediction) -> DiagnosticArray:
    """Returns `Prediction.several_answers` of an image.

    Args:
        header: of the image.
        camera: its name, which becomes the status's.
        prediction: of the image.
    """
    status = status_message(0, camera, "", "", prediction.several_answers())
    return DiagnosticArray(header=header, status=[status])


def transform_message(
    header: Header, pose: CameraPose, map_frame: str, child_frame: str
) -> TransformStamped:
    """Returns a pose as the transform from the map to `child_frame`, for `/tf`."""
    message = TransformStamped()
    message.header.stamp = header.stamp
    message.header.frame_id = map_frame
    message.child_frame_id = child_frame
    _set_xyz(message.transform.translation, pose.position)
    _set_xyzw(message.transform.rotation, pose.orientation_xyzw)
    return message


def _set_xyz(target: Any, values: NDArray[np.float64]) -> None:
    target.x, target.y, target.z = (float(v) for v in values)


def _set_xyzw(target: Any, values: NDArray[np.float64]) -> None:
    target.x, target.y, target.z, target.w = (float(v) for v in canonical_xyzw(values))


def label_info_message(stamp: Time, labels: Sequence[str], threshold: float | None) -> LabelInfo:
    """Returns the labels by their index in the network; the threshold is 0 where there is none."""
    classes = [
        VisionClass(class_id=i, class_name=label)
        for i, label in enumerate(labels[: MAX_CLASS_ID + 1])
    ]
    message = LabelInfo(class_map=classes, threshold=0.0 if threshold is None else float(threshold))
    message.header.stamp = stamp
    return message


def vision_info_message(stamp: Time, bundle: ModelBundle) -> VisionInfo:
    """Returns which model gives the results.

    `method` holds name, backbone, heads and the bundle's sha256; `database_location` its directory; and
    `database_version` the first 31 bits of that hash, so that it differs when the model does.
    """
    message = VisionInfo(
        method=model_text(bundle),
        database_location=str(bundle.path),
        database_version=int(bundle.sha256[:8] or "0", 16) >> 1,
    )
    message.header.stamp = stamp
    return message


LEVELS: Mapping[int, Any] = {
    0: DiagnosticStatus.OK,
    1: DiagnosticStatus.WARN,
    2: DiagnosticStatus.ERROR,
}


def status_message(
    level: int, name: str, text: str, hardware_id: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Returns one entry of `/diagnostics`; level 0 is OK, 1 WARN, 2 ERROR."""
    return DiagnosticStatus(
        level=LEVELS[level],
        name=name,
        message=text,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
