"""Camera, perception, driver, gate and base in a loop, each a process over DDS; random weights."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")
pytest.importorskip("onnx")

from rich.console import Console
from ros_helpers import wait_until
from steering_bundle import make_steering_bundle, random_weights
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.demo.processes import Processes
from robot_vision.demo.self_driving import Ride, watch
from robot_vision.driving.law import FREE_DISTANCE
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.robot import Mount, Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import ModelDriver
from robot_vision.simulation.world.homes import random_home

pytestmark = [pytest.mark.ros, pytest.mark.slow]
HOME, SMALL = 10_007, Mount(width=160, height=120)


def test_nodes_drive_as_the_evaluation_does_to_the_bit(tmp_path: Path, ros_domain: None) -> None:
    """What `drive evaluate` measures is what the robot does: same images, answers, law, commands."""
    bundle = make_steering_bundle(tmp_path / "b", random_weights(), depth_m=1.2, sigma=0.1)
    simulator = Simulator(random_home(HOME), 5, mount=SMALL)
    ride = Ride(bundle, FREE_DISTANCE, True, None, HOME, 5, 2.0)
    logs = tmp_path / "logs"
    with Processes(logs, dict(os.environ)) as processes:
        quiet = Console(file=io.StringIO())
        drive, views, _ = watch(quiet, processes, tmp_path, ride, simulator)
    assert "No command with the stamp" not in (logs / "simulator.log").read_text()
    assert drive.way_m >= 2.0 and len(views) >= 4
    assert all(view.image.shape == (120, 160, 3) for view in views)
    assert all({"steering", "collision"} <= set(view.said) for view in views[:-1])
    with open_pipeline(bundle) as pipeline:
        driver = ModelDriver(Sight(pipeline, Robot()), Robot(), FREE_DISTANCE)
        passed = set(map(tuple, drive.path))
        while not simulator.collisions and simulator.way_m < 1.75:
            assert (simulator.motion.x, simulator.motion.y) in passed, simulator.way_m
            simulator.command(*driver(simulator))
            for _ in range(IMAGE_STEPS):
                simulator.step()
    assert simulator.way_m > 0.5


def test_live_writes_table_picture_and_page(
    tmp_path: Path, ros_domain: None, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_steering_bundle(tmp_path / "b", random_weights(), depth_m=4.0)
    words = ["--model", str(bundle), "--metres", "1", "--gate", "collision", "--format", "json"]
    out = tmp_path / "out"
    domain = os.environ["ROS_DOMAIN_ID"]
    assert main(["drive", "live", *words, "--output", str(out), "--domain", domain]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["driver"] == "free_distance, gate collision" and 1.0 <= 1000 * row["km"] < 1.5
    assert row["mean_speed_m_s"] > 0.1 and 0 < row["visited"] < 0.5
    found = json.loads((out / "driving.json").read_text())
    assert found["world"] == 10_003 and found["drivers"][0]["collisions"] == row["collisions"]
    assert (out / "report.html").read_text().count("<svg") == 1
    assert (out / "drive.png").stat().st_size > 50_000


def test_live_refuses_what_cannot_drive_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind, flat = make_tiny_bundle(tmp_path / "t"), make_steering_bundle(tmp_path / "f")
    for words, said in (
        (["--model", str(blind)], "has no steering head"),
        (["--model", str(flat), "--law", "free_distance"], "obstacle_near"),
        (["--model", str(flat), "--gate", "obstacle"], "the gate's rule 'near'"),
    ):
        assert main(["drive", "live", *words, "--output", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err
        assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_live_and_all_its_nodes(tmp_path: Path, ros_domain: None) -> None:
    bundle = make_steering_bundle(tmp_path / "b", random_weights())
    out = tmp_path / "out"
    words = ["drive", "live", "--model", str(bundle), "--metres", "100000", "--output", str(out)]
    job = subprocess.Popen(
        [sys.executable, "-m", "robot_vision.cli", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: len(psutil.Process(job.pid).children()) == 3, 120)
        nodes = psutil.Process(job.pid).children()
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 130 and "fewer --metres" in err.splitlines()[-1]
    wait_until(lambda: not any(node.is_running() for node in nodes))
