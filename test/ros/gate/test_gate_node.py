"""The gate node in its own process over real DDS: commands of drivers in, what perception allows out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import Client, NodeProcess, running, set_header, stamp_ns, wait_until

from robot_vision.ros.node.qos import profile

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NODE = "/gate"
DEACTIVATE, ACTIVATE = 4, 3
LATCHED = profile("reliable", 1, latched=True)
RULES = """
command_max_age_s: 0.3
labels: /eyes/label_info
rules:
  slow in the kitchen: {kind: class, topic: /eyes/classification, label: kitchen, probability: 0.4,
                        speed: 0.2}
  near: {kind: obstacle, topic: /eyes/obstacle_near, distance_m: 0.5}
  wall: {kind: obstacle, topic: /eyes/obstacle_near, distance_m: 1.0, limits: forward}
  belief: {kind: localised, topic: /filters/belief}
  camera: {kind: fresh, topic: /camera/image_raw, type: sensor_msgs/msg/Image}
"""
# The stated time: max_age_s of the rule or the command and a period of 1 / rate_hz, and what a loaded machine
# needs to deliver a message.
STATED_S, DELIVERY_S = 0.5 + 0.05, 1.0


class Robot:
    """The gate, and a client that plays perception, drivers and the base."""

    def __init__(self, folder: Path, *arguments: str, rules: str = RULES) -> None:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from geometry_msgs.msg import TwistStamped
        from sensor_msgs.msg import Image, Range
        from vision_msgs.msg import Classification, LabelInfo, VisionClass

        (folder / "rules.yaml").write_text(rules)
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.out = self.client.listen(TwistStamped, "/cmd_vel")
        self.reasons = self.client.listen(DiagnosticStatus, f"{NODE}/reason", LATCHED)
        self.gate = NodeProcess(
            folder / "gate.txt",
            "robot_vision.ros.gate.node",
            "--ros-args",
            *("-p", f"rules:={folder / 'rules.yaml'}", "-p", "diagnostics_period_s:=0.2"),
            *("-p", "warn_period_s:=0.2", *arguments),
        )
        publisher = self.client.publisher
        self.classes = publisher(Classification, "/eyes/classification")
        self.ranges = publisher(Range, "/eyes/obstacle_near")
        self.beliefs = publisher(DiagnosticStatus, "/filters/belief")
        self.images = publisher(Image, "/camera/image_raw")
        self.commands = publisher(TwistStamped, "/cmd_vel_in")
        names = publisher(LabelInfo, "/eyes/label_info", LATCHED)
        labels = ("kitchen", "corridor")
        names.publish(
            LabelInfo(
                class_map=[VisionClass(class_id=i, class_name=n) for i, n in enumerate(labels)]
            )
        )
        self.mute: set[str] = set()
        self.scores = {"corridor": 0.9, "kitchen": 0.1}
        self.distance = 3.0
        self.word = "localised"
        self.shift_ns = 0
        self.x, self.turn = 0.5, 0.2

    def close(self) -> None:
        self.client.close()
        self.gate.stop()

    def again(self) -> None:
        """Perception and the driver say what they say, once."""
        from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
        from geometry_msgs.msg import TwistStamped
        from sensor_msgs.msg import Image, Range
        from vision_msgs.msg import Classification, ObjectHypothesis

        now = time.time_ns() + self.shift_ns
        if "classes" not in self.mute:
            message = Classification(
                results=[ObjectHypothesis(class_id=n, score=s) for n, s in self.scores.items()]
            )
            set_header(message, now, "front")
            self.classes.publish(message)
        if "range" not in self.mute:
            message = Range(min_range=0.0, max_range=10.0, range=self.distance)
            set_header(message, now, "base_link")
            self.ranges.publish(message)
        if "belief" not in self.mute:
            level = DiagnosticStatus.OK if self.word == "localised" else DiagnosticStatus.ERROR
            values = [KeyValue(key="stamp_ns", value=str(now))]
            self.beliefs.publish(DiagnosticStatus(level=level, message=self.word, values=values))
        if "image" not in self.mute:
            message = Image()
            set_header(message, now, "front")
            self.images.publish(message)
        if "command" not in self.mute:
            message = TwistStamped()
            set_header(message, time.time_ns(), "base_link")
            message.twist.linear.x, message.twist.angular.z = self.x, self.turn
            self.commands.publish(message)
        time.sleep(0.03)

    def velocity(self) -> tuple[float, float]:
        if not self.out:
            return math.nan, math.nan
        twist = self.out[-1].twist
        return round(twist.linear.x, 3), round(twist.angular.z, 3)

    def until(self, velocity: tuple[float, float], **options: Any) -> None:
        wait_until(
            lambda: self.velocity() == velocity,
            each=self.again,
            what=f"{velocity} instead of {self.velocity()}: {self.reason()}",
            **options,
        )

    def reason(self) -> tuple[str, str]:
        if not self.reasons:
            return "", ""
        last = self.reasons[-1]
        return last.message, {v.key: v.value for v in last.values}["text"]

    def until_reason(self, rule: str) -> str:
        wait_until(
            lambda: self.reason()[0] == rule, each=self.again, what=f"{rule}: {self.reason()}"
        )
        return self.reason()[1]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    robot = Robot(tmp_path_factory.mktemp("gate"))
    try:
        robot.until((0.5, 0.2), timeout_s=60)
        yield robot
    finally:
        robot.close()


@pytest.fixture
def robot(one: Robot) -> Robot:
    """Drives before each test."""
    one.mute, one.scores, one.distance = set(), {"corridor": 0.9, "kitchen": 0.1}, 3.0
    one.word, one.shift_ns = "localised", 0
    one.x, one.turn = 0.5, 0.2
    one.until((0.5, 0.2))
    assert one.gate.alive
    return one


def test_commands_go_through_under_their_own_header(robot: Robot) -> None:
    robot.out.clear()
    before = time.time_ns()
    wait_until(lambda: len(robot.out) > 5, each=robot.again)
    assert before <= stamp_ns(robot.out[-1]) <= time.time_ns()
    assert robot.out[-1].header.frame_id == "base_link"
    robot.until_reason("free")


def test_in_the_kitchen_it_is_slow_on_its_path(robot: Robot) -> None:
    robot.scores = {"kitchen": 0.7, "corridor": 0.3}
    robot.until((0.2, 0.08))
    assert robot.until_reason("slow in the kitchen") == (
        "slowed to 0.2 m/s by slow in the kitchen: kitchen with probability 0.70"
    )


def test_an_obstacle_stops_and_is_named_everywhere(robot: Robot) -> None:
    robot.distance = 0.4
    robot.until((0.0, 0.0))
    text = robot.until_reason("near")
    assert text == "stopped by near: an obstacle at 0.40 m"
    wait_until(lambda: text in robot.client.diagnostics("gate: gate")[1], each=robot.again)
    level, _, values = robot.client.diagnostics("gate: gate")
    assert level == 1 and values["rule"] == "near" and int(values["stops_by_near"]) >= 1
    assert float(values["answer_to_command_ms_p50"]) > 0
    assert 0 < float(values["image_to_stop_ms_p50"]) < 10_000
    assert text[1:] in robot.gate.output


def test_an_obstacle_ahead_leaves_turning_free(robot: Robot) -> None:
    robot.distance = 0.8
    robot.until((0.0, 0.2))
    robot.x = -0.3
    robot.until((-0.3, 0.2))


@pytest.mark.parametrize("scores", [{"unknown": 0.8, "corridor": 0.2}, {"kitchen": math.nan}, {}])
def test_an_unknown_image_or_broken_answer_stops(robot: Robot, scores: dict) -> None:
    robot.scores = scores
    robot.until((0.0, 0.0))
    robot.until_reason("slow in the kitchen")


@pytest.mark.parametrize("word", ["contradicted", "uncertain", "stale", "what"])
def test_a_robot_that_is_not_localised_stops(robot: Robot, word: str) -> None:
    robot.word = word
    robot.until((0.0, 0.0))
    robot.until_reason("belief")


@pytest.mark.parametrize(
    ("mute", "rule"),
    [
        ("classes", "slow in the kitchen"),
        ("range", "near"),
        ("image", "camera"),
        ("command", "command"),
    ],
)
def test_silence_stops_within_the_stated_time(robot: Robot, mute: str, rule: str) -> None:
    robot.mute = {mute}
    begin = time.monotonic()
    wait_until(lambda: robot.velocity() == (0.0, 0.0), each=robot.again)
    assert time.monotonic() - begin < STATED_S + DELIVERY_S
    text = robot.until_reason(rule)
    assert "nothing for" in text or "old" in text
    robot.mute = {"classes", "range", "belief", "image", "command"}  # nobody at all
    robot.out.clear()
    wait_until(lambda: len(robot.out) > 10)
    assert {m.twist.linear.x for m in robot.out} == {0.0}


@pytest.mark.parametrize("by_s", [-3600, 3600])
def test_stamps_of_another_time_stop(robot: Robot, by_s: int) -> None:
    robot.shift_ns = by_s * 10**9
    robot.until((0.0, 0.0))
    wait_until(lambda: any(w in robot.reason()[1] for w in ("old", "ahead")), each=robot.again)


def test_a_command_that_is_no_number_stops_until_the_next(robot: Robot) -> None:
    robot.x = math.nan
    robot.until((0.0, 0.0))
    assert "a number is not finite" in robot.until_reason("command")


def test_two_drivers_stop_until_one_is_silent(robot: Robot) -> None:
    from geometry_msgs.msg import TwistStamped

    other = robot.client.node.create_publisher(TwistStamped, "/cmd_vel_in", 1)

    def both() -> None:
        robot.again()
        message = TwistStamped()
        set_header(message, time.time_ns(), "base_link")
        message.twist.linear.x = 0.9
        other.publish(message)

    try:
        wait_until(lambda: robot.reason()[0] == "drivers", each=both)
        robot.out.clear()
        wait_until(lambda: len(robot.out) > 10, each=both)
        assert {m.twist.linear.x for m in robot.out} == {0.0}
        assert "2 nodes send commands" in robot.reason()[1]
        robot.until((0.5, 0.2))  # the other is there still, and says nothing
    finally:
        robot.client.node.destroy_publisher(other)


def test_commands_past_the_gate_are_an_error(robot: Robot) -> None:
    from geometry_msgs.msg import TwistStamped

    other = robot.client.node.create_publisher(TwistStamped, "/cmd_vel", 1)
    try:
        wait_until(lambda: robot.client.diagnostics("gate: gate")[0] == 2, each=robot.again)
        assert "commands go past the gate" in robot.client.diagnostics("gate: gate")[1]
    finally:
        robot.client.node.destroy_publisher(other)
    wait_until(lambda: robot.client.diagnostics("gate: gate")[0] == 0, each=robot.again)


def test_deactivated_it_stops_and_lets_nothing_through(robot: Robot) -> None:
    assert robot.client.change_state(NODE, DEACTIVATE)
    wait_until(lambda: robot.velocity() == (0.0, 0.0))
    robot.out.clear()
    for _ in range(20):
        robot.again()
    assert not robot.out
    assert robot.client.change_state(NODE, ACTIVATE)
    robot.until((0.5, 0.2))


def test_a_rule_on_a_silent_topic_is_said_and_its_end_is_the_last_command(
    tmp_path: Path, ros_domain: None
) -> None:
    """A gate of its own; when it is asked to stop, the base's last command is to stand."""
    rules = "rules: {gone: {kind: obstacle, topic: /nobody}, odd: {kind: obstacle, topic: /odd}}"
    robot = Robot(tmp_path, rules=rules)
    try:
        from std_msgs.msg import Bool

        odd = robot.client.publisher(Bool, "/odd")
        odd.publish(Bool())
        wait_until(
            lambda: "which carries" in (robot.client.diagnostics("gate: gate") or (0, "", {}))[1],
            60,
            each=robot.again,
        )
        _, text, values = robot.client.diagnostics("gate: gate")
        assert values["rules_without_topic"] == "2"
        assert "rule 'gone' reads /nobody, which nobody publishes" in text
        assert (
            "rule 'odd' reads /odd as sensor_msgs/msg/Range, which carries std_msgs/msg/Bool"
            in text
        )
        assert "rule 'gone' reads /nobody" in robot.gate.output
        assert robot.velocity() == (0.0, 0.0)
        robot.out.clear()
        assert robot.gate.stop() == 0
        wait_until(lambda: robot.out and robot.velocity() == (0.0, 0.0))
    finally:
        robot.close()


def test_simulated_time_that_is_set_back_stops(tmp_path: Path, ros_domain: None) -> None:
    """Time is what /clock says: nothing of before a jump counts, and a clock that stands still stops."""
    from builtin_interfaces.msg import Time
    from geometry_msgs.msg import TwistStamped
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Range

    rules = "rules: {near: {kind: obstacle, topic: /eyes/obstacle_near, distance_m: 0.5}}"
    robot = Robot(tmp_path, "-p", "use_sim_time:=true", rules=rules)
    clock = robot.client.publisher(Clock, "/clock")
    now = 500 * 10**9
    try:

        def step(by_s: float = 0.05) -> None:
            nonlocal now
            now += round(by_s * 1e9)
            clock.publish(Clock(clock=Time(sec=now // 10**9, nanosec=now % 10**9)))
            message = Range(min_range=0.0, max_range=10.0, range=2.0)
            set_header(message, now, "base_link")
            robot.ranges.publish(message)
            command = TwistStamped()
            set_header(command, now, "base_link")
            command.twist.linear.x = 0.5
            robot.commands.publish(command)
            time.sleep(0.02)

        wait_until(lambda: robot.velocity()[0] == 0.5, 60, each=step)
        jumps = robot.client.count("gate: gate", "clock_jumps")
        step(-100.0)
        robot.out.clear()
        wait_until(lambda: robot.client.count("gate: gate", "clock_jumps") > jumps)
        wait_until(lambda: robot.velocity() == (0.0, 0.0))
        wait_until(lambda: robot.velocity()[0] == 0.5, each=step)  # and it goes on by the new time
        wait_until(lambda: robot.reason()[0] == "clock" and "stands still" in robot.reason()[1])
        assert robot.velocity() == (0.0, 0.0)
    finally:
        robot.close()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("rules: {a: {kind: obstacle, topic: /x, sped: 1}}", "rule 'a': Unknown key"),
        (
            "rules: {a: {kind: fresh, topic: /x, type: no_msgs/msg/No}}",
            "no_msgs/msg/No is not installed",
        ),
        ("rules: {a: {kind: obstacle, topic: cmd_vel}}", "rules has /cmd_vel"),
        ("rules: {}", "at least one rule"),
        ("rules: {a: {kind: obstacle, topic: /x}}\nlabels: a b", "rules has 'a b' for labels"),
        ("rules: {a: {kind: obstacle, topic: /x}}\nlabels: /x", "for rule 'a' and for labels"),
        (
            "rules: {a: {kind: obstacle, topic: /x}}\nlabels: cmd_vel_in",
            "for labels and for commands",
        ),
    ],
)
def test_rules_that_cannot_be_used_leave_the_node_unconfigured(
    tmp_path: Path, rules: str, words: str, ros_domain: None
) -> None:
    robot = Robot(tmp_path, rules=rules)
    try:
        wait_until(lambda: words in robot.gate.output, 60)
        assert "Cannot configure: " in robot.gate.output and "Traceback" not in robot.gate.output
        wait_until(lambda: (robot.client.diagnostics("/gate") or (0,))[0] == 2)
        assert robot.client.state(NODE) == "unconfigured"
        robot.again()
        assert not robot.out
    finally:
        robot.close()


@pytest.mark.parametrize("sec", [0, -1])
@pytest.mark.parametrize("kind", ["Image", "LaserScan", "PointCloud2"])
def test_a_message_without_a_stamp_is_not_fresh_when_time_has_just_begun(
    sec: int, kind: str
) -> None:
    """Simulated time begins at 0: there a stamp that was never filled in is not old."""
    import sensor_msgs.msg
    from rclpy.serialization import serialize_message

    from robot_vision.gate.decision import decide
    from robot_vision.gate.moment import Moment
    from robot_vision.gate.rules import parse_rules
    from robot_vision.ros.gate.commanding import _heard_raw

    rules = parse_rules(
        f"rules: {{eyes: {{kind: fresh, topic: /x, type: sensor_msgs/msg/{kind}, max_age_s: 2}}}}"
    )
    now = Moment(1_000_000_000, 5_000_000_000, simulated=True)
    message = getattr(sensor_msgs.msg, kind)()

    def holding() -> list[tuple[str, str]]:
        last = _heard_raw(type(message), serialize_message(message), now)
        found = decide(rules, {"eyes": last}, None, None, 1, "", now)
        return [(limit.rule, limit.why) for limit in found.limits if limit.rule == "eyes"]

    message.header.stamp.sec = sec
    ((_, why),) = holding()
    assert ("its stamp is 0" if sec == 0 else "its stamp, -1000000000 ns, is no time") in why
    set_header(message, 900_000_000, "front")
    assert not holding()


def test_plain_twists_are_counted_from_their_arrival(tmp_path: Path, ros_domain: None) -> None:
    from geometry_msgs.msg import Twist, TwistStamped
    from sensor_msgs.msg import Range

    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: {near: {kind: obstacle, topic: /eyes/obstacle_near, distance_m: 0.5}}")
    words = ("--ros-args", "-r", "__ns:=/plain", "-r", "cmd_vel_in:=nav/cmd_vel")
    given = {"rules": rules, "stamped_cmd_vel": "false"}
    with running(tmp_path, "gate_node", *words, **given) as (_, client):
        out = client.listen(Twist, "/plain/cmd_vel")
        ranges = client.publisher(Range, "/eyes/obstacle_near")
        commands = client.publisher(Twist, "/plain/nav/cmd_vel")

        def again() -> None:
            message = Range(min_range=0.0, max_range=10.0, range=2.0)
            set_header(message, time.time_ns(), "base_link")
            ranges.publish(message)
            command = Twist()
            command.linear.x = 0.4
            commands.publish(command)

        wait_until(lambda: out and out[-1].linear.x == 0.4, 60, each=again)
        begin = time.monotonic()
        wait_until(lambda: out[-1].linear.x == 0.0)
        assert time.monotonic() - begin < STATED_S + DELIVERY_S
        other = Client()  # a process of Nav2 that has been told to stamp its commands
        try:
            other.publisher(TwistStamped, "/plain/nav/cmd_vel")
            words = (
                "/plain/nav/cmd_vel is geometry_msgs/msg/Twist here and geometry_msgs/msg/TwistStamped "
                "elsewhere: set stamped_cmd_vel to true"
            )
            wait_until(lambda: words in (client.diagnostics("gate: gate") or ("", ""))[1])
        finally:
            other.close()
