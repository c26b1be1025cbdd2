"""`robot-vision doctor` on a running graph: cameras as they are, and ends that cannot hear each other."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from robot_vision.doctor.finding import ERROR, OK, WARNING, Finding
from robot_vision.messages.stamps import set_stamp
from robot_vision.ros import graph_checks
from robot_vision.ros.graph_checks import graph_findings, ros_findings
from robot_vision.ros.node.dds import PROFILES_FILE, PROFILES_FILE_V2
from robot_vision.ros.node.qos import profile

SECONDS = 1.5


class Robot:
    """Cameras of a node of its own, at 20 Hz, in a thread."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("driver", namespace="/robot", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._ticks: list[Any] = []
        self.sent: list[float] = []  # steady times at which all cameras published
        self.node.create_timer(0.05, self._tick)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)

    def _tick(self) -> None:
        self.sent.append(time.monotonic())
        for tick in self._ticks:
            tick()

    def rate(self, seconds: float) -> float:
        """Returns at how many Hz it published in its last seconds: fewer than 20 on a busy machine."""
        last = [t for t in self.sent if t > self.sent[-1] - seconds]
        return (len(last) - 1) / (last[-1] - last[0])

    def camera(self, topic: str, age_s: float = 0.0, frame: str = "camera", **fields: Any) -> None:
        publisher = self.node.create_publisher(Image, topic, profile("best_effort", 5))
        message = Image(height=48, width=64, encoding="rgb8", step=192, data=bytes(48 * 192))
        message.header.frame_id = frame

        def tick() -> None:
            now = time.time_ns() - int(age_s * 1e9)
            set_stamp(message.header.stamp, fields.get("stamp_ns", now))
            publisher.publish(message)

        self._ticks.append(tick)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def robot(ros_domain: None) -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.stop()


def found(robot: Robot) -> dict[str, Finding]:
    robot.start()
    return {finding.subject: finding for finding in graph_findings(SECONDS)}


@pytest.mark.slow
def test_a_camera_that_is_fine(robot: Robot) -> None:
    robot.camera("/robot/front/image_raw")
    robot.node.create_publisher(CameraInfo, "/robot/front/camera_info", 1)
    camera = found(robot)["/robot/front/image_raw"]
    assert camera.level == OK and not camera.remedy
    assert camera.text.startswith("64x48 rgb8, ")
    rate = float(camera.text.split(", ")[1].removesuffix(" Hz"))
    assert rate == pytest.approx(robot.rate(SECONDS), rel=0.25)
    assert "no camera_info" not in camera.text


@pytest.mark.slow
def test_what_is_wrong_with_cameras_is_named(robot: Robot) -> None:
    robot.camera("/late", age_s=5.0)
    robot.camera("/early", age_s=-3.0)
    robot.camera("/zero", stamp_ns=0, frame="")
    robot.node.create_publisher(CompressedImage, "/silent/compressed", 1)
    given = found(robot)
    assert all(
        given[t].level == WARNING for t in ("/late", "/early", "/zero", "/silent/compressed")
    )
    # A busy machine adds to the age what an image takes to come.
    late = re.search(r"images are (.*) s old: synchronise", given["/late"].remedy)
    early = re.search(r"images are (.*) s in the future: synchronise", given["/early"].remedy)
    assert late and 5.0 <= float(late[1]) < 5.9 and early and 2.1 < float(early[1]) <= 3.0
    assert "stamp the images" in given["/zero"].remedy and "frame_id" in given["/zero"].remedy
    assert given["/silent/compressed"].text == "nothing came in 1.5 s from 1 publisher"
    assert "no camera_info" in given["/late"].text


@pytest.mark.slow
def test_clocks_of_recordings_are_not_those_of_robots(robot: Robot) -> None:
    from rosgraph_msgs.msg import Clock

    robot.camera("/front", age_s=1e6)
    robot.node.create_publisher(Clock, "/clock", 1)
    assert found(robot)["/front"].level == OK


@pytest.mark.slow
def test_ends_that_do_not_fit_are_named(robot: Robot) -> None:
    robot.node.create_publisher(String, "/said", profile("best_effort", 1))
    robot.node.create_subscription(String, "/said", print, profile("reliable", 1))
    robot.node.create_publisher(String, "/fits", profile("reliable", 1))
    robot.node.create_subscription(String, "/fits", print, profile("best_effort", 1))
    given = found(robot)
    assert given["/said"].text.startswith("/robot/driver gets nothing from /robot/driver: ")
    assert "reliab" in given["/said"].text.lower()
    assert "/fits" not in given
    assert given["cameras"].text == "nobody publishes images"
    assert "/robot/driver" in given["nodes"].text


@pytest.mark.parametrize(("domain", "remedy"), [("abc", "to a number"), ("233", "from 0 to 232")])
def test_what_keeps_nodes_from_starting_is_an_error(
    domain: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    (finding,) = graph_findings(0.1)
    assert finding.level == ERROR and remedy in finding.remedy


@pytest.mark.slow
def test_two_nodes_of_one_name_are_named(robot: Robot) -> None:
    other = Robot()
    try:
        robot.start()
        lines = [f for f in graph_findings(0.1) if f.subject == "nodes" and f.level == WARNING]
        assert len(lines) == 1 and "/robot/driver" in lines[0].text
    finally:
        other.start()
        other.stop()


def test_participants_that_are_no_nodes_are_not_two_of_one_name() -> None:
    unknown = ("_NODE_NAME_UNKNOWN_", "_NODE_NAMESPACE_UNKNOWN_")
    graph = SimpleNamespace(
        get_node_names_and_namespaces=lambda: [unknown, unknown, ("doctor", "/")],
        get_fully_qualified_name=lambda: "/doctor",
    )
    (finding,) = graph_checks._names(graph)
    assert finding.level == OK and finding.text == "a node without a name"


@pytest.mark.slow
def test_damaged_images_do_not_end_it(robot: Robot) -> None:
    robot.camera("/front")
    publisher = robot.node.create_publisher(Image, "/broken", profile("best_effort", 5))
    robot._ticks.append(
        lambda: publisher.publish(b"\x00\x01\x00\x00" + np.ones(9, np.uint8).tobytes())
    )
    given = found(robot)
    assert "fix the driver" in given["/broken"].remedy and given["/front"].level == OK


def test_the_profile_of_large_images_is_advised() -> None:
    def fast_dds(environment: dict[str, str]) -> Finding:
        return next(f for f in ros_findings(environment) if f.subject == "Fast DDS")

    if get_rmw_implementation_identifier() not in graph_checks.FAST_DDS:
        pytest.skip("another middleware")
    advised = fast_dds({"ROS_DISTRO": "kilted"})
    assert advised.level == WARNING and f"export {PROFILES_FILE}=" in advised.remedy
    assert Path(advised.remedy.split("=")[1].split(" ")[0]).is_file()
    assert f"export {PROFILES_FILE_V2}=" in fast_dds({"ROS_DISTRO": "jazzy"}).remedy
    assert fast_dds({PROFILES_FILE: "/mine.xml"}) == Finding(
        "Fast DDS", f"{PROFILES_FILE} is /mine.xml"
    )


def test_a_shell_that_stays_alone_says_so() -> None:
    first = next(
        iter(ros_findings({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": "7"}))
    )
    assert first.level == OK and first.text.endswith("domain 7, this computer only")
