"""The parameters of the repeat node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_vision.driving.following import SURE_M, FollowSettings
from robot_vision.driving.route import Route
from robot_vision.errors import ConfigError
from robot_vision.ros.gate.parameters import CommandParameters
from robot_vision.settings.parameters import LIVE, parameter

_FOLLOW = FollowSettings()


@dataclass(frozen=True)
class RepeatParameters(CommandParameters):
    """Settings of the repeat node; each field's text is its documentation."""

    route: str = parameter(
        "", "Route that `robot-vision teach` made: its folder, or its route.json; needed."
    )
    backwards: bool = parameter(
        False,
        "Drive from the end of the route to its beginning in reverse, at 0.15 m/s at most. Nothing sees what "
        "is behind the robot: collision_topic is not read.",
    )
    pose_topic: str = parameter(
        "filters/pose",
        "Topic of the pose of the route's base frame in the route's frame, PoseWithCovarianceStamped.",
    )
    belief_topic: str = parameter(
        "filters/belief", "Topic of the filter node's belief; the robot stands while it is lost."
    )
    camera_topic: str = parameter(
        "perception/camera/descriptor",
        "Topic of the descriptors, sensor_msgs/Image: without them the robot is blind, and stands.",
    )
    collision_topic: str = parameter(
        "",
        "Topic of the probability of a collision, such as reflex/camera/collision: it slows the robot and "
        "stops it. Empty: none.",
    )
    localise_service: str = parameter(
        "",
        "Service of the localiser node, such as localiser/localise, that is called when the robot has been "
        "lost for two seconds; that node commands it meanwhile. Empty: the robot stands.",
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
        _FOLLOW.max_speed_m_s, "Largest speed, in m/s.", low=0.01, high=10, change=LIVE
    )
    max_turn_rad_s: float = parameter(
        _FOLLOW.max_turn_rad_s, "Largest turn rate, in rad/s.", low=0.01, high=20, change=LIVE
    )
    lookahead_m: float = parameter(
        _FOLLOW.lookahead_m,
        "How far ahead on the route the robot goes to where the route is straight, in metres.",
        low=0.05,
        high=10,
        change=LIVE,
    )
    deceleration_m_s2: float = parameter(
        _FOLLOW.deceleration_m_s2, "With which the robot brakes at the end, in m/s^2.",
        low=0.01, high=50, change=LIVE,
    )  # fmt: skip
    arrived_m: float = parameter(
        _FOLLOW.arrived_m,
        "How much of the route may be left where the robot has arrived, in metres.",
        low=0.01,
        high=10,
        change=LIVE,
    )
    off_route_m: float = parameter(
        _FOLLOW.off_route_m,
        "Distance from the route at which the robot stands, in metres.",
        low=0.05,
        high=100,
        change=LIVE,
    )
    blocked_above: float = parameter(
        _FOLLOW.blocked_above,
        "Probability of a collision above which the robot drives no farther; 1 never stops it.",
        low=0,
        high=1,
        change=LIVE,
    )
    free_below: float = parameter(
        _FOLLOW.free_below,
        "Probability of a collision down to which it stands then.",
        low=0,
        high=1,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        if self.free_below > self.blocked_above:
            raise ConfigError(
                f"free_below is {self.free_below:g} and blocked_above {self.blocked_above:g}: set "
                "free_below to at most that"
            )

    def follow_settings(self) -> FollowSettings:
        """Returns the settings of the law."""
        return FollowSettings(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(_FOLLOW)}
        )


def localising_parameters(
    route: Route, folder: Path, model: str, images: str, odometry: str, rate_hz: float
) -> dict[str, dict[str, Any]]:
    """Returns those of the nodes that say where on a route the robot is, by node.

    Args:
        route: to repeat.
        folder: that holds it and its map.
        model: that made the map.
        images: their topic.
        odometry: its topic.
        rate_hz: at which images are compared with the map, at most.
    """
    return {
        "perception": {"model": model, "image_topics": [images]},
        "places": {
            "map": str((folder / route.map).absolute()),
            "model": model,
            "verify": True,
            "image_topic": images,
            "pose_source": "odometry",
            "pose_topic": odometry,
            "base_frame": route.base_frame,
            "max_rate_hz": rate_hz,
        },
        "filters": {
            "filter_classes": False,
            "pose_topics": ["places/pose"],
            "map_frame": route.frame_id,
            "base_frame": route.base_frame,
            "odometry_topic": odometry,
            "localised_m": SURE_M,
        },
    }


if __name__ == "__main__":
    from robot_vision.ros.node.parameters import yaml_text

    print(yaml_text(RepeatParameters, "repeat", "repeating"), end="")
