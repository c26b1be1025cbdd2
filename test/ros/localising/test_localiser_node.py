"""The localiser node: in a loop with simulator, perception and places, and when its camera is lost."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from place_maps import make_map, unit
from ros_helpers import ROOT, Client, NodeProcess, running, set_header, wait_until

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map_for
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.ros import EXECUTABLES
from robot_vision.ros.localising.parameters import LocaliserParameters
from robot_vision.ros.node.qos import profile
from robot_vision.settings.parameters import build
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.homes import random_home

WORLD, SEED = 10_003, 4
DEACTIVATE = 4
MOUNTED = f"camera_to_base:=[0.1, 0.0, 0.4, {-math.pi / 2}, 0.0, {-math.pi / 2}]"


def test_a_mounting_of_other_than_six_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="camera_to_base has 3 numbers"):
        build(LocaliserParameters, {"camera_to_base": [0.0, 0.0, 1.0]})


@pytest.mark.slow
@pytest.mark.ros
def test_robot_stands_and_says_why_until_it_is_known_where_its_camera_is(
    tmp_path: Path, ros_domain: None
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import TransformStamped, TwistStamped
    from sensor_msgs.msg import Image
    from tf2_msgs.msg import TFMessage

    T, key = one_place(tmp_path / "a.map")
    client = Client()
    commands = client.listen(TwistStamped, "/cmd_vel")
    client.listen(DiagnosticArray, "/diagnostics")
    node = NodeProcess(
        tmp_path / "localiser.txt",
        EXECUTABLES["localiser_node"],
        *("--ros-args", "-p", f"map:={tmp_path / 'a.map'}", "-p", "drive_m:=0.0"),
        *("-p", "limit_s:=4.0", "-p", "diagnostics_period_s:=0.2"),
    )

    def until(words: str) -> None:
        """Waits until the node says why it stands, in its answer and in its diagnostics."""
        for _ in range(5):  # on a busy machine a message may come after the limit of a service
            asked = ask(client)
            wait_until(asked.done, 30, each=played.see)
            assert not asked.result().success
            if words in asked.result().message:
                break
        assert words in asked.result().message
        wait_until(
            lambda: words in client.diagnostics("localiser: localiser")[1], 10, each=played.see
        )

    try:
        played = Played(client, T, key)
        until("nothing on perception/camera/descriptor names the camera's frame")
        image = Image()
        set_header(image, time.time_ns(), "/eye")
        descriptors = client.publisher(Image, "/perception/camera/descriptor")
        descriptors.publish(image)
        until("no fixed transform from 'base_link' to 'eye' on /tf_static")
        assert not any(c.twist.angular.z for c in commands)
        mounted = TransformStamped(child_frame_id="eye")
        mounted.header.frame_id, mounted.transform.translation.z = "base_link", 0.4
        mounted.transform.rotation.w = 1.0
        client.node.create_publisher(
            TFMessage, "/tf_static", profile("reliable", 1, latched=True)
        ).publish(TFMessage(transforms=[mounted]))
        ask(client)
        wait_until(lambda: any(c.twist.angular.z for c in commands), 30, each=played.see)
        assert "By /tf_static eye is at x 0.00, y 0.00, z 0.40 m of base_link" in node.output
    finally:
        node.stop()
        client.close()


def ask(client: Client) -> Any:
    """Asks the node to localise, and returns the future of its answer."""
    from std_srvs.srv import Trigger

    service = client.node.create_client(Trigger, "/localiser/localise")
    wait_until(service.service_is_ready, 60)
    return service.call_async(Trigger.Request())


def mapped_behind(path: Path, simulator: Simulator) -> None:
    """Makes a map of what lies behind the robot, seen from where it stands and from three places near it."""
    m, c = simulator.motion, simulator.mount.camera
    lens = Intrinsics.of_matrix(c.k, c.width, c.height)
    builder = StructureBuilder(provisional=False)
    with Pipeline.load(ROOT / "models" / "demo") as pipeline:
        with create_map_for(path, pipeline.bundle) as places:
            for dx, dy in ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (-0.1, 0.0)):
                for turn in np.radians((150, 180, 210)):
                    simulator.motion = Motion(m.x + dx, m.y + dy, m.yaw + turn)
                    simulator.step()
                    image, T = simulator.image(), simulator.T_map_camera
                    key = places.add(
                        Keyframe.checked(
                            stamp_ns=simulator.now_ns,
                            camera="camera",
                            source="drive",
                            T_map_camera=T,
                            descriptor=pipeline(image)["place"].values,
                        )
                    )
                    places.set_structures(builder.add(key, T, image, lens))
            places.set_structures(builder.flush())


@pytest.mark.ros
@pytest.mark.slow
def test_lost_robot_turns_to_what_the_map_knows_and_says_where_it_is(
    tmp_path: Path, ros_domain: None
) -> None:
    pytest.importorskip("faiss")
    from geometry_msgs.msg import PoseWithCovarianceStamped, TwistStamped
    from nav_msgs.msg import Odometry

    file = tmp_path / "home.map"
    mapped_behind(file, Simulator(random_home(WORLD), SEED))
    sim = ("-p", "use_sim_time:=true")
    node = [
        NodeProcess(
            tmp_path / "seeing.txt",
            EXECUTABLES["composed_nodes"],
            *("--perception", "--ros-args", "-p", f"model:={ROOT / 'models' / 'demo'}", *sim),
            *("--places", "--ros-args", "-p", f"map:={file}", "-p", "verify:=true", *sim),
            *("-p", "pose_source:=odometry", "-p", MOUNTED),
        ),
        NodeProcess(
            tmp_path / "localiser.txt",
            EXECUTABLES["localiser_node"],
            # Where the camera is on the robot it learns from /tf_static.
            *("--ros-args", "-p", f"map:={file}", "-p", "drive_m:=0.0", *sim),
        ),
    ]
    client = Client()
    commands = client.listen(TwistStamped, "/cmd_vel")
    truth = client.listen(Odometry, "/ground_truth/odom")
    said = client.listen(PoseWithCovarianceStamped, "/localiser/pose")
    asked = ask(client)
    node.append(
        NodeProcess(
            tmp_path / "simulator.txt",
            EXECUTABLES["simulator_node"],
            *("--ros-args", "-p", f"world_seed:={WORLD}", "-p", f"seed:={SEED}"),
            *("-p", "lockstep:=true", "-p", "real_time_factor:=0.0"),
        )
    )
    try:
        wait_until(asked.done, 120)
        assert asked.result().success, asked.result().message
        wait_until(lambda: said, 10)
        assert all(command.twist.linear.x == 0 for command in commands)
        wait_until(lambda: commands[-1].twist.angular.z == 0, 10)
        turned = [command.twist.angular.z for command in commands if command.twist.angular.z]
        assert len(turned) >= 10 and len(set(np.sign(turned))) == 1  # to one side, until it saw
        pose, at = said[-1].pose.pose, said[-1].header.stamp
        true = next(o.pose.pose for o in truth if o.header.stamp == at)
        assert abs(pose.position.x - true.position.x) < 0.1
        assert abs(pose.position.y - true.position.y) < 0.1
        p, q = pose.orientation, true.orientation
        assert abs(p.z * q.z + p.w * q.w) > math.cos(math.radians(3) / 2)
    finally:
        for process in node:
            process.stop()
        client.close()


def places_of(T: NDArray[np.float64], key: int, stamp: int) -> Any:
    """Returns an accepted place."""
    from vision_msgs.msg import Detection3D, ObjectHypothesisWithPose

    found = ObjectHypothesisWithPose()
    found.hypothesis.class_id, found.hypothesis.score = str(key), 0.9
    p, q = found.pose.pose.position, found.pose.pose.orientation
    p.x, p.y, p.z = (float(v) for v in T[:3, 3])
    q.x, q.y, q.z, q.w = (float(v) for v in xyzw_from_matrix(T[:3, :3]))
    found.pose.covariance = np.diag([0.01] * 6).ravel()
    message = Detection3D(id=str(key), results=[found])
    set_header(message, stamp, "map")
    return message


def one_place(path: Path) -> tuple[NDArray[np.float64], int]:
    """Makes a map of one keyframe, and returns its pose (4, 4) and its number."""
    T = Simulator(random_home(WORLD), SEED).T_map_camera
    with make_map(path, 64) as places:
        key = places.add(
            Keyframe.checked(
                stamp_ns=1, camera="c", source="s", T_map_camera=T, descriptor=unit(1, 64)
            )
        )
        return places.get(key).T_map_camera, key


class Played:
    """What the robot says to the node: it turns as it is told to, and its place is not verified."""

    def __init__(self, client: Client, T: NDArray[np.float64], key: int) -> None:
        from geometry_msgs.msg import TwistStamped
        from nav_msgs.msg import Odometry
        from vision_msgs.msg import Classification, Detection3D

        self._T, self._key, self._turned = T, key, 0.0
        self.collision = 0.1
        self._commands = client.listen(TwistStamped, "/cmd_vel")
        self._out = [
            client.publisher(kind, topic)
            for kind, topic in (
                (Odometry, "/odom"),
                (TwistStamped, "/perception/camera/steering"),
                (Classification, "/perception/camera/collision"),
                (Detection3D, "/places/places"),
            )
        ]

    def see(self) -> None:
        from geometry_msgs.msg import TwistStamped
        from nav_msgs.msg import Odometry
        from vision_msgs.msg import Classification, ObjectHypothesis

        last = self._commands[-1].twist if self._commands else None
        if last is not None and last.linear.x == 0:
            self._turned += 0.15 * np.sign(last.angular.z)
        moved, steering = Odometry(child_frame_id="base_link"), TwistStamped()
        z, w = math.sin(self._turned / 2), math.cos(self._turned / 2)
        moved.pose.pose.orientation.z, moved.pose.pose.orientation.w = z, w
        risk = {"collision": self.collision, "free": 1 - self.collision}
        classes = [ObjectHypothesis(class_id=n, score=p) for n, p in risk.items()]
        stamp = time.time_ns()
        messages = [moved, steering, Classification(results=classes)]
        for message in messages:
            set_header(message, stamp, "base_link")
        messages.append(places_of(self._T, self._key, stamp))
        for publisher, message in zip(self._out, messages, strict=True):
            publisher.publish(message)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.ros
def test_robot_drives_on_where_it_may_and_stands_when_its_camera_is_lost(
    tmp_path: Path, ros_domain: None
) -> None:
    """Places that were not compared with the image are no evidence, however often they come."""
    from geometry_msgs.msg import TwistStamped

    T, key = one_place(tmp_path / "a.map")
    words = ("--ros-args", "-p", MOUNTED)
    given = {"map": tmp_path / "a.map", "limit_s": 20.0}
    with running(tmp_path, "localiser_node", *words, **given) as (node, client):
        commands = client.listen(TwistStamped, "/cmd_vel")
        asked, played = ask(client), Played(client, T, key)
        wait_until(lambda: any(c.twist.angular.z for c in commands), 30, each=played.see)
        assert not any(c.twist.linear.x for c in commands)  # first it looks round
        wait_until(lambda: commands[-1].twist.linear.x > 0.2, 30, each=played.see)
        assert max(c.twist.linear.x for c in commands) <= 0.3
        played.collision = 0.9  # the reflex: something is in the way
        wait_until(lambda: commands[-1].twist.linear.x == 0, 5, each=played.see)
        assert not asked.done()
        wait_until(lambda: commands[-1].twist.angular.z == 0, 10)  # the camera is lost
        count = len(commands)
        wait_until(asked.done, 30)
        assert not asked.result().success and "within 20 s" in asked.result().message
        rest = [c.twist for c in commands[count:]]
        assert rest and not any(twist.angular.z or twist.linear.x for twist in rest)
        asked, count = ask(client), len(commands)
        wait_until(lambda: commands[count:], 10, each=played.see)
        assert client.change_state("/localiser", DEACTIVATE)
        wait_until(asked.done, 10)
        assert asked.result().message == "the node was deactivated"
        wait_until(lambda: commands[-1].twist.angular.z == 0, 10)
        assert "verify:=true" in node.output and "Stopped by places" in node.output
