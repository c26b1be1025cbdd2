"""The perception node in its own process, over real DDS: what a robot gets when all is well."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import (
    Client,
    NodeProcess,
    coloured_image,
    jpeg_message,
    rgb_message,
    stamp_ns,
    wait_until,
)
from scipy.spatial.transform import Rotation
from tiny_bundle import LABELS, make_tiny_bundle, two_classifiers

from robot_vision.geometry.camera_pose import base_pose
from robot_vision.geometry.published_covariance import covariance_numbers
from robot_vision.geometry.rigid import matrix_from_xyzw, pose_matrix
from robot_vision.images.decode import to_rgb
from robot_vision.pipeline import Pipeline
from robot_vision.ros.node.dds import FAST_DDS
from robot_vision.ros.node.transforms import transform_from_numbers

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NODE = "/perception"
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4
OTHER_LABELS = ("hall", "kitchen", "lab", "stairs")


class Robot:
    """The node under test, and a client that plays its cameras and its listeners."""

    def __init__(self, folder: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        self.bundle = make_tiny_bundle(folder / "tiny")
        self.other = make_tiny_bundle(folder / "other", labels=OTHER_LABELS, name="other")
        self.pipeline = Pipeline.load(self.bundle, "onnx", threads=1)
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.process = NodeProcess(
            folder / "log.txt",
            "robot_vision.ros.perception.node",
            "--ros-args",
            *("-p", f"model:={self.bundle}", "-p", "engine:=onnx", "-p", "threads:=1"),
            *("-p", "cameras:=[front, rear]", "-p", "diagnostics_period_s:=0.2"),
            *("-p", "stale_after_s:=1.0", "-p", "warn_period_s:=0.1"),
        )
        self._next_ns = time.time_ns()

    def listen(self, camera: str, *names: str) -> None:
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Classification

        kinds = {
            "classification": Classification,
            "descriptor": Image,
            "pose": PoseWithCovarianceStamped,
            "image_annotated": Image,
        }
        for name in names or ("classification", "descriptor", "pose"):
            self.client.listen(kinds.get(name, Classification), f"{NODE}/{camera}/{name}")

    def infos(self) -> tuple[list[Any], list[Any]]:
        """Returns what came on the latched topics: label infos and vision infos."""
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from vision_msgs.msg import LabelInfo, VisionInfo

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        return (
            self.client.listen(LabelInfo, f"{NODE}/label_info", latched),
            self.client.listen(VisionInfo, f"{NODE}/vision_info", latched),
        )

    def new_stamp(self) -> int:
        self._next_ns = max(self._next_ns + 1_000_000, time.time_ns())
        return self._next_ns

    def send(self, camera: str, message: Any) -> None:
        topic = f"/{camera}/image_raw" + ("" if hasattr(message, "encoding") else "/compressed")
        self.client.publisher(type(message), topic).publish(message)

    def ask(self, camera: str, message: Any, *names: str, timeout_s: float = 30) -> SimpleNamespace:
        """Sends an image until it is answered on all the topics; best effort may lose one."""
        names = names or ("classification", "descriptor", "pose")
        self.listen(camera, *names)
        wanted = stamp_ns(message)
        sent = [0.0]

        def answers() -> dict[str, Any] | None:
            if time.monotonic() - sent[0] > 0.4:
                self.send(camera, message)
                sent[0] = time.monotonic()
            found = {}
            for name in names:
                for answer in reversed(list(self.client.received[f"{NODE}/{camera}/{name}"])):
                    if stamp_ns(answer) == wanted:
                        found[name] = answer
            return found if len(found) == len(names) else None

        what = f"{names} of {camera}; the node said:\n{self.process.output[-3000:]}"
        return SimpleNamespace(**wait_until(answers, timeout_s, what))

    def reconfigure(self, **parameters: Any) -> None:
        """Takes the node down from whatever state, changes parameters, and brings it up again."""
        client = self.client
        if client.state(NODE) == "active":
            assert client.change_state(NODE, DEACTIVATE)
        if client.state(NODE) == "inactive":
            assert client.change_state(NODE, CLEANUP)
        result = client.set_parameters(NODE, **parameters)
        assert result.successful, result.reason
        assert client.change_state(NODE, CONFIGURE) and client.change_state(NODE, ACTIVATE)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    robot = Robot(tmp_path_factory.mktemp("robot"))
    yield robot
    status = robot.process.stop(signal.SIGINT)
    robot.client.close()
    assert status == 0, robot.process.output
    assert "Traceback" not in robot.process.output, robot.process.output
    assert "Internal error" not in robot.process.output


@pytest.fixture
def changed_robot(robot: Robot) -> Iterator[Robot]:
    """The robot for a test that reconfigures it; afterwards it is as before, also if the test failed."""
    yield robot
    robot.reconfigure(
        model=str(robot.bundle), transport="raw", base_frame="", camera_to_base=[], publish_tf=False,
        streams=0,
    )  # fmt: skip


def _assert_equals_offline(answer: SimpleNamespace, prediction: Any, top_k: int = 3) -> None:
    expected = prediction["classifier"].top_k(top_k)
    got = answer.classification.results
    assert [r.class_id for r in got] == [h.label for h in expected]
    assert [r.score for r in got] == pytest.approx([h.score for h in expected], abs=1e-6)
    descriptor = np.frombuffer(answer.descriptor.data, np.float32)
    assert np.allclose(descriptor, prediction["place"].values, atol=1e-6)
    pose = answer.pose.pose
    p, q = pose.pose.position, pose.pose.orientation
    assert np.allclose([p.x, p.y, p.z], prediction["pose"].position, atol=1e-6)
    assert np.allclose([q.x, q.y, q.z, q.w], prediction["pose"].orientation_xyzw, atol=1e-6)
    assert np.allclose(
        pose.covariance, covariance_numbers(prediction["pose"].covariance), atol=1e-7
    )


@pytest.mark.parametrize("camera", ["front", "rear"])
@pytest.mark.parametrize("size", [(48, 64), (480, 640), (1080, 1920)])
def test_raw_frames_get_the_offline_answer_under_their_header(
    robot: Robot, camera: str, size: tuple[int, int]
) -> None:
    colour = tuple(int(c) for c in np.random.default_rng(size[0]).integers(20, 230, 3))
    image = coloured_image(colour, size)
    message = rgb_message(image, robot.new_stamp(), f"{camera}_optical")
    answer = robot.ask(camera, message)
    _assert_equals_offline(answer, robot.pipeline([image])[0])
    assert answer.classification.header == message.header
    assert answer.descriptor.header == message.header
    assert answer.pose.header.stamp == message.header.stamp
    assert answer.pose.header.frame_id == "map"


def test_real_frame_gets_the_offline_answer(robot: Robot, data_dir: Path) -> None:
    import cv2

    path = next((data_dir / "kitchen").glob("*.jpg"), None)
    if path is None:
        pytest.skip(f"no kitchen frames in {data_dir}")
    image = cv2.imread(str(path))[..., ::-1]
    answer = robot.ask("front", rgb_message(image, robot.new_stamp()))
    _assert_equals_offline(answer, robot.pipeline([np.ascontiguousarray(image)])[0])


def test_annotated_image_is_drawn_only_for_a_listener(robot: Robot) -> None:
    image = coloured_image((10, 200, 30), (240, 320))
    message = rgb_message(image, robot.new_stamp())
    answer = robot.ask("front", message, "image_annotated")
    drawn = to_rgb(answer.image_annotated)
    assert drawn.shape == image.shape and np.abs(drawn.astype(int) - image).mean() > 0.5
    assert answer.image_annotated.header == message.header
    robot.client.ignore(f"{NODE}/front/image_annotated")


def test_infos_reach_late_joiners(robot: Robot) -> None:
    robot.ask("front", rgb_message(coloured_image((9, 9, 9)), robot.new_stamp()))
    labels, vision = robot.infos()
    wait_until(lambda: labels and vision, what="latched infos")
    assert [c.class_name for c in labels[-1].class_map] == list(LABELS)
    assert "tiny" in vision[-1].method
    assert robot.pipeline.bundle.sha256 in vision[-1].method


def test_no_inference_while_nobody_listens(robot: Robot) -> None:
    client = robot.client
    message = rgb_message(coloured_image((80, 90, 10)), robot.new_stamp())
    robot.ask("front", message)
    before = len(robot.process.output)
    for camera in ("front", "rear"):
        for name in ("classification", "descriptor", "pose", "image_annotated"):
            client.ignore(f"{NODE}/{camera}/{name}")
    paused = "Paused: nothing subscribes to a result"
    wait_until(lambda: paused in robot.process.output[before:], what="log line: paused")

    def send_idle() -> float:
        """Sends frames until diagnostics count more idle ones; returns how many were published."""
        idle = client.count("camera front", "idle")
        wait_until(
            lambda: client.count("camera front", "idle") > idle + 3,
            what="idle frames",
            each=lambda: robot.send("front", message),
        )
        return client.count("camera front", "published")

    assert send_idle() == send_idle()
    wait_until(
        lambda: (client.diagnostics("camera front") or "")[1] == "idle: no subscribers",
        each=lambda: robot.send("front", message),
    )
    robot.ask("front", rgb_message(coloured_image((1, 2, 3)), robot.new_stamp()))
    assert "Running: there is a subscriber" in robot.process.output
    assert robot.process.output.count("Paused") < 10


def test_always_infer_answers_nobody_too(robot: Robot) -> None:
    client = robot.client
    assert client.set_parameters(NODE, always_infer=True).successful
    client.ignore(f"{NODE}/rear/classification")
    client.ignore(f"{NODE}/rear/descriptor")
    client.ignore(f"{NODE}/rear/pose")
    before = client.count("camera rear", "published")
    message = rgb_message(coloured_image((80, 90, 10)), robot.new_stamp())
    wait_until(
        lambda: client.count("camera rear", "published") > before,
        what="inference without listeners",
        each=lambda: robot.send("rear", message),
    )
    assert client.set_parameters(NODE, always_infer=False).successful


def test_diagnostics_tell_rates_ages_stages_and_engine(robot: Robot) -> None:
    robot.listen("front")
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        robot.send("front", rgb_message(coloured_image((80, 90, 10)), robot.new_stamp()))
        time.sleep(0.04)
    level, _, camera = robot.client.diagnostics("camera front")
    assert level == 0
    assert float(camera["input_hz"]) > 1 and float(camera["output_hz"]) > 1
    ages = [float(camera[f"age_at_publication_ms_p{p}"]) for p in (50, 95, 99)]
    assert 0 < ages[0] <= ages[1] <= ages[2] < 5000
    _, _, node = robot.client.diagnostics(NODE)
    assert (node["engine"], node["device"], node["state"]) == ("onnx", "cpu", "active")
    assert node["sha256"] == robot.pipeline.bundle.sha256
    for stage in ("wait", "image", "preprocess", "inference", "decode", "publish"):
        assert float(node[f"{stage}_ms_p95"]) >= 0, stage


def test_parameters_change_results_while_running(robot: Robot) -> None:
    client = robot.client
    image = coloured_image((200, 30, 30))
    assert client.set_parameters(NODE, top_k=1, unknown_threshold=2.0).successful
    got = robot.ask("front", rgb_message(image, robot.new_stamp())).classification.results
    assert [r.class_id for r in got] == ["unknown", "red"]
    infos, _ = robot.infos()
    wait_until(lambda: infos and infos[-1].threshold == 2.0, what="threshold in label_info")

    assert client.set_parameters(NODE, top_k=2, unknown_threshold=float("-inf")).successful
    got = robot.ask("front", rgb_message(image, robot.new_stamp())).classification.results
    assert [r.class_id for r in got] == ["red", "green"] or got[0].class_id == "red"
    assert len(got) == 2

    assert client.set_parameters(NODE, pose_covariance_scale=4.0).successful
    pose = robot.ask("front", rgb_message(image, robot.new_stamp())).pose
    expected = 4 * robot.pipeline([image])[0]["pose"].covariance
    assert np.allclose(np.diagonal(pose.pose.covariance.reshape(6, 6)), np.diagonal(expected))
    restored = {"top_k": 3, "unknown_threshold": float("nan"), "pose_covariance_scale": 1}
    assert client.set_parameters(NODE, **restored).successful


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"top_k": 0}, ["top_k", "0", "1000"]),
        ({"max_rate_hz": -1.0}, ["max_rate_hz", "-1", "1000"]),
        ({"max_rate_hz": float("nan")}, ["max_rate_hz", "nan"]),
        ({"model": "/elsewhere"}, ["model", "read-only", "cleanup"]),
        ({"engine": "torch"}, ["engine", "read-only", "cleanup"]),
        ({"autostart": False}, ["autostart", "read-only"]),
        ({"top_k": 2, "stale_after_s": 0.0}, ["stale_after_s", "0"]),
    ],
)
def test_parameters_out_of_range_are_refused_with_reason(
    robot: Robot, values: dict, words: list[str]
) -> None:
    result = robot.client.set_parameters(NODE, **values)
    assert not result.successful
    for word in words:
        assert word in result.reason
    got = robot.ask("front", rgb_message(coloured_image((200, 30, 30)), robot.new_stamp()))
    assert len(got.classification.results) == 3, "nothing of a refused set may be applied"


def test_rate_limit_is_kept_and_counted(robot: Robot) -> None:
    client = robot.client
    robot.ask("front", rgb_message(coloured_image((5, 5, 5)), robot.new_stamp()))
    assert client.set_parameters(NODE, max_rate_hz=5).successful
    limited = client.count("camera front", "limited")
    answers = client.received[f"{NODE}/front/classification"]
    before, start = len(answers), time.monotonic()
    while time.monotonic() - start < 2:
        robot.send("front", rgb_message(coloured_image((5, 5, 5)), robot.new_stamp()))
        time.sleep(1 / 40)
    elapsed = time.monotonic() - start
    time.sleep(0.3)
    assert 4 <= len(answers) - before <= 5 * elapsed + 2
    wait_until(lambda: client.count("camera front", "limited") > limited, what="limited frames")
    assert client.set_parameters(NODE, max_rate_hz=0.0).successful


def test_burst_is_counted_whole_also_what_the_middleware_replaced(robot: Robot) -> None:
    """Each frame that was sent is received or lost; each that was received is published or replaced."""
    from rclpy.utilities import get_rmw_implementation_identifier
    from sensor_msgs.msg import Image

    if get_rmw_implementation_identifier() not in FAST_DDS:
        pytest.skip("another middleware, which may not number its messages")

    def counts() -> np.ndarray:
        names = ("lost", "received", "replaced", "published")
        return np.array([robot.client.count("front", name) for name in names])

    robot.listen("front", "classification")
    robot.ask("front", rgb_message(coloured_image((1, 1, 250)), robot.new_stamp()))
    time.sleep(0.5)  # two of its diagnostics
    before, burst = counts(), 300
    publisher = robot.client.publisher(Image, "/front/image_raw")
    message = rgb_message(coloured_image((1, 250, 1)), robot.new_stamp())
    for _ in range(burst):
        publisher.publish(message)
    robot.ask("front", rgb_message(coloured_image((250, 1, 1)), robot.new_stamp()))
    time.sleep(0.5)
    wait_until(lambda: (counts() - before)[:2].sum() >= burst + 1, what="all that was sent")
    lost, received, replaced, published = counts() - before
    assert lost > 0, "this machine was too fast to lose any"
    assert received == replaced + published


def test_clock_that_jumps_back_does_no_harm(robot: Robot) -> None:
    """A bag that loops with use_sim_time: stamps and clock go back together."""
    from rosgraph_msgs.msg import Clock

    client = robot.client
    clock = client.publisher(Clock, "/clock")
    assert client.set_parameters(NODE, use_sim_time=True).successful
    back = client.count("camera front", "stamps_back")
    for sim_s in (100, 5):

        def tick(now_s: float = sim_s) -> None:
            message = Clock()
            message.clock.sec = int(now_s)
            message.clock.nanosec = 200_000_000
            clock.publish(message)

        wait_until(
            lambda s=sim_s: (client.received["/diagnostics"] or [None])[-1].header.stamp.sec == s,
            what="the node follows /clock",
            each=tick,
        )
        message = rgb_message(coloured_image((90, 5, 5)), sim_s * 10**9 + 100_000_000)
        assert robot.ask("front", message).classification.header == message.header
    wait_until(lambda: client.count("camera front", "stamps_back") > back, what="counted")
    assert float(client.diagnostics("camera front")[2]["age_at_publication_ms_p50"]) >= 0
    assert "stamps went back by" in robot.process.output
    assert client.set_parameters(NODE, use_sim_time=False).successful


def test_transitions_in_every_order(changed_robot: Robot) -> None:
    robot = changed_robot
    client = robot.client
    assert client.state(NODE) == "active"
    for illegal in (CONFIGURE, ACTIVATE, CLEANUP):
        assert not client.change_state(NODE, illegal)
    assert client.state(NODE) == "active"

    assert client.change_state(NODE, DEACTIVATE)
    assert client.state(NODE) == "inactive"
    wait_until(lambda: client.node.count_subscribers("/front/image_raw") == 0, what="unsubscribed")
    assert not client.change_state(NODE, DEACTIVATE)
    assert client.change_state(NODE, ACTIVATE)
    robot.ask("front", rgb_message(coloured_image((1, 90, 3)), robot.new_stamp()))

    assert client.change_state(NODE, DEACTIVATE) and client.change_state(NODE, CLEANUP)
    assert client.state(NODE) == "unconfigured"
    assert not client.change_state(NODE, ACTIVATE)
    wait_until(
        lambda: client.node.count_publishers(f"{NODE}/front/pose") == 0, what="publishers gone"
    )
    assert client.change_state(NODE, CONFIGURE) and client.change_state(NODE, ACTIVATE)
    robot.ask("front", rgb_message(coloured_image((1, 90, 3)), robot.new_stamp()))


def test_another_model_and_compressed_images_after_cleanup(changed_robot: Robot) -> None:
    robot = changed_robot
    robot.reconfigure(model=str(robot.other), transport="compressed")
    image = coloured_image((200, 60, 20), (480, 640))
    message = jpeg_message(image, robot.new_stamp())
    answer = robot.ask("front", message)
    with Pipeline.load(robot.other, "onnx", threads=1) as pipeline:
        _assert_equals_offline(answer, pipeline([to_rgb(message, (32, 48))])[0])
    assert answer.classification.results[0].class_id == OTHER_LABELS[0]
    assert answer.classification.header == message.header
    _, vision = robot.infos()
    wait_until(lambda: vision and "other" in vision[-1].method, what="info of the new model")
    robot.reconfigure(model=str(robot.bundle), transport="raw")
    robot.ask("rear", rgb_message(image, robot.new_stamp()))


def test_two_streams_answer_as_one_and_in_the_order_of_the_frames(changed_robot: Robot) -> None:
    robot = changed_robot
    robot.reconfigure(streams=2)
    image = coloured_image((90, 20, 200), (480, 640))
    message = rgb_message(image, robot.new_stamp())
    _assert_equals_offline(robot.ask("front", message), robot.pipeline([image])[0])
    taken = robot.client.received[f"{NODE}/front/pose"]
    before = len(taken)
    # Large and small frames in turns, faster than they are answered: both streams have work.
    others = [coloured_image((i, 200, 90), (1080, 1920) if i % 2 else (30, 40)) for i in range(8)]
    for i in range(150):
        robot.send("front", rgb_message(others[i % 8], robot.new_stamp()))
        time.sleep(0.004)
    wait_until(lambda: len(taken) > before + 30, what="answers")
    stamps = [stamp_ns(pose) for pose in taken]
    new = [stamp for stamp in stamps if stamp > stamp_ns(message)]
    assert len(new) > 30 and new == sorted(set(new))


def test_watching_the_annotated_image_changes_no_answer(changed_robot: Robot) -> None:
    robot = changed_robot
    robot.reconfigure(transport="compressed")
    # Noise, so that a JPEG decoded whole and one decoded at a quarter give other mean colours.
    noise = np.random.default_rng(3).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    message = jpeg_message(noise, robot.new_stamp())
    watched = robot.ask("front", message, "classification", "descriptor", "pose", "image_annotated")
    robot.client.ignore(f"{NODE}/front/image_annotated")
    assert to_rgb(watched.image_annotated).shape == noise.shape
    _assert_equals_offline(watched, robot.pipeline([to_rgb(message, (32, 48))])[0])


def test_pose_of_the_base_by_numbers_and_by_tf(changed_robot: Robot) -> None:
    robot = changed_robot
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    numbers = [0.2, -0.1, 0.9, -1.5, 0.1, -1.6]
    T_base_camera = transform_from_numbers(numbers)
    image = coloured_image((150, 60, 90))
    expected = base_pose(robot.pipeline([image])[0]["pose"], T_base_camera)

    def check(pose: Any) -> None:
        p, q = pose.pose.pose.position, pose.pose.pose.orientation
        assert np.allclose([p.x, p.y, p.z], expected.position, atol=1e-6)
        sent = matrix_from_xyzw(np.array([q.x, q.y, q.z, q.w]))
        assert np.allclose(sent, matrix_from_xyzw(expected.orientation_xyzw), atol=1e-6)
        assert np.allclose(pose.pose.covariance, covariance_numbers(expected.covariance), atol=1e-7)

    robot.reconfigure(base_frame="base_link", camera_to_base=numbers)
    check(robot.ask("front", rgb_message(image, robot.new_stamp())).pose)

    robot.reconfigure(camera_to_base=[])
    client = robot.client
    assert client.set_parameters(NODE, publish_tf=True).successful
    robot.ask("front", rgb_message(image, robot.new_stamp()), "classification")
    wait_until(
        lambda: client.count("camera front", "no_transform") > 0,
        what="count of poses without transform",
        each=lambda: robot.send("front", rgb_message(image, robot.new_stamp())),
    )
    assert "no fixed transform from 'base_link' to 'front_optical'" in robot.process.output
    nameless = rgb_message(image, robot.new_stamp())
    nameless.header.frame_id = ""
    robot.ask("front", nameless, "classification")
    wait_until(lambda: client.count("camera front", "no_frame_id") > 0, what="count of no frame")
    assert "there is no pose: set the driver's frame_id" in robot.process.output
    found = wait_until(
        lambda: (d := client.diagnostics("camera front")) and "left out" in d[1] and d,
        what="WARN for what is left out",
        each=lambda: robot.send("front", rgb_message(image, robot.new_stamp())),
    )
    assert found[0] >= 1

    # base_link -> mast -> front_optical, in two messages, as two static publishers send them.
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = client.publisher(TFMessage, "/tf_static", latched)
    T_base_mast = transform_from_numbers([1.0, 2.0, 3.0, 0.3, -0.2, 0.1])
    T_mast_camera = np.linalg.inv(T_base_mast) @ T_base_camera
    for parent, child, matrix in (
        ("base_link", "mast", T_base_mast),
        ("mast", "front_optical", T_mast_camera),
    ):
        stamped = TransformStamped(child_frame_id=child)
        stamped.header.frame_id = parent
        t, r = stamped.transform.translation, stamped.transform.rotation
        t.x, t.y, t.z = (float(v) for v in matrix[:3, 3])
        r.x, r.y, r.z, r.w = (float(v) for v in Rotation.from_matrix(matrix[:3, :3]).as_quat())
        publisher.publish(TFMessage(transforms=[stamped]))
    check(robot.ask("front", rgb_message(image, robot.new_stamp())).pose)

    tf = client.listen(TFMessage, "/tf")
    message = rgb_message(image, robot.new_stamp())
    found = wait_until(
        lambda: tf and tf[-1].transforms[0], each=lambda: robot.send("front", message)
    )
    assert (found.header.frame_id, found.child_frame_id) == ("map", "base_link_estimated")
    t, r = found.transform.translation, found.transform.rotation
    got = pose_matrix(np.array([t.x, t.y, t.z]), np.array([r.x, r.y, r.z, r.w]))
    assert np.allclose(got, pose_matrix(expected.position, expected.orientation_xyzw), atol=1e-6)
    robot.reconfigure(base_frame="")
    wait_until(
        lambda: client.count("camera front", "no_frame_id") > 0,
        what="count of images that name no frame",
        each=lambda: robot.send("front", rgb_message(image, robot.new_stamp(), "")),
    )
    assert "its images name no frame" in robot.process.output
    assert client.set_parameters(NODE, publish_tf=False).successful
    client.ignore("/tf")


def test_named_head_has_topics_and_parameters_of_its_own(
    changed_robot: Robot, tmp_path: Path
) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from vision_msgs.msg import LabelInfo

    robot = changed_robot
    robot.reconfigure(model=str(two_classifiers(tmp_path / "two")))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    info = robot.client.listen(LabelInfo, f"{NODE}/lights/label_info", latched)
    names = ("classification", "lights/classification")
    image = coloured_image((250, 5, 5))
    rooms, lights = vars(robot.ask("front", rgb_message(image, robot.new_stamp()), *names)).values()
    assert {r.class_id for r in rooms.results} == set(LABELS)
    assert {r.class_id for r in lights.results} == {"stop", "wait", "go"}
    wait_until(lambda: info, what="labels of the named head")
    assert [c.class_name for c in info[-1].class_map] == ["stop", "wait", "go"]

    assert robot.client.set_parameters(NODE, **{"lights.top_k": 1}).successful
    assert not robot.client.set_parameters(NODE, **{"lights.top_k": 0}).successful
    again = robot.ask("front", rgb_message(image, robot.new_stamp()), *names)
    assert [len(message.results) for message in vars(again).values()] == [3, 1]
    for name in names:
        robot.client.ignore(f"{NODE}/front/{name}")
