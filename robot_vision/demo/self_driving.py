"""A robot that drives itself by its camera: real nodes, each in a process of its own, in a home."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rich.console import Console

from robot_vision.demo.picture import FloorPlan, PictureShot, compose, legend_of_driving
from robot_vision.demo.play import START_TIMEOUT_S, spin, start_node
from robot_vision.demo.processes import DemoError, Processes
from robot_vision.errors import ConfigError
from robot_vision.simulation.nodes import driver_parameters, perception_parameters
from robot_vision.simulation.referee import Drive
from robot_vision.simulation.simulator import Simulator

if TYPE_CHECKING:
    from robot_vision.ros.simulation.witness import View, Witness

LEAST_M_S = 0.05  # a drive that takes longer than at this mean speed ends
_SILENCE_S = 60.0  # without an image
_VIEWS = 8
_HEIGHT_PX = 900.0  # of the plan
_SAY_S = 5.0  # between two lines of progress
_CARRIED_S = 1.0  # for which an obstacle holds the robot until it is carried away


@dataclass(frozen=True)
class Ride:
    """What drives where.

    Attributes:
        model: the bundle's directory.
        law: of the driver.
        by_distance: whether it keeps to the braking distance before the nearest obstacle.
        rules: the gate's file; None for no gate.
        world_seed: of the home.
        seed: of the start, the camera's noise and the odometry's errors.
        metres: to drive.
    """

    model: Path
    law: str
    by_distance: bool
    rules: Path | None
    world_seed: int
    seed: int
    metres: float


def start_nodes(processes: Processes, output: Path, ride: Ride, simulator: Simulator) -> None:
    """Starts perception, driver and gate; the simulator comes last (`start_simulator`)."""
    robot = simulator.robot
    perception = {"model": str(ride.model), **perception_parameters(robot)}
    start_node(processes, output, "perception", "perception_node", perception)
    driver = driver_parameters(robot, ride.law, ride.by_distance)
    remapped = {"cmd_vel": "cmd_vel_in"} if ride.rules else {}
    start_node(processes, output, "driver", "driver_node", driver, remapped)
    if ride.rules:
        gate = {"rules": str(ride.rules), "use_sim_time": True}
        start_node(processes, output, "gate", "gate_node", gate)


def start_simulator(processes: Processes, output: Path, ride: Ride, simulator: Simulator) -> None:
    """Starts the simulator, in lock-step and as fast as the machine can."""
    m = simulator.mount
    parameters = {
        "world_seed": ride.world_seed,
        "seed": ride.seed,
        "camera_height_m": m.height_m,
        "camera_forward_m": m.forward_m,
        "camera_pitch_deg": m.pitch_deg,
        "camera_field_deg": m.field_deg,
        "image_width": m.width,
        "image_height": m.height,
        "lockstep": True,
        "lockstep_timeout_s": _SILENCE_S / 2,
        "real_time_factor": 0.0,
        "reset_after_s": _CARRIED_S,
    }
    start_node(processes, output, "simulator", "simulator_node", parameters)


def watch(
    console: Console, processes: Processes, output: Path, ride: Ride, simulator: Simulator
) -> tuple[Drive, Sequence[View], float]:
    """Lets the nodes drive, and watches.

    Args:
        console: for a line every few seconds.
        processes: that the nodes become.
        output: folder for their parameters.
        ride: what drives where.
        simulator: of the same home, which does not move.

    Returns:
        What the referee would say, views of the camera, and the seconds that the drive took.

    Raises:
        DemoError: a node ended, or nothing came.
    """
    from robot_vision.ros.simulation.witness import Witness, witnessing

    names = ["perception", "driver", *(["gate"] if ride.rules else [])]
    start_nodes(processes, output, ride, simulator)
    with witnessing(lambda: Witness(simulator, ride.metres / _VIEWS)) as (witness, executor):
        deadline = time.monotonic() + START_TIMEOUT_S
        while missing := witness.missing():
            _require(processes, names)
            if time.monotonic() > deadline:
                words = "; ".join(f"{name}: {processes.last_words(name)}" for name in names)
                raise DemoError(
                    f"No publisher of {', '.join(missing)} after {START_TIMEOUT_S:g} s: {words}"
                )
            spin(executor)
        names.append("simulator")
        start_simulator(processes, output, ride, simulator)
        took_s = _follow(console, processes, names, ride, witness, executor)
        return witness.drive(f"home-{ride.world_seed}"), witness.views, took_s


def _follow(
    console: Console,
    processes: Processes,
    names: Sequence[str],
    ride: Ride,
    witness: Witness,
    executor: Any,
) -> float:
    """Listens until the robot has driven so far; returns the seconds that it took."""
    images, came, said = 0, time.monotonic(), time.monotonic()
    began: float | None = None
    while witness.way_m < ride.metres and witness.time_s < ride.metres / LEAST_M_S:
        spin(executor)
        now = time.monotonic()
        if witness.images > images:
            images, came = witness.images, now
            began = began or now
        elif now - came > _SILENCE_S:
            raise DemoError(f"No image for {_SILENCE_S:g} s: {processes.last_words('simulator')}")
        _require(processes, names)
        if now - said > _SAY_S:
            said = now
            console.print(
                f"{witness.time_s:6.1f} s  {witness.way_m:6.1f} m  "
                f"{witness.reason or 'free' if witness.images else 'waits for the first answer'}",
                style="dim",
            )
    return time.monotonic() - (began or came)


def _require(processes: Processes, names: Sequence[str]) -> None:
    for name in names:
        processes.require(name)


def draw(
    path: Path, simulator: Simulator, drive: Drive, views: Sequence[View], lines: Sequence[str],
    title: str,
) -> None:  # fmt: skip
    """Draws the path on the plan, and next to it what the camera saw on the way.

    Raises:
        ConfigError: the picture cannot be written.
    """
    low, high = simulator.world.bounds()
    plan = FloorPlan(simulator.world, _HEIGHT_PX / (float(high[1] - low[1]) + 0.6))
    breaks = np.flatnonzero(~np.isfinite(drive.path[:, 0]))
    for part in np.split(drive.path, breaks):
        points = part[np.isfinite(part[:, 0])]
        if len(points) > 1:
            plan.path(points)
    plan.hits(np.array([(hit.x, hit.y) for hit in drive.hits]).reshape(-1, 2))
    plan.scale_bar()
    shots = []
    for view in views[:_VIEWS]:
        said = view.said
        steering, collision = said.get("steering", np.nan), said.get("collision", np.nan)
        side = "left" if steering > 0 else "right"
        title_ = f"{side} {abs(steering):.2f}, collision {100 * collision:.0f} %"
        near = f"nearest obstacle from {said['near']:.1f} m" if "near" in said else ""
        shots.append(PictureShot(view.image, title_, near, collision < 0.5, view.xy))
    page = compose(plan, shots, title, lines, legend_of_driving)
    bgr = cv2.cvtColor(page, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise ConfigError(f"{path} cannot be written")
