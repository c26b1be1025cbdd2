"""Where the camera was when an image was taken, in the frame of the robot's motion."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray

from robot_vision.errors import MeasurementError
from robot_vision.filters.odometry import SPEED_M_S, TURN_DEG_S, Continuity
from robot_vision.geometry.frames import FrameTree
from robot_vision.geometry.pose_buffer import PoseBuffer
from robot_vision.geometry.rigid import compose_with_covariance, pose_matrix
from robot_vision.messages.incoming import checked_covariance, checked_pose, checked_stamp_ns
from robot_vision.ros.node.qos import profile, subscription_events
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.transforms import refusing, subscribe_static, transform_from_numbers
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.places.tf import MovingTransforms
from robot_vision.text.counts import counted

Array = NDArray[np.float64]
KINDS: dict[str, Any] = {
    "odometry": Odometry,
    "pose": PoseStamped,
    "pose_with_covariance": PoseWithCovarianceStamped,
}
TF_DEPTH = 100  # transforms come many at a time, and none is like another


@dataclass(frozen=True)
class Located:
    """Where the camera was.

    Attributes:
        T_fixed_camera: pose (4, 4) of the camera's optical frame.
        frame: in which it is.
        in_map: whether that is the map's frame, or one that drifts against it.
        covariance: (6, 6) about the frame's axes, where somebody said.
    """

    T_fixed_camera: Array
    frame: str
    in_map: bool
    covariance: Array | None


class Motion:
    """Subscribes to the robot's motion, and to `/tf_static` for where the camera is on it.

    Args:
        node: owns the subscriptions.
        parameters: returns the current snapshot.
        map_frame: returns the map's frame.
        statistics: counts what was refused.
        warn: throttled log: a key and a line.
    """

    def __init__(
        self,
        node: Any,
        parameters: Callable[[], PlaceParameters],
        map_frame: Callable[[], str],
        statistics: Statistics,
        warn: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._map_frame = map_frame
        self._statistics = statistics
        self._warn = warn
        self._buffer = PoseBuffer()
        # A silence alone is no restart: what went on meanwhile is in the odometry.
        self._continuity = Continuity(SPEED_M_S, TURN_DEG_S, gap_s=math.inf)
        self._refuse = refusing(statistics, warn)
        self._tree = MovingTransforms()
        self._statics: FrameTree[Any] = FrameTree()
        self._release: list[Callable[[], Any]] = []
        self._frame = self._child = ""
        self._since = time.monotonic()
        self.seen = False
        self.why = ""  # the last image was not located
        self.jumps = 0  # how often its clock went back: who keeps poses of its frame forgets them

    @property
    def source(self) -> str:
        """`none`, `odometry`, `pose`, `pose_with_covariance` or `tf`."""
        return self._parameters().pose_source

    @property
    def topic(self) -> str:
        """What is subscribed; empty for none."""
        if self.source == "tf":
            return "/tf"
        return (
            self._node.resolve_topic_name(self._parameters().poses) if self.source != "none" else ""
        )

    @property
    def silent_s(self) -> float:
        """Seconds since the last pose came, or since the subscription."""
        return time.monotonic() - self._since

    def subscribe(self, on_incompatible_qos: Callable[[str], None]) -> None:
        """Starts to listen."""
        p = self._parameters()
        self._since, self.seen = time.monotonic(), False
        if self.source == "tf" or p.base_frame or (self.source != "none" and not p.camera_to_base):
            self._release.append(subscribe_static(self._node, self._statics, self._refuse))
        if self.source == "tf":
            self._subscribe_tf()
        elif self.source != "none":
            subscription = self._node.create_subscription(
                KINDS[self.source],
                p.poses,
                self._on_odometry if self.source == "odometry" else self._on_pose,
                profile(p.subscribe_reliability, max(p.subscribe_depth, 50)),
                event_callbacks=subscription_events(self.topic, on_incompatible_qos),
            )
            self._release.append(functools.partial(self._node.destroy_subscription, subscription))

    def _subscribe_tf(self) -> None:
        from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
        from tf2_msgs.msg import TFMessage

        for topic, fixed in (("/tf", False), ("/tf_static", True)):
            durability = DurabilityPolicy.TRANSIENT_LOCAL if fixed else DurabilityPolicy.VOLATILE
            qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=TF_DEPTH, durability=durability)
            subscription = self._node.create_subscription(
                TFMessage, topic, functools.partial(self._on_tf, fixed), qos
            )
            self._release.append(functools.partial(self._node.destroy_subscription, subscription))

    def unsubscribe(self) -> None:
        """Stops listening; calling it again does nothing."""
        for release in reversed(self._release):
            release()
        self._release = []

    def at(self, stamp_ns: int, camera_frame: str) -> Located | None:
        """Returns where the camera was, waiting a little for the pose of that time; None if nobody knows.

        Args:
            stamp_ns: of the image.
            camera_frame: of the image's header.
        """
        p = self._parameters()
        if self.source == "none":
            return None
        # What has stopped is not waited for: every image would be late.
        wait_s = p.sync_wait_s if self.seen and self.silent_s < p.stale_after_s else 0.0
        if self.source == "tf":
            frame = self._map_frame()
            found = self._tree.wait(frame, camera_frame, stamp_ns, p.sync_tolerance_s, wait_s)
            if found is None:
                self.why = self._tree.why(frame, camera_frame, stamp_ns, p.sync_tolerance_s)
            return None if found is None else Located(found, frame, True, None)
        self._buffer.wait(stamp_ns, wait_s)
        pose = self._buffer.at(stamp_ns, p.sync_tolerance_s)
        if pose is None:
            self.why = self._buffer.why(stamp_ns)
            return None
        in_map = self.source != "odometry"
        body = p.base_frame if in_map else self._child or p.base_frame
        T_body_camera = self.mounting(body, camera_frame)
        if T_body_camera is None:
            self.why = f"where {camera_frame!r} is on {body!r} is not known"
            return None
        covariance = pose[1] if pose[1] is not None else np.zeros((6, 6))
        T, moved = compose_with_covariance(pose[0], covariance, T_body_camera)
        return Located(T, self._frame, in_map, None if pose[1] is None else moved)

    def mounting(self, body: str, camera_frame: str) -> Array | None:
        """Returns `T_body_camera`; None, with a warning, if it is neither given nor on `/tf_static`."""
        numbers = self._parameters().camera_to_base
        if numbers and (body or self.source == "odometry"):
            return transform_from_numbers(numbers)
        if not body or body.lstrip("/") == camera_frame.lstrip("/"):
            return np.eye(4)
        found = self._statics.lookup(body, camera_frame)
        if found is None:
            found = self._tree.lookup_at(body, camera_frame, 0, 0.0)
        if found is None:
            self._statistics.count("no_transform")
            self._warn(
                "transform",
                f"No fixed transform from {body!r} to {camera_frame!r} on /tf_static: publish it, or set "
                "camera_to_base",
            )
        return found

    def _on_odometry(self, message: Odometry) -> None:
        self._child = str(message.child_frame_id)
        self._take(message, message.pose.pose, message.pose.covariance)

    def _on_pose(self, message: Any) -> None:
        frame, wanted = message.header.frame_id.lstrip("/"), self._map_frame()
        if frame != wanted:
            total = self._statistics.count("pose_refused_frame")
            self._warn(
                "pose frame",
                f"Poses on {self.topic} are in frame {frame!r} and the map is in {wanted!r} ({total} "
                "refused so far): publish them in the map's frame, or take pose_source odometry",
            )
            return
        covariance = None
        pose = message.pose
        if self.source == "pose_with_covariance":
            pose, covariance = message.pose.pose, message.pose.covariance
        self._take(message, pose, covariance)

    def _take(self, message: Any, pose: Any, numbers: Any = None) -> None:
        try:
            stamp_ns = checked_stamp_ns(message.header)
            position, xyzw = checked_pose(pose)
        except MeasurementError as error:
            total = self._statistics.count("pose_refused")
            self._warn("pose", f"Pose on {self.topic} refused ({total} so far): {error}")
            return
        self._frame = message.header.frame_id.lstrip("/")
        covariance = self._covariance(numbers)
        if self.source == "odometry":
            self._join(stamp_ns, pose_matrix(position, xyzw))
        self._heard(0 if self._buffer.add(stamp_ns, position, xyzw, covariance) else 1)

    def _join(self, stamp_ns: int, T_odom_base: Array) -> None:
        """Forgets earlier poses where the odometry begins at its origin again.

        Any other leap is left to the matches: they say whether the robot was carried or the odometry wrong.
        """
        newest = self._buffer.newest_ns
        if newest is not None and stamp_ns <= newest:
            return
        _, why = self._continuity.add(stamp_ns, T_odom_base)
        if self._continuity.at_origin:
            self._buffer.clear()
            self.jumps += 1
            total = self._statistics.count("odometry_jumps")
            self._warn(
                "odometry jump",
                f"{self.topic} begins again ({counted(total, 'time')} so far), earlier poses are "
                f"forgotten: {why}",
            )

    def _covariance(self, numbers: Any) -> Array | None:
        """Returns the covariance (6, 6) of a message; None where the driver does not say."""
        if numbers is None or not np.any(numbers):  # all zeros: nobody filled it in
            return None
        try:
            return checked_covariance(numbers)
        except MeasurementError as error:
            total = self._statistics.count("covariance_unknown")
            self._warn(
                "covariance",
                f"Poses on {self.topic} are taken without a covariance ({total} so far): {error}",
            )
            return None

    def _on_tf(self, fixed: bool, message: Any) -> None:
        before = self._tree.stamps_back
        self._tree.add_message(message, fixed, self._refuse)
        if not fixed:
            self._heard(self._tree.stamps_back - before)

    def _heard(self, back: int) -> None:
        self._since, self.seen = time.monotonic(), True
        self._statistics.mark("poses")
        if back:
            self._continuity.forget()
            self.jumps += 1
            total = self._statistics.count("poses_back")
            self._warn(
                "poses back",
                f"The clock of {self.topic} went back ({counted(total, 'time')} so far): earlier poses "
                "are forgotten",
            )
