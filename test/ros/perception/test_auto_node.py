"""The perception node with a bundle that has programs, in its own process, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from program_bundle import certificate, make_program_bundle
from ros_helpers import Client, NodeProcess, coloured_image, rgb_message, wait_until
from tiny_bundle import expected_colour

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NODE = "/perception"


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def answered(
    client: Client, log: Path, model: Path, *words: str
) -> tuple[dict[str, str], Any, str]:
    """Starts the node and sends it a frame.

    Returns:
        What /diagnostics says of it, by how much its position is off (3,), and its output.
    """
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import PoseWithCovarianceStamped

    client.listen(DiagnosticArray, "/diagnostics")
    poses = client.listen(PoseWithCovarianceStamped, f"{NODE}/camera/pose")
    given = [f"model:={model}", "engine:=onnx", "threads:=1", "diagnostics_period_s:=0.2", *words]
    parameters = [word for value in given for word in ("-p", value)]
    node = NodeProcess(log, "robot_vision.ros.perception.node", "--ros-args", *parameters)
    image = coloured_image((200, 100, 50))
    begin = time.time_ns()
    poses.clear()

    def send() -> None:
        message = rgb_message(image, time.time_ns())
        client.publisher(type(message), "/camera/image_raw").publish(message)
        time.sleep(0.1)

    try:
        wait_until(lambda: poses, 60, "a pose", send)
        found = wait_until(lambda: client.diagnostics(NODE, begin), what="diagnostics")
    finally:
        status = node.stop()
    assert status == 0 and "Traceback" not in node.output, node.output
    p = poses[0].pose.pose.position
    return found[2], np.array([p.x, p.y, p.z]) - expected_colour(image), node.output


def test_auto_runs_the_fastest_certified_program_and_says_so_everywhere(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from vision_msgs.msg import VisionInfo

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = {"slow": [], "int8": [certificate("onnx")]}
    model = make_program_bundle(tmp_path / "bundle", {"slow": 1, "int8": 0}, given)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = client.listen(VisionInfo, f"{NODE}/vision_info", latched)

    values, off, output = answered(client, tmp_path / "first.txt", model)
    assert (values["program"], values["engine"], values["precision"]) == ("int8", "onnx", "float32")
    assert np.allclose(off, 2, atol=0.01)
    assert "int8 with onnx: " in output and "; on 400 images classifier agrees" in output
    assert " program:int8 engine:onnx sha256:" in infos[-1].method

    for number in range(3):  # what other programs disturb is timed again
        _, off, output = answered(client, tmp_path / f"again{number}.txt", model)
        assert np.allclose(off, 2, atol=0.01)
        if "(remembered)" in output:
            break
    assert "(remembered)" in output

    values, off, output = answered(client, tmp_path / "third.txt", model, "precision:=slow")
    assert values["program"] == "slow" and np.allclose(off, 1, atol=0.01)
    (line,) = [line for line in output.splitlines() if "slow is not certified" in line]
    assert line.startswith("[WARN]") and "[perception]: " in line
