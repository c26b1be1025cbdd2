"""How nodes are set up that drive a simulated robot, for launch files and for all who start them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from robot_vision.driving.law import DRONET, FREE_DISTANCE
from robot_vision.simulation.robot import Robot

PERCEPTION, CAMERA = "perception", "camera"  # names of the node and of its camera
STEERING, COLLISION, NEAR = (
    f"{PERCEPTION}/{CAMERA}/{name}" for name in ("steering", "collision", "obstacle_near")
)
# Each way to drive: the law, and whether it keeps to the braking distance before the nearest obstacle.
WAYS_TO_DRIVE: Mapping[str, tuple[str, bool]] = {
    DRONET: (DRONET, False),
    f"{DRONET}+distance": (DRONET, True),
    FREE_DISTANCE: (FREE_DISTANCE, True),
}


def perception_parameters(robot: Robot) -> dict[str, Any]:
    """Returns those of the perception node but the model: as `sight` runs it, so that a drive repeats."""
    return {
        "precision": "float32",
        "threads": 1,
        "streams": 1,
        "base_frame": "base_link",
        "use_sim_time": True,
        **robot.perception(),
    }


def driver_parameters(robot: Robot, law: str, by_distance: bool) -> dict[str, Any]:
    """Returns those of the driver node."""
    return {
        **dataclasses.asdict(robot.law(law)),
        "distance_topic": NEAR if by_distance else "",
        "use_sim_time": True,
    }
