"""A differential-drive robot: how it follows commands, and what its wheels say of the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from robot_vision.driving.law import LawSettings

if TYPE_CHECKING:
    from robot_vision.simulation.world.renderer import Camera

STEP_NS = 20_000_000  # of a simulated motion
MARGIN_M = 0.05  # to each side of the robot: what is farther aside it passes
_CLEARANCE_M = 0.2  # from the robot's edge to what it stands before


@dataclass(frozen=True)
class Robot:
    """A round robot's size and limits.

    Attributes:
        radius_m: of its base.
        height_m: what hangs higher is no obstacle.
        max_speed_m_s: forwards and backwards.
        max_turn_rate_rad_s: to either side.
        max_acceleration_m_s2: also when it brakes.
        max_turn_acceleration_rad_s2: of the turn rate.
        odometry_drift: relative error of the odometry's rates, the same for a whole run (one sigma).
        odometry_noise: error after one metre, in metres, and after one radian, in radians (one sigma).
        odometry_slip: share of the commanded motion that the wheels turn while something holds the robot.
    """

    radius_m: float = 0.2
    height_m: float = 0.5
    max_speed_m_s: float = 0.6
    max_turn_rate_rad_s: float = 1.5
    max_acceleration_m_s2: float = 1.0
    max_turn_acceleration_rad_s2: float = 4.0
    odometry_drift: float = 0.01
    odometry_noise: float = 0.02
    odometry_slip: float = 0.5

    def law(self, law: str) -> LawSettings:
        """Returns the settings of a law for this robot, which brakes at half of what it can."""
        return LawSettings(
            law=law,
            max_speed_m_s=self.max_speed_m_s,
            max_turn_rad_s=self.max_turn_rate_rad_s,
            deceleration_m_s2=self.max_acceleration_m_s2 / 2,
            stop_distance_m=self.radius_m + _CLEARANCE_M,
        )

    def perception(self) -> dict[str, float]:
        """Returns the perception node's parameters that say what is in this robot's way."""
        return {
            "obstacle_high_m": self.height_m,
            "corridor_width_m": 2 * (self.radius_m + MARGIN_M),
        }


@dataclass(frozen=True)
class Mount:
    """Where the camera is on the robot, and how wide it sees.

    Attributes:
        height_m: above the floor.
        forward_m: in front of the robot's centre.
        pitch_deg: positive looks up.
        field_deg: from the image's left edge to its right one.
        width: of the image, pixels.
        height: of the image, pixels.
    """

    height_m: float = 0.4
    forward_m: float = 0.1
    pitch_deg: float = 0.0
    field_deg: float = 130.0
    width: int = 320
    height: int = 240

    @property
    def camera(self) -> Camera:
        """The pinhole camera with square pixels and the principal point in the middle."""
        from robot_vision.simulation.world.renderer import Camera  # a launch file has no OpenCV

        focal = self.width / 2 / math.tan(math.radians(self.field_deg) / 2)
        return Camera(
            self.width, self.height, focal, focal, (self.width - 1) / 2, (self.height - 1) / 2
        )


@dataclass(frozen=True)
class Motion:
    """A pose in the plane and its rates.

    Attributes:
        x: metres.
        y: metres.
        yaw: radians from +x to +y, not wrapped.
        speed_m_s: forwards.
        turn_rate_rad_s: positive to the left.
    """

    x: float
    y: float
    yaw: float
    speed_m_s: float = 0.0
    turn_rate_rad_s: float = 0.0

    def moved(self, speed_m_s: float, turn_rate_rad_s: float, dt_s: float) -> Motion:
        """Returns where an arc at constant rates leads, with those rates."""
        turn, way = turn_rate_rad_s * dt_s, speed_m_s * dt_s
        # The chord of the arc: its length is 2 r sin(turn / 2), its direction halfway through the turn.
        chord = way if abs(turn) < 1e-9 else way * math.sin(turn / 2) / (turn / 2)
        half = self.yaw + turn / 2
        return Motion(
            self.x + chord * math.cos(half),
            self.y + chord * math.sin(half),
            self.yaw + turn,
            speed_m_s,
            turn_rate_rad_s,
        )


def towards(now: float, wanted: float, most: float) -> float:
    """Returns a rate that has come nearer to the one wanted, by at most `most`."""
    return now + min(max(wanted - now, -most), most)


class Odometry:
    """What the wheels say: the way that they have turned, which drifts from the one that was driven.

    Args:
        robot: how large the errors are.
        rng: of the errors.

    Attributes:
        motion: pose in the odometry's own frame, which begins where the robot does.
        way_m: that the wheels have gone, forwards and backwards.
        turn_rad: that they have turned, to both sides.
    """

    def __init__(self, robot: Robot, rng: np.random.Generator) -> None:
        self._robot, self._rng = robot, rng
        drift = rng.normal(0, robot.odometry_drift, 2)
        self._scale = 1 + float(drift[0]), 1 + float(drift[1])
        self.motion = Motion(0.0, 0.0, 0.0)
        self.way_m = self.turn_rad = 0.0

    def turn_wheels(self, speed_m_s: float, turn_rate_rad_s: float, dt_s: float) -> None:
        """Counts the motion of one step."""
        speed, turn_rate = speed_m_s * self._scale[0], turn_rate_rad_s * self._scale[1]
        way, turn = abs(speed) * dt_s, abs(turn_rate) * dt_s
        # A random walk: its error grows with the root of the way.
        off = self._rng.normal(0, self._robot.odometry_noise, 2)
        moved = self.motion.moved(
            speed + float(off[0]) * math.sqrt(way) / dt_s,
            turn_rate + float(off[1]) * math.sqrt(turn) / dt_s,
            dt_s,
        )
        self.motion = replace(moved, speed_m_s=speed, turn_rate_rad_s=turn_rate)
        self.way_m += way
        self.turn_rad += turn

    def variances(self) -> tuple[float, float]:
        """Returns the variances of the position along each axis, m^2, and of the yaw, rad^2, so far."""
        r = self._robot
        yaw = (r.odometry_drift * self.turn_rad) ** 2 + r.odometry_noise**2 * self.turn_rad
        along = (r.odometry_drift * self.way_m) ** 2 + r.odometry_noise**2 * self.way_m
        return along + yaw * self.way_m**2 / 3, yaw
