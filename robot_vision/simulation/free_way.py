"""Where the way is free, by the geometry around the robot: what a reflex can learn from images, mostly.

A planner's steering depends on where it goes, which no image shows: at a fork its side is chance. What is
labelled here depends on what is in front of the robot alone. Very near, that has left the picture.
"""

from __future__ import annotations

import math

import numpy as np

from robot_vision.driving.law import DRONET, Law, Seen
from robot_vision.simulation.robot import MARGIN_M
from robot_vision.simulation.simulator import Simulator

_WIDE_M = 0.15  # the same where it turns to
_DIRECTIONS = np.radians(np.linspace(-60, 60, 25))
_FARTHEST_M = 2.5
_ENOUGH_M = 1.8  # a way that is free farther is no better
_PER_RADIAN_M = 0.35  # what a turn must gain
_SOFTNESS_M = 0.08
_TURN_PER_RADIAN = 2.0  # rad/s
BLOCKED_M = 0.6
_UNSURE_M = 0.08  # about it, in which `FreeWay` slows


def free_way(
    simulator: Simulator, blocked_m: float = BLOCKED_M, in_view: bool = False
) -> tuple[float, float]:
    """Returns how to steer to where the way is free, in [-1, 1] and positive to the left, and the free way.

    Steering is a share of the robot's largest turn rate. The direction is the mean of all directions,
    weighted by how far each is free, less what the turn costs; where the way is blocked, it is that of the
    better side.

    Args:
        simulator: the robot.
        blocked_m: less than this straight ahead is blocked.
        in_view: whether only what is in the camera's field counts; else also what is next to the robot.

    Returns:
        The steering, and the metres that are free straight ahead, at most 2.5.
    """
    free = simulator.free_lengths(_DIRECTIONS, _WIDE_M, _FARTHEST_M, in_view)
    worth = np.minimum(free, _ENOUGH_M) - _PER_RADIAN_M * np.abs(_DIRECTIONS)
    ahead = float(simulator.free_lengths([0.0], MARGIN_M, _FARTHEST_M, in_view)[0])
    among = np.ones(len(worth), bool)
    if ahead < blocked_m:
        left, right = _DIRECTIONS > 0, _DIRECTIONS < 0
        among = left if worth[left].max() >= worth[right].max() else right
    weights = np.exp((worth[among] - worth[among].max()) / _SOFTNESS_M)
    direction = float((weights * _DIRECTIONS[among]).sum() / weights.sum())
    if ahead < blocked_m and free[among].max() < blocked_m:  # as far as it sees
        direction = math.copysign(float(_DIRECTIONS[-1]), direction)
    steering = _TURN_PER_RADIAN * direction / simulator.robot.max_turn_rate_rad_s
    return float(np.clip(steering, -1, 1)), ahead


class FreeWay:
    """Drives by these labels and DroNet's law.

    Args:
        in_view: see `free_way`; nothing is guessed of what lies beyond the field's edge, nor remembered.
    """

    def __init__(self, in_view: bool = False) -> None:
        self._law: Law | None = None
        self._in_view = in_view

    def reset(self) -> None:
        """Begins again from standing."""
        self._law = None

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns speed and turn rate."""
        if self._law is None:
            self._law = Law(simulator.robot.law(DRONET))
        steering, ahead = free_way(simulator, in_view=self._in_view)
        blocked = 1 / (1 + math.exp((ahead - BLOCKED_M) / _UNSURE_M))
        velocity = self._law.drive(Seen(simulator.now_ns, steering, blocked)).velocity
        return velocity.linear[0], velocity.angular[2]
