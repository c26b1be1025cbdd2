"""How nodes' processes start: a signal in the first second, an environment without ROS, no place for logs."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the nodes need ROS 2")

from rclpy.utilities import get_rmw_implementation_identifier
from ros_helpers import ROOT, NodeProcess, own_environment, wait_until

from robot_vision.ros import EXECUTABLES, start
from robot_vision.ros.node.dds import absent_middleware

NODES = [name for name, value in vars(start).items() if getattr(value, "func", None) is start.start]


def test_each_executable_of_the_package_starts_here() -> None:
    text = (ROOT / "setup.py").read_text()
    assert len(NODES) == 11 and all(f'"{name}"' in text for name in NODES)
    assert set(NODES) == set(EXECUTABLES)
    assert all(importlib.util.find_spec(module) for module in EXECUTABLES.values())


def _heeds_sigterm(process: subprocess.Popen) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("node", NODES)
def test_signal_in_the_first_second_ends_in_silence(tmp_path: Path, node: str, number: int) -> None:
    # Without a source the player would end by itself.
    pictures = ["--ros-args", "-p", f"source:={ROOT / 'docs' / 'images'}", "-p", "loop:=true"]
    arguments = {"camera_player": pictures, "composed_nodes": ["--perception"]}.get(node, [])
    for i, delay_s in enumerate((0.0, 0.2, 0.5)):
        process = NodeProcess(tmp_path / f"{i}.txt", EXECUTABLES[node], *arguments)
        wait_until(lambda: _heeds_sigterm(process.process), what="its handler")  # noqa: B023
        time.sleep(delay_s)
        assert process.stop(number) == 0, process.output
        assert "Traceback" not in process.output


def _start_without(package: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.modules[{package!r}] = None; from robot_vision.ros import start; "
    command = [sys.executable, "-c", code + "sys.exit(start.perception_node())"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("package", ["rclpy", "diagnostic_msgs"])
def test_node_without_ros_is_one_line_with_the_remedy(package: str) -> None:
    done = _start_without(package)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "setup.bash" in done.stderr and package in done.stderr


def test_middleware_that_is_not_installed_is_one_line_with_those_that_are(tmp_path: Path) -> None:
    index = tmp_path / "share/ament_index/resource_index/rmw_typesupport"
    environment = {"AMENT_PREFIX_PATH": str(tmp_path), "RMW_IMPLEMENTATION": "rmw_zorp"}
    here = {"RMW_IMPLEMENTATION": get_rmw_implementation_identifier()}
    assert absent_middleware(here) == absent_middleware({}) == ""
    index.mkdir(parents=True)
    for name in ("rmw_connextdds", "rmw_implementation", "rmw_zenoh_cpp"):
        (index / name).touch()
    said = absent_middleware(environment)
    assert said.startswith(
        "RMW_IMPLEMENTATION is rmw_zorp, which is not installed here: rmw_connextdds, "
    )
    assert "rmw_implementation," not in said
    assert absent_middleware(environment | {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}) == ""
    for module, status in (("ros.gate.node", 2), ("cli", 1)):
        command = [
            sys.executable,
            "-m",
            f"robot_vision.{module}",
            *(["doctor"] * (module == "cli")),
        ]
        ended = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == status and said in ended.stdout + ended.stderr


@pytest.mark.parametrize("domain", ["abc", "1.5", "-1", "233", "9" * 5000])
def test_domain_that_is_none_is_one_line_with_those_that_are(domain: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "robot_vision.ros.filters.node"],
        env=os.environ | {"ROS_DOMAIN_ID": domain},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: ROS_DOMAIN_ID is {domain}: set it to a number from 0 to 232, or not at all\n"
    )


def test_import_that_fails_for_another_reason_is_no_missing_ros() -> None:
    done = _start_without("yaml")
    assert done.returncode == 1 and "Traceback" in done.stderr


def _modules_of(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.slow
def test_node_imports_no_head_and_nothing_slow_before_its_model_is_known() -> None:
    code = (
        "from robot_vision.ros import start; start.load_messages_alone(); "
        "import robot_vision.ros.perception.node; from sensor_msgs.msg import Image; "
        "Image.__class__.__import_type_support__()"
    )
    found = _modules_of(code)
    assert "rosidl_generator_py" in found and "robot_vision.heads.classifier.options" in found
    slow = "em lark importlib.metadata email zipfile tempfile shutil subprocess onnxruntime torch scipy"
    assert not found & set(slow.split())
    ours = {name for name in found if name.startswith("robot_vision.")}
    heads = {name for name in ours if name.startswith("robot_vision.heads.")}
    assert {name.rpartition(".")[2] for name in heads if name.count(".") > 2} == {"options"}
    assert len(ours - heads) <= 82  # 79 when this was written: each takes 0.4 ms of every start


def test_messages_can_be_generated_in_a_process_that_began_as_a_node() -> None:
    code = (
        "from robot_vision.ros import start; start.load_messages_alone(); "
        "import rosidl_generator_py.generate_py_impl"
    )
    assert {"em", "lark"} <= _modules_of(code)


@pytest.mark.slow
@pytest.mark.ros
def test_no_place_for_logs_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for change in ({"HOME": None}, {"ROS_LOG_DIR": str(tmp_path / "file" / "logs")}):
        environment = {k: v for k, v in {**own_environment(), **change}.items() if v is not None}
        environment = {k: v for k, v in environment.items() if k not in ("ROS_HOME",)}
        done = subprocess.run(
            [sys.executable, "-m", "robot_vision.ros.filters.node"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2 and "ROS_LOG_DIR" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
