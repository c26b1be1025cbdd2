"""The simulator node over real DDS: commands in; odometry, clock, images and events out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from geometry_msgs.msg import PointStamped, PoseStamped, Twist, TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from ros_helpers import Client, NodeProcess, stamp_ns, wait_until  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, LaserScan  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from robot_vision.errors import ConfigError  # noqa: E402
from robot_vision.messages.stamps import SECOND_NS, set_stamp, stamp_to_ns  # noqa: E402
from robot_vision.ros import EXECUTABLES  # noqa: E402
from robot_vision.ros.simulation.parameters import SimulatorParameters  # noqa: E402
from robot_vision.settings.parameters import build  # noqa: E402
from robot_vision.simulation.simulator import Simulator  # noqa: E402

LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# --- parameters -------------------------------------------------------------------------------------------


def test_parameters_make_the_robot_and_mount_that_they_name() -> None:
    p = SimulatorParameters()
    changed = {
        name: value / 2 if isinstance(value, float) else value + 1
        for name, value in dataclasses.asdict(p).items()
        if name.startswith(
            ("robot_", "max_", "odometry_", "camera_h", "camera_f", "image_w", "image_h")
        )
        and isinstance(value, (int, float))
    }
    after = dataclasses.replace(p, **changed)
    found = {**dataclasses.asdict(after.robot()), **dataclasses.asdict(after.mount())}
    before = {**dataclasses.asdict(p.robot()), **dataclasses.asdict(p.mount())}
    assert all(v != before[k] for k, v in found.items() if before[k]), (found, before)
    assert after.robot().radius_m == after.robot_radius_m
    assert after.mount().field_deg == after.camera_field_deg


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image_rate_hz": 15.0}, ["image_rate_hz", "15", "12.5"]),
        ({"lockstep": True, "stamped_cmd_vel": False}, ["lockstep", "stamp"]),
        ({"camera_forward_m": 0.5}, ["camera_forward_m", "0.5", "radius"]),
        ({"world": "randm"}, ["did you mean 'random'"]),
        ({"base_frame": "odom"}, ["'odom'", "different"]),
        ({"max_speed_m_s": math.nan}, ["max_speed_m_s"]),
    ],
)
def test_parameters_that_contradict_are_refused(values: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build(SimulatorParameters, values)
    assert all(word in str(error.value) for word in words), error.value


# --- over DDS ---------------------------------------------------------------------------------------------


class Robot:
    """The node in a process, and a client that drives it."""

    def __init__(self, folder: Path, *parameters: str) -> None:
        values = [w for p in parameters for w in ("-p", p)]
        self.node = NodeProcess(
            folder / "simulator.txt", EXECUTABLES["simulator_node"], "--ros-args", *values
        )
        self.client = Client()
        self.odometry = self.client.listen(Odometry, "/odom", 100)
        self.truth = self.client.listen(Odometry, "/ground_truth/odom", 100)
        self.images = self.client.listen(Image, "/camera/image_raw")

    def drive(self, speed: float, turn_rate: float = 0.0, stamp: int = 0) -> None:
        message = TwistStamped()
        set_stamp(message.header.stamp, stamp)
        message.twist.linear.x, message.twist.angular.z = speed, turn_rate
        self.client.publisher(TwistStamped, "/cmd_vel").publish(message)

    @property
    def speed(self) -> float:
        return self.truth[-1].twist.twist.linear.x if self.truth else 0.0

    def close(self) -> None:
        self.client.close()
        status = self.node.stop()
        assert status == 0 and "Traceback" not in self.node.output, self.node.output


@pytest.fixture
def robot(ros_domain: None, tmp_path: Path) -> Iterator[Callable[..., Robot]]:
    made: list[Robot] = []

    def make(*parameters: str) -> Robot:
        made.append(Robot(tmp_path, *parameters))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.ros
@pytest.mark.slow
def test_commands_become_motion_and_every_topic_says_the_same(robot: Callable[..., Robot]) -> None:
    r = robot("world:=demo", "seed:=2")
    clock = r.client.listen(Clock, "/clock", 100)
    tf = r.client.listen(TFMessage, "/tf", 100)
    static = r.client.listen(TFMessage, "/tf_static", LATCHED)
    infos = r.client.listen(CameraInfo, "/camera/camera_info")
    scans = r.client.listen(LaserScan, "/scan")
    ways = r.client.listen(Float64, "/simulator/distance")
    wait_until(lambda: r.truth and r.images, what="odometry and an image")
    wait_until(
        lambda: r.truth[-1].twist.twist.angular.z > 0.9,
        each=lambda: r.drive(0.1, 1.0),
        what="a robot that turns",
    )
    wait_until(
        lambda: static and scans and infos and ways and ways[-1].data > 0.02, what="the rest"
    )

    assert stamp_to_ns(clock[-1].clock) > 0
    steps = np.diff([stamp_ns(m) for m in r.odometry])
    assert (steps == SECOND_NS // 50).all()
    transforms = {stamp_ns(t): t for m in tf for t in m.transforms}
    both = [m for m in r.odometry if stamp_ns(m) in transforms]
    assert len(both) > 10
    for message in both:
        t = transforms[stamp_ns(message)]
        assert (t.header.frame_id, t.child_frame_id) == ("odom", "base_link")
        assert t.transform.translation.x == message.pose.pose.position.x
        assert t.transform.rotation.z == message.pose.pose.orientation.z
    (mount,) = static[-1].transforms
    assert (mount.header.frame_id, mount.child_frame_id) == ("base_link", "camera_optical_frame")
    assert (mount.transform.translation.x, mount.transform.translation.z) == pytest.approx(
        (0.1, 0.4)
    )
    q = mount.transform.rotation  # z forwards, x right, y down
    assert np.abs((q.x, q.y, q.z, q.w)) == pytest.approx((0.5, 0.5, 0.5, 0.5))

    stamps = {stamp_ns(m) for m in r.images}
    assert stamps & {stamp_ns(m) for m in infos} and stamps & {stamp_ns(m) for m in scans}
    assert stamps <= {stamp_ns(m) for m in r.odometry} | {SECOND_NS}
    image, info = r.images[-1], infos[-1]
    assert (image.width, image.height, image.encoding) == (320, 240, "rgb8")
    assert image.header.frame_id == info.header.frame_id == "camera_optical_frame"
    assert math.degrees(2 * math.atan(160 / info.k[0])) == pytest.approx(130)
    assert np.ptp(np.frombuffer(bytes(image.data), np.uint8)) > 50
    assert len(scans[-1].ranges) == 360 and min(scans[-1].ranges) >= 0.2  # the robot's radius
    _, text, values = wait_until(lambda: _diagnostics(r), what="diagnostics")
    assert text and float(values["distance_m"]) > 0 and values["bad_commands"] == "0"


def _diagnostics(r: Robot) -> Any:
    from diagnostic_msgs.msg import DiagnosticArray

    r.client.listen(DiagnosticArray, "/diagnostics")
    return r.client.diagnostics("simulator")


@pytest.mark.ros
@pytest.mark.slow
def test_wall_stops_the_robot_and_an_event_says_so_and_a_service_frees_it(
    robot: Callable[..., Robot],
) -> None:
    r = robot("world:=demo", "seed:=2", "real_time_factor:=4.0")
    hits = r.client.listen(PointStamped, "/simulator/collision", LATCHED)
    resets = r.client.listen(PoseStamped, "/simulator/reset_pose", LATCHED)
    wait_until(lambda: hits, 60, "a collision", each=lambda: r.drive(0.5))
    wait_until(lambda: abs(r.speed) < 0.03, what="a robot that stands", each=lambda: r.drive(0.5))
    hit, pose = hits[0].point, r.truth[-1].pose.pose.position
    assert math.hypot(hit.x - pose.x, hit.y - pose.y) < 0.1
    assert hits[0].header.frame_id == "map"
    answer = r.client.call(Trigger, "/simulator/reset", Trigger.Request())
    assert answer.success
    wait_until(lambda: resets, what="the event of the reset")
    put = resets[-1].pose.position
    assert math.hypot(put.x - hit.x, put.y - hit.y) > 0.1
    assert len(hits) == 1


@pytest.mark.ros
@pytest.mark.slow
def test_robot_that_is_held_is_carried_away_where_that_is_wanted(
    robot: Callable[..., Robot],
) -> None:
    r = robot("world_seed:=5", "real_time_factor:=4.0", "reset_after_s:=0.5")
    resets = r.client.listen(PoseStamped, "/simulator/reset_pose", LATCHED)
    hits = r.client.listen(PointStamped, "/simulator/collision", LATCHED)
    wait_until(lambda: len(resets) >= 2, 60, "two resets", each=lambda: r.drive(0.5))
    first = [stamp_ns(m) for m in (hits[0], resets[0])]
    assert 0.5 <= (first[1] - first[0]) / SECOND_NS <= 0.6


@pytest.mark.ros
@pytest.mark.slow
def test_silence_and_bad_commands_stop_the_robot(robot: Callable[..., Robot]) -> None:
    r = robot("world:=demo", "seed:=2", "stamped_cmd_vel:=false", "cmd_vel_timeout_s:=0.4")
    wait_until(lambda: r.truth, what="odometry")
    publisher = r.client.publisher(Twist, "/cmd_vel")
    turn, bad = Twist(), Twist()
    turn.angular.z = 1.0
    bad.angular.z = math.nan

    def turns() -> bool:
        return bool(r.truth[-1].twist.twist.angular.z > 0.9)

    wait_until(turns, each=lambda: publisher.publish(turn), what="a robot that turns")
    # What is no command does not keep the robot going.
    wait_until(
        lambda: r.truth[-1].twist.twist.angular.z == 0,
        each=lambda: publisher.publish(bad),
        what="a robot that stands",
    )
    rates = [(stamp_ns(m), m.twist.twist.angular.z) for m in r.truth]
    begin = max(t for t, rate in rates if rate > 0.9)
    stop = min(t for t, rate in rates if t > begin and rate == 0)
    assert (stop - begin) / SECOND_NS < 0.4  # that is 1 rad/s at 4 rad/s^2
    found = wait_until(
        lambda: (
            (d := _diagnostics(r)) and int(d[2]["silences"]) and int(d[2]["bad_commands"]) and d
        ),
        what="diagnostics that count both",
    )
    assert found[2]["callback_errors"] == "0"
    wait_until(turns, each=lambda: publisher.publish(turn), what="a robot that turns again")


@pytest.mark.ros
@pytest.mark.slow
def test_run_in_lockstep_is_the_simulators_own_to_the_bit(robot: Callable[..., Robot]) -> None:
    """The node adds nothing: the same commands without ROS give the same images."""
    r = robot("world_seed:=3", "seed:=4", "lockstep:=true", "real_time_factor:=0.0",
              "lockstep_timeout_s:=60.0", "walkers:=2", "moving_doors:=true",
              "rear_camera:=true")  # fmt: skip
    rear = r.client.listen(Image, "/rear/image_raw")
    static = r.client.listen(TFMessage, "/tf_static", LATCHED)
    p = SimulatorParameters(world_seed=3, seed=4)
    alone = Simulator(p.made_world(), p.seed, p.robot(), p.mount(), walkers=2, moving_doors=True)
    for i in range(15):
        behind, expected = alone.image(back=True), alone.image()
        wait_until(lambda: min(len(rear), len(r.images)) > i, what=f"image {i}")  # noqa: B023
        assert len(r.images) == i + 1  # time waits for the command
        image = r.images[i]
        assert stamp_ns(image) == alone.now_ns
        assert bytes(image.data) == expected.tobytes()
        assert stamp_ns(rear[i]) == alone.now_ns and bytes(rear[i].data) == behind.tobytes()
        r.drive(0.3, math.sin(i), stamp=stamp_ns(image) - 1)  # an old answer moves nothing
        r.drive(0.5, math.cos(i), stamp=stamp_ns(image))
        alone.command(0.5, math.cos(i))
        for _ in range(p.image_steps):
            alone.step()
    assert math.hypot(alone.odometry.motion.x, alone.odometry.motion.y) > 0.2
    found = {t.child_frame_id: t.transform.translation.x for t in static[-1].transforms}
    assert found == {"camera_optical_frame": 0.1, "rear_optical_frame": -0.1}
    assert rear[-1].header.frame_id == "rear_optical_frame"


@pytest.mark.ros
@pytest.mark.slow
def test_lockstep_without_a_driver_goes_on_and_says_so(robot: Callable[..., Robot]) -> None:
    r = robot("lockstep:=true", "real_time_factor:=0.0", "lockstep_timeout_s:=0.2")
    wait_until(lambda: len(r.images) >= 3, what="images without a driver")
    wait_until(lambda: "stamps of the images" in r.node.output, what="a warning")


@pytest.mark.ros
@pytest.mark.slow
def test_commands_that_cannot_be_followed_are_said(robot: Callable[..., Robot]) -> None:
    """A Twist is not heard where commands are stamped, and a differential drive cannot go sideways."""
    r = robot("world:=demo", "warn_period_s:=0.2", "diagnostics_period_s:=0.2")
    twists = r.client.publisher(Twist, "/joystick/cmd_vel")  # another topic says nothing
    wait_until(lambda: _diagnostics(r), what="diagnostics")
    assert "elsewhere" not in r.client.diagnostics("simulator")[1]
    other = r.client.publisher(Twist, "/cmd_vel")
    wait_until(
        lambda: "set stamped_cmd_vel to false" in r.client.diagnostics("simulator")[1],
        each=lambda: (twists.publish(Twist()), other.publish(Twist())),
        what="a word of the other type",
    )
    level, text, _ = r.client.diagnostics("simulator")
    assert level == 1
    assert "/cmd_vel is geometry_msgs/msg/TwistStamped here and geometry_msgs/msg/Twist" in text
    wait_until(lambda: "set stamped_cmd_vel to false" in r.node.output, what="a warning")


@pytest.mark.ros
@pytest.mark.slow
def test_velocities_that_a_differential_drive_has_not_are_counted(
    robot: Callable[..., Robot],
) -> None:
    r = robot("world:=demo", "warn_period_s:=0.2", "diagnostics_period_s:=0.2")
    wait_until(lambda: r.truth, what="odometry")
    commands = r.client.publisher(TwistStamped, "/cmd_vel")

    def counted() -> int:
        found = _diagnostics(r)
        return int(found[2]["partial_commands"]) if found else -1

    wait_until(
        lambda: r.speed > 0.1 and counted() == 0,
        each=lambda: r.drive(0.2),
        what="a robot that drives",
    )
    for part, axis, value in (
        ("linear", "y", 0.3),
        ("linear", "z", math.nan),
        ("angular", "x", -1.0),
    ):
        before = counted()
        message = TwistStamped()
        setattr(getattr(message.twist, part), axis, value)
        wait_until(
            lambda: counted() > before,  # noqa: B023
            each=lambda: commands.publish(message),  # noqa: B023
            what=f"{part}.{axis} to be counted",
        )
    wait_until(lambda: "linear.x and angular.z alone" in r.node.output, what="a warning")
