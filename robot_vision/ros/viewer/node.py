"""The viewer node: what the robot sees and says, on a web page that it serves.

A lifecycle node. Which topics are shown follows from their types and from the heads (`viewing.messages`);
the page is Rerun's, in a process of its own.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("viewer_node"))

import fnmatch
import functools
import importlib
import time
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy

from robot_vision.errors import ConfigError, ImageError, MeasurementError, SourceError
from robot_vision.ros.node import qos
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.status import status_message
from robot_vision.ros.node.transitions import SUCCESS, reported
from robot_vision.ros.viewer.parameters import ViewerParameters
from robot_vision.text.counts import counted
from robot_vision.viewing.keyframes import show_keyframes
from robot_vision.viewing.messages import ImageLimits, Shown
from robot_vision.viewing.scene import Scene, load_rerun
from robot_vision.viewing.server import WebViewer

NODE_NAME = "viewer"
_LOOK_S = 1.0  # from one look at the graph to the next
_RESTART_S = 5.0  # from one attempt to serve again to the next
_NAMED = 3  # topics that cannot be shown, in /diagnostics


class ViewerNode(ManagedNode[ViewerParameters]):
    """Shows the topics of a running robot.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._server: WebViewer | None = None
        self._scene: Scene | None = None
        self._shown: Shown | None = None
        self._heard: dict[str, Any] = {}  # topics to their subscriptions
        self._last: dict[str, float] = {}  # when a message of a topic was shown
        self._unknown: dict[str, str] = {}  # topics that are left out, and why
        self._timer: Any = None
        self._tried = 0.0
        super().__init__(NODE_NAME, ViewerParameters, **options)

    # Transitions

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Serves the page."""
        load_rerun()
        try:
            self._open()
        except BaseException:
            self._free()
            raise
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to what there is, and from then on to what comes."""
        super().on_activate(state)
        self._look()
        # With use_sim_time a paused bag must not hide new topics.
        self._timer = self.create_steady_timer(_LOOK_S, self._look)
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the subscriptions; the page stays as it is."""
        self._quiet()
        super().on_deactivate(state)
        return SUCCESS

    def _open(self) -> None:
        p = self.parameters
        self._server = WebViewer(p.host, p.port, p.memory_mb)
        self._scene = Scene(self.get_fully_qualified_name())
        self._scene.connect(self._server.sink)
        self._shown = Shown(self._scene, ImageLimits(side=p.image_side))
        if p.map:
            from robot_vision.places.map.opening import open_map

            with open_map(p.map, "read") as places:
                poses, frame = places.poses(), places.info.frame_id
            if len(poses.ids):
                where = poses.positions, poses.quaternions_xyzw
                show_keyframes(self._scene, frame, poses.ids, *where, poses.sources)
        self.get_logger().info(f"Open {self._server.page} in a browser")
        if p.host != "127.0.0.1":
            self.get_logger().warning(
                f"Everybody who reaches {p.host} can see what the robot sees: the page has no password"
            )

    def _quiet(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            self.destroy_timer(timer)
        for subscription in self._heard.values():
            self.destroy_subscription(subscription)
        self._heard, self._last, self._unknown = {}, {}, {}

    def _close(self) -> None:
        scene, self._scene, self._shown = self._scene, None, None
        server, self._server = self._server, None
        if scene is not None:
            scene.close()
        if server is not None:
            server.close()

    def _free(self) -> None:
        self._quiet()
        self._close()

    # What is shown

    def _look(self) -> None:
        """Subscribes to topics that are new, lays out panels that are, and serves again what ended."""
        if self._server is None or not self._server.alive:
            self._serve_again()
        if self._shown is None or self._scene is None:
            return
        wanted = self.parameters.topics
        for topic, kinds in self.get_topic_names_and_types():
            if topic in self._heard or topic in self._unknown:
                continue
            if wanted and not any(fnmatch.fnmatchcase(topic, pattern) for pattern in wanted):
                continue
            if any(self._shown.shows(topic, kind) for kind in kinds):
                if self.count_publishers(topic):
                    self._hear(topic, kinds)
        if self._scene.changed:
            self._scene.send_layout()

    def _serve_again(self) -> None:
        if time.monotonic() - self._tried < _RESTART_S:
            return
        self._tried = time.monotonic()
        self._statistics.count("restarts")
        self._warn(
            "server", "Rerun's server ended: it is started again, and what was shown is lost"
        )
        self._close()
        try:
            self._open()
        except (ConfigError, SourceError) as error:
            self._close()
            self._warn("restart", f"Nothing is served: {error}")
            return
        # Names and the like come once: hear all topics from the beginning.
        for subscription in self._heard.values():
            self.destroy_subscription(subscription)
        self._heard = {}

    def _hear(self, topic: str, kinds: Sequence[str]) -> None:
        if len(kinds) > 1:
            self._leave_out(topic, f"it has several types: {', '.join(sorted(kinds))}")
            return
        package, _, name = kinds[0].partition("/msg/")
        try:
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError):
            self._leave_out(topic, f"{kinds[0]} is not installed here: install {package}")
            return
        infos = self.get_publishers_info_by_topic(topic)
        latched = bool(infos) and all(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for info in infos
        )
        # Diagnostics and what is latched come from many nodes, one after the other.
        reliable = "reliable" if latched else self.parameters.subscribe_reliability
        depth = 50 if latched or topic == "/diagnostics" else 1
        self._heard[topic] = self.create_subscription(
            kind,
            topic,
            lambda message: self._take(topic, kinds[0], message, latched),
            qos.profile(reliable, depth, latched),
            event_callbacks=qos.subscription_events(topic, self._on_incompatible_qos),
        )

    def _leave_out(self, topic: str, why: str) -> None:
        self._unknown[topic] = why
        self.get_logger().warning(f"{topic} is not shown: {why}")

    def _take(self, topic: str, kind: str, message: Any, all_of_them: bool) -> None:
        if self._shown is None:
            return
        now, rate = time.monotonic(), self.parameters.max_rate_hz
        # Each node sends its own diagnostics, so that a rate of the topic would hide nodes.
        seldom = rate > 0 and not all_of_them and topic != "/diagnostics"
        if seldom and now - self._last.get(topic, 0.0) < 0.95 / rate:
            self._statistics.count("left_out")
            return
        self._last[topic] = now
        try:
            self._shown.show(topic, kind, message, self.get_clock().now().nanoseconds)
            self._statistics.count("shown")
        except (ImageError, MeasurementError, SourceError) as error:
            total = self._statistics.count("not_shown")
            self._warn(topic, f"A message of {topic} is not shown ({total} in all): {error}")

    # Around it

    def _shared_topics(self) -> Sequence[str]:
        return tuple(self._heard)  # it only reads them

    def _on_change(self, before: ViewerParameters, after: ViewerParameters) -> None:
        """Nothing: the rate is read at each message."""

    def _statuses(self) -> list[DiagnosticStatus]:
        counters, state = self._statistics.counters, self.state_label
        alive = self._server is not None and self._server.alive
        level, text = self._condition()
        if level == 0 and state in ("inactive", "active") and not alive:
            level, text = 2, "Rerun's server ended"
        elif level == 0 and self._unknown:
            level = 1
            some = [f"{topic}: {why}" for topic, why in list(self._unknown.items())[:_NAMED]]
            text = f"{counted(len(self._unknown), 'topic')} not shown: {'; '.join(some)}"
        values: dict[str, object] = {
            "state": state,
            "page": self._server.page if alive and self._server is not None else "",
            "topics": len(self._heard),
            **{
                name: counters.get(name, 0)
                for name in ("shown", "left_out", "not_shown", "restarts", "incompatible_qos")
            },
        }
        return [status_message(level, self.get_fully_qualified_name(), text, "", values)]


main = functools.partial(run_node, ViewerNode)
