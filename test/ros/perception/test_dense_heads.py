"""A head that says something of each pixel, from another package, in the real node over DDS."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import Client, NodeProcess, python_path, rgb_message, stamp_ns, wait_until
from toy_heads import DENSE, SIZE, Dense, DenseOptions, DenseSpec, graph, install

from robot_vision.bundle.bundle import GRAPH, write_manifest
from robot_vision.contract import registry
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.topics import Shot
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.decode import to_rgb
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import resize_into
from robot_vision.images.window import Window
from robot_vision.messages.making import rclpy_maker

pytestmark = [pytest.mark.ros, pytest.mark.slow]
BASE = "/perception/front"
CAMERA = (120, 160)
INPUT = InputSpec(*SIZE, "crop", 0.8)
LENS = Intrinsics(160, 120, np.array([[140.0, 0, 83], [0, 141, 57], [0, 0, 1]]), np.full(5, 0.01))


def info_message(stamp: int, width: int, height: int) -> Any:
    from sensor_msgs.msg import CameraInfo

    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    message.k, message.d = LENS.K.ravel(), LENS.distortion.tolist()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return message


class Robot:
    def __init__(self, folder: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import qos_profile_sensor_data

        spec = NetworkSpec(input=INPUT, heads={"toy_dense": DenseSpec()})
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        (self.bundle / GRAPH).write_bytes(graph(spec))
        (self.bundle / "README.md").write_text("Test bundle.\n")
        write_manifest(self.bundle, "dense", spec, {}, {})
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.node = NodeProcess(
            folder / "log.txt",
            "robot_vision.ros.perception.node",
            "--ros-args",
            *("-p", f"model:={self.bundle}", "-p", "engine:=onnx", "-p", "threads:=1"),
            *("-p", "cameras:=[front]", "-p", "diagnostics_period_s:=0.2"),
            *("-p", "warn_period_s:=0.1"),
        )
        self.topics = {t.name.removeprefix("dense/"): t for t in DENSE.topics(None)}
        for topic in self.topics.values():  # as Nav2's layers subscribe
            kind = rclpy_maker(topic.kind)
            self.client.listen(kind, f"{BASE}/{topic.name}", qos_profile_sensor_data)
        self._stamp = time.time_ns()
        self._lens: Any = None

    def got(self, name: str, stamp: int) -> Any:
        """Returns what came on a topic about an image, or None."""
        received = self.client.received[f"{BASE}/{self.topics[name].name}"]
        return next((m for m in reversed(received) if stamp_ns(m) == stamp), None)

    def ask(self, image: np.ndarray, *names: str, frame: str = "front_optical") -> dict[str, Any]:
        """Sends an image until it is answered on these topics."""
        self._stamp = max(self._stamp + 10**6, time.time_ns())
        message = rgb_message(image, self._stamp, frame)
        publisher = self.client.publisher(type(message), "/front/image_raw")
        found = wait_until(
            lambda: (
                (got := {n: self.got(n, self._stamp) for n in names}) and all(got.values()) and got
            ),
            what=f"{names}; the node said:\n{self.node.output[-3000:]}",
            each=lambda: (self._publish_lens(), publisher.publish(message), time.sleep(0.1)),
        )
        return {"header": message.header, **found}

    def calibrate(self, width: int, height: int) -> None:
        """Sends camera_info with each image from now on, as a driver does: one alone may be lost."""
        self._lens = info_message(self._stamp, width, height)

    def _publish_lens(self) -> None:
        if self._lens is not None:
            self.client.publisher(type(self._lens), "/front/camera_info").publish(self._lens)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder = tmp_path_factory.mktemp("dense")
    install(folder / "site", toy_dense="DENSE")
    support = Path(__file__).resolve().parents[2] / "support"
    with pytest.MonkeyPatch.context() as patch:
        path = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join((python_path(folder / "site", support), path)))
        patch.syspath_prepend(folder / "site")  # here too the network's settings are written
        registry._installed.cache_clear()
        robot = Robot(folder)
        yield robot
        status = robot.node.stop(signal.SIGINT)
        robot.client.close()
    registry._installed.cache_clear()
    registry._load.cache_clear()
    assert status == 0, robot.node.output
    assert "Traceback" not in robot.node.output, robot.node.output


def picture(seed: int) -> np.ndarray:
    """Blobs of many greys, whose red is the distance."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(10, 250, (6, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)


def expected(image: np.ndarray) -> Dense:
    seen = np.empty((*SIZE, 3), np.uint8)
    resize_into(image, seen, INPUT.resize, INPUT.crop_fraction)
    grey = seen.astype(np.float32).mean(axis=2)
    return Dense(seen[..., 0].astype(np.float32) / 10, (grey > 127).astype(np.uint8))


def test_maps_come_without_calibration_and_what_needs_one_is_left_out_and_said(
    robot: Robot,
) -> None:
    image = picture(0)
    found = robot.ask(image, "z", "mask")
    wanted = expected(image)
    assert found["z"].header == found["mask"].header == found["header"]
    z = np.frombuffer(found["z"].data, "<f4").reshape(SIZE)
    ids = np.frombuffer(found["mask"].data, np.uint8).reshape(SIZE)
    np.testing.assert_allclose(z, wanted.z_m, rtol=1e-6)
    assert np.array_equal(ids, wanted.ids) and found["mask"].step == SIZE[1]
    wait_until(lambda: robot.client.count("camera front", "no_camera_info") > 0)
    assert "no camera_info on /front/camera_info (0 publishers)" in robot.node.output
    assert "set camera_info_topics" in robot.node.output
    level, text, _ = robot.client.diagnostics("camera front")
    assert (level, text.partition(" at ")[0]) == (1, "answers left out")

    robot.calibrate(640, 480)
    wait_until(
        lambda: robot.client.count("camera front", "camera_info_refused") > 0,
        each=lambda: robot.ask(image, "z"),
    )
    assert "are 160 x 120 and their camera_info is of 640 x 480" in robot.node.output
    assert not robot.client.received[f"{BASE}/dense/points"]


def test_points_and_calibration_come_with_the_image_that_they_are_of(robot: Robot) -> None:
    image = picture(1)
    robot.ask(image, "z")
    robot.calibrate(160, 120)
    found = robot.ask(image, "z", "mask", "camera_info", "points")
    header = found.pop("header")
    assert all(message.header == header for message in found.values())
    shot = Shot(
        header.stamp,
        "front_optical",
        "front",
        window=Window.of(CAMERA, INPUT),
        intrinsics=lambda: LENS,
    )
    wanted = expected(image)
    for name in ("camera_info", "points"):
        message = robot.topics[name].writer(rclpy_maker)(shot, wanted, DenseOptions())
        assert found[name] == message, name
    # One point, by hand: the pixel of the camera, its ray, and the distance that its red says.
    row, column = 12, 20
    cloud = np.frombuffer(found["points"].data, "<f4").reshape(*SIZE, 4)
    x, y, z = cloud[row, column, :3].astype(float)
    u, v = shot.window.pixels(SIZE)[row, column]
    assert z == pytest.approx(image[round(v), round(u), 0] / 10)
    assert [x / z, y / z] == pytest.approx(LENS.rays(np.array([[u, v]]))[0].tolist(), abs=1e-6)
    mask = np.frombuffer(found["mask"].data, np.uint8).reshape(SIZE)
    fields = np.frombuffer(found["points"].data, np.uint8).reshape(*SIZE, 16)
    assert np.array_equal(fields[..., 12], mask)


def test_options_of_a_cloud_change_while_the_node_runs(robot: Robot) -> None:
    robot.ask(picture(2), "z")
    robot.calibrate(160, 120)
    change = robot.client.set_parameters
    assert change("/perception", toy_step=3, toy_far_m=9.0).successful
    found = robot.ask(picture(2), "points")["points"]
    assert (found.height, found.width) == (11, 16)
    z = np.frombuffer(found.data, "<f4").reshape(11, 16, 4)[..., 2]
    assert 0 < np.isfinite(z).sum() < z.size and np.nanmax(z) <= 9
    assert not change("/perception", toy_step=0).successful
    assert change("/perception", toy_points=False, toy_step=1, toy_far_m=20.0).successful
    header = robot.ask(picture(3), "camera_info")["header"]
    time.sleep(0.2)
    assert robot.got("points", stamp_ns(type("Of", (), {"header": header}))) is None
    assert change("/perception", toy_points=True).successful


def test_points_of_a_camera_without_a_frame_are_left_out(robot: Robot) -> None:
    robot.ask(picture(4), "z", frame="")
    wait_until(lambda: robot.client.count("camera front", "no_frame_id") > 0)
    assert "nobody knows where a point cloud lies" in robot.node.output


def test_overlay_lies_on_the_part_that_the_network_saw(robot: Robot) -> None:
    from sensor_msgs.msg import Image

    topic = f"{BASE}/image_annotated"
    drawn = robot.client.listen(Image, topic)
    image = picture(5)
    wait_until(lambda: drawn, each=lambda: robot.ask(image, "z"))
    shown = to_rgb(drawn[-1])[1::2, 1::2]  # small images come enlarged by a whole factor
    top, left, height, width = Window.of(CAMERA, INPUT).region
    outside = np.ones(CAMERA, bool)
    outside[top : top + height, left : left + width] = False
    assert (
        np.array_equal(shown[outside], image[outside]) and (shown != image)[~outside].mean() > 0.5
    )
    robot.client.ignore(topic)
