"""The driver node in its own process over real DDS; and, with the gate, driving the simulator."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import Client, NodeProcess, set_header, stamp_ns, wait_until

from robot_vision.errors import ConfigError
from robot_vision.ros.driving.parameters import DriverParameters
from robot_vision.ros.node.qos import profile
from robot_vision.settings.parameters import build

NODE = "/driver"
LATCHED = profile("reliable", 1, latched=True)
STATED_S, DELIVERY_S = 0.5 + 0.05, 1.0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"law": "free_distance"}, "set distance_topic, such as perception/camera/obstacle_near"),
        ({"free_below": 0.8}, "free_below is 0.8 and blocked_above 0.75"),
        ({"law": "dronett"}, "did you mean 'dronet'"),
        ({"camera": "a b"}, "camera is 'a b'"),
    ],
)
def test_parameters_that_contradict_are_refused(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(DriverParameters, values)


def steer(steering: float, stamp: int) -> Any:
    from geometry_msgs.msg import TwistStamped

    message = TwistStamped()
    set_header(message, stamp, "front")
    message.twist.angular.z = steering
    return message


def scores(stamp: int, **by_class: float) -> Any:
    from vision_msgs.msg import Classification, ObjectHypothesis

    results = [ObjectHypothesis(class_id=n, score=s) for n, s in by_class.items()]
    message = Classification(results=results)
    set_header(message, stamp, "front")
    return message


def distance(metres: float, stamp: int) -> Any:
    from sensor_msgs.msg import Range

    message = Range(min_range=0.0, max_range=10.0, range=metres)
    set_header(message, stamp, "base_link")
    return message


class Robot:
    """The driver, and a client that plays perception and the base."""

    def __init__(self, folder: Path, *parameters: str) -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from geometry_msgs.msg import TwistStamped
        from sensor_msgs.msg import Range
        from vision_msgs.msg import Classification

        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.out = self.client.listen(TwistStamped, "/cmd_vel")
        self.reasons = self.client.listen(DiagnosticStatus, f"{NODE}/reason", LATCHED)
        self.driver = NodeProcess(
            folder / "driver.txt",
            "robot_vision.ros.driving.node",
            "--ros-args",
            *("-p", "camera:=front", "-p", "distance_topic:=perception/front/obstacle_near"),
            *("-p", "classification_topic:=perception/front/classification"),
            *("-p", "belief_topic:=filters/belief", "-p", "diagnostics_period_s:=0.2"),
            *parameters,
        )
        publisher = self.client.publisher
        self.steering = publisher(TwistStamped, "/perception/front/steering")
        self.collision = publisher(Classification, "/perception/front/collision")
        self.ranges = publisher(Range, "/perception/front/obstacle_near")
        self.classes = publisher(Classification, "/perception/front/classification")
        self.beliefs = publisher(DiagnosticStatus, "/filters/belief")
        self.reset()

    def reset(self) -> None:
        self.s, self.p, self.d, self.word = 0.2, 0.1, 5.0, "localised"
        self.seen = {"kitchen": 0.9}
        self.mute: set[str] = set()
        self.lag_ns = 0

    def again(self, now: int | None = None) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

        now = now or time.time_ns()
        if "steering" not in self.mute:
            self.steering.publish(steer(self.s, now))
        if "collision" not in self.mute:
            self.collision.publish(scores(now, collision=self.p, free=1 - self.p))
        self.ranges.publish(distance(self.d, now - self.lag_ns))
        self.classes.publish(scores(now, **self.seen))
        level = DiagnosticStatus.OK if self.word == "localised" else DiagnosticStatus.ERROR
        values = [KeyValue(key="stamp_ns", value=str(now))]
        self.beliefs.publish(DiagnosticStatus(level=level, message=self.word, values=values))
        time.sleep(0.06)

    def velocity(self) -> tuple[float, float]:
        twist = self.out[-1].twist
        return twist.linear.x, twist.angular.z

    def until(self, condition: Any, what: str = "") -> None:
        wait_until(
            lambda: bool(self.out) and condition(*self.velocity()), 60, what=what, each=self.again
        )

    def until_reason(self, rule: str) -> None:
        wait_until(
            lambda: self.reasons and self.reasons[-1].message == rule, what=rule, each=self.again
        )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    robot = Robot(tmp_path_factory.mktemp("driver"))
    try:
        yield robot
    finally:
        robot.client.close()
        robot.driver.stop()


@pytest.fixture
def robot(one: Robot) -> Robot:
    """Drives before each test."""
    one.reset()
    one.until(lambda v, w: 0.5 < v < 0.55 and 0.19 < w < 0.21)
    return one


@pytest.mark.ros
@pytest.mark.slow
class TestNode:
    def test_a_command_has_the_stamp_of_its_image(self, robot: Robot) -> None:
        robot.out.clear()
        before = time.time_ns()
        wait_until(lambda: len(robot.out) > 5, each=robot.again)
        stamps = [stamp_ns(m) for m in robot.out]
        assert stamps == sorted(set(stamps)) and before <= stamps[-1]
        robot.until_reason("free")

    def test_it_turns_to_one_side_while_blocked(self, robot: Robot) -> None:
        robot.p = 0.9
        robot.until(lambda v, w: (v, w) == (0.0, 1.0))
        robot.s, robot.p = -1.0, 0.5
        robot.out.clear()
        wait_until(lambda: len(robot.out) > 5, each=robot.again)
        assert {(m.twist.linear.x, m.twist.angular.z) for m in robot.out} == {(0.0, 1.0)}
        robot.until_reason("collision")
        robot.p = 0.1
        robot.until(lambda v, w: v > 0.4 and w < -0.9)

    def test_it_stands_before_an_obstacle(self, robot: Robot) -> None:
        robot.d = 0.6
        robot.until(lambda v, w: 0 < v < 0.4)
        robot.d = 0.3
        robot.until(lambda v, w: (v, w) == (0.0, 1.0))
        robot.until_reason("obstacle")

    def test_a_distance_of_a_slower_sensor_does(self, robot: Robot) -> None:
        robot.lag_ns = 100_000_000
        robot.p = 0.5
        robot.until(lambda v, w: v == pytest.approx(0.3, abs=0.02))

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"seen": {"unknown": 0.8, "kitchen": 0.2}}, "known"),
            ({"word": "contradicted"}, "belief"),
            ({"s": math.nan}, "steering"),
            ({"d": math.inf}, "distance"),
            ({"mute": {"steering"}}, "steering"),
            ({"mute": {"collision"}}, "collision"),
        ],
    )
    def test_what_stops_it_is_said(self, robot: Robot, changes: dict, rule: str) -> None:
        for name, value in changes.items():
            setattr(robot, name, value)
        begin = time.monotonic()
        robot.until(lambda v, w: (v, w) == (0.0, 0.0))
        assert time.monotonic() - begin < STATED_S + DELIVERY_S
        robot.until_reason(rule)
        wait_until(
            lambda: f"stopped by {rule}" in robot.client.diagnostics("driver: driver")[1],
            each=robot.again,
        )

    def test_silence_of_all_stops(self, robot: Robot) -> None:
        begin = time.monotonic()
        wait_until(lambda: robot.velocity() == (0.0, 0.0))
        assert time.monotonic() - begin < STATED_S + DELIVERY_S
        count = len(robot.out)
        wait_until(lambda: len(robot.out) > count + 5)  # and it is repeated

    def test_limits_change_while_it_drives(self, robot: Robot) -> None:
        assert robot.client.set_parameters(NODE, max_speed_m_s=0.2).successful
        robot.until(lambda v, w: v < 0.2)
        assert not robot.client.set_parameters(NODE, free_below=0.9).successful
        assert robot.client.set_parameters(NODE, max_speed_m_s=0.6).successful


class Geometry:
    """What a perfect network would say, from the simulator's true scan: for a test of the nodes around it."""

    def __init__(self, client: Client) -> None:
        from geometry_msgs.msg import TwistStamped
        from sensor_msgs.msg import LaserScan, Range
        from vision_msgs.msg import Classification

        self.answering = True
        self._steering = client.publisher(TwistStamped, "/perception/camera/steering")
        self._collision = client.publisher(Classification, "/perception/camera/collision")
        self._near = client.publisher(Range, "/perception/camera/obstacle_near")
        client.node.create_subscription(
            LaserScan, "/scan", self._on_scan, profile("best_effort", 5)
        )

    def _on_scan(self, scan: Any) -> None:
        import numpy as np

        if not self.answering:
            return
        stamp = stamp_ns(scan)
        ranges = np.nan_to_num(np.array(scan.ranges), posinf=10.0)
        angles = scan.angle_min + scan.angle_increment * np.arange(len(ranges))
        x, y = ranges * np.cos(angles), ranges * np.sin(angles)
        ahead = x[(x > 0) & (np.abs(y) < 0.35)]
        free = float(min(ahead.min(initial=10.0), 10.0))
        side = {
            s: np.minimum(ranges[(s * angles > 0.2) & (s * angles < 1.2)], 3).mean()
            for s in (1, -1)
        }
        steering = float(np.clip((side[1] - side[-1]) / (side[1] + side[-1]), -1, 1))
        p = float(np.clip((1.2 - free) / 0.8, 0, 1))
        self._steering.publish(steer(steering, stamp))
        self._collision.publish(scores(stamp, collision=p, free=1 - p))
        self._near.publish(distance(free, stamp))


@pytest.mark.ros
@pytest.mark.slow
def test_an_answer_is_driven_by_however_long_the_clock_waited_for_it(
    tmp_path: Path, ros_domain: None
) -> None:
    """In lock-step /clock goes on with the command: a driver that stops for /clock would wait for itself."""
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock

    robot = Robot(tmp_path, "-p", "use_sim_time:=true")
    clock = robot.client.publisher(Clock, "/clock")
    now = 500

    def wait() -> None:
        clock.publish(Clock(clock=Time(sec=now)))
        time.sleep(0.05)

    def answer() -> None:
        robot.again(now * 10**9)

    def stands_still() -> bool:
        return bool(robot.reasons) and any(
            "stands still" in v.value for v in robot.reasons[-1].values
        )

    try:
        for now in (500, 501):
            wait_until(stands_still, 60, each=wait)
            robot.out.clear()
            # The first image only turns the robot: the speed begins at standing.
            wait_until(lambda: any(m.twist.angular.z > 0 for m in robot.out), each=answer)
            assert {stamp_ns(m) for m in robot.out if m.twist.angular.z > 0} == {now * 10**9}
        # Answers of that image alone do not make a clock that stands still a good one.
        wait_until(stands_still, each=answer)
        assert robot.velocity() == (0.0, 0.0)
    finally:
        robot.client.close()
        robot.driver.stop()


@pytest.mark.ros
@pytest.mark.slow
def test_driver_and_gate_drive_through_a_simulated_home(tmp_path: Path, ros_domain: None) -> None:
    """Simulator, driver and gate in their processes, in lock-step; only the network is geometry."""
    from diagnostic_msgs.msg import DiagnosticStatus
    from geometry_msgs.msg import PointStamped
    from rosgraph_msgs.msg import Clock
    from std_msgs.msg import Float64

    client = Client()
    way = client.listen(Float64, "/simulator/distance")
    hits = client.listen(
        PointStamped, "/simulator/collision", profile("reliable", 10, latched=True)
    )
    clock = client.listen(Clock, "/clock")
    reasons = client.listen(DiagnosticStatus, "/gate/reason", LATCHED)
    geometry = Geometry(client)
    near = "perception/camera/obstacle_near"
    (tmp_path / "rules.yaml").write_text(
        f"rules:\n  near: {{kind: obstacle, topic: {near}, distance_m: 0.3, limits: forward}}\n"
        "  collision: {kind: collision, topic: perception/camera/collision, probability: 0.99, "
        "limits: forward}\n"
    )
    common = ("--ros-args", "-p", "use_sim_time:=true")
    nodes = [
        NodeProcess(
            tmp_path / "gate.txt", "robot_vision.ros.gate.node", *common,
            "-p", f"rules:={tmp_path / 'rules.yaml'}",
        ),
        NodeProcess(
            tmp_path / "driver.txt", "robot_vision.ros.driving.node", *common,
            "-r", "cmd_vel:=cmd_vel_in", "-p", "law:=free_distance", "-p", f"distance_topic:={near}",
        ),
        NodeProcess(
            tmp_path / "simulator.txt", "robot_vision.ros.simulation.node", "--ros-args",
            "-p", "world_seed:=7", "-p", "lockstep:=true", "-p", "real_time_factor:=0.0",
            "-p", "image_width:=64", "-p", "image_height:=48", "-p", "lockstep_timeout_s:=1.0",
        ),
    ]  # fmt: skip

    def seconds() -> float:
        return clock[-1].clock.sec + clock[-1].clock.nanosec * 1e-9 if clock else 0.0

    try:
        wait_until(lambda: way and way[-1].data > 0.1, 120, "the robot drives")
        begin = seconds()
        wait_until(lambda: seconds() > begin + 12, 240, "12 simulated seconds")
        assert not hits, [node.output for node in nodes]
        assert way[-1].data > 2, way[-1].data
        # The network is silent: both say so, and the robot stands before the limit and its way to brake.
        before = way[-1].data
        geometry.answering = False
        wait_until(lambda: reasons[-1].level == DiagnosticStatus.ERROR, 60)
        # Nobody answers any more: each further image would wait the whole second.
        assert client.set_parameters("/simulator", lockstep_timeout_s=0.1).successful
        begin = seconds()
        wait_until(lambda: seconds() > begin + 3, 120)
        after = way[-1].data
        assert after - before < 0.6 * (0.55 + 1.0) + 0.6**2 / (2 * 0.5)
        begin = seconds()
        wait_until(lambda: seconds() > begin + 1, 120)
        assert way[-1].data == after
    finally:
        client.close()
        for node in nodes:
            node.stop()
