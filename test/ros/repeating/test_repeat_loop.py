"""Simulator, perception, places, filters and the repeat node, each over real DDS: a route is driven again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import ROOT, Client, NodeProcess, wait_until

from robot_vision.cli import main
from robot_vision.driving.route import read_route
from robot_vision.ros.node.launch_arguments import node_arguments
from robot_vision.ros.repeating.parameters import localising_parameters
from robot_vision.simulation.drive_bag import write_drive
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.homes import random_home

pytestmark = [pytest.mark.ros, pytest.mark.slow]
HOME = 10_100


def test_robot_repeats_a_route_and_stands_when_the_node_is_killed(
    tmp_path: Path, ros_domain: None
) -> None:
    from nav_msgs.msg import Odometry
    from std_msgs.msg import Float64

    way: list[tuple[float, float]] = []

    def driver(now: Simulator) -> tuple[float, float]:
        way.append((now.motion.x, now.motion.y))
        return 0.4, 0.15

    write_drive(tmp_path / "bag", Simulator(random_home(HOME), HOME), driver, 42, depth="")
    out = tmp_path / "route"
    words = ["--model", "demo", "--output", str(out), "--option", "pose_topic=/odom"]
    assert main(["teach", str(tmp_path / "bag"), *words]) == 0
    route = read_route(out)

    client, nodes = Client(), dict[str, NodeProcess]()

    def start(name: str, *words: str, sim_time: bool = True) -> None:
        shared = ["--ros-args", "-p", f"use_sim_time:={str(sim_time).lower()}", *words]
        module = f"robot_vision.ros.{name}"
        nodes[name] = NodeProcess(tmp_path / f"{name}.txt", module, *shared)

    def repeat() -> None:
        start("repeating.node", "-p", f"route:={out}", "-p", "max_age_s:=2.0")

    true: list[Any] = client.listen(Odometry, "/ground_truth/odom", 50)
    progress = client.listen(Float64, "/repeat/progress")
    try:
        several = []
        for name, own in localising_parameters(
            route, out, "demo", "camera/image_raw", "odom", 4.0
        ).items():
            file = str(ROOT / "config" / f"{name}.yaml")
            words = node_arguments(name, "", file, {**own, "use_sim_time": True})
            several += [f"--{name}", *words]
        start("composed_nodes", *several)
        repeat()
        # The seed chooses the start, which is the drive's; on other days the evaluation repeats it.
        start(
            "simulation.node",
            *("-p", f"world_seed:={HOME}", "-p", f"seed:={HOME}", "-p", "real_time_factor:=0.5"),
            sim_time=False,
        )
        wait_until(lambda: progress and progress[-1].data > 0.5, 120, "it drives")
        nodes["repeating.node"].stop(signal.SIGKILL)
        wait_until(lambda: true[-1].twist.twist.linear.x == 0, 30, "it stands")
        stood = progress[-1].data
        assert stood < 0.9 * route.length_m
        repeat()
        wait_until(lambda: progress[-1].data > route.length_m - 0.15, 120, "it drives on")
        wait_until(lambda: true[-1].twist.twist.linear.x == 0, 30, "it has arrived")
    finally:
        for node in nodes.values():
            node.stop()
        client.close()
    at = np.array([(m.pose.pose.position.x, m.pose.pose.position.y) for m in true])
    aside = np.linalg.norm(at[:, None] - np.array(way)[None], axis=2).min(axis=1)
    assert np.quantile(aside, 0.95) < 0.15
    assert np.linalg.norm(at[-1] - way[-1]) < 0.35
