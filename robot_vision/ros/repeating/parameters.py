"""The parameters of the repeat node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_vision.driving.following import SURE_M, FollowSettings
from robot_vision.driving.route import Route
from robot_vision.ros.gate.parameters import DrivingParameters
from robot_vision.settings.parameters import parameter


@dataclass(frozen=True)
class RepeatParameters(FollowSettings, DrivingParameters):
    """Settings of the repeat node; each field's text is its documentation."""

    route: str = parameter(
        "", "Route that `robot-vision teach` made: its folder, or its route.json; needed."
    )
    backwards: bool = parameter(
        False,
        "Drive from the end of the route to its beginning in reverse. collision_topic is not read: without "
        "rear_collision_topic nothing sees what is behind the robot, and it drives at 0.15 m/s at most.",
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
    rear_collision_topic: str = parameter(
        "",
        "The same by a camera that looks back, such as reflex/rear/collision; read where backwards is true. "
        "Empty: none.",
    )
    localise_service: str = parameter(
        "",
        "Service of the localiser node, such as localiser/localise, that is called when the robot has been "
        "lost for two seconds; that node commands it meanwhile. Empty: the robot stands.",
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
