"""A place node under test, a client that plays the rest of the robot, and a world of descriptors.

In that world a descriptor depends on the pose alone, smoothly: random Fourier features (Rahimi, Recht 2007)
of where the camera is and where it looks. So near views are similar, far ones are not, and nothing needs a
network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ros_helpers import Client, NodeProcess, set_header, stamp_ns, wait_until
from scipy.spatial.transform import Rotation

from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map
from robot_vision.ros import EXECUTABLES

NODE = "/places"
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4
DIMENSION = 128
SHA = "ab" * 32
FRAME = "front_optical"
CAMERA_TO_BASE = [0.2, 0.1, 0.5, -np.pi / 2, 0.0, -np.pi / 2]  # forward, up half a metre

_rng = np.random.default_rng(0)
_WAVES = _rng.normal(size=(DIMENSION, 6)) / np.array([1.2, 1.2, 1.2, 0.7, 0.7, 0.7])
_PHASES = _rng.uniform(0, 2 * np.pi, DIMENSION)


def describe(T_map_camera: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Returns the descriptor (D,) of a view from a pose (4, 4)."""
    where = np.concatenate([T_map_camera[:3, 3], T_map_camera[:3, 2]])
    values = np.cos(_WAVES @ where + _PHASES)
    values = values + noise * np.random.default_rng(seed).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def elsewhere(seed: int = 1) -> np.ndarray:
    """Returns a descriptor of no place at all."""
    values = np.random.default_rng(seed).normal(size=DIMENSION)
    return (values / np.linalg.norm(values)).astype(np.float32)


def base_pose(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Returns the pose (4, 4) of a robot on the floor."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    T[:2, 3] = x, y
    return T


def mounting() -> np.ndarray:
    """Returns `T_base_camera` of `CAMERA_TO_BASE`."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", CAMERA_TO_BASE[3:]).as_matrix()
    T[:3, 3] = CAMERA_TO_BASE[:3]
    return T


def camera_pose(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Returns the pose (4, 4) of the camera of a robot on the floor."""
    return base_pose(x, y, yaw) @ mounting()


def square(step: float = 0.25, side: float = 8.0) -> list[np.ndarray]:
    """Returns base poses once around a square, looking ahead."""
    poses = []
    for corner in range(4):
        yaw = corner * np.pi / 2
        start = np.array([(0, 0), (side, 0), (side, side), (0, side)][corner], float)
        ahead = np.array([np.cos(yaw), np.sin(yaw)])
        for s in np.arange(0, side, step):
            poses.append(base_pose(*(start + s * ahead), yaw))
    return poses


def turning(before: np.ndarray, after: np.ndarray) -> list[np.ndarray]:
    """Returns poses on the way to a near pose that is turned: no robot turns a corner in one step."""
    if np.linalg.norm(after[:3, 3] - before[:3, 3]) > 0.5:  # carried away
        return []
    turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
    count = int(np.linalg.norm(turn) // np.radians(20))
    found = []
    for share in np.arange(1, count + 1) / (count + 1):
        T = before.copy()
        T[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
        found.append(T)
    return found


def make_map(path: Path, poses: list[np.ndarray] | None = None, sha: str = SHA) -> Path:
    """Writes a map of the square (or of base poses) and returns its path."""
    poses = square() if poses is None else poses
    with create_map(
        path, bundle_name="fourier", bundle_sha256=sha, dimension=DIMENSION, frame_id="map"
    ) as places:
        places.add_many(
            Keyframe.checked(
                stamp_ns=1_700_000_000_000_000_000 + i * 250_000_000,
                camera="front",
                source="first run",
                T_map_camera=T @ mounting(),
                descriptor=describe(T @ mounting()),
            )
            for i, T in enumerate(poses)
        )
    return path


class PlaceRobot:
    """The node in its own process, and a client that plays its camera, its wheels and its listeners.

    Args:
        folder: for the logs.
        arguments: of the node, after those set here.
        executable: of the node.
        prefix: command that runs the node's command, such as `nice`.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        executable: str = "place_node",
        prefix: Sequence[str] = (),
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from vision_msgs.msg import Detection3D, Detection3DArray

        self.folder = folder
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.places = self.client.listen(Detection3D, f"{NODE}/places", 100)
        self.poses = self.client.listen(PoseWithCovarianceStamped, f"{NODE}/pose", 100)
        self.loops = self.client.listen(Detection3DArray, f"{NODE}/loop_closure", 100)
        self.initial = self.client.listen(PoseWithCovarianceStamped, "/initialpose", 10)
        numbers = ",".join(str(float(v)) for v in CAMERA_TO_BASE)
        self.starts = 0
        self._prefix = prefix
        self._command = (
            EXECUTABLES[executable],
            "--ros-args",
            *("-p", "camera:=front", "-p", "diagnostics_period_s:=0.2"),
            # On a busy machine best effort loses a message now and then, and each is sent once here.
            *("-p", "diagnostics_window_s:=1.0", "-p", "subscribe_reliability:=reliable"),
            *("-p", "subscribe_depth:=50"),
            *("-p", "warn_period_s:=0.1", "-p", "retry_period_s:=0.3", "-p", "stale_after_s:=1.0"),
            *("-p", f"camera_to_base:=[{numbers}]", "-p", "base_frame:=base_link"),
            *arguments,
        )
        self.process = self.start()
        self.clock_ns = time.time_ns()
        self._at = np.eye(4)
        self.odom_offset = np.eye(
            4
        )  # T_odom_map: where the odometry thinks that the map's origin is

    def start(self) -> NodeProcess:
        """Starts the node's process; again, after it was killed."""
        log = self.folder / (f"log_{self.starts}.txt" if self.starts else "log.txt")
        self.starts += 1
        self.process = NodeProcess(log, *self._command, prefix=self._prefix)
        return self.process

    # What the robot's other parts would do

    def publish_model(self, sha: str = SHA, name: str = "fourier") -> None:
        """Tells which model makes the descriptors, as the perception node does."""
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from vision_msgs.msg import VisionInfo

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        method = f"{name} resnet18 place sha256:{sha}"
        self.client.publisher(VisionInfo, "/perception/vision_info", latched).publish(
            VisionInfo(method=method)
        )

    def descriptor(self, values: Any, stamp: int | None = None, wait: bool = True) -> int:
        """Sends a descriptor; the stamps advance by a tenth of a second each. Returns the stamp."""
        from ros_helpers import descriptor_message
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        if stamp is None:
            self.clock_ns += 100_000_000
            stamp = self.clock_ns
        message = descriptor_message(Header(), np.asarray(values, np.float32))
        set_header(message, stamp, FRAME)
        self.send(Image, "/perception/front/descriptor", message, wait)
        return stamp

    def send(self, kind: Any, topic: str, message: Any, wait: bool = True) -> None:
        publisher = self.client.publisher(kind, topic, 50)
        if wait:
            wait_until(
                lambda: publisher.get_subscription_count() > 0, what=f"subscriber of {topic}"
            )
        publisher.publish(message)

    def odometry(self, T_map_base: np.ndarray, stamp: int) -> None:
        from nav_msgs.msg import Odometry

        message = Odometry(child_frame_id="base_link")
        set_header(message, stamp, "odom")
        set_pose(message.pose.pose, self.odom_offset @ T_map_base)
        self.send(Odometry, "/odom", message)

    def drive(
        self, poses: list[np.ndarray], odometry: bool = True, noise: float = 0.0
    ) -> list[int]:
        """Drives along base poses and returns the stamps; the next view waits a moment for an answer."""
        stamps = []
        for i, T in enumerate(poses):
            for between in turning(self._at, T) if odometry else ():
                self.clock_ns += 100_000_000
                self.odometry(between, self.clock_ns)
            self._at = T
            self.clock_ns += 100_000_000
            if odometry:
                self.odometry(T, self.clock_ns)
            stamps.append(self.descriptor(describe(T @ mounting(), noise, i), self.clock_ns))
            end = time.monotonic() + 0.1
            while time.monotonic() < end and not (
                self.places and stamp_ns(self.places[-1]) >= stamps[-1]
            ):
                time.sleep(0.004)
        return stamps

    # What it answers

    def answer(self, stamp: int, timeout_s: float = 20) -> Any:
        """Returns what came on ~/places for a stamp."""

        def found() -> Any:
            return next((m for m in reversed(self.places) if stamp_ns(m) == stamp), None)

        what = f"answer for {stamp}; the node said:\n{self.process.output[-3000:]}"
        return wait_until(found, timeout_s, what)

    def pose_of(self, stamp: int) -> Any:
        """Returns what came on ~/pose for a stamp, or None; `answer` has to be called before."""
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            found = next((m for m in reversed(self.poses) if stamp_ns(m) == stamp), None)
            if found is not None:
                return found
            time.sleep(0.02)
        return None

    def look_around(self, T_map_base: np.ndarray, views: int = 12) -> Any:
        """Shows one place until it is accepted; returns the accepted pose."""
        for i in range(views):
            self.clock_ns += 400_000_000
            stamp = self.descriptor(describe(T_map_base @ mounting(), 0.05, i), self.clock_ns)
            if self.answer(stamp).id:
                pose = self.pose_of(stamp)
                assert pose is not None
                return pose
        raise AssertionError(f"not accepted in {views} views:\n{self.places[-1].results[:3]}")

    def trigger(self, name: str, timeout_s: float = 30) -> tuple[bool, str]:
        """Calls one of the services and returns success and message."""
        from std_srvs.srv import Trigger

        answer = self.client.call(Trigger, f"{NODE}/{name}", Trigger.Request(), timeout_s)
        return answer.success, answer.message

    def status(self, part: str = "") -> tuple[int, str, dict[str, str]]:
        """Returns level, text and values of the node (or of its `map` or `mapping`) from now on."""
        name, after = f"{NODE}: {part}" if part else NODE, time.time_ns()

        def newest() -> Any:
            for message in reversed(self.client.received["/diagnostics"]):
                if stamp_ns(message) < after:
                    return None
                for status in message.status:
                    if status.name == name:
                        values = {v.key: v.value for v in status.values}
                        return int.from_bytes(status.level, "little"), status.message, values
            return None

        return wait_until(newest, 20, f"diagnostics of {name}")

    def counter(self, name: str, part: str = "") -> float:
        """Returns a counter of the newest diagnostics, without waiting."""
        wanted = f"{NODE}: {part}" if part else NODE
        for message in reversed(self.client.received["/diagnostics"]):
            for status in message.status:
                if status.name == wanted:
                    return float({v.key: v.value for v in status.values}.get(name, 0))
        return 0.0

    def reconfigure(self, **parameters: Any) -> None:
        """Takes the node down from whatever state, changes parameters, and brings it up again."""
        client = self.client
        state = wait_until(lambda: client.state(NODE), what="state")
        if state == "active":
            assert client.change_state(NODE, DEACTIVATE)
        if client.state(NODE) == "inactive":
            assert client.change_state(NODE, CLEANUP)
        result = client.set_parameters(NODE, **parameters)
        assert result.successful, result.reason
        assert client.change_state(NODE, CONFIGURE) and client.change_state(NODE, ACTIVATE)

    def stop(self) -> None:
        status = self.process.stop()
        self.client.close()
        assert status == 0, self.process.output
        assert "Traceback" not in self.process.output, self.process.output


def set_pose(message: Any, T: np.ndarray) -> None:
    """Writes a matrix (4, 4) into a geometry_msgs/Pose."""
    q = Rotation.from_matrix(T[:3, :3]).as_quat()
    message.position.x, message.position.y, message.position.z = (float(v) for v in T[:3, 3])
    o = message.orientation
    o.x, o.y, o.z, o.w = (float(v) for v in q)


def matrix(pose: Any) -> np.ndarray:
    """Returns a geometry_msgs/Pose as a matrix (4, 4)."""
    T = np.eye(4)
    o = pose.orientation
    T[:3, :3] = Rotation.from_quat([o.x, o.y, o.z, o.w]).as_matrix()
    T[:3, 3] = pose.position.x, pose.position.y, pose.position.z
    return T
