"""Follows a route by where the robot is on it: pure pursuit, slower where the way bends or may be blocked.

Coulter (1992), "Implementation of the Pure Pursuit Path Tracking Algorithm". Departures: the point ahead is
nearer where the route bends, so that the robot does not cut corners, and where the route goes to the side or
back the robot turns on the spot. Backwards, the same law drives the robot's rear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robot_vision.driving.route import Route
from robot_vision.driving.settings import DriveSettings
from robot_vision.gate.answers import STANDING, Velocity
from robot_vision.geometry.braking import braking_speed
from robot_vision.settings.parameters import LIVE, parameter

SURE_M = 0.2  # standard deviation of the position with which a robot follows a route
ARRIVED, OFF_ROUTE, BLOCKED = "arrived", "off_route", "blocked"
_SHARES = (1.0, 0.7, 0.5, 0.35)  # of the lookahead, until the route hardly bends on the way there
_BEND_M = 0.03
# It begins to turn on the spot, and has turned enough.
_ON_THE_SPOT, _TURNED = math.radians(35), math.radians(8)
_BACK_M, _AHEAD_M = 0.4, 1.0  # along the route, from where it was last: it may pass a place twice
# By which another pass of the same place may be nearer: it begins with the first one.
_ALIKE_M = 0.15
_PER_RADIAN_M = 0.3  # how far away a heading counts that is wrong by a radian
_SLOWEST = 0.35  # share of the speed that is left in a bend
_TURN_GAIN = 2.0  # rad/s for each radian, on the spot
_DT_MARGIN_S = 0.2  # from a pose to the wheels
BACKWARDS_M_S = 0.15  # at most where nothing sees what is behind the robot


@dataclass(frozen=True)
class FollowSettings(DriveSettings):
    """How a route is followed; each field's text is its documentation."""

    max_speed_m_s: float = parameter(0.4, "Largest speed, in m/s.", low=0.01, high=10, change=LIVE)
    lookahead_m: float = parameter(
        0.5,
        "How far ahead on the route the robot goes to where the route is straight, in metres.",
        low=0.05,
        high=10,
        change=LIVE,
    )
    arrived_m: float = parameter(
        0.1,
        "How much of the route may be left where the robot has arrived, in metres.",
        low=0.01,
        high=10,
        change=LIVE,
    )
    off_route_m: float = parameter(
        0.6,
        "Distance from the route at which the robot stands, in metres.",
        low=0.05,
        high=100,
        change=LIVE,
    )


@dataclass(frozen=True)
class Followed:
    """A velocity, and where on the route it is for.

    Attributes:
        velocity: linear x in m/s and angular z in rad/s.
        reason: `arrived`, `off_route` or `blocked`; empty while the robot drives.
        progress_m: along the route.
        cross_track_m: from the route, positive to its left.
    """

    velocity: Velocity
    reason: str
    progress_m: float
    cross_track_m: float


class Follower:
    """Follows a route from wherever on it the robot is.

    Where the route says what the reflex said when it was taught, the robot stops only for what is more
    blocked now: by the difference of the probabilities. It drives there at half the speed, and follows the
    route the more exactly.

    Args:
        route: the way.
        settings: how.
        backwards: drive from the end to the beginning in reverse, so that the camera sees what it saw.
        watched: a camera that looks back says what is behind the robot.
    """

    def __init__(
        self,
        route: Route,
        settings: FollowSettings | None = None,
        backwards: bool = False,
        watched: bool = False,
    ) -> None:
        self.route = route.backwards() if backwards else route
        self.settings, self._backwards = settings or FollowSettings(), backwards
        self._blind = backwards and not watched
        # What was said of views to the other side says how narrow it is, and not what to expect.
        self._same_view = not backwards or route.rear_risk is not None
        self.reset()

    def reset(self) -> None:
        """Forgets where on the route it was, and that it arrived."""
        self._at: int | None = None
        self._blocked = self._turning = self._arrived = False

    def drive(self, x: float, y: float, yaw: float, collision: float = 0.0) -> Followed:
        """Returns the velocity for a pose.

        Args:
            x: of the robot in the route's frame, metres.
            y: the same.
            yaw: radians from +x to +y.
            collision: probability that something is in the way: straight ahead, or backwards, where somebody
                looks there, behind.
        """
        s, route = self.settings, self.route
        i = self._nearest(x, y, yaw)
        px, py = route.points[i, :2]
        along = self._direction(i)
        dx, dy = x - px, y - py
        ahead, aside = along @ (dx, dy), along[0] * dy - along[1] * dx
        progress = float(np.clip(route.arc_m[i] + ahead, 0.0, route.length_m))
        left = route.length_m - progress

        def said(reason: str, velocity: Velocity = STANDING) -> Followed:
            return Followed(velocity, reason, progress, float(aside))

        if math.hypot(dx, dy) > s.off_route_m:
            self._at = None  # wherever it comes back
            return said(OFF_ROUTE)
        if self._arrived or left <= s.arrived_m:
            self._arrived = True
            return said(ARRIVED)
        target, share = self._target(i, progress)
        heading = yaw + math.pi if self._backwards else yaw
        bearing = math.remainder(math.atan2(target[1] - y, target[0] - x) - heading, math.tau)
        taught = float(route.expected[i])
        collision = 0.0 if self._blind else max(collision - taught * self._same_view, 0.0)
        limit = s.free_below if self._blocked else s.blocked_above
        self._blocked = collision > limit
        self._turning = abs(bearing) > (_TURNED if self._turning else _ON_THE_SPOT)
        if self._blocked or self._turning:
            turn = float(np.clip(_TURN_GAIN * bearing, -s.max_turn_rad_s, s.max_turn_rad_s))
            return said(BLOCKED if self._blocked else "", Velocity((0, 0, 0), (0, 0, turn)))
        bend = 1 - abs(bearing) / _ON_THE_SPOT
        curvature = 2 * math.sin(bearing) / max(math.dist(target, (x, y)), 0.1)
        fastest = min(s.max_speed_m_s, BACKWARDS_M_S if self._blind else math.inf)
        speed = min(
            fastest * max(min(share, bend), _SLOWEST) * (1 - collision) * (1 - taught / 2),
            s.max_turn_rad_s / max(abs(curvature), 1e-6),
            max(braking_speed(left, s.deceleration_m_s2, _DT_MARGIN_S), 0.05),
        )
        ahead_m_s = -speed if self._backwards else speed
        return said("", Velocity((ahead_m_s, 0, 0), (0, 0, curvature * speed)))

    def _nearest(self, x: float, y: float, yaw: float) -> int:
        """Returns the point of the route where the robot is, by place and heading."""
        points, arc = self.route.points, self.route.arc_m
        low, high = 0, len(points)
        if self._at is not None:
            now = arc[self._at]
            low, high = np.searchsorted(arc, [now - _BACK_M, now + _AHEAD_M])
        some = points[low:high]
        turned = np.abs((some[:, 2] - yaw + math.pi) % math.tau - math.pi)
        away = np.hypot(some[:, 0] - x, some[:, 1] - y) + _PER_RADIAN_M * turned
        near = np.flatnonzero(away <= away.min() + (_ALIKE_M if self._at is None else 0.0))
        first = near[: int(np.argmax(np.diff(near, append=near[-1] + 2) > 1)) + 1]
        self._at = int(low + first[away[first].argmin()])
        return self._at

    def _direction(self, i: int) -> np.ndarray:
        points = self.route.points[:, :2]
        step = points[min(i + 1, len(points) - 1)] - points[max(i - 1, 0)]
        return np.asarray(step / max(float(np.hypot(*step)), 1e-9))

    def _target(self, i: int, progress: float) -> tuple[np.ndarray, float]:
        """Returns the point (2,) to go to, and how much of the lookahead it is away."""
        points, arc = self.route.points[:, :2], self.route.arc_m
        for share in _SHARES:
            j = int(np.searchsorted(arc, progress + share * self.settings.lookahead_m))
            j = min(max(j, i + 1), len(points) - 1)
            between, chord = points[i : j + 1] - points[i], points[j] - points[i]
            length = max(float(np.hypot(*chord)), 1e-9)
            bend = np.abs(chord[0] * between[:, 1] - chord[1] * between[:, 0]).max() / length
            if bend <= _BEND_M and length > 0.8 * (arc[j] - arc[i]):
                break
        return points[j], share
