"""The filter node behind the real perception node, each in its own process, over real DDS."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import (
    Client,
    NodeProcess,
    coloured_image,
    rgb_message,
    running,
    set_header,
    stamp_ns,
    wait_until,
)
from scipy.spatial.transform import Rotation
from tiny_bundle import LABELS, make_tiny_bundle

from robot_vision.filters.class_filter import ClassFilter, ClassModel, from_hypotheses

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NODE = "/filters"
CLEANUP, CONFIGURE, ACTIVATE, DEACTIVATE = 2, 1, 3, 4
RED, BLUE = (230, 20, 20), (90, 20, 120)


class Robot:
    """Both nodes, and a client that plays camera, odometry and planner."""

    def __init__(self, folder: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Classification

        bundle = make_tiny_bundle(folder / "tiny")
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.raw = self.client.listen(Classification, "/perception/front/classification")
        self.poses = self.client.listen(PoseWithCovarianceStamped, f"{NODE}/pose")
        self.own = self.client.listen(Classification, f"{NODE}/front/classification")
        self.fused = self.client.listen(Classification, f"{NODE}/classification")
        common = ("-p", "cameras:=[front]", "-p", "diagnostics_period_s:=0.2", "-p")
        self.perception = NodeProcess(
            folder / "perception.txt",
            "robot_vision.ros.perception.node",
            "--ros-args",
            *("-p", f"model:={bundle}", "-p", "engine:=onnx", "-p", "threads:=1"),
            *(*common, "base_frame:=base_link", "-p", "camera_to_base:=[0.0,0.0,0.0,0.0,0.0,0.0]"),
        )
        self.filters = NodeProcess(
            folder / "filters.txt",
            "robot_vision.ros.filters.node",
            "--ros-args",
            *(*common, "base_frame:=base_link", "-p", "warn_period_s:=0.1"),
            *("-p", "stale_after_s:=2.0", "-p", "localised_deg:=30.0"),
        )
        self.images = self.client.publisher(Image, "/front/image_raw")
        self.places = self.client.publisher(PoseWithCovarianceStamped, "/places/pose")
        self.now_ns = time.time_ns()
        self.x = 0.0

    def close(self) -> None:
        self.client.close()
        for process in (self.filters, self.perception):
            process.stop()

    def drive(self, colour: tuple[int, int, int] = RED, step_m: float = 0.0) -> None:
        """Moves, and takes a picture."""
        self.now_ns = max(self.now_ns + 50_000_000, time.time_ns())
        self.x += step_m
        self.odometry(self.now_ns, self.x)
        self.images.publish(rgb_message(coloured_image(colour), self.now_ns, "front_optical"))
        time.sleep(0.05)

    def odometry(self, stamp: int, x: float, child: str = "base_link") -> None:
        from nav_msgs.msg import Odometry

        message = Odometry(child_frame_id=child)
        set_header(message, stamp, "odom")
        message.pose.pose.position.x = x
        message.pose.pose.orientation.w = 1.0
        self.client.publisher(Odometry, "/odom").publish(message)

    def place(self, stamp: int, position: Any, covariance: Any = None, frame: str = "map") -> None:
        from geometry_msgs.msg import PoseWithCovarianceStamped

        message = PoseWithCovarianceStamped()
        set_header(message, stamp, frame)
        p = message.pose.pose.position
        p.x, p.y, p.z = (float(v) for v in position)
        message.pose.pose.orientation.w = 1.0
        matrix = 0.04 * np.eye(6) if covariance is None else covariance
        message.pose.covariance = np.asarray(matrix, float).reshape(36)
        self.places.publish(message)

    def pose_status(self) -> tuple[int, str, dict[str, str]]:
        return self.client.diagnostics(f"{NODE}: pose") or (0, "", {})

    def count(self, name: str) -> float:
        return self.client.count(f"{NODE}: pose", name)

    def localised(self) -> bool:
        return self.pose_status()[2].get("localised") == "True"


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    robot = Robot(tmp_path_factory.mktemp("filters"))
    try:
        # Two processes import ROS and load a model first, on a busy machine in a minute.
        wait_until(robot.localised, 120, "localised", each=robot.drive)
        yield robot
    finally:
        robot.close()


def test_classes_are_filtered_under_the_header_of_the_image(robot: Robot) -> None:
    """What the node publishes is what the filter makes of the raw topic's messages, one by one."""
    robot.raw.clear()
    robot.own.clear()
    wait_until(lambda: len(robot.own) > 30, each=robot.drive)
    wait_until(lambda: len(robot.raw) >= 30)
    first, last = robot.own[0], robot.own[20]
    assert first.header.frame_id == "front_optical"
    stamps = {stamp_ns(m) for m in robot.raw}
    assert stamp_ns(last) in stamps
    assert last.results[0].class_id == "red" and len(last.results) == 3
    offline = ClassFilter(ClassModel(LABELS))
    for message in robot.raw:
        p, refused = from_hypotheses(LABELS, [(h.class_id, h.score) for h in message.results])
        belief = offline.update(stamp_ns(message), p, refused)
    assert robot.own[-1].results[0].score == pytest.approx(belief.probabilities[0], abs=0.01)
    assert {stamp_ns(m) for m in robot.fused} & stamps
    assert robot.fused[-1].header.frame_id == "base_link"


def test_pose_is_in_the_map_and_the_robot_localised_for_late_joiners(robot: Robot) -> None:
    from std_msgs.msg import Bool

    from robot_vision.ros.node.qos import profile

    robot.poses.clear()
    wait_until(lambda: len(robot.poses) > 5, each=robot.drive)
    message = robot.poses[-1]
    assert message.header.frame_id == "map"
    covariance = np.reshape(message.pose.covariance, (6, 6))
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    colour = np.array(RED) / 255
    p = message.pose.pose.position
    np.testing.assert_allclose([p.x, p.y, p.z], colour, atol=0.05)
    answers = robot.client.listen(Bool, f"{NODE}/localised", profile("reliable", 1, latched=True))
    # A busy machine may be silent for longer than stale_after_s: then it is said once more.
    wait_until(lambda: answers and answers[-1].data is True, each=robot.drive)
    wait_until(robot.localised, each=robot.drive)
    values = robot.pose_status()[2]
    assert values["condition"] == "localised" and float(values["position_sigma_m"]) < 0.5


def test_pose_follows_the_odometry_between_images(robot: Robot) -> None:
    time.sleep(0.2)  # the last image's pose may be under way
    before = robot.poses[-1].pose.pose
    for _ in range(5):  # no image
        robot.now_ns = max(robot.now_ns + 50_000_000, time.time_ns())
        robot.x += 0.02
        robot.odometry(robot.now_ns, robot.x)
        time.sleep(0.05)
    wait_until(lambda: stamp_ns(robot.poses[-1]) == robot.now_ns)
    after, q = robot.poses[-1].pose.pose.position, before.orientation
    forward = Rotation.from_quat([q.x, q.y, q.z, q.w]).apply([0.1, 0, 0])
    moved = [after.x - before.position.x, after.y - before.position.y, after.z - before.position.z]
    np.testing.assert_allclose(moved, forward, atol=0.02)


def test_bad_poses_are_counted_and_change_nothing(robot: Robot) -> None:
    bad = {
        "refused_non_finite": dict(position=(math.nan, 0, 0)),
        "refused_covariance": dict(position=(1, 0, 0), covariance=np.zeros((6, 6))),
        "refused_frame": dict(position=(1, 0, 0), frame="odom"),
        "refused_too_old": dict(position=(1, 0, 0), stamp=robot.now_ns - 60 * 10**9),
        "refused_stamps_ahead": dict(position=(1, 0, 0), stamp=robot.now_ns + 3600 * 10**9),
        "rejected": dict(position=(80, 0, 0)),
    }
    for name, values in bad.items():
        before = robot.count(name)

        def again(values: dict = values) -> None:
            robot.drive()
            robot.place(**{"stamp": robot.now_ns, **values})

        wait_until(lambda b=before, n=name: robot.count(n) > b, each=again, what=name)
    wait_until(robot.localised, each=robot.drive)
    assert robot.filters.alive
    p = robot.poses[-1].pose.pose.position
    assert abs(p.x) < 2
    for words in ("not finite", "positive definite", "not map_frame", "ahead of the clock"):
        assert words in robot.filters.output


def test_bad_odometry_is_counted_and_changes_nothing(robot: Robot) -> None:
    for name, send in {
        "odometry_non_finite": lambda: robot.odometry(robot.now_ns + 1000, math.nan),
        "odometry_out_of_order": lambda: robot.odometry(robot.now_ns - 10**8, robot.x),
        "odometry_frame": lambda: robot.odometry(robot.now_ns + 1000, robot.x, "wheel"),
        "odometry_stamps_ahead": lambda: robot.odometry(robot.now_ns + 10**12, robot.x),
        "odometry_jumps": lambda: robot.odometry(robot.now_ns + 1000, robot.x + 500),
    }.items():
        before = robot.count(name)

        def again(send: Any = send) -> None:
            robot.drive()
            send()

        wait_until(lambda b=before, n=name: robot.count(n) > b, each=again, what=name)
    wait_until(robot.localised, each=robot.drive)
    assert "the motion is not known" in robot.filters.output.lower()


def test_bad_classifications_are_counted_and_the_node_lives_on(robot: Robot) -> None:
    from vision_msgs.msg import Classification, ObjectHypothesis

    publisher = robot.client.publisher(Classification, "/perception/front/classification")
    for name, results in {
        "refused_shape": [("nothing like it", 0.5)],
        "refused_non_finite": [("red", math.nan)],
    }.items():

        def again(results: Any = results) -> None:
            robot.drive()
            message = Classification(
                results=[ObjectHypothesis(class_id=n, score=s) for n, s in results]
            )
            set_header(message, robot.now_ns + 1, "front_optical")
            publisher.publish(message)

        wait_until(
            lambda n=name: robot.client.count(f"{NODE}: classes of front", n) > 0,
            each=again,
            what=name,
        )
    robot.own.clear()
    wait_until(lambda: robot.own, each=robot.drive)


def test_prior_from_a_topic_excludes_a_class(robot: Robot) -> None:
    from vision_msgs.msg import Classification, ObjectHypothesis

    publisher = robot.client.publisher(Classification, f"{NODE}/prior")

    def prior(**scores: float) -> None:
        message = Classification(
            results=[ObjectHypothesis(class_id=n, score=s) for n, s in scores.items()]
        )
        publisher.publish(message)
        robot.drive()

    wait_until(
        lambda: robot.own and robot.own[-1].results[0].class_id != "red",
        each=lambda: prior(red=0.0, green=0.5, blue=0.5),
    )
    wait_until(
        lambda: robot.own[-1].results[0].class_id == "red",
        each=lambda: prior(red=0.34, green=0.33, blue=0.33),
    )


def test_parameters_change_while_it_runs_or_say_why_not(robot: Robot) -> None:
    assert robot.client.set_parameters(NODE, top_k=1).successful
    robot.own.clear()
    wait_until(lambda: robot.own and len(robot.own[-1].results) == 1, each=robot.drive)
    assert robot.client.set_parameters(NODE, top_k=3).successful
    answer = robot.client.set_parameters(NODE, odometry_source="none")
    assert not answer.successful and "cleanup" in answer.reason
    assert not robot.client.set_parameters(NODE, gate_probability=1.5).successful
    assert robot.client.set_parameters(NODE, localised_m=0.001).successful
    wait_until(lambda: not robot.localised(), each=robot.drive)
    assert robot.client.set_parameters(NODE, localised_m=0.5).successful
    wait_until(robot.localised, each=robot.drive)


def test_silence_is_reported_and_ends(robot: Robot) -> None:
    wait_until(lambda: not robot.localised() and "no odometry" in robot.pose_status()[1])
    assert robot.pose_status()[2]["condition"] == "silent"
    # The last image's answer may have come later than the last odometry.
    wait_until(lambda: "no classification" in robot.client.diagnostics("classes of front")[1])
    wait_until(robot.localised, each=robot.drive)


def test_input_that_is_all_refused_is_silence(robot: Robot) -> None:
    wait_until(robot.localised, each=robot.drive)

    def refused() -> None:
        robot.odometry(time.time_ns(), math.nan)
        robot.place(time.time_ns(), (0, 0, 0), frame="elsewhere")
        time.sleep(0.05)

    wait_until(lambda: not robot.localised(), each=refused)
    assert robot.pose_status()[2]["condition"] == "silent"
    wait_until(robot.localised, each=robot.drive)


def test_deactivated_it_is_not_localised_and_begins_anew(robot: Robot) -> None:
    from std_msgs.msg import Bool

    from robot_vision.ros.node.qos import profile

    answers = robot.client.listen(Bool, f"{NODE}/localised", profile("reliable", 1, latched=True))
    wait_until(robot.localised, each=robot.drive)
    assert robot.client.change_state(NODE, DEACTIVATE)
    wait_until(lambda: answers and answers[-1].data is False)
    assert "Not localised: the filter is no longer active" in robot.filters.output
    assert not robot.client.change_state(NODE, DEACTIVATE)  # not allowed, and it lives
    assert robot.client.change_state(NODE, CLEANUP) and robot.client.change_state(NODE, CONFIGURE)
    assert robot.client.change_state(NODE, ACTIVATE)
    robot.client.received["/diagnostics"].clear()
    wait_until(robot.localised, each=robot.drive)
    assert robot.filters.alive


def test_clock_that_is_set_back_begins_anew(robot: Robot) -> None:
    """A bag that loops: odometry and images come with stamps of ten minutes ago."""
    wait_until(robot.localised, each=robot.drive)
    resets = robot.count("resets")
    shift = 600 * 10**9
    begin = time.time_ns()
    robot.poses.clear()

    def earlier() -> None:
        stamp = time.time_ns() - shift
        robot.odometry(stamp, 0.0)
        robot.images.publish(rgb_message(coloured_image(RED), stamp, "front_optical"))
        time.sleep(0.05)

    wait_until(lambda: robot.count("resets") > resets and robot.localised(), each=earlier)
    wait_until(lambda: stamp_ns(robot.poses[-1]) < begin - shift // 2, each=earlier)
    assert robot.client.count(f"{NODE}: classes of front", "resets") > 0


def alone(folder: Path, name: str, **parameters: Any) -> Any:
    """Runs a filter node that hears poses on /gps and no classes."""
    gps = {"pose_topics": "[/gps]", "filter_classes": "false"}
    words = ("--ros-args", "-r", f"__node:={name}")
    return running(folder, "filter_node", *words, **gps, **parameters)


def measured(stamp: int, position: Sequence[float], xyzw: Sequence[float] = (0, 0, 0, 1)) -> Any:
    """Returns a pose in the map with a variance of 0.01 each."""
    from geometry_msgs.msg import PoseWithCovarianceStamped

    message = PoseWithCovarianceStamped()
    set_header(message, stamp, "map")
    p, q = message.pose.pose.position, message.pose.pose.orientation
    p.x, p.y, p.z = map(float, position)
    q.x, q.y, q.z, q.w = map(float, xyzw)
    message.pose.covariance = (0.01 * np.eye(6)).reshape(36)
    return message


def test_tf_to_the_odometry_and_odometry_from_tf(tmp_path: Path) -> None:
    """Odometry as a transform of base_footprint; base_link is fixed on it; map -> odom comes out."""
    from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
    from tf2_msgs.msg import TFMessage

    from robot_vision.ros.node.qos import profile

    given = {"odometry_source": "tf", "base_frame": "base_link", "publish_tf": "true"}
    with alone(tmp_path, "tf_filters", **given) as (_, client):
        heard = client.listen(TFMessage, "/tf", 100)
        statics = client.publisher(TFMessage, "/tf_static", profile("reliable", 1, latched=True))
        tf = client.publisher(TFMessage, "/tf", 100)
        poses = client.publisher(PoseWithCovarianceStamped, "/gps")
        yaw = Rotation.from_euler("z", 0.5).as_quat()

        def transform(stamp: int, parent: str, child: str, x: float, z: float = 0.0) -> Any:
            message = TransformStamped(child_frame_id=child)
            set_header(message, stamp, parent)
            message.transform.translation.x, message.transform.translation.z = x, z
            message.transform.rotation.w = 1.0
            return TFMessage(transforms=[message])

        statics.publish(transform(0, "base_footprint", "base_link", 0.0, 0.2))

        def drive() -> None:
            stamp = time.time_ns()
            tf.publish(transform(stamp, "odom", "base_footprint", 1.0))
            poses.publish(measured(stamp, (5.0, 0.0, 0.2), yaw))
            time.sleep(0.05)

        def found() -> list[Any]:
            return [t for m in heard for t in m.transforms if t.header.frame_id == "map"]

        wait_until(found, 120, "map to odom on /tf", each=drive)
        answer = found()[-1]
        assert answer.child_frame_id == "odom"
        t = answer.transform.translation
        # map -> odom -> base_link is where it was measured: p = t + R(0.5) (1, 0, 0.2).
        at = np.array([t.x, t.y, t.z]) + Rotation.from_quat(yaw).apply([1, 0, 0.2])
        np.testing.assert_allclose(at, [5, 0, 0.2], atol=1e-3)


def test_pose_of_a_camera_waits_until_the_frame_of_the_robot_is_known(tmp_path: Path) -> None:
    """Without base_frame the odometry says which it is; before that the camera is not the robot."""
    from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
    from nav_msgs.msg import Odometry
    from tf2_msgs.msg import TFMessage

    from robot_vision.ros.node.qos import profile

    given = {"pose_frames": "[mast]", "diagnostics_period_s": 0.1}
    with alone(tmp_path, "late_filters", **given) as (_, client):
        out = client.listen(PoseWithCovarianceStamped, "/late_filters/pose", 100)
        poses = client.publisher(PoseWithCovarianceStamped, "/gps")
        odometry = client.publisher(Odometry, "/odom")
        fixed = TransformStamped(child_frame_id="mast")
        set_header(fixed, 0, "base_link")
        fixed.transform.translation.z = fixed.transform.rotation.w = 1.0
        statics = client.publisher(TFMessage, "/tf_static", profile("reliable", 1, latched=True))
        statics.publish(TFMessage(transforms=[fixed]))

        def measure() -> None:
            poses.publish(measured(time.time_ns(), (0.0, 0.0, 1.0)))
            time.sleep(0.05)

        def drive() -> None:
            message = Odometry(child_frame_id="base_link")
            set_header(message, time.time_ns(), "odom")
            message.pose.pose.orientation.w = 1.0
            odometry.publish(message)
            measure()

        wait_until(
            lambda: client.count("late_filters: pose", "refused_no_transform") >= 5 or out,
            60,
            each=measure,
        )
        assert not out
        wait_until(lambda: out, each=drive)
        assert all(abs(message.pose.pose.position.z) < 1e-6 for message in out)


def test_belief_says_alone_whether_to_drive_on(tmp_path: Path) -> None:
    """Carried away where odometry does not see it, then with odometry that stands still, then silence."""
    from diagnostic_msgs.msg import DiagnosticStatus
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from nav_msgs.msg import Odometry

    from robot_vision.ros.node.qos import profile

    given = {"diagnostics_period_s": 0.2, "warn_period_s": 0.1}
    with alone(tmp_path, "believer", **given) as (node, client):
        poses = client.publisher(PoseWithCovarianceStamped, "/gps")
        odometry = client.publisher(Odometry, "/odom")
        latched = profile("reliable", 1, latched=True)
        said = client.listen(DiagnosticStatus, "/believer/belief", latched)
        x, away, still, stamped = 0.0, 0.0, False, True

        def drive() -> None:
            nonlocal x
            x += 0.04
            stamp = time.time_ns() if stamped else 0
            message = Odometry(child_frame_id="base_link")
            set_header(message, stamp, "odom")
            message.pose.pose.position.x = 0.0 if still else x
            message.pose.pose.orientation.w = 1.0
            odometry.publish(message)
            poses.publish(measured(stamp, (x + away, 0.0, 0.0)))
            time.sleep(0.05)

        def reason() -> str:
            return str(said[-1].message) if said else ""

        wait_until(lambda: reason() == "localised", 120, "localised", each=drive)
        assert said[-1].level == DiagnosticStatus.OK
        # It is repeated, with the stamp of the estimate: who hears it knows that somebody judges still.
        count, stamps = len(said), {said[-1].values[-1].value}
        wait_until(lambda: len(said) >= count + 3 or reason() != "localised", each=drive)
        stamps |= {message.values[-1].value for message in said[count:]}
        assert reason() == "localised" and len(stamps) == 4
        for _ in range(30):  # until it is established; what has just begun is given up at once
            drive()
        away = 3.8
        begin = time.time_ns()
        wait_until(lambda: reason() == "contradicted", what="contradicted", each=drive)
        assert int(said[-1].values[-1].value) - begin < 1.5e9  # 0.2 s; 2 s it was
        assert said[-1].level == DiagnosticStatus.ERROR
        wait_until(lambda: reason() == "localised", what="found again", each=drive)
        still = True
        wait_until(lambda: reason() == "odometry distrusted", what="distrusted", each=drive)
        assert said[-1].level == DiagnosticStatus.WARN
        wait_until(
            lambda: "odometry distrusted" in (client.diagnostics("believer: pose") or (0, ""))[1],
            each=drive,
        )
        assert "The odometry is not followed" in node.output
        stamped = False  # nothing is used any more
        wait_until(lambda: reason() == "stale", what="stale", each=drive)

        def diagnostics() -> tuple[int, str, dict[str, str]]:
            return client.diagnostics("believer: pose") or (0, "", {})

        wait_until(lambda: "stamp" in diagnostics()[1], each=drive)
        level, text, _ = diagnostics()
        assert level > 0 and "refused: odometry_stamp, stamp" in text


def test_cells_contradict_a_robot_that_was_carried_away(tmp_path: Path) -> None:
    """Poses end, and cells say that the robot is elsewhere. Hostile clouds are counted and change nothing."""
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from nav_msgs.msg import Odometry
    from sensor_msgs.msg import PointCloud2, PointField

    given = {"cell_topics": "[/cells]", "base_frame": "base_link"}
    often = {"diagnostics_period_s": 0.2, "warn_period_s": 0.1}
    with alone(tmp_path, "celled", **given, **often) as (node, client):
        poses = client.publisher(PoseWithCovarianceStamped, "/gps")
        odometry = client.publisher(Odometry, "/odom")
        clouds = client.publisher(PointCloud2, "/cells")
        x, y = (a.reshape(-1) + 0.25 for a in np.meshgrid(*2 * [np.arange(-8, 8, 0.5)]))
        posed, where = True, 0.0

        def cloud(**changes: Any) -> PointCloud2:
            p = np.exp(-2 * ((x - where) ** 2 + y**2)) + 1e-3
            points = np.stack([x, y, 0 * x, 0 * x + 0.5, p / p.sum()], axis=1).astype("<f4")
            points *= changes.pop("factor", 1.0)
            message = PointCloud2(point_step=20, width=len(points), height=1)
            set_header(message, time.time_ns(), changes.pop("frame", "map"))
            message.fields = [
                PointField(name=name, offset=4 * i, datatype=7, count=1)
                for i, name in enumerate(("x", "y", "z", "size", "probability"))
            ]
            message.data = points.tobytes() * changes.pop("times", 1)
            if changes.pop("old", False):
                message.header.stamp.sec -= 60
            return message

        def drive(extra: Any = None) -> None:
            message = Odometry(child_frame_id="base_link")
            set_header(message, time.time_ns(), "odom")
            message.pose.pose.orientation.w = 1.0
            odometry.publish(message)
            if posed:
                poses.publish(measured(time.time_ns(), (0.0, 0.0, 0.0)))
            clouds.publish(extra or cloud())
            time.sleep(0.05)

        def count(name: str) -> float:
            return client.count("celled: pose", name)

        def condition() -> str:
            return (client.diagnostics("celled: pose") or (0, "", {}))[2].get("condition", "")

        wait_until(lambda: condition() == "localised", 120, "localised", each=drive)
        wait_until(lambda: count("cells_used") > 0, each=drive)
        for name, changes in {
            "refused_out_of_range": dict(factor=3.0),
            "refused_non_finite": dict(factor=math.nan),
            "refused_frame": dict(frame="odom"),
            "refused_shape": dict(times=100),  # more than are taken
            "refused_too_old": dict(old=True),
        }.items():
            before = count(name)

            def more(b: float = before, n: str = name) -> bool:
                return count(n) > b

            wait_until(more, what=name, each=lambda c=changes: drive(cloud(**c)))
        wait_until(lambda: condition() == "localised", each=drive)
        posed, where = False, 5.0
        wait_until(lambda: condition() == "contradicted", what="contradicted", each=drive)
        assert "cells say that the robot is not where" in node.output
        where = 0.0
        wait_until(lambda: condition() == "localised", what="localised again", each=drive)


def test_a_robot_on_cells_alone_is_told_that_its_height_is_what_is_uncertain() -> None:
    """A circle of 5 m by odometry and cells of 1 m, poses in the first 5 s: 0.65 m of height after 98 s."""
    from robot_vision.filters.pose_filter import UNCERTAIN, PoseFilter
    from robot_vision.filters.position_cells import PositionCells
    from robot_vision.geometry import se3
    from robot_vision.ros.filters.diagnostics import PoseHealth, pose_status
    from robot_vision.ros.filters.parameters import FilterParameters
    from robot_vision.ros.node.statistics import Statistics

    filter_, T = PoseFilter(), np.eye(4)
    low = np.stack(np.meshgrid(np.arange(-6.0, 6), np.arange(-1.0, 12)), axis=-1).reshape(-1, 2)
    corners = np.hstack([low, low + 1])
    for i in range(220):
        stamp = i * 500_000_000
        filter_.add_odometry(stamp, T)
        if i < 10:
            filter_.add_pose(stamp, T, np.diag([0.04] * 3 + [1e-3] * 3), "network")
        holds = ((T[:2, 3] >= low) & (T[:2, 3] < low + 1)).all(axis=1)
        p = np.where(holds, 0.9, 0.1 / (len(low) - 1))
        filter_.add_cells(stamp, PositionCells(corners, p / p.sum(), (0, 1)), "cells")
        estimate, condition = filter_.estimate(stamp), filter_.condition()
        if i > 20 and condition == UNCERTAIN:
            break
        T = T @ se3.exp(np.array([0.25, 0, 0, 0, 0, 0.05]))
    assert condition == UNCERTAIN and 90 < i / 2 < 110
    statistics = Statistics(10.0)
    health = PoseHealth(False, condition, estimate, 0, 0, 0.0, 0.0, "")
    assert pose_status("n", FilterParameters(), health, statistics).message == "uncertain"
    statistics.count("cells_used")
    said = pose_status("n", FilterParameters(), health, statistics).message
    assert said.startswith("uncertain: the height is known to 0.65 m and the position in the plane")
