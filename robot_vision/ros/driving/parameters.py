"""The parameters of the driver node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from robot_vision.driving.law import FREE_DISTANCE, LAWS, LawSettings
from robot_vision.errors import ConfigError
from robot_vision.ros.gate.parameters import CommandParameters
from robot_vision.ros.node.managed_parameters import check_camera_name
from robot_vision.settings.parameters import LIVE, parameter

_LAW = LawSettings()


@dataclass(frozen=True)
class DriverParameters(CommandParameters):
    """Settings of the driver node; each field's text is its documentation."""

    perception_node: str = parameter(
        "perception",
        "Name of the perception node, from which the topics are built; a name without a leading / is "
        "in the driver node's namespace.",
    )
    camera: str = parameter("camera", "Name of the camera that steers, as in the perception node.")
    law: str = parameter(
        _LAW.law,
        "dronet lets the speed fall with the probability of a collision; free_distance keeps it to what "
        "the robot can brake from within the free distance, and needs distance_topic.",
        choices=LAWS,
    )
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
    max_age_s: float = parameter(
        0.5,
        "Age of an answer from which the robot stops, in seconds; of a belief at least 1.5.",
        low=0.01,
        high=60,
    )
    max_ahead_s: float = parameter(
        0.1,
        "By how much a stamp may be ahead of the node's clock, in seconds.",
        low=0,
        high=60,
        change=LIVE,
    )
    max_speed_m_s: float = parameter(
        _LAW.max_speed_m_s, "Largest speed, in m/s.", low=0.01, high=10, change=LIVE
    )
    max_turn_rad_s: float = parameter(
        _LAW.max_turn_rad_s,
        "Turn rate for a steering of 1, and on the spot, in rad/s.",
        low=0.01,
        high=20,
        change=LIVE,
    )
    speed_filter_s: float = parameter(
        _LAW.speed_filter_s,
        "Time constant of the speed's low-pass filter, in seconds; 0 does not filter.",
        low=0,
        high=10,
        change=LIVE,
    )
    turn_filter_s: float = parameter(
        _LAW.turn_filter_s,
        "Time constant of the turn's low-pass filter, in seconds; 0 does not filter.",
        low=0,
        high=10,
        change=LIVE,
    )
    blocked_above: float = parameter(
        _LAW.blocked_above,
        "Probability of a collision above which the robot stands and turns to one side; 1 never does.",
        low=0,
        high=1,
        change=LIVE,
    )
    free_below: float = parameter(
        _LAW.free_below,
        "Probability of a collision down to which it turns on, to the same side.",
        low=0,
        high=1,
        change=LIVE,
    )
    deceleration_m_s2: float = parameter(
        _LAW.deceleration_m_s2, "With which the robot brakes, in m/s^2.", low=0.01, high=50, change=LIVE
    )  # fmt: skip
    reaction_s: float = parameter(
        _LAW.reaction_s,
        "Time from an image to the wheels' reaction, in seconds.",
        low=0,
        high=10,
        change=LIVE,
    )
    stop_distance_m: float = parameter(
        _LAW.stop_distance_m,
        "Free distance at which the robot stands and turns, in metres.",
        low=0,
        high=100,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        check_camera_name("camera is", self.camera)
        if self.law == FREE_DISTANCE and not self.distance_topic:
            raise ConfigError(
                "law is free_distance: set distance_topic, such as "
                f"{self.perception_node}/{self.camera}/obstacle_near"
            )
        if self.free_below > self.blocked_above:
            raise ConfigError(
                f"free_below is {self.free_below:g} and blocked_above {self.blocked_above:g}: set "
                "free_below to at most that"
            )

    def answer_topic(self, name: str) -> str:
        """Returns the topic of one of the camera's answers."""
        return f"{self.perception_node}/{self.camera}/{name}"

    def law_settings(self) -> LawSettings:
        """Returns the settings of the law."""
        return LawSettings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(_LAW)})


if __name__ == "__main__":
    from robot_vision.ros.node.parameters import yaml_text

    print(yaml_text(DriverParameters, "driver", "driving"), end="")
