"""Where the robot is in, commands along a route out: what the repeat node does while it is configured."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from robot_vision.driving.answers import COLLISION, LOST, POSE
from robot_vision.driving.following import ARRIVED, BLOCKED, OFF_ROUTE, Followed, Follower
from robot_vision.driving.route import Route
from robot_vision.gate.answers import STANDING
from robot_vision.gate.decision import Limit, stopping
from robot_vision.gate.moment import Moment
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.gate.commanding import OUT, Commanding
from robot_vision.ros.gate.diagnostics import OK, WARN, Said
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.status import status_message
from robot_vision.ros.repeating.parameters import RepeatParameters

LOST_S = 2.0  # for which it stands until it asks to be localised, and then again
COUNTERS = ("localise_calls", "published", "refused_answers", "clock_jumps")
WHY = {
    ARRIVED: "the end of the route",
    OFF_ROUTE: "it is too far from the route: put it back, or teach the way from here",
    BLOCKED: "a collision is probable straight ahead",
}


class Repeating(Commanding[RepeatParameters]):
    """Follows a route; see `Commanding`."""

    def __init__(self, node: ManagedNode[RepeatParameters], route: Route, *given: Any) -> None:
        p = node.parameters
        self._follower = Follower(route, p.follow_settings(), p.backwards)
        self._at = Followed(STANDING, "", 0.0, 0.0)
        self._driven_ns = 0  # stamp of the pose that was driven by last
        super().__init__(node, *given)
        self._progress = node.create_lifecycle_publisher(
            Float64, "~/progress", profile(node.parameters.publish_reliability, 1)
        )
        service = node.parameters.localise_service
        self._localiser: Any = node.create_client(Trigger, service) if service else None

    def activate(self) -> None:
        """Begins the route from wherever on it the robot is."""
        self._follower.reset()
        self._localises: Any = None  # what the localiser will answer, while it commands the robot
        self._lost_ns: int | None = None
        super().activate()

    def destroy(self) -> None:
        """Ends everything."""
        super().destroy()
        self._node.destroy_lifecycle_publisher(self._progress)
        if self._localiser is not None:
            self._node.destroy_client(self._localiser)

    def on_change(self) -> None:
        """See `Commanding`."""
        self._follower.settings = self._node.parameters.follow_settings()

    def _answered(self, now: Moment, seen_ns: int | None) -> None:
        stops = self._stops(now)
        pose = self._answers.get(POSE)
        if self._leaves_to_localiser(stops, now):
            return
        if stops:
            if self._sent != STANDING:
                self._stand(stops, now)
        elif pose is not None and pose.stamp_ns is not None and pose.stamp_ns > self._driven_ns:
            self._drive(pose.value, pose.stamp_ns, now)

    def _on_tick(self) -> None:
        now = self._look()
        stops = self._stops(now)
        if self._leaves_to_localiser(stops, now):
            self._say(Said(stops, STANDING, STANDING) if stops else self._said, now)
        elif stops:
            self._stand(stops, now)
        else:
            self._say(self._said, now)

    def _leaves_to_localiser(self, stops: tuple[Limit, ...], now: Moment) -> bool:
        """Says whether the localiser commands the robot, which is asked where the robot is lost."""
        if self._localiser is None:
            return False
        if self._localises is not None:
            if not self._localises.done() and self._localiser.service_is_ready():
                return True
            self._localises = self._lost_ns = None
        if [stop.rule for stop in stops] != [LOST]:  # blind as well: there is nothing to look with
            self._lost_ns = None
        elif self._lost_ns is None:
            self._lost_ns = now.steady_ns
        elif now.steady_ns - self._lost_ns > LOST_S * SECOND_NS:
            if not self._localiser.service_is_ready():
                self._warn(
                    "localiser", f"Nobody offers {self._localiser.srv_name}: the robot stands"
                )
                return False
            self._statistics.count("localise_calls")
            self._localises = self._localiser.call_async(Trigger.Request())
            return True
        return False

    def _drive(self, pose: tuple[float, float, float], stamp_ns: int, now: Moment) -> None:
        self._driven_ns = stamp_ns
        collision = self._answers.get(COLLISION)
        risk = 0.0 if collision is None else float(collision.value)
        self._at = found = self._follower.drive(*pose, risk)
        self._publish(found.velocity, now, (stamp_ns, self._follower.route.base_frame))
        self._progress.publish(Float64(data=found.progress_m))
        limits: tuple[Limit, ...] = ()
        if found.reason:
            forward = found.reason == BLOCKED
            limits = (Limit(found.reason, 0.0, WHY[found.reason], forward=forward),)
        self._say(Said(limits, found.velocity, found.velocity), now)

    def _forget(self) -> None:
        super()._forget()
        self._driven_ns = 0

    def _stops(self, now: Moment) -> tuple[Limit, ...]:
        ahead_s = self._node.parameters.max_ahead_s
        return stopping(self._rules.rules, self._answers, ahead_s, self._clock, now)

    def status(self) -> Any:
        """See `Commanding`."""
        problems, what = [*self.problems(), *self.other_types(OUT)], self._said
        others = self.others()
        if others:
            problems.append(f"{others}: commands mix")
        arrived = what.rule == ARRIVED
        level = WARN if problems or (what.holding and not arrived) else OK
        counters = self._statistics.counters
        values: dict[str, object] = {
            "rule": what.rule,
            "progress_m": self._at.progress_m,
            "route_m": self._follower.route.length_m,
            "cross_track_m": self._at.cross_track_m,
            "speed_m_s": self._sent.linear[0],
            "turn_rad_s": self._sent.angular[2],
            **{name: counters.get(name, 0) for name in COUNTERS},
            **{name: n for name, n in sorted(counters.items()) if name.startswith("stops_by_")},
        }
        name = self._node.get_fully_qualified_name()
        return status_message(
            level, f"{name}: repeat", "; ".join([what.text, *problems]), "", values
        )
