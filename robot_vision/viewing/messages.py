"""Messages as they are seen, by their types and by what heads say of their topics (`Topic.look`).

The messages may be rclpy's or those of `rosbags`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.contract import registry
from robot_vision.contract.topics import PLAIN, Look, Topic
from robot_vision.errors import ImageError, MeasurementError
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.published_covariance import MAX_COVARIANCE
from robot_vision.images.compressed import compressed_size
from robot_vision.images.decode import bytes_of, to_rgb
from robot_vision.images.planes import to_plane
from robot_vision.messages.clouds import point_fields
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.messages.types import (
    CLASSIFICATION,
    DIAGNOSTICS,
    IMAGE,
    LABEL_INFO,
    LASER_SCAN,
    POINT_CLOUD,
    POSE_STAMPED,
    POSE_WITH_COVARIANCE_STAMPED,
    RANGE,
    VISION_INFO,
)
from robot_vision.recordings.bag import calls_itself_truth, names_topic
from robot_vision.viewing.scene import Scene

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
STRING = "std_msgs/msg/String"
STATUS = "diagnostic_msgs/msg/DiagnosticStatus"
ODOMETRY = "nav_msgs/msg/Odometry"
PLACES = "vision_msgs/msg/Detection3D"
MARKERS = "visualization_msgs/msg/MarkerArray"
TWIST = "geometry_msgs/msg/TwistStamped"

LATCHED = (LABEL_INFO, VISION_INFO)  # their last message is for all that follows
_MOST_POINTS = 5000  # of a cloud or scan; of more every n-th is shown
_MOST_LINES = 40  # of the fields of a message of an unknown type
_LEVELS = ("OK", "WARN", "ERROR", "STALE")
_ACCEPTED, _CANDIDATE = (25, 205, 75), (240, 165, 25)  # RGB, as the place node's markers
_POINTS, _LINE_STRIP, _LINE_LIST = (7, 8), 4, 5  # of visualization_msgs/Marker

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ImageLimits:
    """How pictures are reduced.

    Attributes:
        side: of the longer side of a picture, in pixels; a larger one is made smaller.
        quality: of the JPEGs, 1 to 100.
    """

    side: int = 640
    quality: int = 80


class Shown:
    """Shows messages.

    Args:
        scene: that they are shown in.
        limits: of pictures.
    """

    def __init__(self, scene: Scene, limits: ImageLimits | None = None) -> None:
        self._scene = scene
        self._limits = limits or ImageLimits()
        self._topics = [t for head in registry.installed() for t in head.topics(None)]
        self._names: dict[str, dict[int, str]] = {}  # of topics of LabelInfo
        self._named: dict[str, str] = {}  # topics to that of their names
        self._newest: dict[str, Array] = {}  # positions by frames
        self._by_kind: dict[str, Callable[[str, Any, Look], None]] = {
            IMAGE: self._image,
            COMPRESSED_IMAGE: self._image,
            CLASSIFICATION: self._classification,
            LABEL_INFO: self._label_info,
            VISION_INFO: self._vision_info,
            POSE_WITH_COVARIANCE_STAMPED: self._pose,
            POSE_STAMPED: self._pose,
            ODOMETRY: self._pose,
            PLACES: self._places,
            MARKERS: self._markers,
            DIAGNOSTICS: self._diagnostics,
            STATUS: self._status,
            STRING: self._string,
            LASER_SCAN: self._scan,
            POINT_CLOUD: self._cloud,
            RANGE: self._range,
            TWIST: self._twist,
        }

    def shows(self, topic: str, kind: str) -> bool:
        """Says whether messages of a topic are shown: of known types, and all of heads."""
        owner = self._of_head(topic, kind)
        return kind in self._by_kind if owner is None else owner.look.shown

    def show(self, topic: str, kind: str, message: Any, else_ns: int) -> None:
        """Shows a message.

        Args:
            topic: in full.
            kind: its type, of which `shows` says that it is shown.
            message: of it.
            else_ns: the time of one that has no stamp.

        Raises:
            ImageError: the picture cannot be decoded.
            MeasurementError: the message says something that nothing measures.
        """
        header = getattr(message, "header", None)
        stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
        self._scene.at(stamp_ns or else_ns)
        owner = self._of_head(topic, kind)
        look = owner.look if owner else PLAIN
        self._by_kind.get(kind, self._fields)(topic, message, look)

    def _of_head(self, topic: str, kind: str) -> Topic | None:
        """Returns the topic of a head, under whatever name it is; true images may be compressed."""
        if kind == COMPRESSED_IMAGE and calls_itself_truth(topic):
            kind = IMAGE
        return next(
            (t for t in self._topics if t.kind == kind and topic.endswith(f"/{t.name}")), None
        )

    # Pictures

    def _image(self, topic: str, message: Any, look: Look) -> None:
        encoding = str(getattr(message, "encoding", "") or getattr(message, "format", ""))
        if look.labels or names_topic(topic) in self._names:
            try:
                ids = to_plane(message)
            except ImageError:
                if not calls_itself_truth(topic):
                    raise
                self._scene.jpeg(topic, self._jpeg(message))  # classes by their colours
            else:
                self._mask(topic, ids, look)
        elif encoding.startswith(("32FC1", "16UC1")):
            plane = to_plane(message)
            metres = plane / 1000.0 if plane.dtype == np.uint16 else plane
            self._scene.depth(topic, _reduced(metres, self._limits.side))
        else:
            self._scene.jpeg(topic, self._jpeg(message))

    def _mask(self, topic: str, ids: NDArray[Any], look: Look) -> None:
        if ids.dtype not in (np.uint8, np.uint16):
            raise ImageError("encoding", f"ids of classes are whole numbers and not {ids.dtype}")
        for info in (names_topic(topic), *_label_topics(topic, look.labels)):
            if info in self._names and self._named.get(topic) != info:
                self._named[topic] = info
                self._scene.names(topic, self._names[info])
        self._scene.mask(topic, _reduced(ids, self._limits.side))

    def _jpeg(self, message: Any) -> bytes:
        side = self._limits.side
        if not hasattr(message, "encoding"):
            data = bytes_of(message.data)
            if bytes(data[:3]) == b"\xff\xd8\xff" and max(compressed_size(data, "")) <= side:
                return data.tobytes()  # as the camera made it
        image = _reduced(to_rgb(message), side)
        quality = (cv2.IMWRITE_JPEG_QUALITY, self._limits.quality)
        done, packed = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
        assert done
        return packed.tobytes()

    # Answers

    def _classification(self, topic: str, message: Any, look: Look) -> None:
        self._scene.bars(topic, [(h.class_id, float(h.score)) for h in message.results])

    def _label_info(self, topic: str, message: Any, look: Look) -> None:
        names = {int(c.class_id): str(c.class_name) for c in message.class_map}
        if names != self._names.get(topic):
            self._names[topic] = names
            self._named = {mask: info for mask, info in self._named.items() if info != topic}

    def _vision_info(self, topic: str, message: Any, look: Look) -> None:
        said = f"{message.method}\n\n{message.database_location} {message.database_version}"
        self._scene.text(topic, said)

    def _pose(self, topic: str, message: Any, look: Look) -> None:
        inner = message.pose
        pose = getattr(inner, "pose", inner)
        covariance = np.array(getattr(inner, "covariance", np.zeros(36)), np.float64).reshape(6, 6)
        position, xyzw = _numbers(pose.position), _numbers(pose.orientation, "xyzw")
        length = float(np.linalg.norm(xyzw))
        if not np.isfinite(position).all() or not 0.9 < length < 1.1:
            raise MeasurementError("pose", f"its pose is none: {position}, {xyzw}")
        # Half of the square of what says "unknown" is far beyond any room.
        spread = np.diag(covariance)[:3]
        known = bool(
            np.isfinite(covariance).all() and spread.max() > 0 and spread.max() < MAX_COVARIANCE / 2
        )
        frame = message.header.frame_id
        self._newest[frame] = position
        found = CameraPose(position, xyzw / length, covariance)
        self._scene.pose(topic, frame or "no frame", found, known)

    def _places(self, topic: str, message: Any, look: Look) -> None:
        ranked = [
            (r.hypothesis.class_id, float(r.hypothesis.score), _numbers(r.pose.pose.position))
            for r in message.results
        ]
        self.matches(topic, message.header.frame_id, ranked, str(message.id))

    def matches(
        self, topic: str, frame: str, ranked: Sequence[tuple[str, float, Array]], accepted: str
    ) -> None:
        """Shows ranked places, and a line from the newest pose of their frame to each that has a position.

        Args:
            topic: that they are shown as.
            frame: of the map.
            ranked: id of the keyframe (or `unknown`), probability and position (3,).
            accepted: id of the one that is accepted; empty for none.
        """
        self._scene.bars(topic, [(name, share) for name, share, _ in ranked])
        found = [(n, share, p) for n, share, p in ranked if n.isdigit() and np.isfinite(p).all()]
        start = self._newest.get(frame)
        self._scene.lines(
            f"{topic}/matches",
            frame,
            [np.stack([p if start is None else start, p]) for _, _, p in found],
            [_ACCEPTED if name == accepted else _CANDIDATE for name, _, _ in found],
            [f"{name}: {100 * share:.0f} %" for name, share, _ in found],
        )

    def _twist(self, topic: str, message: Any, look: Look) -> None:
        twist = message.twist
        values = {"linear_x": twist.linear.x, "angular_z": twist.angular.z}
        self._scene.numbers(topic, values)

    def _range(self, topic: str, message: Any, look: Look) -> None:
        self._scene.numbers(topic, {"range_m": message.range})

    # The robot

    def _status(self, topic: str, message: Any, look: Look) -> None:
        self._scene.text(topic, "\n".join([*_STATUS_HEAD, *_status_rows(message)]))

    def _string(self, topic: str, message: Any, look: Look) -> None:
        self._scene.text(topic, _plain(message.data))

    def _diagnostics(self, topic: str, message: Any, look: Look) -> None:
        """Shows each entry by its own: nodes send theirs one by one."""
        for status in message.status:
            name = str(status.name).strip("/") or "nameless"
            rows = [*_STATUS_HEAD, *_status_rows(status)]
            self._scene.text(f"{topic}/{self._scene.part(name)}", "\n".join(rows))

    def _scan(self, topic: str, message: Any, look: Look) -> None:
        ranges = np.asarray(message.ranges, np.float64)
        angles = message.angle_min + message.angle_increment * np.arange(len(ranges))
        fine = np.isfinite(ranges) & (ranges >= message.range_min) & (ranges <= message.range_max)
        points = np.stack(
            [ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges)], axis=1
        )[fine]
        self._scene.points(topic, message.header.frame_id, _some(points))

    def _cloud(self, topic: str, message: Any, look: Look) -> None:
        points = point_fields(message, "x y z")
        fine = np.isfinite(points).all(axis=1)
        radii = np.full(len(points), 0.01)
        if {f.name for f in message.fields} >= {"size", "probability"}:
            size, probability = point_fields(message, "size probability").T
            # Discs whose areas are as the probabilities, and that fill what they are of where it is certain.
            radii = np.maximum(size / 2 * np.sqrt(probability.clip(0, 1)), 0.01)
        points, radii = _some(points[fine]), _some(radii[fine])
        self._scene.points(topic, message.header.frame_id, points, radius=radii)

    def _markers(self, topic: str, message: Any, look: Look) -> None:
        for marker in message.markers:
            entity = f"{topic}/{self._scene.part(f'{marker.ns or chr(45)}_{marker.id}')}"
            points = np.array([_numbers(p) for p in marker.points]).reshape(-1, 3)
            if marker.action != 0 or not np.isfinite(points).all():
                points = points[:0]
            c = marker.color
            colour = (round(255 * c.r), round(255 * c.g), round(255 * c.b))
            frame = marker.header.frame_id
            if marker.type in _POINTS:
                radius = max(float(marker.scale.x) / 2, 0.01)
                self._scene.points(entity, frame, points, colour, radius=radius)
            elif marker.type in (_LINE_STRIP, _LINE_LIST) or len(points) == 2:
                pairs = [points] if marker.type != _LINE_LIST else list(points.reshape(-1, 2, 3))
                strips = [pair for pair in pairs if len(pair)]
                self._scene.lines(entity, frame, strips, [colour] * len(strips))

    def _fields(self, topic: str, message: Any, look: Look) -> None:
        """Shows what a message of a type that is not known here says, field by field."""
        lines = [line for line, _ in zip(_lines(message), range(_MOST_LINES), strict=False)]
        self._scene.text(topic, "\n".join(["| field | value |", "|:--|:--|", *lines]))


_STATUS_HEAD = ("| | |", "|:--|:--|")


def _status_rows(status: Any) -> list[str]:
    level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
    word = _LEVELS[level] if level < len(_LEVELS) else str(level)
    rows = [f"| **{word}** | {_plain(status.message)} |"]
    rows += [f"| {_plain(v.key)} | {_plain(v.value)} |" for v in status.values]
    return rows


def _plain(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _label_topics(topic: str, labels: str) -> Iterator[str]:
    """Yields where the names of a mask may be: the node is above its camera, and above a head's name."""
    parts = topic.split("/")
    for end in range(len(parts) - 1, 0, -1):
        node = "/".join(parts[:end])
        yield f"{node}/{labels}"
        # A head that has a name of its own has it in front of its words, of both topics.
        yield from (f"{node}/{name}/{labels}" for name in parts[end:-1])


def _numbers(fields: Any, names: str = "xyz") -> Array:
    return np.array([getattr(fields, name) for name in names], np.float64)


def _reduced(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Returns an image (h, w, ...) whose longer side has at most `side` pixels; only colours are mixed."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    how = cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=how))


def _some(points: Array) -> Array:
    return points[:: -(-len(points) // _MOST_POINTS) or 1]


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """Yields the fields of a message as rows of a table; of long lists their length."""
    fields = (
        getattr(value, "__dataclass_fields__", None)
        or getattr(value, "get_fields_and_field_types", dict)()
    )
    if fields:
        for field in fields:
            if not field.startswith("__") and field != "header":
                yield from _lines(getattr(value, field), f"{name}.{field}".lstrip("."))
    elif isinstance(value, (bool, int, str)):
        yield f"| {name} | {_plain(value)} |"
    elif isinstance(value, float):
        yield f"| {name} | {value:.6g} |" if math.isfinite(value) else f"| {name} | {value} |"
    elif hasattr(value, "__len__"):
        shown = (
            ", ".join(_plain(v) for v in list(value)[:9])
            if len(value) < 10
            else f"{len(value)} values"
        )
        yield f"| {name} | {shown} |"
