"""Drives of a simulated robot as rosbags that have what a real one records: images, depth, a scan, odometry.

Topics: /camera/image_raw, /camera/camera_info, /camera/depth/image_raw (of the images' pixels), /scan, /odom,
and the camera's place on the robot in /tf_static. What is true: /ground_truth/odom, the robot in `map`, and
/ground_truth/room.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.renderer import Renderer

DEPTHS = ("32FC1", "16UC1", "compressedDepth", "")
_CAMERA, _BASE, _DEPTH = "camera_optical_frame", "base_link", "/camera/depth/image_raw"
_REAR = "rear_optical_frame"
_SCAN_M = 10.0


@dataclass
class Truth:
    """What is true at each image of a bag, in order.

    Attributes:
        free_m: how far the robot could go straight ahead, at most 5 m.
        speed_m_s: forwards.
        yaw: radians, to the left.
    """

    free_m: list[float] = field(default_factory=list)
    speed_m_s: list[float] = field(default_factory=list)
    yaw: list[float] = field(default_factory=list)


def write_drive(
    path: Path,
    simulator: Simulator,
    driver: Callable[[Simulator], tuple[float, float]],
    images: int | None = None,
    depth: str = "32FC1",
    scan: bool = False,
    change: Callable[[int, NDArray[np.float32]], NDArray[np.float32]] = lambda i, metres: metres,
    tf: bool = True,
    metres: float = np.inf,
    rear: bool = False,
) -> Truth:
    """Drives and records, with an image each 0.1 s and odometry each 20 ms.

    Args:
        path: of the bag, which is new.
        simulator: the robot.
        driver: returns speed and turn rate; called at each image.
        images: at most; None for all until `metres`.
        depth: its encoding, one of `DEPTHS`; empty for none.
        scan: record a scan.
        change: returns what a real camera makes of the true depth (height, width) of image i; 0 is none.
        tf: record where the camera is.
        metres: way after which the drive ends.
        rear: record the images of a camera that looks back.

    Returns:
        What is true.

    Raises:
        SourceError: the bag exists, or cannot be written.
    """
    assert depth in DEPTHS, depth
    camera, truth = simulator.mount.camera, Truth()
    renderer = Renderer(simulator.world, camera)
    angles = np.linspace(-np.pi, np.pi, 360, endpoint=False)
    with RecordingWriter(path, "mcap") as bag:
        if tf:
            _write_mount(bag, simulator)
        for i in itertools.count():
            if i == images or simulator.way_m >= metres:
                break
            stamp = simulator.now_ns
            room = simulator.world.room_at((simulator.motion.x, simulator.motion.y)).name
            bag.write("/ground_truth/room", stamp, bag.types["std_msgs/msg/String"](room))
            bag.image("/camera/image_raw", stamp, _CAMERA, simulator.image())
            size = (camera.height, camera.width)
            bag.camera_info("/camera/camera_info", stamp, _CAMERA, size, camera.k)
            if rear:
                bag.image("/rear/image_raw", stamp, _REAR, simulator.image(back=True))
            if depth:
                measured = change(i, renderer.truth(simulator.T_map_camera)[1])
                _write_depth(bag, stamp, measured, depth)
            if scan:
                _write_scan(bag, stamp, simulator.scan(angles, _SCAN_M), angles)
            truth.free_m.append(simulator.free_ahead())
            truth.speed_m_s.append(simulator.motion.speed_m_s)
            truth.yaw.append(simulator.motion.yaw)
            simulator.command(*driver(simulator))
            for _ in range(IMAGE_STEPS):
                _write_motion(bag, simulator)
                simulator.step()
        _write_motion(bag, simulator)
    return truth


def _write_depth(bag: RecordingWriter, stamp: int, metres: NDArray[np.float32], depth: str) -> None:
    """Writes distances by REP 118, or their PNG as compressed_depth_image_transport does."""
    if depth == "32FC1":
        found = np.where(metres > 0, metres, np.nan).astype(np.float32)
        bag.image(_DEPTH, stamp, _CAMERA, found, "32FC1")
        return
    millimetres = np.clip(np.rint(metres * 1000), 0, 65535).astype(np.uint16)
    if depth == "16UC1":
        bag.image(_DEPTH, stamp, _CAMERA, millimetres, "16UC1")
        return
    data = bytes(12) + cv2.imencode(".png", millimetres)[1].tobytes()
    bag.compressed_image(
        f"{_DEPTH}/compressedDepth", stamp, _CAMERA, data, "16UC1; compressedDepth png"
    )


def _write_mount(bag: RecordingWriter, simulator: Simulator) -> None:
    T, t = simulator.T_base_camera, bag.types
    place = t["geometry_msgs/msg/Vector3"](*(float(v) for v in T[:3, 3]))
    turn = t["geometry_msgs/msg/Quaternion"](*(float(v) for v in xyzw_from_matrix(T[:3, :3])))
    link = t["geometry_msgs/msg/TransformStamped"](
        bag.header(simulator.now_ns, _BASE),
        _CAMERA,
        t["geometry_msgs/msg/Transform"](place, turn),
    )
    bag.write("/tf_static", simulator.now_ns, t["tf2_msgs/msg/TFMessage"]([link]))


def _write_scan(
    bag: RecordingWriter, stamp: int, ranges: NDArray[np.float64], angles: NDArray[np.float64]
) -> None:
    met = np.where(ranges < _SCAN_M, ranges, np.inf).astype(np.float32)
    message = bag.types["sensor_msgs/msg/LaserScan"](
        header=bag.header(stamp, _BASE),
        angle_min=float(angles[0]),
        angle_max=float(angles[-1]),
        angle_increment=float(angles[1] - angles[0]),
        time_increment=0.0,
        scan_time=0.1,
        range_min=0.0,
        range_max=_SCAN_M,
        ranges=met,
        intensities=np.zeros(0, np.float32),
    )
    bag.write("/scan", stamp, message)


def _write_motion(bag: RecordingWriter, simulator: Simulator) -> None:
    _write_odometry(bag, simulator.now_ns, "/odom", "odom", simulator.odometry.motion)
    _write_odometry(bag, simulator.now_ns, "/ground_truth/odom", "map", simulator.motion)


def _write_odometry(bag: RecordingWriter, stamp: int, topic: str, frame: str, m: Motion) -> None:
    t = bag.types
    half = m.yaw / 2
    pose: Any = t["geometry_msgs/msg/Pose"](
        t["geometry_msgs/msg/Point"](float(m.x), float(m.y), 0.0),
        t["geometry_msgs/msg/Quaternion"](0.0, 0.0, float(np.sin(half)), float(np.cos(half))),
    )
    ahead = t["geometry_msgs/msg/Vector3"](float(m.speed_m_s), 0.0, 0.0)
    turn = t["geometry_msgs/msg/Vector3"](0.0, 0.0, float(m.turn_rate_rad_s))
    message = t["nav_msgs/msg/Odometry"](
        bag.header(stamp, frame),
        _BASE,
        t["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
        t["geometry_msgs/msg/TwistWithCovariance"](
            t["geometry_msgs/msg/Twist"](ahead, turn), np.zeros(36)
        ),
    )
    bag.write(topic, stamp, message)
