"""One camera of the perception node: its subscriptions, what it counts, and whether it is well."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from robot_vision.contract.topics import LeftOut
from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.ros.node.image_topics import ImageTopic, InfoTopic
from robot_vision.ros.node.mailbox import Mailbox, RateLimiter
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.perception.diagnostics import CameraHealth
from robot_vision.ros.perception.outputs import CameraOutputs
from robot_vision.ros.perception.parameters import NodeSettings
from robot_vision.ros.perception.worker import CameraFrame
from robot_vision.text.counts import counted


class CameraInput:
    """A camera while the node is configured.

    Args:
        node: owns the subscription.
        name: of the camera.
        outputs: its publishers.
        parameters: returns the current snapshot.
        warn: throttled log: a key and a line.
        calibrated: whether a head needs the camera's calibration.
    """

    def __init__(
        self,
        node: ManagedNode[NodeSettings],
        name: str,
        outputs: CameraOutputs,
        parameters: Callable[[], NodeSettings],
        warn: Callable[[str, str], None],
        calibrated: bool,
    ) -> None:
        self.name = name
        self.outputs = outputs
        self.statistics = Statistics(parameters().diagnostics_window_s)
        self._images = ImageTopic(node, parameters().topic(name), parameters().transport)
        self._info = None
        if calibrated:
            topic, kind = parameters().info_topic(name), parameters().image_kind
            self._info = InfoTopic(node, topic, kind)
        self._node = node
        self._parameters = parameters
        self._warn = warn
        self._rate = RateLimiter()
        self._mailbox: Mailbox[CameraFrame] | None = None
        self._since = 0.0  # steady time of the last frame, or of the subscription
        self._seen = False
        self._stale = False
        self._last_stamp_ns = 0

    def subscribe(
        self, mailbox: Mailbox[CameraFrame], on_incompatible_qos: Callable[[str], None]
    ) -> None:
        """Starts to put frames into the mailbox."""
        p = self._parameters()
        self._mailbox = mailbox
        self._since, self._seen, self._stale = time.monotonic(), False, False
        self._images.subscribe(
            self._on_frame,
            profile(p.subscribe_reliability, p.subscribe_depth),
            on_incompatible_qos,
            lost=functools.partial(self.statistics.count, "lost"),
        )
        if self._info is not None:
            self._info.subscribe(profile(p.subscribe_reliability, 1))
        self._say_topic()

    def _say_topic(self) -> None:
        self._node.get_logger().info(
            f"Camera {self.name}: {self._images.name} ({self._parameters().transport})"
        )

    def unsubscribe(self) -> None:
        """Ends the subscription; calling it again does nothing."""
        self._images.unsubscribe()
        if self._info is not None:
            self._info.unsubscribe()
        self._mailbox = None

    def intrinsics(self, size: tuple[int, int]) -> Intrinsics | LeftOut:
        """Returns those of an image of a size (height, width), or why they are not known."""
        if self._info is None:
            return LeftOut("no_camera_info", "its head does not say that it needs camera_info")
        try:
            found = self._info.intrinsics(self._images.name, size)
        except ConfigError as error:
            return LeftOut("camera_info_refused", str(error))
        return found or LeftOut(
            "no_camera_info",
            f"{self._info.missing}, so where its pixels look is not known: publish it, or set "
            "camera_info_topics",
        )

    def _on_frame(self, serialized: bytes) -> None:
        self._since = time.monotonic()
        if self._stale:
            self._node.get_logger().info(f"Camera {self.name}: frames arrive again")
        self._seen, self._stale = True, False
        self.statistics.mark("received")
        self.statistics.count("received")
        if not self._rate.allows(self._parameters().max_rate_hz, self._since):
            self.statistics.count("limited")
        elif self._mailbox and self._mailbox.put(self.name, CameraFrame(serialized, self._since)):
            self.statistics.count("replaced")

    def note_stamp(self, stamp: Any, now_ns: int) -> None:
        """Notes the age of a frame that is published at the ROS time `now_ns`, and stamps that go back.

        A bag that loops, or a simulation that restarts, sends them: the frames count like any other.
        """
        taken_ns = stamp_to_ns(stamp)
        age_s = (now_ns - taken_ns) * 1e-9
        if age_s < 0:  # the clock was set back after the frame was taken, or machines disagree
            self.statistics.count("stamps_ahead")
        else:
            self.statistics.sample("age", age_s)
        back_s = (self._last_stamp_ns - taken_ns) * 1e-9
        self._last_stamp_ns = taken_ns
        if back_s > 0:
            total = self.statistics.count("stamps_back")
            self._warn(
                f"{self.name} stamps",
                f"Camera {self.name}: stamps went back by {back_s:.3f} s ({total} so far); the frames "
                "are used. A bag that loops does so, or two publishers on one topic",
            )

    def health(self, idle: bool) -> CameraHealth:
        """Returns how the camera does, and logs when it stopped."""
        if self._images.follow():
            self._say_topic()
        silent_s = time.monotonic() - self._since
        topic = self._images.name
        publishers = self._node.count_publishers(topic)
        if silent_s > self._parameters().stale_after_s and not self._stale:
            self._stale = True
            what = "no frame" if self._seen else "no frame yet"
            self._node.get_logger().warning(
                f"Camera {self.name}: {what} on {topic} for {silent_s:.1f} s "
                f"({counted(publishers, 'publisher')}){self._images.advice()}"
            )
        advice = self._images.advice() if self._stale else ""
        return CameraHealth(self.name, topic, publishers, silent_s, self._seen, idle, advice)
