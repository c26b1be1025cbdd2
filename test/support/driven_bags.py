"""Bags of a simulated robot with what a real one records to label itself: depth, a scan, odometry, tf."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.simulation.drivers import Driver
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.world.renderer import Renderer

IMAGE_STEPS = 5  # of 20 ms


@dataclass
class Truth:
    """What is true of each image, in order."""

    free_m: list[float] = field(default_factory=list)
    speed_m_s: list[float] = field(default_factory=list)
    yaw: list[float] = field(default_factory=list)


def write_drive(
    path: Path,
    simulator: Simulator,
    driver: Driver | Callable[[Simulator], tuple[float, float]],
    images: int,
    depth: str = "32FC1",
    scan: bool = False,
    change: Callable[[int, NDArray[np.float32]], NDArray[np.float32]] = lambda i, metres: metres,
    tf: bool = True,
) -> Truth:
    """Drives and records; returns what is true.

    Args:
        path: of the bag.
        simulator: the robot.
        driver: called for each image.
        images: how many, 0.1 s apart.
        depth: encoding of depth: 32FC1, 16UC1, compressedDepth, or empty for none.
        scan: record a scan.
        change: of the depth of image i.
        tf: record where the camera is.
    """
    renderer, truth = Renderer(simulator.world, simulator.mount.camera), Truth()
    angles = np.linspace(-np.pi, np.pi, 360, endpoint=False)
    with RecordingWriter(path, "mcap") as bag:
        if tf:
            _write_mount(bag, simulator)
        for i in range(images):
            stamp, frame = simulator.now_ns, "camera"
            bag.image("/camera/image_raw", stamp, frame, simulator.image())
            camera = simulator.mount.camera
            size = (camera.height, camera.width)
            bag.camera_info("/camera/camera_info", stamp, frame, size, camera.k)
            metres = change(i, renderer.truth(simulator.T_map_camera)[1])
            _write_depth(bag, stamp, frame, metres, depth)
            if scan:
                _write_scan(bag, stamp, simulator, angles)
            _write_odometry(bag, simulator)
            truth.free_m.append(simulator.free_ahead())
            truth.speed_m_s.append(simulator.motion.speed_m_s)
            truth.yaw.append(simulator.motion.yaw)
            simulator.command(*driver(simulator))
            for step in range(IMAGE_STEPS):
                simulator.step()
                if step < IMAGE_STEPS - 1:
                    _write_odometry(bag, simulator)
    return truth


def _write_depth(
    bag: RecordingWriter, stamp: int, frame: str, metres: NDArray[np.float32], depth: str
) -> None:
    if depth == "32FC1":
        found = np.where(metres > 0, metres, np.nan).astype(np.float32)
        bag.image("/camera/depth/image_raw", stamp, frame, found, "32FC1")
    elif depth:
        millimetres = np.clip(np.nan_to_num(metres) * 1000, 0, 65535).astype(np.uint16)
        if depth == "16UC1":
            bag.image("/camera/depth/image_raw", stamp, frame, millimetres, "16UC1")
        else:
            png = cv2.imencode(".png", millimetres)[1].tobytes()
            topic = "/camera/depth/image_raw/compressedDepth"
            bag.compressed_image(topic, stamp, frame, bytes(12) + png, "16UC1; compressedDepth png")


def _write_mount(bag: RecordingWriter, simulator: Simulator) -> None:
    T, t = simulator.T_base_camera, bag.types
    x, y, z, w = (float(v) for v in xyzw_from_matrix(T[:3, :3]))
    link = t["geometry_msgs/msg/TransformStamped"](
        bag.header(simulator.now_ns, "base_link"),
        "camera",
        t["geometry_msgs/msg/Transform"](
            t["geometry_msgs/msg/Vector3"](*(float(v) for v in T[:3, 3])),
            t["geometry_msgs/msg/Quaternion"](x, y, z, w),
        ),
    )
    bag.write("/tf_static", simulator.now_ns, t["tf2_msgs/msg/TFMessage"]([link]))


def _write_scan(
    bag: RecordingWriter, stamp: int, simulator: Simulator, angles: NDArray[np.float64]
) -> None:
    ranges = simulator.scan(angles, 10.0).astype(np.float32)
    ranges[ranges >= 10.0] = np.inf
    bag.write(
        "/scan",
        stamp,
        bag.types["sensor_msgs/msg/LaserScan"](
            bag.header(stamp, "base_link"),
            float(angles[0]),
            float(angles[-1]),
            float(angles[1] - angles[0]),
            0.0,
            0.1,
            0.0,
            10.0,
            ranges,
            np.zeros(0, np.float32),
        ),
    )


def _write_odometry(bag: RecordingWriter, simulator: Simulator) -> None:
    m, t, stamp = simulator.odometry.motion, bag.types, simulator.now_ns
    turn = t["geometry_msgs/msg/Quaternion"](
        0.0, 0.0, float(np.sin(m.yaw / 2)), float(np.cos(m.yaw / 2))
    )
    pose: Any = t["geometry_msgs/msg/Pose"](
        t["geometry_msgs/msg/Point"](float(m.x), float(m.y), 0.0), turn
    )
    zero = t["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    twist = t["geometry_msgs/msg/Twist"](zero, zero)
    message = t["nav_msgs/msg/Odometry"](
        bag.header(stamp, "odom"),
        "base_link",
        t["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
        t["geometry_msgs/msg/TwistWithCovariance"](twist, np.zeros(36)),
    )
    bag.write("/odom", stamp, message)
