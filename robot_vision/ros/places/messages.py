"""Places to standard messages, and the descriptor message back to an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseWithCovarianceStamped
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from robot_vision.errors import ImageError
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.published_covariance import MAX_COVARIANCE
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.heads.classifier.answer import UNKNOWN, score_of_unknown
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.node.status import pose_message

MAX_DRAWN = 20_000  # keyframes in a marker; of larger maps every n-th is drawn
NOWHERE = CameraPose(
    np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.diag(np.full(6, MAX_COVARIANCE))
)


@dataclass(frozen=True)
class PlaceHypothesis:
    """A place that the camera may be at.

    Attributes:
        place: id of the keyframe.
        probability: that it is this place.
        pose: of the camera (or of the robot's base) in the map, if it is.
    """

    place: int
    probability: float
    pose: CameraPose


@dataclass(frozen=True)
class LoopEnd:
    """One of the two poses of a loop closure.

    Attributes:
        stamp_ns: of the image.
        name: of the place: its keyframe's id, or its number in the session.
        pose: of the camera in the frame of the loop closure.
    """

    stamp_ns: int
    name: str
    pose: CameraPose


def time_message(stamp_ns: int) -> Time:
    """Returns nanoseconds as a `builtin_interfaces/Time`."""
    sec, nanosec = divmod(int(stamp_ns), SECOND_NS)
    return Time(sec=sec, nanosec=nanosec)


def read_descriptor(message: Any) -> NDArray[np.float32]:
    """Returns the descriptor (D,) of a `sensor_msgs/Image` of one row of 32FC1, of length 1.

    Raises:
        ImageError: another encoding or shape, too few bytes, NaN or infinity, or no direction.
    """
    if message.encoding != "32FC1":
        raise ImageError("encoding", f"descriptor encoding is {message.encoding!r}: send 32FC1")
    if message.height != 1 or message.width < 1:
        raise ImageError(
            "size", f"descriptor is {message.height} x {message.width}: send one row of numbers"
        )
    order = ">" if message.is_bigendian else "<"
    data = memoryview(message.data).cast("B")
    if len(data) < 4 * message.width:
        raise ImageError(
            "data_length",
            f"descriptor of {message.width} numbers has {len(data)} bytes: send {4 * message.width}",
        )
    values = np.frombuffer(data[: 4 * message.width], f"{order}f4").astype(np.float32)
    norm = float(np.linalg.norm(values.astype(np.float64)))
    if not np.isfinite(norm):
        raise ImageError("non_finite", "descriptor has NaN or infinity")
    if abs(norm - 1) > 0.01:
        raise ImageError("size", f"descriptor's length is {norm:.3g}: it must be 1")
    return np.asarray(values / np.float32(norm))


def places_message(
    header: Header,
    map_frame: str,
    hypotheses: Sequence[PlaceHypothesis],
    accepted: bool,
    probability_in_map: float,
    scale: float = 1.0,
    signed: bool = False,
) -> Detection3D:
    """Returns the places, most probable first: stamp of the image, frame of the map.

    Where no place is accepted, `unknown` comes first, with the probability that the best leaves, and
    at least one half; the others share what that leaves. A subscriber is safe that reads only the first
    result, or the one of the highest score. `id` is that of the accepted place or empty.
    """
    message = Detection3D()
    message.header = Header(stamp=header.stamp, frame_id=map_frame)
    unknown, factor = 0.0, 1.0
    if not (accepted and hypotheses):
        best = hypotheses[0].probability if hypotheses else 0.0
        left = max(1.0 - best, 1.0 - probability_in_map)
        unknown, factor = score_of_unknown(left, sum(h.probability for h in hypotheses))
    found = [
        _hypothesis(str(h.place), h.probability * factor, h.pose, header, map_frame, scale, signed)
        for h in hypotheses
    ]
    if accepted and found:
        message.id = str(hypotheses[0].place)
        message.bbox.center = found[0].pose.pose
    else:
        found.insert(0, _hypothesis(UNKNOWN, unknown, NOWHERE, header, map_frame, 1.0, signed))
    message.results = found
    return message


def loop_closure_message(
    frame: str, earlier: LoopEnd, now: LoopEnd, probability: float, scale: float = 1.0
) -> Detection3DArray:
    """Returns a loop closure: two detections, the earlier view and the one now, each with its stamp and pose.

    Both poses are in `frame`; that of now is where the camera would be if the loop closes, so that
    `inverse(earlier) * now` is the constraint between the two stamps. The covariance is that of the pose of
    now relative to the earlier one; the earlier pose has the least that there is.
    """
    message = Detection3DArray()
    message.header = Header(stamp=time_message(now.stamp_ns), frame_id=frame)
    for end in (earlier, now):
        header = Header(stamp=time_message(end.stamp_ns), frame_id=frame)
        detection = Detection3D(header=header, id=end.name)
        detection.results = [
            _hypothesis(end.name, probability, end.pose, header, frame, scale, signed=True)
        ]
        detection.bbox.center = detection.results[0].pose.pose
        message.detections.append(detection)
    return message


def _hypothesis(
    name: str,
    score: float,
    pose: CameraPose,
    header: Header,
    frame: str,
    scale: float,
    signed: bool,
) -> ObjectHypothesisWithPose:
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = name
    result.hypothesis.score = float(score)
    result.pose = pose_message(header, pose, frame, scale, signed).pose
    return result


def initial_pose_message(
    stamp: Time, pose: CameraPose, map_frame: str, scale: float = 1.0
) -> PoseWithCovarianceStamped:
    """Returns the pose of the robot's base as AMCL takes it.

    Nav2's AMCL refuses what is not finite, a quaternion that is not of length 1, and any negative number in
    the covariance; and ignores a pose of another frame than its own.
    """
    header = Header(stamp=stamp, frame_id=map_frame)
    return pose_message(header, pose, map_frame, scale, signed=False)


def keyframe_markers(stamp: Time, frame: str, positions: NDArray[np.float64]) -> MarkerArray:
    """Returns points for the map's keyframes (N, 3)."""
    return MarkerArray(markers=[_points(stamp, frame, "map", positions, (0.45, 0.5, 0.58, 0.8))])


def session_markers(
    stamp: Time,
    frame: str,
    positions: NDArray[np.float64],
    loops: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> MarkerArray:
    """Returns points for the session's keyframes (N, 3) and a line for each of its loop closures."""
    lines = _marker(stamp, frame, "loops", Marker.LINE_LIST)
    lines.scale.x = 0.03
    lines.color = _colour((0.9, 0.2, 0.6, 0.9))
    lines.points = [_point(p) for pair in loops for p in pair]
    if not loops:
        lines.action = Marker.DELETE
    points = _points(stamp, frame, "session", positions, (0.1, 0.55, 0.95, 0.9))
    return MarkerArray(markers=[points, lines])


def match_markers(
    stamp: Time,
    frame: str,
    hypotheses: Sequence[PlaceHypothesis],
    accepted: bool,
) -> MarkerArray:
    """Returns an arrow along the view of the best place, and spheres at all that are likely."""
    if not hypotheses:
        return MarkerArray(markers=[_marker(stamp, frame, "match", Marker.ARROW, Marker.DELETE)])
    best = hypotheses[0].pose
    arrow = _marker(stamp, frame, "match", Marker.ARROW)
    ahead = best.position + 0.6 * matrix_from_xyzw(best.orientation_xyzw)[:, 2]
    arrow.points = [_point(best.position), _point(ahead)]
    arrow.scale.x, arrow.scale.y, arrow.scale.z = 0.06, 0.14, 0.14
    arrow.color = _colour((0.1, 0.8, 0.3, 1.0) if accepted else (0.95, 0.65, 0.1, 0.7))
    others = _points(
        stamp,
        frame,
        "candidates",
        np.array([h.pose.position for h in hypotheses]).reshape(-1, 3),
        (0.95, 0.65, 0.1, 0.9),
        0.16,
    )
    return MarkerArray(markers=[arrow, others])


def _points(
    stamp: Time,
    frame: str,
    name: str,
    positions: NDArray[np.float64],
    rgba: tuple[float, float, float, float],
    size: float = 0.08,
) -> Marker:
    if not len(positions):
        return _marker(stamp, frame, name, Marker.SPHERE_LIST, Marker.DELETE)
    marker = _marker(stamp, frame, name, Marker.SPHERE_LIST)
    marker.scale.x = marker.scale.y = marker.scale.z = size
    marker.color = _colour(rgba)
    step = -(-len(positions) // MAX_DRAWN)
    marker.points = [_point(p) for p in positions[::step]]
    return marker


def _marker(stamp: Time, frame: str, name: str, kind: int, action: int = Marker.ADD) -> Marker:
    marker = Marker(ns=name, id=0, type=kind, action=action)
    marker.header = Header(stamp=stamp, frame_id=frame)
    marker.pose.orientation.w = 1.0
    return marker


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(v) for v in values)
    return Point(x=x, y=y, z=z)


def _colour(rgba: tuple[float, float, float, float]) -> ColorRGBA:
    r, g, b, a = rgba
    return ColorRGBA(r=r, g=g, b=b, a=a)
