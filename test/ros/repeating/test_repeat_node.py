"""The repeat node in its own process over real DDS, between a filter that is played and the wheels."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from lifecycle_msgs.msg import Transition
from ros_helpers import Client, NodeProcess, set_header, wait_until

from robot_vision.driving.route import Route
from robot_vision.errors import ConfigError
from robot_vision.ros.node.qos import profile
from robot_vision.ros.repeating.parameters import RepeatParameters
from robot_vision.settings.parameters import build

STATED_S, DELIVERY_S = 0.5 + 0.05, 1.0
LATCHED = profile("reliable", 1, latched=True)


def test_bounds_of_the_reflex_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="free_below is 0.8 and blocked_above 0.75"):
        build(RepeatParameters, {"free_below": 0.8})


class Robot:
    """The node on a straight route of 4 m, and a client that plays what localises it."""

    def __init__(self, folder: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseWithCovarianceStamped, TwistStamped
        from sensor_msgs.msg import Image
        from std_msgs.msg import Float64
        from vision_msgs.msg import Classification

        x = np.arange(0, 4.01, 0.05)
        points = np.stack([x, 0 * x, 0 * x], axis=1)
        Route("places.map", "id", "map", "base_link", points).write(folder)
        self.folder = folder
        self.client = Client()
        self.out = self.client.listen(TwistStamped, "/cmd_vel")
        self.progress = self.client.listen(Float64, "/repeat/progress")
        self.reasons = self.client.listen(DiagnosticStatus, "/repeat/reason", LATCHED)
        self.node = NodeProcess(
            folder / "repeat.txt",
            "robot_vision.ros.repeating.node",
            *("--ros-args", "-p", f"route:={folder}", "-p", "collision_topic:=reflex/collision"),
            *("-p", "localise_service:=localiser/localise"),
        )
        publisher = self.client.publisher
        self.poses = publisher(PoseWithCovarianceStamped, "/filters/pose")
        self.beliefs = publisher(DiagnosticStatus, "/filters/belief")
        self.cameras = publisher(Image, "/perception/camera/descriptor")
        self.collisions = publisher(Classification, "/reflex/collision")
        self.again()

    def again(self) -> None:
        self.x, self.y, self.p, self.word, self.frame = 1.0, 0.0, 0.1, "localised", "map"
        self.mute: set[str] = set()

    def say(self) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Classification, ObjectHypothesis

        now = time.time_ns()
        if "belief" not in self.mute:
            level = b"\0" if self.word == "localised" else b"\2"
            values = [KeyValue(key="stamp_ns", value=str(now))]
            self.beliefs.publish(DiagnosticStatus(level=level, message=self.word, values=values))
        if "camera" not in self.mute:
            image = Image()
            set_header(image, now, "camera")
            self.cameras.publish(image)
        scores = {"collision": self.p, "free": 1 - self.p}
        results = [ObjectHypothesis(class_id=n, score=s) for n, s in scores.items()]
        message = Classification(results=results)
        set_header(message, now, "camera")
        self.collisions.publish(message)
        if "pose" not in self.mute:
            pose = PoseWithCovarianceStamped()
            set_header(pose, now, self.frame)
            pose.pose.pose.position.x, pose.pose.pose.position.y = self.x, self.y
            pose.pose.pose.orientation.w = 1.0
            self.poses.publish(pose)
        time.sleep(0.03)

    def until(self, reason: str, level: int) -> Any:
        """Waits for a reason and a command that fits it, and returns the command."""

        def there() -> bool:
            last = self.reasons[-1] if self.reasons else None
            return last is not None and (last.message, last.level[0]) == (reason, level)

        wait_until(there, 30, f"{reason}: {[r.message for r in self.reasons]}", self.say)
        count = len(self.out)
        wait_until(lambda: len(self.out) > count + 2, 30, "commands", self.say)
        assert there()
        return self.out[-1].twist


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    found = Robot(tmp_path_factory.mktemp("route"))
    yield found
    found.node.stop()
    found.client.close()


@pytest.mark.ros
@pytest.mark.slow
def test_drives_along_the_route_and_says_why_it_stands(robot: Robot) -> None:
    robot.mute = {"pose", "belief", "camera"}
    assert robot.until("lost", 2).linear.x == 0
    robot.again()
    free = robot.until("free", 0)
    assert free.linear.x == pytest.approx(0.36, abs=0.01) and abs(free.angular.z) < 0.01
    assert robot.progress[-1].data == pytest.approx(1.0, abs=0.03)
    robot.y = 0.2  # left of the route: it turns right
    wait_until(lambda: robot.out[-1].twist.angular.z < -0.15, 30, "it turns", robot.say)
    for change, reason, level in (
        ({"word": "uncertain"}, "lost", 2),
        ({"word": "odometry distrusted"}, "free", 0),
        ({"mute": {"camera"}}, "camera", 2),
        ({"mute": {"pose"}}, "pose", 2),
        ({"frame": "odom"}, "pose", 2),
        ({"x": math.nan}, "pose", 2),
        ({"y": 0.9}, "off_route", 2),
        ({"p": 0.9}, "blocked", 2),
        ({"p": 0.5}, "blocked", 2),
        ({"p": 0.1}, "free", 0),
        ({"x": 1.9}, "free", 0),
        ({"x": 2.8}, "free", 0),
        ({"x": 3.7}, "free", 0),
        ({"x": 3.95}, "arrived", 2),
        ({"x": 3.5}, "arrived", 2),  # until it is activated again
    ):
        where = robot.x if math.isfinite(robot.x) else 1.0
        robot.again()
        robot.x = where
        for name, value in change.items():
            setattr(robot, name, value)
        speed = robot.until(reason, level).linear.x
        assert (speed > 0.02) == (reason == "free"), (change, speed)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("watched", [False, True], ids=["blind", "rear camera"])
def test_drives_backwards_slowly_unless_something_sees_what_is_behind(
    robot: Robot, watched: bool
) -> None:
    from geometry_msgs.msg import TwistStamped

    wait_until(lambda: "does not say how near it passes things" in robot.node.output)  # forwards
    name = f"back_{'rear' if watched else 'blind'}"
    out = robot.client.listen(TwistStamped, f"/behind/{name}")
    rear = ("-p", "rear_collision_topic:=reflex/collision") if watched else ()
    node = NodeProcess(
        robot.folder / f"{name}.txt",
        "robot_vision.ros.repeating.node",
        *("--ros-args", "-r", f"__node:={name}", "-r", f"cmd_vel:=behind/{name}"),
        *("-p", f"route:={robot.folder}", "-p", "backwards:=true"),
        *("-p", "collision_topic:=reflex/other", *rear),
    )
    robot.again()
    robot.x, robot.p = 3.0, 0.0 if watched else 1.0  # blind: what another camera says
    try:
        wait_until(lambda: out and out[-1].twist.linear.x < -0.1, 30, "it drives", robot.say)
        speed = out[-1].twist.linear.x
        assert speed == pytest.approx(-0.4 if watched else -0.15, abs=0.02)
        assert ("Keep the way free" in node.output) != watched
        if watched:
            robot.p = 0.9
            wait_until(lambda: out[-1].twist.linear.x == 0, 30, "it stands", robot.say)
            assert (
                "stopped by blocked: a collision is probable where it is to go"
                in node.output.lower()
            )
            robot.p = 0.0
        robot.x = 0.05
        wait_until(lambda: out[-1].twist.linear.x == 0, 30, "it arrives", robot.say)
    finally:
        node.stop()


@pytest.mark.ros
@pytest.mark.slow
def test_leaves_the_robot_to_the_localiser_while_it_is_lost_for_long(robot: Robot) -> None:
    from std_srvs.srv import Trigger

    asked, done = threading.Event(), threading.Event()

    def localise(request: Any, response: Any) -> Any:
        asked.set()
        done.wait(30)
        return response

    # Nobody localises yet: it stands, and says so.
    assert robot.client.change_state("/repeat", Transition.TRANSITION_DEACTIVATE)
    assert robot.client.change_state("/repeat", Transition.TRANSITION_ACTIVATE)
    robot.again()
    robot.word = "uncertain"
    wait_until(lambda: "Nobody offers" in robot.node.output, 30, "a warning", robot.say)
    other = Client()
    try:
        service = other.node.create_service(Trigger, "/localiser/localise", localise)
        wait_until(asked.is_set, 30, "it asks", robot.say)
        count = len(robot.out)
        for _ in range(20):
            robot.say()
        robot.word = "localised"
        for _ in range(20):
            robot.say()
        # What was on its way; at 20 Hz it would be more.
        assert len(robot.out) - count <= 2 and robot.reasons[-1].message == "lost"
        done.set()
        assert robot.until("free", 0).linear.x > 0.02
        other.node.destroy_service(service)
    finally:
        done.set()
        other.close()


@pytest.mark.ros
@pytest.mark.slow
def test_stands_in_time_when_what_sees_or_localises_is_gone(robot: Robot) -> None:
    for part, reason in (("camera", "camera"), ("pose", "pose")):
        assert robot.client.change_state("/repeat", Transition.TRANSITION_DEACTIVATE)
        robot.again()
        assert robot.client.change_state("/repeat", Transition.TRANSITION_ACTIVATE)
        robot.until("free", 0)
        robot.mute, since = {part}, time.monotonic()
        wait_until(lambda: robot.out[-1].twist.linear.x == 0, 30, "a stop", robot.say)
        assert time.monotonic() - since < STATED_S + DELIVERY_S
        assert robot.until(reason, 2).angular.z == 0


@pytest.mark.ros
@pytest.mark.slow
def test_does_not_configure_without_a_route(tmp_path: Path) -> None:
    node = NodeProcess(
        tmp_path / "none.txt",
        "robot_vision.ros.repeating.node",
        *("--ros-args", "-r", "__node:=nowhere", "-p", f"route:={tmp_path / 'none'}"),
    )
    wait_until(lambda: "Cannot configure" in node.output)
    assert "`robot-vision teach` makes a route" in node.output and node.alive
    node.stop()
