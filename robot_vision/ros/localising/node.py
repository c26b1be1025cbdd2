"""The localiser node: a lost robot looks round until its pose in the place map is sure.

A lifecycle node. Where it looks next is in `robot_vision.places.localising`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("localiser_node"))

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from robot_vision.driving.answers import seen
from robot_vision.driving.law import Law, LawSettings
from robot_vision.errors import ConfigError, RobotVisionError
from robot_vision.gate.answers import STANDING, Velocity
from robot_vision.gate.decision import Limit
from robot_vision.gate.moment import Moment
from robot_vision.gate.rules import Rules
from robot_vision.geometry.camera_pose import CameraPose, base_pose
from robot_vision.geometry.frames import FrameTree, plain_frame
from robot_vision.geometry.pose_buffer import PoseBuffer
from robot_vision.geometry.rigid import apart, xyzw_from_matrix
from robot_vision.messages.stamps import set_stamp
from robot_vision.places.localising.answers import ODOMETRY, PLACES, NamedPlaces, answers_of
from robot_vision.places.localising.localiser import (
    DRIVE,
    TURN,
    ActiveLocaliser,
    LocaliserOptions,
    Step,
)
from robot_vision.places.localising.next_view import MapViews
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.opening import open_map
from robot_vision.ros.gate.commanding import Driving
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.gate.diagnostics import Said
from robot_vision.ros.localising.parameters import LocaliserParameters
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.status import pose_message
from robot_vision.ros.node.transforms import refusing, subscribe_static, transform_from_numbers

POSE = "~/pose"
_SAME_M = 1e-6  # a pose so near to the keyframe's is the keyframe's: nothing was compared
_TOLERANCE_S = 0.1


class Localising(Driving[LocaliserParameters]):
    """The localiser; see `Commanding`.

    Args:
        places: the map; closed by `destroy`.
        node: owns what is made here.
        given: see `Commanding`.
    """

    KIND = "localiser"
    COUNTERS = (*Driving.COUNTERS, "looks", "verified_looks", "no_odometry", "not_verified",
                "map_failures", "localised", "gave_up")  # fmt: skip

    def __init__(
        self, places: PlaceMap, node: ManagedNode[LocaliserParameters], *given: Any
    ) -> None:
        p = node.parameters
        self._places = places
        self._T_base_camera: NDArray[np.float64] | None = None
        self._statics: FrameTree[Any] = FrameTree()
        self._camera = ""  # its frame, by the descriptors
        self._release: list[Callable[[], None]] = []
        options = LocaliserOptions(p.turn_rad_s, p.drive_m)
        self._localiser = ActiveLocaliser(MapViews(places), options)
        self._law = Law(LawSettings(max_speed_m_s=p.speed_m_s, max_turn_rad_s=p.turn_rad_s))
        self._odometry = PoseBuffer()
        self._asked: Any = None  # the answer that a caller waits for
        self._step: Step | None = None
        self._last = "nobody has asked yet"
        super().__init__(node, *given)
        self._pose = node.create_lifecycle_publisher(
            PoseWithCovarianceStamped, POSE, profile("reliable", 1)
        )
        # A service that waits holds its group: answers and the timer have to go on meanwhile.
        self._service = node.create_service(
            Trigger, "~/localise", self._on_localise, callback_group=ReentrantCallbackGroup()
        )

    def activate(self) -> None:
        """See `Commanding`."""
        p = self._node.parameters
        if p.camera_to_base:
            self._T_base_camera = transform_from_numbers(p.camera_to_base)
        else:
            refuse = refusing(self._statistics, self._warn)
            self._release = [subscribe_static(self._node, self._statics, refuse)]
            self._subscribe(Image, p.descriptor_topic, self._on_descriptor)
        super().activate()

    def deactivate(self) -> None:
        """See `Commanding`."""
        self._finish(False, "the node was deactivated")
        for release in self._release:
            release()
        self._release = []
        super().deactivate()

    def destroy(self) -> None:
        """See `Commanding`."""
        super().destroy()
        self._node.destroy_service(self._service)
        self._node.destroy_lifecycle_publisher(self._pose)
        self._places.close()

    def on_change(self) -> None:
        """See `Commanding`."""
        p = self._node.parameters
        self._localiser.options = LocaliserOptions(p.turn_rad_s, p.drive_m)

    async def _on_localise(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        if self._asked is not None or self._timer is None:
            why = "the node is not active" if self._timer is None else "it localises already"
            response.success, response.message = False, why
            return response
        try:
            if (views := self._localiser.views) is None or views.revision != self._places.revision:
                self._localiser.views = MapViews(self._places)
        except RobotVisionError as error:
            response.success, response.message = False, str(error)
            return response
        self._began, self._asked = self._look(), Future(executor=self._node.executor)
        self._localiser.reset()
        self._law.reset()
        self._answered(self._began, None)  # a simulator in lock-step waits with its image
        response.success, response.message = await self._asked
        return response

    def _finish(self, success: bool, text: str) -> None:
        """Stops the robot and answers the call."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        self._statistics.count("localised" if success else "gave_up")
        self._last, self._step = text, None
        self._publish(STANDING, self._look())
        log = self._node.get_logger()
        (log.info if success else log.warning)(f"Localise: {text}")
        asked.set_result((success, text))

    # What comes in

    def _forget(self) -> None:
        super()._forget()
        self._odometry.clear()
        self._looked_ns = self._driven_ns = 0  # stamps of images
        self._step = None
        self._law.reset()
        self._finish(False, "the clock jumped")

    def _answered(self, now: Moment, seen_ns: int | None) -> None:
        odometry = self._answers.get(ODOMETRY)
        if odometry is not None and odometry.value is not None and odometry.stamp_ns is not None:
            _, T = odometry.value
            self._odometry.add(odometry.stamp_ns, T[:3, 3], xyzw_from_matrix(T[:3, :3]))
        if self._asked is None:
            return
        if stops := self._stops(now):
            self._stop(stops, now)
            return
        places = self._answers[PLACES]
        # Images of before it was asked show where the robot was.
        begun_ns = max(self._looked_ns, self._began.ros_ns - 1)
        if places.stamp_ns is not None and places.stamp_ns > begun_ns:
            self._look_at(places.value, places.stamp_ns, now)
        self._drive(now)

    def _on_descriptor(self, message: Image) -> None:
        self._camera = plain_frame(message.header.frame_id)

    def _stops(self, now: Moment) -> tuple[Limit, ...]:
        stops, why = super()._stops(now), self._unmounted()
        return (*stops, Limit("camera_to_base", 0.0, why)) if why else stops

    def _problems(self) -> list[str]:
        found = super()._problems()
        if why := self._unmounted():
            found.append(f"camera_to_base is not known: {why}")
            self._warn("camera_to_base", found[-1])
        return found

    def _unmounted(self) -> str:
        """Returns why it is not known where the camera is on the robot; empty where it is."""
        p, odometry = self._node.parameters, self._answers.get(ODOMETRY)
        if p.camera_to_base:
            return ""
        base = "" if odometry is None or odometry.value is None else odometry.value[0]
        if not self._camera:
            return f"nothing on {p.descriptor_topic} names the camera's frame: set it, or camera_to_base"
        if not base:
            return f"{p.odometry_topic} names no child frame: set camera_to_base"
        found = self._statics.lookup(base, self._camera)
        if found is None:
            return (
                f"no fixed transform from {base!r} to {self._camera!r} on /tf_static: publish it, or set "
                "camera_to_base"
            )
        if self._T_base_camera is None or not np.array_equal(found, self._T_base_camera):
            x, y, z = found[:3, 3]
            self._node.get_logger().info(
                f"By /tf_static {self._camera} is at x {x:.2f}, y {y:.2f}, z {z:.2f} m of {base}"
            )
            self._T_base_camera = found
        return ""

    def _look_at(self, places: NamedPlaces, stamp_ns: int, now: Moment) -> None:
        self._looked_ns = stamp_ns
        at = self._odometry.at(stamp_ns, _TOLERANCE_S)
        if at is None:
            self._statistics.count("no_odometry")
            self._warn("odometry", f"An image is not used: {self._odometry.why(stamp_ns)}")
            return
        self._statistics.count("looks")
        assert self._T_base_camera is not None
        try:
            verified = self._verified(places)
            named = list(zip(places.poses, places.probabilities, strict=True))
            step = self._localiser.look(stamp_ns, at[0] @ self._T_base_camera, named, verified)
        except RobotVisionError as error:  # the map was moved away, or its server is
            self._statistics.count("map_failures")
            self._warn("map", f"An image is not used: {error}")
            return
        if step.pose is not None:
            self._found(places, step.pose, stamp_ns)
            return
        if step.what == DRIVE and (self._step is None or self._step.what != DRIVE):
            self._law.reset()
        self._step = step
        if step.what == TURN:
            turn = step.side * self._localiser.options.turn_rad_s
            self._command(Velocity((0, 0, 0), (0, 0, turn)), now, stamp_ns)

    def _verified(self, places: NamedPlaces) -> NDArray[np.float64] | None:
        """Returns the camera's verified pose (4, 4); None where geometry did not find one."""
        if places.accepted is None:
            return None
        own = self._places.get(places.ids[0]).T_map_camera
        if apart(own, places.poses[0])[0] < _SAME_M:
            total = self._statistics.count("not_verified")
            self._warn(
                "verify",
                f"A place is not used ({total} so far), since it was not compared with the image: run the "
                "place node with verify:=true on a map with structure",
            )
            return None
        self._statistics.count("verified_looks")
        return places.poses[0]

    def _found(self, places: NamedPlaces, T: NDArray[np.float64], stamp_ns: int) -> None:
        assert places.accepted is not None and self._T_base_camera is not None
        camera = CameraPose(T[:3, 3], xyzw_from_matrix(T[:3, :3]), places.accepted)
        robot = base_pose(camera, self._T_base_camera)
        header = Header(frame_id=places.frame)
        set_stamp(header.stamp, stamp_ns)
        self._pose.publish(pose_message(header, robot, places.frame, 1.0, False))
        x, y, _ = robot.position
        ahead = T[:3, :3] @ self._T_base_camera[:3, :3].T[:, 0]
        yaw = np.degrees(np.arctan2(ahead[1], ahead[0]))
        self._finish(True, f"x {x:.2f} m, y {y:.2f} m, yaw {yaw:.0f} degrees in {places.frame}")

    # What goes out

    def _drive(self, now: Moment) -> None:
        """Drives on as the reflex says, if it is time to."""
        if self._asked is None or self._step is None or self._step.what != DRIVE:
            return
        found = seen(self._answers, False)
        if found is not None and found[0].stamp_ns > self._driven_ns:
            self._driven_ns = found[0].stamp_ns
            self._command(self._law.drive(found[0]).velocity, now, found[0].stamp_ns)

    def _on_tick(self) -> None:
        now = self._look()
        if self._asked is None:
            self._say(Said((), STANDING, STANDING), now)
            return
        limit_s = self._node.parameters.limit_s
        if not 0 <= now.since_s(self._began) <= limit_s:
            held = f": {self._said.text}" if self._said.holding else ""
            self._finish(False, f"no sure pose within {limit_s:g} s{held}")
        elif stops := self._stops(now):
            self._stop(stops, now)
        elif self._step is not None and self._step.what == TURN:
            self._publish(self._sent, now)  # places may come more slowly than the base waits

    def _stop(self, stops: tuple[Limit, ...], now: Moment) -> None:
        self._step = None
        self._law.reset()
        self._stand(stops, now)

    def _others(self) -> str:
        return "" if self._asked is None else super()._others()

    def _doing(self, what: Said) -> str:
        if self._asked is None:
            return "idle"
        return what.text if what.holding else "looks round"

    def _values(self) -> dict[str, object]:
        return {"localises": self._asked is not None, "last": self._last}


class LocaliserNode(CommandingNode[LocaliserParameters]):
    """Turns and drives a lost robot until its pose is sure; see `CommandingNode`."""

    NAME, PARAMETERS = "localiser", LocaliserParameters

    def _made(self) -> Localising:
        p = self.parameters
        if not p.map:
            raise ConfigError("map is empty: set it, see docs/localising.md")
        rules = answers_of(p.places_topic, p.odometry_topic, p.reflex(), p.max_age_s)
        topics = [(rule.name, rule.topic) for rule in rules]
        topics += [] if p.camera_to_base else [("descriptors", p.descriptor_topic)]
        given = self._given(Rules(rules), topics)
        places = open_map(p.map, "read")
        try:
            return Localising(places, *given)
        except BaseException:
            places.close()
            raise


main = functools.partial(run_node, LocaliserNode)
