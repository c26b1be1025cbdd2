"""The repeat node: follows a taught route by where the robot says it is.

A lifecycle node. The route and the law are in `robot_vision.driving`; what is heard is judged as by the gate.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("repeat_node"))

import functools
from typing import Any

from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from robot_vision.driving.answers import COLLISION, LOST, POSE, answers_on_route
from robot_vision.driving.following import (
    ARRIVED,
    BACKWARDS_M_S,
    BLOCKED,
    OFF_ROUTE,
    Followed,
    Follower,
)
from robot_vision.driving.route import Route, read_route
from robot_vision.errors import ConfigError
from robot_vision.gate.answers import STANDING
from robot_vision.gate.decision import Limit
from robot_vision.gate.moment import Moment
from robot_vision.gate.rules import Rules
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.gate.commanding import Driving
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.gate.diagnostics import Said
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.qos import profile
from robot_vision.ros.repeating.parameters import RepeatParameters

LOST_S = 2.0  # for which it stands until it asks to be localised, and then again
WHY = {
    ARRIVED: "the end of the route",
    OFF_ROUTE: "it is too far from the route: put it back, or teach the way from here",
    BLOCKED: "a collision is probable where it is to go",
}


class Repeating(Driving[RepeatParameters]):
    """Follows a route; see `Commanding`."""

    KIND = "repeat"
    COUNTERS = ("localise_calls", *Driving.COUNTERS)

    def __init__(self, route: Route, node: ManagedNode[RepeatParameters], *given: Any) -> None:
        p = node.parameters
        self._follower = Follower(route, p, p.backwards, bool(p.rear_collision_topic))
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
        self._follower.settings = self._node.parameters

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
        self._progress.publish(Float64(data=found.progress_m))
        limits = []
        if why := WHY.get(found.reason):
            ahead = found.reason == BLOCKED and not self._node.parameters.backwards
            limits.append(Limit(found.reason, 0.0, why, forward=ahead))
        frame = self._follower.route.base_frame
        self._command(found.velocity, now, stamp_ns, *limits, frame=frame)

    def _forget(self) -> None:
        super()._forget()
        self._driven_ns = 0

    def _as_wanted(self, what: Said) -> bool:
        return what.rule == ARRIVED

    def _values(self) -> dict[str, object]:
        return {
            "progress_m": self._at.progress_m,
            "route_m": self._follower.route.length_m,
            "cross_track_m": self._at.cross_track_m,
        }


class RepeatNode(CommandingNode[RepeatParameters]):
    """Follows a route; see `CommandingNode`."""

    NAME, PARAMETERS = "repeat", RepeatParameters

    def _made(self) -> Repeating:
        p = self.parameters
        if not p.route:
            raise ConfigError("route is empty: set it to a folder that robot-vision teach made")
        route = read_route(p.route)
        topic, risk = p.collision_topic, route.risk
        if p.backwards:
            topic, risk = p.rear_collision_topic, route.rear_risk
        rules = answers_on_route(
            p.pose_topic, p.belief_topic, p.camera_topic, topic, route.frame_id, p.max_age_s
        )
        made = Repeating(route, *self._given(Rules(rules)))
        log = self.get_logger()
        log.info(f"Route {p.route}: {route.length_m:.1f} m in {route.frame_id}")
        if p.backwards and not topic:
            log.warning(
                f"Backwards: nothing sees what is behind the robot, which drives at {BACKWARDS_M_S:g} m/s at "
                "most. Keep the way free, or set rear_collision_topic"
            )
        elif topic and risk is None:
            how = "--reflex and --rear-topic" if p.backwards else "--reflex"
            log.warning(
                f"Route {p.route} does not say how near it passes things: the robot may stop where it is "
                f"narrow. Teach it with {how}"
            )
        return made


main = functools.partial(run_node, RepeatNode)
