"""The perception node's process: how it starts, is named and stopped, and what it must not import."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the node needs ROS 2")

from ros_helpers import NodeProcess, coloured_image, rgb_message, running, wait_until
from tiny_bundle import make_tiny_bundle

pytestmark = pytest.mark.ros
CONFIGURE, ACTIVATE = 1, 3


@pytest.mark.slow
def test_namespace_remap_autostart_and_sigterm(tmp_path: Path) -> None:
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Classification

    bundle = make_tiny_bundle(tmp_path / "b")
    words = ("--ros-args", "-r", "__ns:=/robot1", "-r", "__node:=eyes")
    words += ("-r", "camera/image_raw:=/usb_cam/image")
    given = {"model": bundle, "engine": "onnx", "autostart": "false", "topk": 5}
    with running(tmp_path, "perception_node", *words, **given) as (process, client):
        assert client.state("/robot1/eyes") == "unconfigured"
        assert client.change_state("/robot1/eyes", CONFIGURE)
        assert client.change_state("/robot1/eyes", ACTIVATE)
        answers = client.listen(Classification, "/robot1/eyes/camera/classification")
        publisher = client.publisher(Image, "/usb_cam/image")
        message = rgb_message(coloured_image((4, 4, 250)), time.time_ns())
        wait_until(lambda: answers, what=process.output, each=lambda: publisher.publish(message))
        assert answers[-1].results[0].class_id == "blue"
        assert process.stop(signal.SIGTERM) == 0
    assert "Unknown parameter 'topk' (did you mean 'top_k'?)" in process.output


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-p", "top_k:=0"], ["-p", "cameras:=[a, a]"]])
def test_bad_start_is_one_line_and_status_2(tmp_path: Path, arguments: list[str]) -> None:
    process = NodeProcess(
        tmp_path / "log.txt", "robot_vision.ros.perception.node", "--ros-args", *arguments
    )
    assert process.process.wait(20) == 2
    assert process.output.startswith("error: ") and process.output.count("\n") == 1


@pytest.mark.parametrize(
    ("prefix", "status"), [((), 0), (("nohup",), None)], ids=["terminal", "nohup"]
)
@pytest.mark.slow
def test_closed_terminal_stops_the_node_in_order_but_not_under_nohup(
    tmp_path: Path, prefix: tuple[str, ...], status: int | None
) -> None:
    given = {"model": make_tiny_bundle(tmp_path / "b"), "engine": "onnx"}
    process = NodeProcess(tmp_path / "log.txt", "perception_node", prefix=prefix, **given)
    wait_until(lambda: "Camera camera" in process.output, what=process.output)
    process.process.send_signal(signal.SIGHUP)
    if status is None:
        time.sleep(1)
        assert process.alive
        assert process.stop(signal.SIGTERM) == 0
    else:
        assert process.process.wait(20) == status


@pytest.mark.slow
def test_node_starts_without_torch_and_other_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import sys, robot_vision.ros.perception.node, robot_vision.pipeline; "
        "from robot_vision.pipeline import Pipeline; "
        f"Pipeline.load({str(make_tiny_bundle(tmp_path / 'b'))!r}, 'onnx'); "
        "heavy = {'torch', 'torchvision', 'scipy', 'onnx', 'matplotlib', 'faiss', 'rosbags'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
