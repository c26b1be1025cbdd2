"""From a steering head's answer to a velocity: DroNet's law, and one that keeps to the braking distance.

DroNet's law (Loquercio et al. 2018, "DroNet: Learning to Fly by Driving", equations 2 and 3): the speed is
(1 - p) times the largest, with p the probability of a collision, and the turn follows the steering; both
pass a low-pass filter. The paper's weights (0.7 and 0.5 an image) are time constants here, so that
another image rate drives alike.

Added to it: while something is in the way the robot stands and turns, always to the side on which it began
to, until the way is free again. Without, it swings from side to side in front of a wall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_vision.driving.settings import DriveSettings
from robot_vision.gate.answers import Velocity
from robot_vision.geometry.braking import braking_speed
from robot_vision.settings.parameters import LIVE, parameter

DRONET, FREE_DISTANCE = "dronet", "free_distance"
LAWS = (DRONET, FREE_DISTANCE)
COLLISION, OBSTACLE = "collision", "obstacle"  # why it turns on the spot
_PAUSE_S = 1.0  # after which what was filtered is none of now
_CLEAR = 1.5  # times the distance at which it stands, from which the way is free again


@dataclass(frozen=True)
class LawSettings(DriveSettings):
    """What the law may do; each field's text is its documentation."""

    law: str = parameter(
        DRONET,
        "dronet lets the speed fall with the probability of a collision; free_distance keeps it to what "
        "the robot can brake from within the free distance, and needs distance_topic.",
        choices=LAWS,
    )
    max_turn_rad_s: float = parameter(
        1.0,
        "Turn rate for a steering of 1, and on the spot, in rad/s.",
        low=0.01,
        high=20,
        change=LIVE,
    )
    speed_filter_s: float = parameter(
        0.03,
        "Time constant of the speed's low-pass filter, in seconds; 0 does not filter.",
        low=0,
        high=10,
        change=LIVE,
    )
    turn_filter_s: float = parameter(
        0.05,
        "Time constant of the turn's low-pass filter, in seconds; 0 does not filter.",
        low=0,
        high=10,
        change=LIVE,
    )
    reaction_s: float = parameter(
        0.3,
        "Time from an image to the wheels' reaction, in seconds.",
        low=0,
        high=10,
        change=LIVE,
    )
    stop_distance_m: float = parameter(
        0.4,
        "Free distance at which the robot stands and turns, in metres.",
        low=0,
        high=100,
        change=LIVE,
    )


@dataclass(frozen=True)
class Seen:
    """What perception says of one image.

    Attributes:
        stamp_ns: of the image.
        steering: in [-1, 1], positive to the left.
        collision: its probability.
        distance_m: that is free straight ahead; None where nothing measures it.
    """

    stamp_ns: int
    steering: float
    collision: float
    distance_m: float | None = None


@dataclass(frozen=True)
class Driven:
    """A velocity, and why it is not the law's.

    Attributes:
        velocity: linear x in m/s and angular z in rad/s.
        blocked: `collision`, `obstacle`, or empty while the way is free.
    """

    velocity: Velocity
    blocked: str = ""


class Law:
    """Drives from image to image.

    Args:
        settings: what it may do.
    """

    def __init__(self, settings: LawSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Begins again from standing; what blocked the way is forgotten."""
        self._speed = self._turn = 0.0
        self._side = 0.0
        self._blocked = ""
        self._last_ns: int | None = None

    def drive(self, seen: Seen) -> Driven:
        """Returns the velocity for an image; its numbers are finite, see `Seen`."""
        s = self.settings
        dt = 0.0 if self._last_ns is None else (seen.stamp_ns - self._last_ns) * 1e-9
        if not 0 <= dt <= _PAUSE_S:
            self.reset()
            dt = 0.0
        first = self._last_ns is None
        self._last_ns = seen.stamp_ns
        steering = min(1.0, max(-1.0, seen.steering))
        turn = steering * s.max_turn_rad_s
        self._turn = turn if first else _filtered(self._turn, turn, dt, s.turn_filter_s)
        blocked = self._is_blocked(seen)
        if blocked:
            if not self._blocked:
                self._side = math.copysign(1.0, self._turn)
            self._blocked, self._speed = blocked, 0.0
            return Driven(Velocity((0, 0, 0), (0, 0, self._side * s.max_turn_rad_s)), blocked)
        self._blocked = ""
        allowed = self._allowed(seen)
        if s.law == DRONET:
            wanted = min(s.max_speed_m_s * (1.0 - seen.collision), allowed)
        else:
            wanted = allowed
        # From standing, as the filters of the paper begin.
        self._speed = min(_filtered(self._speed, wanted, dt, s.speed_filter_s), allowed)
        return Driven(Velocity((self._speed, 0, 0), (0, 0, self._turn)))

    def _allowed(self, seen: Seen) -> float:
        s = self.settings
        if seen.distance_m is None:
            return s.max_speed_m_s
        left = seen.distance_m - s.stop_distance_m
        return min(s.max_speed_m_s, braking_speed(left, s.deceleration_m_s2, s.reaction_s))

    def _is_blocked(self, seen: Seen) -> str:
        s = self.settings
        if seen.distance_m is not None:
            times = _CLEAR if self._blocked == OBSTACLE else 1.0
            if seen.distance_m <= times * s.stop_distance_m:
                return OBSTACLE
        limit = s.free_below if self._blocked else s.blocked_above
        # A limit of 1 never blocks.
        return COLLISION if seen.collision > limit else ""


def _filtered(before: float, now: float, dt: float, time_s: float) -> float:
    """Returns a first-order low-pass filter's next value."""
    weight = 1.0 if time_s <= 0 else 1.0 - math.exp(-dt / time_s)
    return before + weight * (now - before)
