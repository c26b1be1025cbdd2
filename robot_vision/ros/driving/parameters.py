"""The parameters of the driver node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.driving.law import FREE_DISTANCE, LawSettings
from robot_vision.errors import ConfigError
from robot_vision.ros.gate.parameters import SteeredParameters
from robot_vision.settings.parameters import parameter


@dataclass(frozen=True)
class DriverParameters(LawSettings, SteeredParameters):
    """Settings of the driver node; each field's text is its documentation."""

    distance_topic: str = parameter(
        "",
        "Topic of the free distance straight ahead, sensor_msgs/Range, such as the depth head's "
        "perception/camera/obstacle_near; with either law the robot keeps to its braking distance. Empty: "
        "none.",
    )
    classification_topic: str = parameter(
        "", "Topic of classes, of which unknown stops the robot. Empty: none."
    )
    belief_topic: str = parameter(
        "",
        "Topic of the filter node's belief, such as filters/belief, of which contradicted stops the "
        "robot. Empty: none.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_camera()
        if self.law == FREE_DISTANCE and not self.distance_topic:
            raise ConfigError(
                "law is free_distance: set distance_topic, such as "
                f"{self.answer_topic('obstacle_near')}"
            )
