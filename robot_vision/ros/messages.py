"""Predictions to standard messages. Every result carries the header of its image."""

from __future__ import annotations

import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Classification, LabelInfo, ObjectHypothesis, VisionClass, VisionInfo

from robot_vision.bundle import ModelBundle
from robot_vision.geometry import canonical_xyzw
from robot_vision.predictions import CameraPose, Hypothesis

# Nav2's AMCL refuses entries that are not finite, above 1e9 or negative. Below the smallest variance
# a filter would take the pose for exact and divide by zero.
MAX_COVARIANCE = 1e9
MIN_VARIANCE = 1e-9
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


def covariance_numbers(
    covariance: NDArray[np.float64], scale: float = 1.0, signed: bool = False
) -> NDArray[np.float64]:
    """Returns a covariance (6, 6) as the 36 numbers of a message, usable by every filter.

    Variances are kept within [MIN_VARIANCE, MAX_COVARIANCE] and covariances within what the variances
    allow, so the result is finite, not zero, and symmetric. A covariance that is not finite says that
    nothing is known: the largest variances, and no correlation.

    Nav2's AMCL refuses a pose with any negative entry, and a correct covariance has some. So each negative
    covariance c_ij is lifted to zero by adding |r_ij| of both variances (r: correlation). What is added
    is positive semidefinite: the result is a covariance, and never smaller than the true one.

    Args:
        covariance: (6, 6).
        scale: it is multiplied by it.
        signed: keep negative covariances instead, for filters that take them.
    """
    matrix = np.asarray(covariance, np.float64).reshape(6, 6) * scale
    if not np.all(np.isfinite(matrix)):
        matrix = np.diag(np.full(6, MAX_COVARIANCE))
    deviation = np.sqrt(np.maximum(np.diagonal(matrix), MIN_VARIANCE))
    correlation = np.clip((matrix + matrix.T) / (2 * np.outer(deviation, deviation)), -1, 1)
    np.fill_diagonal(correlation, 1.0)
    if not signed:
        lift = np.maximum(-correlation, 0.0)
        correlation = correlation + lift + np.diag(lift.sum(axis=1))
    variance = np.diagonal(correlation) * deviation**2
    deviation = deviation * np.minimum(1.0, np.sqrt(MAX_COVARIANCE / variance))
    result = correlation * np.outer(deviation, deviation)
    return np.clip(result, -MAX_COVARIANCE, MAX_COVARIANCE).reshape(36)


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
    heads = "+".join(bundle.spec.heads)
    message = VisionInfo(
        method=f"{bundle.name} {bundle.spec.backbone} {heads} sha256:{bundle.sha256}",
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
