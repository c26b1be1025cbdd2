"""What the simulator publishes: sensors, frames, and what referees want to know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped, PoseStamped, TransformStamped
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, LaserScan
from std_msgs.msg import Float64, Header
from tf2_msgs.msg import TFMessage

from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.messages.making import rclpy_maker, set_pixels
from robot_vision.messages.sensors import camera_info_writer, scan_writer
from robot_vision.messages.stamps import set_stamp
from robot_vision.ros.node import qos
from robot_vision.ros.simulation.parameters import SimulatorParameters
from robot_vision.simulation.robot import Motion
from robot_vision.simulation.simulator import Event, Simulator


class Outputs:
    """Publishers of a running simulator.

    Args:
        node: owns them; its `tf` broadcasts.
        p: its parameters.
        simulator: whose state is published.
    """

    def __init__(self, node: Any, p: SimulatorParameters, simulator: Simulator) -> None:
        self._node, self._p, self._simulator = node, p, simulator
        profile = qos.profile(p.publish_reliability, p.publish_depth)
        self._made: list[Any] = []

        def publisher(kind: Any, topic: str, quality: Any = profile) -> Any:
            events = qos.publisher_events(topic, node._on_incompatible_qos)
            made = node.create_publisher(kind, topic, quality, event_callbacks=events)
            self._made.append(made)
            return made

        self._clock = publisher(Clock, "/clock", qos.profile("reliable", 10))
        # By whether they look back. The first one's last: a driver in lock-step answers its image.
        cameras = [(True, "rear", p.rear_camera_frame)] if p.rear_camera else []
        self._cameras = {
            back: (
                frame,
                publisher(Image, f"{name}/image_raw"),
                publisher(CameraInfo, f"{name}/camera_info"),
            )
            for back, name, frame in (*cameras, (False, "camera", p.camera_frame))
        }
        self._scan = publisher(LaserScan, "scan")
        # Faster than real time, many messages wait for a reader on a busy machine.
        many = qos.profile(p.publish_reliability, 2000)
        self._odometry = publisher(Odometry, "odom", many)
        self._truth = publisher(Odometry, "ground_truth/odom", many)
        latched = qos.profile("reliable", 1, latched=True)
        self._static = publisher(TFMessage, "/tf_static", latched)
        # A referee that comes late still sees what happened.
        events = qos.profile("reliable", 100, latched=True)
        self._collision = publisher(PointStamped, "~/collision", events)
        self._reset = publisher(PoseStamped, "~/reset_pose", events)
        self._distance = publisher(Float64, "~/distance")
        self._write_info = camera_info_writer(rclpy_maker)
        self._write_scan = scan_writer(rclpy_maker)
        c = simulator.mount.camera
        self._lens = Intrinsics(c.width, c.height, c.k, np.zeros(0))
        self._k = c.k
        self._angles = np.linspace(-math.pi, math.pi, p.scan_rays, endpoint=False)

    def destroy(self) -> None:
        """Ends the publishers."""
        for publisher in self._made:
            self._node.destroy_publisher(publisher)
        self._made = []

    def frames(self) -> None:
        """Says once where the cameras are on the robot."""
        found = []
        for back, (frame, *_) in self._cameras.items():
            T = self._simulator.T_base_rear if back else self._simulator.T_base_camera
            message = TransformStamped(header=self._header(self._p.base_frame))
            message.child_frame_id = frame
            t, q = message.transform.translation, message.transform.rotation
            t.x, t.y, t.z = (float(v) for v in T[:3, 3])
            q.x, q.y, q.z, q.w = (float(v) for v in xyzw_from_matrix(T[:3, :3]))
            found.append(message)
        self._static.publish(TFMessage(transforms=found))

    def clock(self) -> None:
        """Publishes the time."""
        message = Clock()
        set_stamp(message.clock, self._simulator.now_ns)
        self._clock.publish(message)

    def motion(self) -> None:
        """Publishes odometry, its transform and the true pose."""
        p, simulator = self._p, self._simulator
        odometry = simulator.odometry
        along, yaw = odometry.variances()
        self._odometry.publish(self._message(p.odom_frame, odometry.motion, along, yaw))
        self._truth.publish(self._message(p.map_frame, simulator.motion, 0.0, 0.0))
        if self._p.publish_tf and self._node.tf is not None:
            message = TransformStamped(header=self._header(p.odom_frame))
            message.child_frame_id = p.base_frame
            m, t, q = odometry.motion, message.transform.translation, message.transform.rotation
            t.x, t.y = m.x, m.y
            q.z, q.w = math.sin(m.yaw / 2), math.cos(m.yaw / 2)
            self._node.tf.send(message, "odometry")

    def are_images_watched(self) -> bool:
        """Says whether anybody subscribes to the images."""
        return bool(self._cameras[False][1].get_subscription_count())

    def readers(self) -> int:
        """Returns how many subscriptions the topics have together."""
        return sum(publisher.get_subscription_count() for publisher in self._made)

    def sensors(self) -> None:
        """Publishes an image, its calibration, a scan and how far the robot has driven."""
        p, simulator = self._p, self._simulator
        header = self._header(p.camera_frame)
        self._distance.publish(Float64(data=simulator.way_m))
        if self._scan.get_subscription_count():
            ranges = simulator.scan(self._angles, p.scan_range_m).astype(np.float32)
            step = 2 * math.pi / p.scan_rays
            self._scan.publish(
                self._write_scan(header, p.base_frame, ranges, -math.pi, step, 0.0, p.scan_range_m)
            )
        # Last, since a driver in lock-step answers it; and rendered also for nobody, or the noise of
        # later images would depend on who came when.
        for back, (frame, images, infos) in self._cameras.items():
            header = self._header(frame)
            infos.publish(self._write_info(header, self._lens, self._k, self._k_size))
            image = Image(header=header)
            set_pixels(image, simulator.image(back), "rgb8")
            images.publish(image)

    @property
    def _k_size(self) -> tuple[int, int]:
        return self._lens.height, self._lens.width

    def event(self, event: Event) -> None:
        """Publishes what happened to the robot."""
        m = event.motion
        if event.kind == "collision":
            message = PointStamped(header=self._header(self._p.map_frame))
            message.point.x, message.point.y = m.x, m.y
            self._collision.publish(message)
        else:
            pose = PoseStamped(header=self._header(self._p.map_frame))
            _set_pose(pose.pose, m)
            self._reset.publish(pose)

    def _header(self, frame: str) -> Header:
        header = Header(frame_id=frame)
        set_stamp(header.stamp, self._simulator.now_ns)
        return header

    def _message(self, frame: str, motion: Motion, along: float, yaw: float) -> Odometry:
        message = Odometry(header=self._header(frame), child_frame_id=self._p.base_frame)
        _set_pose(message.pose.pose, motion)
        message.twist.twist.linear.x = motion.speed_m_s
        message.twist.twist.angular.z = motion.turn_rate_rad_s
        covariance = np.zeros(36)
        covariance[[0, 7, 35]] = along, along, yaw
        message.pose.covariance = covariance
        return message


def _set_pose(pose: Any, motion: Motion) -> None:
    pose.position.x, pose.position.y = motion.x, motion.y
    pose.orientation.z, pose.orientation.w = math.sin(motion.yaw / 2), math.cos(motion.yaw / 2)
