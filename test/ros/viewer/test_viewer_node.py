"""The viewer node over real DDS: what a robot publishes is on the page that it serves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("rerun", reason="rerun-sdk is not installed (pip install 'robot_vision[view]')")

from browser import Browser  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from place_maps import keyframe, make_map  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from ros_helpers import (  # noqa: E402
    Client,
    NodeProcess,
    coloured_image,
    rgb_message,
    set_header,
    wait_until,
)
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from vision_msgs.msg import (  # noqa: E402
    Classification,
    Detection3D,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
)

from robot_vision.ros import EXECUTABLES  # noqa: E402
from robot_vision.ros.viewer.parameters import ViewerParameters  # noqa: E402
from robot_vision.viewing.server import _program  # noqa: E402

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ACTIVATE, DEACTIVATE, CLEANUP, CONFIGURE = 3, 4, 2, 1


def test_page_is_for_this_machine_alone_by_default() -> None:
    assert ViewerParameters().host == "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65533)


class Robot:
    """A client that publishes what a robot with one camera does, once for each call of `see`."""

    def __init__(self) -> None:
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics", 100)
        names = LabelInfo(
            class_map=[
                VisionClass(class_id=i, class_name=n) for i, n in enumerate(("floor", "wall"))
            ]
        )
        publisher = self.client.publisher(LabelInfo, "/perception/segmentation_label_info", LATCHED)
        publisher.publish(names)

    def see(self, number: int) -> int:
        """Publishes, and returns the stamp."""
        stamp = 1_700_000_000_000_000_000 + number * 100_000_000
        image = coloured_image((200, 80, 40), (120, 160))
        self._publish(Image, "/camera/image_raw", rgb_message(image, stamp, "camera"))
        mask = np.zeros((120, 160), np.uint8)
        mask[:60] = 1
        ids = Image(height=120, width=160, encoding="mono8", step=160, data=mask.tobytes())
        set_header(ids, stamp, "camera")
        self._publish(Image, "/perception/camera/segmentation", ids)
        said = Classification(
            results=[
                ObjectHypothesis(class_id="kitchen", score=0.7),
                ObjectHypothesis(class_id="unknown", score=0.3),
            ]
        )
        set_header(said, stamp, "camera")
        self._publish(Classification, "/perception/camera/classification", said)
        pose = PoseWithCovarianceStamped()
        set_header(pose, stamp, "map")
        pose.pose.pose.position.x = 0.1 * number
        pose.pose.pose.orientation.w = 1.0
        pose.pose.covariance = np.diag([0.04, 0.04, 0.01, 0.01, 0.01, 0.02]).ravel().tolist()
        self._publish(PoseWithCovarianceStamped, "/perception/camera/pose", pose)
        self._publish(PoseWithCovarianceStamped, "/filters/pose", pose)
        match = ObjectHypothesisWithPose()
        match.hypothesis = ObjectHypothesis(class_id="1", score=0.9)
        match.pose.pose.position.y = 1.0
        match.pose.pose.orientation.w = 1.0
        places = Detection3D(results=[match], id="1")
        set_header(places, stamp, "map")
        self._publish(Detection3D, "/places/camera/places", places)
        status = DiagnosticStatus(
            name="/motor", message="warm", values=[KeyValue(key="t", value="41")]
        )
        array = DiagnosticArray(status=[status])
        set_header(array, stamp, "")
        self._publish(DiagnosticArray, "/diagnostics", array)
        return stamp

    def _publish(self, kind: type, topic: str, message: object) -> None:
        self.client.publisher(kind, topic).publish(message)

    def count(self, name: str) -> float:
        return self.client.count("/viewer", name)


@pytest.fixture
def robot() -> Iterator[Robot]:
    made = Robot()
    yield made
    made.client.close()


Start = Callable[..., NodeProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[NodeProcess] = []

    def begin(**parameters: object) -> NodeProcess:
        values = [w for k, v in parameters.items() for w in ("-p", f"{k}:={v}")]
        log = tmp_path / f"viewer{len(nodes)}.txt"
        nodes.append(NodeProcess(log, EXECUTABLES["viewer_node"], "--ros-args", *values))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.stop()


def seen(port: int, folder: Path, until: Callable[[], object]) -> Path:
    """Returns what a server sends to those who look while something goes on, as a file."""
    file = folder / "seen.rrd"
    words = [str(_program()), f"rerun+http://127.0.0.1:{port + 1}/proxy", "--save", str(file)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    return file


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.filterwarnings("ignore:RRD file has no footer")  # it is cut off where the test ends
def test_page_has_cameras_answers_places_poses_filters_and_diagnostics(
    robot: Robot, start: Start, tmp_path: Path
) -> None:
    from rerun.chunk import RrdReader

    port = free_port()
    with make_map(tmp_path / "house.map") as places:
        places.add_many([keyframe(number) for number in range(5)])
    node = start(port=port, max_rate_hz=0.0, map=str(tmp_path / "house.map"))
    numbers = iter(range(10_000))
    wait_until(lambda: robot.count("topics") >= 8, 60, "topics", lambda: robot.see(next(numbers)))
    wait_until(lambda: "Open http://127.0.0.1" in node.output, what="the page's address")

    def drive() -> None:
        before = robot.count("shown")
        wait_until(
            lambda: robot.count("shown") > before + 60,
            60,
            "60 more",
            lambda: robot.see(next(numbers)),
        )
        time.sleep(1.0)  # the server writes what it has, and says no word of it

    rows: dict[str, int] = {}
    stamps = set()
    for chunk in RrdReader(seen(port, tmp_path, drive)).stream():
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
        stamps |= set() if chunk.is_static else set(chunk.timeline_names)
    assert stamps == {"stamp"}
    for entity in (
        "/camera/image_raw",
        "/perception/camera/segmentation",
        "/perception/camera/classification",
        "/perception/camera/classification/score/unknown",
        "/perception/camera/pose/ellipsoid_95",
        "/filters/pose/camera",
        "/places/camera/places/matches",
    ):
        assert rows.get(entity, 0) > 3, (entity, sorted(rows))
    assert any(entity.startswith("/map/") for entity in rows), "keyframes of the map"
    assert any(e.startswith("/diagnostics/") and "motor" in e for e in rows), sorted(rows)
    level, text, _ = robot.client.diagnostics("/viewer") or (9, "", {})
    assert (level, text) == (0, "active")


@pytest.mark.slow
@pytest.mark.ros
def test_rate_is_limited_and_what_is_left_out_is_counted(robot: Robot, start: Start) -> None:
    start(port=free_port(), max_rate_hz=2.0, topics="['/camera/*']")
    numbers = iter(range(10_000))
    wait_until(lambda: robot.count("shown") >= 4, 60, "pictures", lambda: robot.see(next(numbers)))
    assert robot.count("topics") == 1, "the pattern has one topic"
    assert robot.count("left_out") > robot.count("shown")


@pytest.mark.slow
@pytest.mark.ros
def test_message_that_cannot_be_shown_is_said_and_the_node_lives_on(
    robot: Robot, start: Start
) -> None:
    node = start(port=free_port(), max_rate_hz=0.0)
    bad = Image(height=4, width=4, encoding="no_such_encoding", step=4, data=bytes(16))
    set_header(bad, 1, "camera")
    publisher = robot.client.publisher(Image, "/broken/image_raw")
    wait_until(
        lambda: robot.count("not_shown") >= 1, 60, "a refusal", lambda: publisher.publish(bad)
    )
    assert "A message of /broken/image_raw is not shown" in node.output
    robot.client.publisher(String, "/talk").publish(String(data="hello"))
    before = robot.count("shown")
    wait_until(lambda: robot.count("shown") > before, 60, "more", lambda: robot.see(1))
    assert node.alive


@pytest.mark.slow
@pytest.mark.ros
def test_server_that_dies_is_started_again(robot: Robot, start: Start) -> None:
    port = free_port()
    node = start(port=port, max_rate_hz=0.0)
    wait_until(lambda: robot.count("shown") > 3, 60, "messages", lambda: robot.see(1))
    children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text()
    os.kill(int(children.split()[0]), signal.SIGKILL)
    wait_until(lambda: robot.count("restarts") >= 1, 60, "a restart", lambda: robot.see(2))
    before = robot.count("shown")
    wait_until(lambda: robot.count("shown") > before + 10, 60, "more", lambda: robot.see(3))
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


@pytest.mark.slow
@pytest.mark.ros
def test_port_in_use_is_one_line_and_the_node_can_be_configured_later(
    robot: Robot, start: Start
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = start(port=port)
        wait_until(lambda: f"127.0.0.1:{port} cannot be listened on" in node.output, 60)
        wait_until(lambda: (robot.client.diagnostics("/viewer") or (0,))[0] == 2, 60)
    assert robot.client.change_state("/viewer", CONFIGURE)
    assert robot.client.change_state("/viewer", ACTIVATE)
    assert robot.client.change_state("/viewer", DEACTIVATE)
    assert robot.client.change_state("/viewer", CLEANUP)
    with socket.socket() as probe:  # the port is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@pytest.mark.slow
@pytest.mark.ros
def test_browser_shows_the_page(robot: Robot, start: Start, tmp_path: Path) -> None:
    node = start(port=free_port())
    numbers = iter(range(10_000))
    wait_until(lambda: robot.count("topics") >= 8, 60, "topics", lambda: robot.see(next(numbers)))
    address = node.output.partition("Open ")[2].split()[0]
    picture = tmp_path / "page.png"
    with Browser(tmp_path, 800, 500) as browser:  # few pixels: there is no GPU
        browser.open(address)

        def orange() -> bool:
            robot.see(next(numbers))
            browser.picture(picture)
            image = cv2.imread(str(picture)).astype(int)
            near = np.abs(image - (40, 80, 200)).max(axis=2) < 14
            return bool(near.sum() > 2000)  # of the camera's picture, which no part of the page has

        wait_until(orange, 400, "the camera's picture in the page")
