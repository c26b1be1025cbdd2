"""One camera of the perception node: its subscription, what it counts, and whether it is well."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage, Image

from robot_vision.errors import ConfigError
from robot_vision.ros.diagnostics import CameraHealth
from robot_vision.ros.mailbox import Mailbox, RateLimiter
from robot_vision.ros.managed_node import ManagedNode
from robot_vision.ros.outputs import CameraOutputs
from robot_vision.ros.perception_parameters import PerceptionParameters
from robot_vision.ros.qos import profile, subscription_events
from robot_vision.ros.statistics import Statistics
from robot_vision.ros.worker import Frame

_KINDS = {"raw": Image, "compressed": CompressedImage}  # by transport


class Camera:
    """A camera while the node is configured.

    Args:
        node: owns the subscription.
        name: of the camera.
        outputs: its publishers.
        parameters: returns the current snapshot.
        warn: throttled log: a key and a line.
    """

    def __init__(
        self,
        node: ManagedNode[PerceptionParameters],
        name: str,
        outputs: CameraOutputs,
        parameters: Callable[[], PerceptionParameters],
        warn: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.outputs = outputs
        self.statistics = Statistics(parameters().diagnostics_window_s)
        try:
            validate_topic_name(parameters().topic(name))
        except InvalidTopicNameException as error:
            raise ConfigError(
                f"image_topics has {parameters().topic(name)!r} for camera {name}: a topic has letters, "
                "digits, _ and single slashes, and no part of it begins with a digit"
            ) from error
        self.topic = node.resolve_topic_name(parameters().topic(name))
        self._node = node
        self._parameters = parameters
        self._warn = warn
        self._rate = RateLimiter()
        self._subscription: Any = None
        self._mailbox: Mailbox[Frame] | None = None
        self._since = 0.0  # steady time of the last frame, or of the subscription
        self._seen = False
        self._stale = False
        self._last_stamp_ns = 0

    def subscribe(
        self, mailbox: Mailbox[Frame], on_incompatible_qos: Callable[[str], None]
    ) -> None:
        """Starts to put frames into the mailbox."""
        p = self._parameters()
        kind = _KINDS[p.transport]
        self._mailbox = mailbox
        self._since, self._seen, self._stale = time.monotonic(), False, False
        self._subscription = self._node.create_subscription(
            kind,
            p.topic(self.name),
            self._on_frame,
            profile(p.subscribe_reliability, p.subscribe_depth),
            event_callbacks=subscription_events(self.topic, on_incompatible_qos),
            raw=True,
            lost=functools.partial(self.statistics.count, "lost"),
        )
        self._node.get_logger().info(f"Camera {self.name}: {self.topic} ({kind.__name__})")

    def unsubscribe(self) -> None:
        """Ends the subscription; calling it again does nothing."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._mailbox = None

    def _on_frame(self, serialized: bytes) -> None:
        self._since = time.monotonic()
        if self._stale:
            self._node.get_logger().info(f"Camera {self.name}: frames arrive again")
        self._seen, self._stale = True, False
        self.statistics.mark("received")
        self.statistics.count("received")
        if not self._rate.allows(self._parameters().max_rate_hz, self._since):
            self.statistics.count("limited")
        elif self._mailbox and self._mailbox.put(self.name, Frame(serialized, self._since)):
            self.statistics.count("replaced")

    def note_stamp(self, stamp: Any, now_ns: int) -> None:
        """Notes the age of a frame that is published at the ROS time `now_ns`, and stamps that go back.

        A bag that loops, or a simulation that restarts, sends them: the frames count like any other.
        """
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        age_s = (now_ns - stamp_ns) * 1e-9
        if age_s < 0:  # the clock was set back after the frame was taken, or machines disagree
            self.statistics.count("stamps_ahead")
        else:
            self.statistics.sample("age", age_s)
        back_s = (self._last_stamp_ns - stamp_ns) * 1e-9
        self._last_stamp_ns = stamp_ns
        if back_s > 0:
            total = self.statistics.count("stamps_back")
            self._warn(
                f"{self.name} stamps",
                f"Camera {self.name}: stamps went back by {back_s:.3f} s ({total} so far); the frames "
                "are used. A bag that loops does so, or two publishers on one topic",
            )

    def health(self, idle: bool) -> CameraHealth:
        """Returns how the camera does, and logs when it stopped."""
        silent_s = time.monotonic() - self._since
        publishers = self._node.count_publishers(self.topic)
        if silent_s > self._parameters().stale_after_s and not self._stale:
            self._stale = True
            what = "no frame" if self._seen else "no frame yet"
            self._node.get_logger().warning(
                f"Camera {self.name}: {what} on {self.topic} for {silent_s:.1f} s "
                f"({publishers} publishers){self._advice()}"
            )
        advice = self._advice() if self._stale else ""
        return CameraHealth(self.name, self.topic, publishers, silent_s, self._seen, idle, advice)

    def _advice(self) -> str:
        """Returns what is wrong with the publishers' type, which DDS does not tell a subscriber."""
        found = {i.topic_type for i in self._node.get_publishers_info_by_topic(self.topic)}
        kinds = {t: f"sensor_msgs/msg/{kind.__name__}" for t, kind in _KINDS.items()}
        transport = self._parameters().transport
        if not found or kinds[transport] in found:
            return ""
        fitting = [t for t, kind in kinds.items() if kind in found]
        remedy = f"set transport to {fitting[0]}" if fitting else "set image_topics"
        return f"; {', '.join(sorted(found))} is published there: {remedy}"
