"""What the place node publishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header
from vision_msgs.msg import Detection3D, Detection3DArray
from visualization_msgs.msg import MarkerArray

from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.ros.node.mailbox import RateLimiter
from robot_vision.ros.node.qos import profile, publisher_events
from robot_vision.ros.node.status import pose_message
from robot_vision.ros.places.messages import (
    LoopEnd,
    PlaceHypothesis,
    initial_pose_message,
    keyframe_markers,
    loop_closure_message,
    match_markers,
    places_message,
    session_markers,
)
from robot_vision.ros.places.parameters import PlaceParameters

KINDS: dict[str, Any] = {
    "places": Detection3D,
    "pose": PoseWithCovarianceStamped,
    "loop_closure": Detection3DArray,
    "markers": MarkerArray,
}
MARKERS_HZ = 5.0

Positions = NDArray[np.float64]


class Drawn(Protocol):
    """What is drawn of a session: see `loops.Loops`."""

    frame: str
    closed: list[tuple[Positions, Positions]]

    def __len__(self) -> int: ...

    @property
    def positions(self) -> Positions:
        """Of its keyframes (N, 3)."""


class PlaceOutputs:
    """The publishers of the place node.

    Args:
        node: owns them.
        parameters: as at configure time.
        warn: logs a subscriber that cannot be served.
    """

    def __init__(
        self, node: LifecycleNode, parameters: PlaceParameters, warn: Callable[[str], None]
    ) -> None:
        self._node = node
        self._rate = RateLimiter()
        self._watchers = 0
        self._drawn = (-1, -1)
        qos = profile(parameters.publish_reliability, parameters.publish_depth)
        name = node.get_fully_qualified_name()
        self._publishers: dict[str, Any] = {
            topic: node.create_lifecycle_publisher(
                kind, f"~/{topic}", qos, event_callbacks=publisher_events(f"{name}/{topic}", warn)
            )
            for topic, kind in KINDS.items()
        }
        # AMCL, slam_toolbox and RViz speak of it reliably, and one pose is one command.
        self._publishers["initialpose"] = node.create_lifecycle_publisher(
            PoseWithCovarianceStamped, parameters.initialpose_topic, profile("reliable", 1)
        )

    def places(
        self,
        header: Header,
        frame: str,
        hypotheses: Sequence[PlaceHypothesis],
        accepted: bool,
        probability_in_map: float,
        parameters: PlaceParameters,
    ) -> None:
        """Publishes the ranked places of an image, and draws the best."""
        shown = hypotheses[: parameters.top_k]
        if self._publishers["places"].get_subscription_count() > 0:
            self._publishers["places"].publish(
                places_message(
                    header,
                    frame,
                    shown,
                    accepted,
                    probability_in_map,
                    parameters.pose_covariance_scale,
                    parameters.signed_covariance,
                )
            )
        if self.drawn_on and self._rate.allows(MARKERS_HZ):
            self._publishers["markers"].publish(match_markers(header.stamp, frame, shown, accepted))

    def pose(
        self, header: Header, frame: str, pose: CameraPose, parameters: PlaceParameters
    ) -> None:
        """Publishes the pose of an accepted match."""
        message = pose_message(
            header, pose, frame, parameters.pose_covariance_scale, parameters.signed_covariance
        )
        self._publishers["pose"].publish(message)

    def initial_pose(
        self, stamp: Time, frame: str, pose: CameraPose, parameters: PlaceParameters
    ) -> tuple[str, int]:
        """Publishes the pose to start a localiser with; returns the topic and how many subscribe to it."""
        publisher = self._publishers["initialpose"]
        listeners = int(publisher.get_subscription_count())
        if listeners:
            publisher.publish(
                initial_pose_message(stamp, pose, frame, parameters.pose_covariance_scale)
            )
        return publisher.topic_name, listeners

    def loop_closure(
        self,
        frame: str,
        earlier: LoopEnd,
        now: LoopEnd,
        probability: float,
        parameters: PlaceParameters,
    ) -> None:
        """Publishes a loop closure of the running session."""
        message = loop_closure_message(
            frame, earlier, now, probability, parameters.pose_covariance_scale
        )
        self._publishers["loop_closure"].publish(message)

    @property
    def drawn_on(self) -> bool:
        """Whether somebody subscribes to the markers."""
        return bool(self._publishers["markers"].get_subscription_count() > 0)

    def keyframes(
        self,
        stamp: Time,
        frame: str,
        revision: int,
        positions: Callable[[], Positions],
        session: Drawn | None,
    ) -> None:
        """Redraws the keyframes if they changed or a new viewer came.

        Args:
            stamp: of the markers.
            frame: of the map.
            revision: of the map.
            positions: returns those of the map's keyframes (N, 3).
            session: keyframes and loop closures of the running session, in a frame of their own.
        """
        watchers = self._publishers["markers"].get_subscription_count()
        state = (revision, 0 if session is None else len(session) + len(session.closed))
        if watchers and (watchers > self._watchers or state != self._drawn):
            message = keyframe_markers(stamp, frame, positions())
            if session is not None and session.frame:
                own = session_markers(stamp, session.frame, session.positions, session.closed)
                message.markers.extend(own.markers)
            self._publishers["markers"].publish(message)
            self._drawn = state
        self._watchers = watchers

    def destroy(self) -> None:
        """Ends the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}
