"""The pose over time, in the filter node: measured poses and odometry in, one pose out."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from std_msgs.msg import Bool, Header

from robot_vision.errors import MeasurementError
from robot_vision.filters.pose_filter import (
    CELLS_AGAINST,
    LOCALISED,
    REINITIALISED,
    REJECTED,
    UNCERTAIN,
    WAITING,
    MeasurementOutcome,
    PoseEstimate,
    PoseFilter,
)
from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.frames import FrameTree
from robot_vision.geometry.rigid import (
    compose_with_covariance,
    inverse,
    pose_matrix,
    xyzw_from_matrix,
)
from robot_vision.messages.clouds import checked_cells
from robot_vision.messages.incoming import checked_covariance, checked_pose, measured_stamp_ns
from robot_vision.messages.stamps import nanoseconds, set_stamp
from robot_vision.ros.filters.diagnostics import (
    DISTRUSTED,
    REASONS,
    STALE,
    PoseHealth,
    belief_message,
    pose_status,
)
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.ros.filters.pose_sources import PoseSources
from robot_vision.ros.node.mailbox import RateLimiter
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.qos import profile, publisher_events, subscription_events
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import pose_message, transform_message
from robot_vision.ros.node.transforms import refusing, subscribe_static

SILENT = "silent"
_JUDGED_S = 0.1  # between two looks at what was last heard
_REPEATED_S = (
    0.5  # of a belief that stays: who hears nothing for longer knows that nobody judges any more
)
_QUIET_S = 0.3  # after which the last estimate is none of now

Warn = Callable[[str, str], None]
Matrix = NDArray[np.float64]


class PoseFiltering:
    """Subscriptions, filter and publishers of the pose, while the node is configured.

    Args:
        node: owns them.
        parameters: returns the current snapshot.
        warn: throttled log: a key and a line.
        ahead: says by how many seconds a stamp is too far ahead of the node's clock; 0 if it is not.
        on_qos: logs QoS that does not fit.
    """

    def __init__(
        self,
        node: ManagedNode[FilterParameters],
        parameters: Callable[[], FilterParameters],
        warn: Warn,
        ahead: Callable[[int], float],
        on_qos: Callable[[str], None],
    ) -> None:
        self._node, self._parameters, self._warn, self._ahead = node, parameters, warn, ahead
        self._on_qos = on_qos
        p = parameters()
        self.statistics = Statistics(p.diagnostics_window_s)
        self._filter = PoseFilter(p.pose_settings())
        self._statics: FrameTree[Any] = FrameTree()
        self._subscriptions: list[Any] = []
        self._end_static: Callable[[], Any] | None = None
        self._rate = RateLimiter()
        self._interval_s = 0.0  # between two inputs of late
        self._stamps: dict[str, int] = {}  # of each topic, the last that was used
        self._published_ns = self._resets = self._without = 0
        self._localised: bool | None = None
        self._condition = WAITING
        self._stale = False  # nothing that can be used comes in: what is believed ages unseen
        self._odom_frame = p.odom_frame
        self._child_frame = p.base_frame
        self._last_pose = self._last_odometry = self._last_used = time.monotonic()
        name = node.get_fully_qualified_name()
        qos = profile(p.publish_reliability, p.publish_depth)
        self._pose = node.create_lifecycle_publisher(
            PoseWithCovarianceStamped,
            "~/pose",
            qos,
            event_callbacks=publisher_events(f"{name}/pose", on_qos),
        )
        latched = profile("reliable", 1, latched=True)
        self._bool = node.create_lifecycle_publisher(Bool, "~/localised", latched)
        self._belief = node.create_lifecycle_publisher(DiagnosticStatus, "~/belief", latched)
        self._sources: PoseSources | None = None
        self._timer: Any = None
        self._said: tuple[str, str] | None = None
        self._said_ns = 0

    def activate(self) -> None:
        """Subscribes, and says that nothing is known yet."""
        p, node = self._parameters(), self._node
        self._last_pose = self._last_odometry = self._last_used = time.monotonic()
        self._filter = PoseFilter(p.pose_settings())
        self._published_ns, self._resets, self._without, self._localised = 0, 0, 0, None
        from tf2_msgs.msg import TFMessage

        node.open_tf()
        self._sources = PoseSources(node, [node.resolve_topic_name(topic) for topic in p.poses()])
        self._end_static = subscribe_static(
            node, self._statics, refusing(self.statistics, self._warn)
        )
        for index, topic in enumerate(p.poses()):
            self._subscribe(
                PoseWithCovarianceStamped, topic, functools.partial(self._on_pose, topic, index)
            )
        for index, topic in enumerate(p.cells()):
            from sensor_msgs.msg import PointCloud2

            self._subscribe(PointCloud2, topic, functools.partial(self._on_cells, topic, index))
        if p.odometry_source == "topic":
            from nav_msgs.msg import Odometry

            self._subscribe(Odometry, p.odometry_topic, self._on_odometry)
        elif p.odometry_source == "tf":
            self._subscribe(TFMessage, "/tf", self._on_tf)
        self._said = None
        self._timer = node.create_timer(_JUDGED_S, self._judge)
        self._judge()

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        p, full = self._parameters(), self._node.resolve_topic_name(topic)
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                full,
                callback,
                profile(p.subscribe_reliability, p.subscribe_depth),
                event_callbacks=subscription_events(full, self._on_qos),
            )
        )

    def deactivate(self) -> None:
        """Ends the subscriptions, and says that the robot is not localised."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        if self._end_static is not None:
            self._end_static()
            self._end_static = None
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
            self._say(STALE, "the filter is no longer active", None)
        self._node.close_tf()
        if self._sources is not None:
            self._sources.destroy()
            self._sources = None

    def destroy(self) -> None:
        """Ends everything."""
        self.deactivate()
        for publisher in (self._pose, self._bool, self._belief):
            self._node.destroy_lifecycle_publisher(publisher)

    def on_change(self) -> None:
        """Takes changed parameters up."""
        self._filter.change(self._parameters().pose_settings())

    # Measured poses and cells

    def _on_pose(self, topic: str, index: int, message: Any) -> None:
        self.statistics.count("poses_received")
        self._last_pose = time.monotonic()
        stamp = self._stamp(topic, message.header)
        if stamp is None:
            return
        try:
            covariance = checked_covariance(message.pose.covariance)
        except MeasurementError as error:
            self._refuse(topic, error.reason, str(error))
            return
        T_map_frame = self._matrix(topic, message.pose.pose, "refused")
        if T_map_frame is None:
            return
        of = self._parameters().pose_frame(index)
        if self._wrong_frame(topic, of):
            return
        T_frame_base = self._to_base(topic, of)
        if T_frame_base is None:
            return
        if of:
            T_map_frame, covariance = compose_with_covariance(T_map_frame, covariance, T_frame_base)
        self._measured(
            topic, stamp, lambda: self._filter.add_pose(stamp, T_map_frame, covariance, topic)
        )

    def _on_cells(self, topic: str, index: int, message: Any) -> None:
        self.statistics.count("cells_received")
        stamp = self._stamp(topic, message.header)
        if stamp is None:
            return
        try:
            cells = PositionCells(*checked_cells(message))
        except MeasurementError as error:
            self._refuse(topic, error.reason, str(error))
            return
        T_frame_base = self._to_base(topic, self._parameters().cell_frame(index))
        if T_frame_base is None:
            return
        point = inverse(T_frame_base)[:3, 3]
        self._measured(topic, stamp, lambda: self._filter.add_cells(stamp, cells, topic, point))

    def _stamp(self, topic: str, header: Any) -> int | None:
        """Returns the stamp of a measurement in the map's frame; None where it is none, after saying so."""
        p, frame = self._parameters(), header.frame_id.lstrip("/")
        if frame != p.map_frame:
            self._refuse(
                topic, "frame", f"its frame is {frame!r} and not map_frame, {p.map_frame!r}"
            )
            return None
        try:
            stamp = measured_stamp_ns(header)
        except MeasurementError as error:
            self._refuse(topic, error.reason, str(error))
            return None
        if stamp == self._stamps.get(topic):
            self._refuse(topic, "out_of_order", f"its stamp, {stamp} ns, is that of the last one")
            return None
        ahead_s = self._ahead(stamp)
        if ahead_s > 0:
            self._refuse(topic, "stamps_ahead", f"its stamp is {ahead_s:.1f} s ahead of the clock")
            return None
        return stamp

    def _to_base(self, topic: str, of: str) -> Matrix | None:
        """Returns the fixed transform (4, 4) from a frame to the robot; says of one that is missing why."""
        if not of:
            return np.eye(4)
        if not self._base():
            text = (
                f"it is of {of!r}, and no odometry has named the robot's frame yet: set base_frame"
            )
            self._refuse(topic, "no_transform", text)
            return None
        T_frame_base = self._statics.lookup(of, self._base())
        if T_frame_base is None:
            text = f"no fixed transform from {of!r} to {self._base()!r} on /tf_static"
            self._refuse(topic, "no_transform", text)
        return T_frame_base

    def _measured(
        self, topic: str, stamp: int, add: Callable[[], list[MeasurementOutcome]]
    ) -> None:
        try:
            outcomes = add()
        except MeasurementError as error:
            self._refuse(topic, error.reason, str(error))
            return
        self._stamps[topic] = stamp
        self._used()
        self._note(outcomes)
        self._publish()

    def _used(self) -> None:
        """Notes that something came which can be used, and how often that is."""
        now = time.monotonic()
        self._interval_s += 0.1 * (min(now - self._last_used, 2.0) - self._interval_s)
        self._last_used = now

    def _wrong_frame(self, topic: str, of: str) -> bool:
        """Says whether a pose must be dropped, since its publisher says that it is another frame's."""
        assert self._sources is not None
        full, base = self._node.resolve_topic_name(topic), self._base()
        if not (of or base):
            return False
        text = self._sources.wrong(full, of or base, bool(of))
        if text and (of or self._parameters().base_frame):
            self._refuse(topic, "pose_of", text)
            return True
        if text:  # an odometry may be the camera's
            self._warn(f"{topic} pose_of", f"{topic}: if {base!r} is not the camera, {text}")
        if not self._sources.unknown(full):
            return False
        self.statistics.count("held_back")
        return True

    def _base(self) -> str:
        return self._parameters().base_frame or self._child_frame

    def _refuse(self, topic: str, reason: str, text: str) -> None:
        self.statistics.count(f"refused_{reason}")
        self.statistics.mark("refused")
        self.statistics.mark(f"refused_{reason}")
        self._warn(f"{topic} {reason}", f"{topic}: a measurement was refused: {text}")

    def _note(self, outcomes: list[MeasurementOutcome]) -> None:
        more, self._without = (
            self._filter.without_odometry - self._without,
            self._filter.without_odometry,
        )
        if more:
            self.statistics.count("without_odometry", more)
            self._warn(
                "without odometry",
                "Poses are used before the odometry of their time: it has stopped, or its stamps lag by more "
                "than odometry_timeout_s",
            )
        for outcome in outcomes:
            self.statistics.count(outcome.verdict)
            self.statistics.mark(outcome.verdict)
            if outcome.verdict == REJECTED:
                self._warn(
                    f"{outcome.source} rejected",
                    f"{outcome.source}: a pose was rejected, at a Mahalanobis distance of "
                    f"{math.sqrt(outcome.distance):.1f} (gate_probability)",
                )
            elif outcome.verdict == REINITIALISED:
                self._warn(
                    "reinitialised",
                    f"{outcome.source}: rejected poses agree with each other: they replace the estimate",
                )
            elif outcome.verdict == CELLS_AGAINST:
                self._warn(
                    f"{outcome.source} against",
                    f"{outcome.source}: cells say that the robot is not where the estimate is",
                )

    # Odometry

    def _on_odometry(self, message: Any) -> None:
        self._take_odometry(
            message.header, message.child_frame_id.lstrip("/"), message.pose.pose, "odometry"
        )

    def _on_tf(self, message: Any) -> None:
        p = self._parameters()
        for stamped in message.transforms:
            child = stamped.child_frame_id.lstrip("/")
            if stamped.header.frame_id.lstrip("/") != p.odom_frame or (
                child != p.base_frame and self._statics.lookup(child, p.base_frame) is None
            ):
                continue
            self._take_odometry(stamped.header, child, stamped.transform, "tf")

    def _take_odometry(self, header: Any, child: str, pose: Any, what: str) -> None:
        p = self._parameters()
        self.statistics.count("odometry_received")
        self.statistics.mark("odometry")
        self._last_odometry = time.monotonic()
        T_child_base = np.eye(4)
        if p.base_frame and child != p.base_frame:
            found = self._statics.lookup(child, p.base_frame)
            if found is None:
                self._refuse_odometry(
                    "frame",
                    f"it is of {child!r}, and no fixed transform on /tf_static joins that to base_frame, "
                    f"{p.base_frame!r}",
                )
                return
            T_child_base = found
        try:
            stamp = measured_stamp_ns(header)
        except MeasurementError as error:
            self._refuse_odometry(error.reason, str(error))
            return
        ahead_s = self._ahead(stamp)
        if ahead_s > 0:
            self._refuse_odometry(
                "stamps_ahead", f"its stamp is {ahead_s:.1f} s ahead of the clock"
            )
            return
        T_odom_child = self._matrix(what, pose, "odometry")
        if T_odom_child is None:
            return
        self._odom_frame, self._child_frame = header.frame_id.lstrip("/"), child
        try:
            outcomes, why = self._filter.add_odometry(stamp, T_odom_child @ T_child_base)
        except MeasurementError as error:
            self._refuse_odometry(error.reason, str(error))
            return
        self._used()
        if why:
            self.statistics.count("odometry_jumps")
            self._warn("odometry jump", f"The motion is not known: {why}")
        self._note(outcomes)
        self._publish()

    def _refuse_odometry(self, reason: str, text: str) -> None:
        self.statistics.count(f"odometry_{reason}")
        self.statistics.mark("refused")
        self.statistics.mark(f"refused_odometry_{reason}")
        self._warn(f"odometry {reason}", f"Odometry was refused: {text}")

    def _matrix(self, what: str, pose: Any, counter: str) -> Matrix | None:
        """Returns the matrix of a Pose or Transform; None where it is none, after saying so."""
        try:
            return pose_matrix(*checked_pose(pose))
        except MeasurementError as error:
            if counter == "odometry":
                self._refuse_odometry(error.reason, str(error))
            else:
                self._refuse(what, error.reason, str(error))
            return None

    # What goes out

    def _publish(self) -> None:
        p = self._parameters()
        if self._filter.resets > self._resets:
            self._resets = self._filter.resets
            self.statistics.count("resets")
            self._published_ns = 0
            self._warn("reset", "Stamps went back: the filter is restarted")
        estimate = self._filter.estimate()
        self._judge(estimate)
        if estimate is None or estimate.stamp_ns <= self._published_ns:
            return
        if not self._rate.allows(p.max_rate_hz, time.monotonic()):
            return
        self._published_ns = estimate.stamp_ns
        header = _header(estimate.stamp_ns, p.map_frame)
        pose = CameraPose(estimate.position, estimate.orientation_xyzw, estimate.covariance)
        try:
            message = pose_message(header, pose, p.map_frame, signed=p.signed_covariance)
        except ValueError as error:
            # The estimate overflowed: restart rather than repeat it forever.
            self._warn("estimate", f"The estimate is lost ({error}): restarted")
            self._filter.reset()
            return
        self._pose.publish(message)
        self.statistics.count("published")
        self.statistics.mark("published")
        if p.publish_tf and self._node.tf is not None:
            self._broadcast(header, p)

    def _broadcast(self, header: Header, p: FilterParameters) -> None:
        assert self._node.tf is not None
        T_map_odom = self._filter.T_map_odom()
        if T_map_odom is None or not self._odom_frame:
            return
        pose = CameraPose(T_map_odom[:3, 3], xyzw_from_matrix(T_map_odom[:3, :3]), np.eye(6))
        transform = transform_message(header, pose, p.map_frame, self._odom_frame)
        self._node.tf.send(transform, "the filter")

    def _judge(self, estimate: PoseEstimate | None = None) -> None:
        """Publishes whether the robot is localised, and why not, when that changed.

        What nothing has been said of for a while is judged as of now: the robot may have moved on.
        """
        if estimate is None:
            estimate = self._filter.estimate()
        silent_s = time.monotonic() - self._last_used
        quiet = silent_s > max(_QUIET_S, 2 * self._interval_s)
        if estimate is not None and quiet:
            estimate = self._filter.estimate(estimate.stamp_ns + nanoseconds(silent_s))
        self._condition = self._filter.condition(estimate)
        reason = REASONS[self._condition]
        self._stale = silent_s > self._parameters().stale_after_s or (quiet and reason == UNCERTAIN)
        reason = STALE if self._stale else reason
        fault = self._filter.odometry_fault if not self._filter.odometry_trusted else ""
        if reason == LOCALISED and fault:
            reason = DISTRUSTED
        if self._said != (reason, fault):
            self._say(reason, fault, estimate)
        elif abs(self._node.get_clock().now().nanoseconds - self._said_ns) >= nanoseconds(
            _REPEATED_S
        ):
            self._publish_belief(reason, fault, estimate)

    def _say(self, reason: str, text: str, estimate: PoseEstimate | None) -> None:
        localised = reason in (LOCALISED, DISTRUSTED)
        self._said = (reason, text)
        self._publish_belief(reason, text, estimate)
        if localised != self._localised:
            self._localised = localised
            self._bool.publish(Bool(data=localised))
            why = text or self._text()
            self._node.get_logger().info("Localised" if localised else f"Not localised: {why}")
        if reason == DISTRUSTED:
            self.statistics.count("odometry_distrusted")
            self._warn(
                "odometry distrusted",
                f"The odometry is not followed, since the measured poses contradict it: {text}",
            )

    def _publish_belief(self, reason: str, text: str, estimate: PoseEstimate | None) -> None:
        self._said_ns = self._node.get_clock().now().nanoseconds
        name = self._node.get_fully_qualified_name()
        self._belief.publish(belief_message(name, reason, text or self._text(), estimate))

    def _text(self) -> str:
        return SILENT if self._stale else self._condition

    def status(self, node: str) -> Any:
        """Returns the entry of `/diagnostics`."""
        estimate = self._filter.estimate()
        self._judge()
        if self._sources is not None:
            self._sources.ask()
        now = time.monotonic()
        health = PoseHealth(
            self._localised or False,
            self._text(),
            estimate,
            self._filter.refused_in_a_row,
            self._filter.replays,
            now - self._last_pose,
            now - self._last_odometry,
            "" if self._filter.odometry_trusted else self._filter.odometry_fault,
        )
        return pose_status(node, self._parameters(), health, self.statistics)


def _header(stamp_ns: int, frame: str) -> Header:
    header = Header(frame_id=frame)
    set_stamp(header.stamp, stamp_ns)
    return header
