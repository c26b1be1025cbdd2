"""SROS 2 as docs/security.md has it: real keys, real nodes, real refusals.

Skips where ROS 2 has no security plugins or no `ros2 security`, as the wheels that `make` installs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_vision.ros import EXECUTABLES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ros, pytest.mark.slow]

# Hears, says or calls for some seconds as a node with the name of its enclave; prints what came of it.
_PEER = """
import sys, time
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification
action, name, kind, node, seconds = sys.argv[1:6]
kinds = {"image": Image, "classification": Classification, "diagnostics": DiagnosticArray}
rclpy.init(args=sys.argv)
node, end = rclpy.create_node(node), time.time() + float(seconds)
heard, most = set(), 0
try:
    if action == "call":
        client = node.create_client(GetState, name)
        while time.time() < end and not most:
            most = int(client.wait_for_service(timeout_sec=0.2))
    elif action == "say":
        publisher = node.create_publisher(kinds[kind], name, 5)
        message = kinds[kind]()
        if kind == "image":
            message = Image(height=4, width=4, step=12, encoding="rgb8", data=bytes(48))
        while time.time() < end and not most:
            publisher.publish(message)
            most = max(most, publisher.get_subscription_count())
            time.sleep(0.1)
    else:
        def on(message):
            heard.update(s.name for s in getattr(message, "status", []))
            heard.update(f"{s.class_id}" for s in getattr(message, "results", []))
        node.create_subscription(kinds[kind], name, on, 5)
        while time.time() < end and not (heard and kind == "classification"):
            rclpy.spin_once(node, timeout_sec=0.2)
except Exception as error:
    result = f"refused {type(error).__name__}"
else:
    result = " ".join(["heard", *sorted(heard)]) if action == "hear" else f"matched {most}"
sys.stdout.write(f"\\nRESULT {result}\\n")  # in one piece: Fast DDS logs to the same stream
"""
_NODES = {
    "perception": ("perception_node", ["model:=demo", "publish_tf:=true", "always_infer:=true"]),
    "filters": ("filter_node", ["publish_tf:=true"]),
    "places": (
        "place_node",
        ["pose_source:=odometry", "base_frame:=base_link", "verify:=true"],
    ),
}


def _environment(keystore: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "ROS_SECURITY_KEYSTORE": str(keystore),
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        **more,
    }


def _peer(
    environment: dict[str, str], action: str, name: str, kind: str, enclave: str, seconds: float = 8
) -> str:
    command = [sys.executable, "-c", _PEER, action, name, kind, enclave.strip("/"), str(seconds)]
    command += ["--ros-args", "--enclave", enclave]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if "doesn't have the security libraries" in done.stderr:
        pytest.skip("this ROS 2 has no security plugins")
    assert done.returncode == 0, done.stderr
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return found[1]


def _make_keys(folder: Path) -> Path:
    """Runs the commands of docs/security.md."""
    if importlib.util.find_spec("sros2") is None or shutil.which("ros2") is None:
        pytest.skip("ros2 security is not installed: sudo apt install ros-$ROS_DISTRO-sros2")
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("ros2 security ")]
    assert len(commands) == 2
    for command in commands:
        words = command.replace("$(ros2 pkg prefix --share robot_vision)", str(ROOT)).split()
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "keys"


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_keys(tmp_path_factory.mktemp("sros2"))


@pytest.fixture(scope="module")
def robot(keystore: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Starts the camera and the three nodes in their enclaves; returns the folder of their output."""
    folder = tmp_path_factory.mktemp("robot")
    _peer(_environment(keystore), "hear", "/diagnostics", "diagnostics", "/planner", 0)
    frame = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    (folder / "frames").mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / "frames" / f"{number}.png"), frame)
    camera = [f"source:={folder / 'frames'}", "loop:=true", "rate_hz:=10.0", "transport:=raw"]
    nodes = {"camera": ("camera_player", camera), **_NODES}
    if importlib.util.find_spec("faiss") is None:
        del nodes["places"]
    processes = []
    for name, (executable, parameters) in nodes.items():
        command = [sys.executable, "-m", EXECUTABLES[executable], "--ros-args"]
        command += ["--enclave", f"/{name}", "-r", f"__node:={name}"]
        for parameter in parameters:
            command += ["-p", parameter]
        with (folder / f"{name}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=_environment(keystore), stdout=log, stderr=log
                )
            )
    time.sleep(5)
    yield folder
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=30)


def test_keys_allow_only_what_the_policy_does(keystore: Path) -> None:
    """generate_artifacts first gives each enclave keys for everything; a policy that it stumbles over
    leaves them."""
    policy = (ROOT / "config" / "sros2" / "policy.xml").read_text()
    files = sorted((keystore / "enclaves").glob("*/permissions.xml"))
    assert [f.parent.name for f in files] == sorted(re.findall(r'<enclave path="/(\w+)"', policy))
    for file in files:
        assert "<topic>rt/*</topic>" not in file.read_text(), file


@pytest.mark.parametrize("node", sorted(_NODES))
def test_a_node_runs_in_its_enclave(robot: Path, keystore: Path, node: str) -> None:
    if node == "places":
        pytest.importorskip("faiss")
    heard = _peer(
        _environment(keystore), "hear", "/diagnostics", "diagnostics", "/planner", seconds=5
    )
    output = (robot / f"{node}.log").read_text()
    assert f"/{node}" in heard, output
    assert "not found in allow rule" not in output and "Traceback" not in output


@pytest.mark.parametrize(
    "topic", ["/perception/camera/classification", "/filters/camera/classification"]
)
def test_the_planner_hears_results_of_the_camera_images(
    robot: Path, keystore: Path, topic: str
) -> None:
    heard = _peer(_environment(keystore), "hear", topic, "classification", "/planner", 20)
    assert len(heard.split()) > 1, (robot / "perception.log").read_text()


@pytest.mark.parametrize(
    ("enclave", "topic", "kind"),
    [
        ("/planner", "/camera/image_raw", "image"),
        ("/base", "/camera/image_raw", "image"),
        ("/camera", "/perception/camera/classification", "classification"),
        ("/planner", "/filters/classification", "classification"),
    ],
)
def test_no_other_enclave_may_publish(
    robot: Path, keystore: Path, enclave: str, topic: str, kind: str
) -> None:
    said = _peer(_environment(keystore), "say", topic, kind, enclave)
    assert said.startswith("refused")


def test_no_enclave_may_call_a_service(robot: Path, keystore: Path) -> None:
    called = _peer(_environment(keystore), "call", "/perception/get_state", "", "/planner")
    assert called.startswith("refused")


@pytest.mark.parametrize("action", ["say", "call"])
def test_a_process_without_keys_is_not_heard(robot: Path, keystore: Path, action: str) -> None:
    name = {"say": "/camera/image_raw", "call": "/perception/get_state"}[action]
    environment = _environment(keystore, ROS_SECURITY_ENABLE="false")
    assert _peer(environment, action, name, "image", "/camera") == "matched 0"


def test_keys_of_another_authority_are_not_heard(
    robot: Path, keystore: Path, tmp_path: Path
) -> None:
    ours, theirs = _environment(keystore), _environment(_make_keys(tmp_path))
    assert _peer(ours, "say", "/camera/image_raw", "image", "/camera") != "matched 0"
    assert _peer(theirs, "say", "/camera/image_raw", "image", "/camera") == "matched 0"
