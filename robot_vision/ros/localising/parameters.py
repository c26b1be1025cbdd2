"""The parameters of the localiser node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.places.localising.localiser import LocaliserOptions
from robot_vision.ros.gate.parameters import SteeredParameters
from robot_vision.ros.node.managed_parameters import check_mountings
from robot_vision.settings.parameters import LIVE, parameter

_OPTIONS = LocaliserOptions()


@dataclass(frozen=True)
class LocaliserParameters(SteeredParameters):
    """Settings of the localiser node; each field's text is its documentation."""

    map: str = parameter("", "Place map, as the place node's; the node does not run without.")
    places_topic: str = parameter(
        "places/places", "Topic of the place node's places; it runs with verify:=true."
    )
    odometry_topic: str = parameter("odom", "Topic of the odometry, nav_msgs/Odometry.")
    camera_to_base: tuple[float, ...] = parameter(
        (),
        "Pose of the camera's optical frame in the odometry's child frame, as in a URDF: x y z (m) roll "
        "pitch yaw (rad). Empty looks it up on /tf_static, and the robot stands until it is there.",
        low=-1e6,
        high=1e6,
    )
    descriptor_topic: str = parameter(
        "perception/camera/descriptor",
        "Topic of the descriptors that the place node reads, sensor_msgs/Image, whose header names the "
        "camera's frame; read where camera_to_base is empty.",
    )
    turn_rad_s: float = parameter(
        _OPTIONS.turn_rad_s, "Turn rate, in rad/s.", low=0.01, high=10, change=LIVE
    )
    drive_m: float = parameter(
        _OPTIONS.drive_m,
        "Way to the next place where it looks round, in metres; 0 only turns, and reads no steering.",
        low=0,
        high=100,
    )
    speed_m_s: float = parameter(0.3, "Largest speed on that way, in m/s.", low=0.01, high=10)
    max_age_s: float = parameter(
        1.0, "Age of places, odometry or steering from which the robot stands, in seconds.", low=0.01, high=60
    )  # fmt: skip
    limit_s: float = parameter(
        60.0, "Time after which it gives up, in seconds.", low=0.1, high=3600, change=LIVE
    )

    def __post_init__(self) -> None:
        self.check_camera()
        check_mountings(self.camera_to_base)

    def reflex(self) -> tuple[str, str] | None:
        """Returns the topics of steering and collision; None for a robot that only turns."""
        if self.drive_m == 0:
            return None
        return self.answer_topic("steering"), self.answer_topic("collision")
