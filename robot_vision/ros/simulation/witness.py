"""Watches a simulated robot that nodes drive: what a referee needs, and some of what the camera saw."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped, TwistStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, Range
from std_srvs.srv import Trigger
from vision_msgs.msg import Classification

from robot_vision.images.decode import to_rgb
from robot_vision.messages.stamps import SECOND_NS, stamp_to_ns
from robot_vision.ros.node.dds import use_large_image_profile
from robot_vision.ros.node.qos import profile
from robot_vision.simulation.nodes import COLLISION, NEAR, STEERING
from robot_vision.simulation.referee import Drive, Hit, StuckWatch, hit_of, visited
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.simulator import Simulator

_ANSWERS = 50  # images of which answers are kept


@dataclass
class View:
    """What the camera saw at one place, and what was said of it.

    Attributes:
        xy: (2,) of the robot, metres in the map.
        image: RGB uint8 (H, W, 3).
        said: `steering` in [-1, 1], `collision` as a probability, `near` in metres.
    """

    xy: NDArray[np.float64]
    image: NDArray[np.uint8]
    said: dict[str, float]


class Witness(Node):
    """Listens to the simulator, the model's answers and the commands.

    A robot that gets nowhere is carried, as `robot_vision.simulation.referee` does.

    Args:
        simulator: of the same world, robot and mount, which does not move.
        every_m: distance after which the next view is kept, in metres.

    Attributes:
        way_m: driven.
        time_s: simulated, since the first command.
        images: that came.
        views: kept.
    """

    def __init__(self, simulator: Simulator, every_m: float) -> None:
        super().__init__("witness")
        self._simulator, self._every_m = simulator, every_m
        self.way_m = self.time_s = 0.0
        self.images = 0
        self.views: list[View] = []
        self._answers: dict[int, dict[str, float]] = {}  # of the last images, by stamp
        self.reason = ""
        self._path: list[NDArray[np.float64]] = []
        self._motion: Motion | None = None
        self._stuck: StuckWatch | None = None
        self._began_ns: int | None = None
        self._moved_ns = 0
        self._hits: list[Hit] = []
        self._times_stuck = 0
        self._turn = self._turned = 0.0
        self._stops: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._begun: set[str] = set()  # nodes that have let the robot drive
        events = profile("reliable", 100, latched=True)
        many = profile("reliable", 5000)  # see `Outputs`
        for kind, topic, take, quality in (
            (Odometry, "ground_truth/odom", self._on_motion, many),
            (PointStamped, "simulator/collision", self._on_collision, events),
            (TwistStamped, "cmd_vel", self._on_command, many),
            (TwistStamped, STEERING, self._on_steering, many),
            (Classification, COLLISION, self._on_risk, many),
            (Range, NEAR, self._on_near, many),
        ):
            self.create_subscription(kind, topic, take, quality)
        for node in ("driver", "gate"):
            self._follow_reason(node, events)
        self._reset: Any = self.create_client(Trigger, "simulator/reset")

    def _follow_reason(self, node: str, quality: Any) -> None:
        def take(message: Any) -> None:
            reason = str(message.message)
            before = self._reasons.get(node)
            if message.level == DiagnosticStatus.OK:
                self._begun.add(node)
            elif node in self._begun and reason != before:  # before, it waits for the first image
                self._stops[reason if node == "driver" else f"gate: {reason}"] += 1
            self._reasons[node] = reason
            held = [r for r in self._reasons.values() if r != "free"]
            self.reason = held[-1] if held else ""

        self.create_subscription(DiagnosticStatus, f"{node}/reason", take, quality)

    def missing(self) -> list[str]:
        """Returns the topics of answers and commands that nobody publishes yet."""
        wanted = (f"/{STEERING}", "/driver/reason", "/cmd_vel")
        return [topic for topic in wanted if not self.count_publishers(topic)]

    def drive(self, world: str) -> Drive:
        """Returns what was seen, as the referee gives it."""
        path = np.array(self._path) if self._path else np.zeros((0, 2))
        time_s = max(self.time_s, 1e-9)
        return Drive(
            world,
            self.way_m,
            time_s,
            tuple(self._hits),
            self._times_stuck,
            visited(self._simulator, path),
            self._turned / time_s,
            path,
            dict(self._stops),
        )

    # What comes in

    def _on_motion(self, message: Any) -> None:
        p, q = message.pose.pose.position, message.pose.pose.orientation
        twist, now_ns = message.twist.twist, stamp_to_ns(message.header.stamp)
        yaw = 2 * math.atan2(q.z, q.w)
        self._motion = Motion(p.x, p.y, yaw, twist.linear.x, twist.angular.z)
        xy = np.array([p.x, p.y])
        step = float(np.hypot(*(xy - self._path[-1]))) if self._path else 0.0
        fastest = self._simulator.robot.max_speed_m_s
        # Not by the events: they overtake what is waiting here, on a busy machine.
        carried = step > 2 * fastest * (now_ns - self._moved_ns) / SECOND_NS
        self._moved_ns = now_ns
        if carried and self._path:
            self._path.append(np.full(2, np.nan))
        elif self._path:
            self.way_m += step
        self._path.append(xy)
        if self._began_ns is None:
            return
        self.time_s = (now_ns - self._began_ns) / SECOND_NS
        if self._stuck is None or carried:
            self._stuck = StuckWatch(now_ns, xy)
        elif self._stuck.is_stuck(now_ns, xy):
            self._times_stuck += 1
            self._stuck.restart(now_ns, xy)
            self._reset.call_async(Trigger.Request())

    def _on_collision(self, message: Any) -> None:
        if self._motion is not None:
            at = Motion(
                message.point.x,
                message.point.y,
                self._motion.yaw,
                self._motion.speed_m_s,
                self._motion.turn_rate_rad_s,
            )
            self._hits.append(hit_of(at, self._simulator))

    def _on_command(self, message: Any) -> None:
        if self._began_ns is None:
            self._began_ns = stamp_to_ns(message.header.stamp)
            # Only now: the first image waits for a subscriber, which has to be the one that answers it.
            few = profile("best_effort", 10)
            self.create_subscription(Image, "camera/image_raw", self._on_image, few)
        turn = float(message.twist.angular.z)
        self._turned += abs(turn - self._turn)
        self._turn = turn

    def _on_image(self, message: Any) -> None:
        self.images += 1
        if self._motion is not None and self.way_m >= self._every_m * len(self.views):
            xy = np.array([self._motion.x, self._motion.y])
            said = self._answer(stamp_to_ns(message.header.stamp))
            self.views.append(View(xy, to_rgb(message), said))

    def _on_steering(self, message: Any) -> None:
        self._said(message, "steering", float(message.twist.angular.z))

    def _on_risk(self, message: Any) -> None:
        scores = {h.class_id: float(h.score) for h in message.results}
        self._said(message, "collision", scores.get("collision", math.nan))

    def _on_near(self, message: Any) -> None:
        self._said(message, "near", float(message.range))

    def _said(self, message: Any, word: str, value: float) -> None:
        self._answer(stamp_to_ns(message.header.stamp))[word] = value

    def _answer(self, stamp_ns: int) -> dict[str, float]:
        """Returns what is said of an image; an answer may come before its image does, which is larger."""
        if stamp_ns not in self._answers and len(self._answers) >= _ANSWERS:
            del self._answers[next(iter(self._answers))]
        return self._answers.setdefault(stamp_ns, {})


@contextlib.contextmanager
def witnessing(make: Callable[[], Witness]) -> Iterator[tuple[Witness, Any]]:
    """Gives a witness and the executor that it lives in."""
    use_large_image_profile()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        executor = SingleThreadedExecutor()
        witness = make()
        executor.add_node(witness)
        try:
            yield witness, executor
        finally:
            witness.destroy_node()
            executor.shutdown()
    finally:
        rclpy.try_shutdown()
