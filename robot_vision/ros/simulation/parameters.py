"""The parameters of the simulator node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robot_vision.errors import ConfigError
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.node.managed_parameters import ManagedParameters
from robot_vision.settings.parameters import LIVE, parameter, part
from robot_vision.simulation.robot import STEP_NS, Mount, Robot

if TYPE_CHECKING:
    from robot_vision.simulation.world.world import World

STEPS_A_SECOND = SECOND_NS // STEP_NS
_ROBOT, _MOUNT = Robot(), Mount()


@dataclass(frozen=True)
class SimulatorParameters(ManagedParameters):
    """Settings of the simulator node; each field's text is its documentation."""

    world: str = parameter(
        "random",
        "World in which the robot drives: random is a home of two to six rooms by world_seed, demo "
        "the home that the demo's model knows.",
        choices=("random", "demo"),
    )
    world_seed: int = parameter(0, "Seed of a random world.", low=0, high=2**31 - 1)
    seed: int = parameter(
        0,
        "Seed of the robot's start, the camera's noise and the odometry's errors.",
        low=0,
        high=2**31 - 1,
    )
    walkers: int = parameter(
        0,
        "Number of boxes of a person's size that walk about; they do not run into the robot, which may"
        " run into them.",
        low=0,
        high=20,
    )
    moving_doors: bool = parameter(
        False,
        "Doors slide open and shut by themselves; one whose wall has no room for its leaf stays open.",
    )
    robot_radius_m: float = parameter(
        _ROBOT.radius_m, "Radius of the robot, in metres.", low=0.05, high=2
    )
    robot_height_m: float = parameter(
        _ROBOT.height_m,
        "Height of the robot, in metres; it passes under what hangs higher.",
        low=0.05,
        high=3,
    )
    max_speed_m_s: float = parameter(
        _ROBOT.max_speed_m_s, "Largest speed, forwards and backwards, in m/s.", low=0.01, high=10
    )
    max_turn_rate_rad_s: float = parameter(
        _ROBOT.max_turn_rate_rad_s, "Largest turn rate, in rad/s.", low=0.01, high=20
    )
    max_acceleration_m_s2: float = parameter(
        _ROBOT.max_acceleration_m_s2, "Largest acceleration, also of braking, in m/s^2.", low=0.01, high=50
    )  # fmt: skip
    max_turn_acceleration_rad_s2: float = parameter(
        _ROBOT.max_turn_acceleration_rad_s2,
        "Largest change of the turn rate, in rad/s^2.",
        low=0.01,
        high=200,
    )
    odometry_drift: float = parameter(
        _ROBOT.odometry_drift,
        "Relative error of the odometry's speed and turn rate, drawn once from the seed (standard "
        "deviation).",
        low=0,
        high=0.5,
    )
    odometry_noise: float = parameter(
        _ROBOT.odometry_noise,
        "Random error of the odometry after one metre, in metres, and after one radian, in radians "
        "(standard deviation); it grows with the square root of the way.",
        low=0,
        high=1,
    )
    odometry_slip: float = parameter(
        _ROBOT.odometry_slip,
        "Share of the commanded motion that the wheels turn, and the odometry counts, while an "
        "obstacle holds the robot.",
        low=0,
        high=1,
    )
    camera_height_m: float = parameter(
        _MOUNT.height_m, "Height of the camera above the floor, in metres.", low=0.05, high=2.3
    )
    camera_forward_m: float = parameter(
        _MOUNT.forward_m,
        "Distance of the camera in front of the robot's centre, in metres; not beyond its radius.",
        low=-2,
        high=2,
    )
    camera_pitch_deg: float = parameter(
        _MOUNT.pitch_deg, "Pitch of the camera, in degrees; positive looks up.", low=-80, high=80
    )
    camera_field_deg: float = parameter(
        _MOUNT.field_deg,
        "Field of view from the image's left edge to its right one, in degrees.",
        low=10,
        high=150,
    )
    rear_camera: bool = parameter(
        False,
        "A second camera, mounted as the first one is but looking back: rear/image_raw, rear/camera_info, "
        "and frame rear_camera_frame.",
    )
    image_width: int = parameter(_MOUNT.width, "Width of the images, in pixels.", low=32, high=1920)
    image_height: int = parameter(
        _MOUNT.height, "Height of the images, in pixels.", low=32, high=1440
    )
    image_rate_hz: float = parameter(
        10.0,
        f"Images, and scans, per simulated second, in Hz; {STEPS_A_SECOND} divided by a whole number.",
        low=0.1,
        high=float(STEPS_A_SECOND),
    )
    scan_rays: int = parameter(
        360, "Number of rays of the scan, all around the robot.", low=4, high=3600
    )
    scan_range_m: float = parameter(
        10.0, "Largest range of the scan, in metres.", low=0.1, high=100
    )
    stamped_cmd_vel: bool = parameter(
        True, "Commands are geometry_msgs/TwistStamped; false takes geometry_msgs/Twist."
    )
    cmd_vel_timeout_s: float = parameter(
        0.5,
        "Simulated time without a command after which the robot brakes, in seconds.",
        low=0.02,
        high=60,
        change=LIVE,
    )
    real_time_factor: float = parameter(
        1.0,
        "Simulated seconds per second; 0 is as fast as the machine can. A machine that is too slow "
        "falls behind, and /diagnostics says by how much.",
        low=0,
        high=1000,
        change=LIVE,
    )
    lockstep: bool = parameter(
        False,
        "After each image, wait for a command with its stamp, or a later one, before time goes on: a run "
        "then repeats exactly, however slow the driver is. Needs stamped commands.",
    )
    lockstep_timeout_s: float = parameter(
        2.0,
        "With lockstep: longest wait for a command, in seconds of this machine. Then the robot brakes"
        " and time goes on.",
        low=0.01,
        high=3600,
        change=LIVE,
    )
    reset_after_s: float = parameter(
        0.0,
        "Simulated time for which an obstacle may hold the robot until it is carried to where it has "
        "room, in seconds; 0 leaves it there.",
        low=0,
        high=3600,
        change=LIVE,
    )
    map_frame: str = parameter("map", "Frame of the true poses.")
    odom_frame: str = parameter("odom", "Frame of the odometry.")
    base_frame: str = parameter(
        "base_link", "Frame of the robot: on the floor under its centre, x forwards, z up."
    )
    camera_frame: str = parameter(
        "camera_optical_frame", "Frame of the images: z forwards, x right, y down."
    )
    rear_camera_frame: str = parameter(
        "rear_optical_frame", "Frame of the images of the camera that looks back."
    )
    publish_tf: bool = parameter(
        True, "Broadcast the transform from odom_frame to base_frame on /tf.", change=LIVE
    )

    def __post_init__(self) -> None:
        steps = STEPS_A_SECOND / self.image_rate_hz
        if abs(steps - round(steps)) > 1e-6:
            raise ConfigError(
                f"image_rate_hz is {self.image_rate_hz:g}: set it to {STEPS_A_SECOND} divided by a "
                "whole number, such as 5, 10, 12.5 or 25"
            )
        if self.lockstep and not self.stamped_cmd_vel:
            raise ConfigError(
                "lockstep is true and stamped_cmd_vel is false: a command without a stamp does not "
                "say which image it answers, so set one of them the other way"
            )
        if abs(self.camera_forward_m) > self.robot_radius_m:
            raise ConfigError(
                f"camera_forward_m is {self.camera_forward_m:g}: beyond the robot's radius of "
                f"{self.robot_radius_m:g} m the camera would be inside walls"
            )
        frames = (
            self.map_frame,
            self.odom_frame,
            self.base_frame,
            self.camera_frame,
            self.rear_camera_frame,
        )
        if "" in map(str.strip, frames) or len(set(frames)) < len(frames):
            raise ConfigError(
                f"the frames are {', '.join(map(repr, frames))}: name five, all different"
            )

    @property
    def image_steps(self) -> int:
        """Steps of the motion from one image to the next."""
        return round(STEPS_A_SECOND / self.image_rate_hz)

    def made_world(self) -> World:
        """Returns the world."""
        from robot_vision.simulation.world.home import default_world  # a launch file has no OpenCV
        from robot_vision.simulation.world.homes import random_home

        return default_world() if self.world == "demo" else random_home(self.world_seed)

    def robot(self) -> Robot:
        """Returns the robot's size and limits."""
        return part(self, Robot, "robot_", "")

    def mount(self) -> Mount:
        """Returns the camera's mount."""
        return part(self, Mount, "camera_", "image_")
