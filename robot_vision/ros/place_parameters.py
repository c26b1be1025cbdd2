"""The parameters of the place node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.intrinsics import KINDS
from robot_vision.places.keyframe_policy import KeyframePolicy
from robot_vision.places.recogniser_options import RecogniserOptions
from robot_vision.ros.managed_parameters import (
    ManagedParameters,
    check_camera_name,
    check_mountings,
)
from robot_vision.ros.parameters import LIVE, NEVER, parameter

POSE_SOURCES = ("none", "odometry", "pose", "pose_with_covariance", "tf")
DEFAULT_POSE_TOPICS = {"odometry": "odom", "pose": "pose", "pose_with_covariance": "pose"}


@dataclass(frozen=True)
class PlaceParameters(ManagedParameters):
    """Settings of the place node; each field's text is its documentation."""

    map: str = parameter(
        "",
        "Place map: a file, or postgresql://user@host/database?map=NAME. One that is not there is made by "
        "the first keyframe. Empty keeps the session's keyframes for loop closures only.",
    )
    model: str = parameter(
        "",
        "Model bundle that makes the descriptors: a directory or a name. Empty asks the perception node.",
    )
    autostart: bool = parameter(
        True,
        "Configure and activate without a lifecycle manager, and try again while the map cannot be opened.",
        change=NEVER,
    )
    retry_period_s: float = parameter(
        5.0,
        "Seconds between two attempts to open a map, or to write to one that was full or locked.",
        low=0.1,
        high=3600,
        change=LIVE,
    )
    camera: str = parameter("camera", "Name of the camera, kept with each keyframe.")
    descriptor_topic: str = parameter(
        "",
        "sensor_msgs/Image of one row, as the perception node publishes it; empty is "
        "perception/<camera>/descriptor in the node's namespace.",
    )
    vision_info_topic: str = parameter(
        "",
        "vision_msgs/VisionInfo that names the model; empty is vision_info of the node that publishes the "
        "descriptors.",
    )
    verify: bool = parameter(
        False,
        "Check the best places with local features of the image, which refines the pose. Needs images and "
        "camera info, and a map that was built with structure. What cannot be checked is not accepted.",
    )
    thumbnails: bool = parameter(
        False, "Keep a small picture with each new keyframe. Needs images."
    )
    image_topic: str = parameter(
        "", "Image topic for verify and thumbnails; empty is <camera>/image_raw in the namespace."
    )
    camera_info_topic: str = parameter(
        "", "sensor_msgs/CameraInfo for verify; empty is camera_info beside the image topic."
    )
    image_kind: str = parameter(
        "auto",
        "Whether the camera info's K and distortion hold for the images (raw), or its P (rectified). auto "
        "takes a topic with the word rect, rectified or undistorted in its name for rectified.",
        choices=KINDS,
    )
    transport: str = parameter(
        "raw",
        "raw subscribes sensor_msgs/Image; compressed subscribes sensor_msgs/CompressedImage on the "
        "image topic with /compressed added, or on the image topic itself where that is published as such.",
        choices=("raw", "compressed"),
    )
    pose_source: str = parameter(
        "none",
        "Where the robot's motion comes from: odometry (nav_msgs/Odometry), pose (geometry_msgs/PoseStamped) "
        "or pose_with_covariance in the map frame, tf from the map frame, or none, with which nothing can be "
        "mapped.",
        choices=POSE_SOURCES,
    )
    pose_topic: str = parameter(
        "", "Topic of the poses; empty is odom for odometry and pose for poses, in the namespace."
    )
    map_frame: str = parameter("map", "Frame of a map that is made; one that is there has its own.")
    base_frame: str = parameter(
        "",
        "Frame of the robot that the poses on ~/pose and initialpose are of, such as base_link; empty is "
        "the camera. Needed to relocalise.",
    )
    camera_to_base: tuple[float, ...] = parameter(
        (),
        "Pose of the camera's optical frame in base_frame (of an odometry: in its child frame), as a URDF "
        "gives it: x y z (m) roll pitch yaw (rad). Empty looks it up on /tf_static.",
        low=-1e6,
        high=1e6,
    )
    sync_tolerance_s: float = parameter(
        0.1,
        "A pose counts for an image if it is at most this much older or newer. Between poses that come as "
        "often as usual, however slowly, it is interpolated.",
        low=0.0,
        high=10,
        change=LIVE,
    )
    sync_wait_s: float = parameter(
        0.2,
        "How long a descriptor waits for a pose of its time.",
        low=0.0,
        high=10,
        change=LIVE,
    )
    max_rate_hz: float = parameter(
        0.0, "Descriptors a second at most; 0 is unlimited.", low=0, high=1000, change=LIVE
    )
    top_k: int = parameter(
        5, "Places in a message of ~/places, most probable first.", low=1, high=100, change=LIVE
    )
    accept_probability: float = parameter(
        RecogniserOptions.accept_probability,
        "A place is accepted from this probability on, and then published on ~/pose.",
        low=0.0,
        high=1.0,
        change=LIVE,
    )
    sequence: bool = parameter(
        RecogniserOptions.sequence,
        "Use the sequence of images (a Bayes filter over places); false takes each by itself.",
    )
    place_radius_m: float = parameter(
        RecogniserOptions.radius_m,
        "Keyframes so near to each other that look the same way are one place.",
        low=0.001,
        high=10000,
    )
    max_speed_m_s: float = parameter(
        RecogniserOptions.max_speed_m_s,
        "Speed of the camera at most, where there is no odometry; 0 learns it from the map.",
        low=0.0,
        high=1000,
    )
    mapping: bool = parameter(
        False,
        "Add keyframes from the start; ~/start_mapping and ~/stop_mapping change it.",
        change=LIVE,
    )
    source: str = parameter(
        "",
        "Name of the run or robot in new keyframes; empty is the host's name and the time of the start.",
    )
    keyframe_distance_m: float = parameter(
        KeyframePolicy.distance_m,
        "A keyframe is added after so many metres, ...",
        low=0.001,
        high=1000,
        change=LIVE,
    )
    keyframe_angle_deg: float = parameter(
        KeyframePolicy.angle_deg, "... so much turning, ...", low=0.1, high=180, change=LIVE
    )
    keyframe_similarity: float = parameter(
        KeyframePolicy.similarity,
        "... or when the descriptor's similarity to the last keyframe's falls below this and the camera "
        "moved; 0 leaves it out.",
        low=0,
        high=1,
        change=LIVE,
    )
    keyframe_revisits: bool = parameter(
        KeyframePolicy.revisits,
        "Also take views that an earlier keyframe of this run shows already.",
        change=LIVE,
    )
    loop_closure: bool = parameter(
        True, "Compare with the running session's own keyframes and publish ~/loop_closure."
    )
    loop_min_probability: float = parameter(
        0.9, "Loop closures need at least this probability.", low=0.0, high=1.0, change=LIVE
    )
    loop_exclude_s: float = parameter(
        20.0,
        "Keyframes of the last seconds are no loop closure, ...",
        low=0.0,
        high=86400,
        change=LIVE,
    )
    loop_exclude_m: float = parameter(
        5.0, "... nor those of the last metres of the way.", low=0.0, high=1e6, change=LIVE
    )
    snapshot_folder: str = parameter(
        "", "Where ~/save_snapshot writes; empty is beside the map.", change=LIVE
    )
    initialpose_topic: str = parameter(
        "initialpose", "Where ~/relocalise publishes, for AMCL, Nav2 and slam_toolbox."
    )
    relocalise_timeout_s: float = parameter(
        10.0,
        "~/relocalise gives up after so many seconds without an accepted match.",
        low=0.1,
        high=600,
        change=LIVE,
    )
    pose_covariance_scale: float = parameter(
        1.0, "Covariances are multiplied by it.", low=1e-6, high=1e6, change=LIVE
    )
    signed_covariance: bool = parameter(
        False,
        "Publish negative covariances on ~/pose as they are. initialpose never has any: AMCL refuses them.",
        change=LIVE,
    )
    subscribe_depth: int = parameter(5, "QoS history of the subscriptions.", low=1, high=100)
    stale_after_s: float = parameter(
        2.0,
        "Descriptors or poses that did not come for so long are reported as stopped.",
        low=0.1,
        high=3600,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        check_camera_name("camera is", self.camera)
        if len(self.camera_to_base) not in (0, 6):
            raise ConfigError(
                f"camera_to_base has {len(self.camera_to_base)} numbers: give six, or leave it empty"
            )
        check_mountings(self.camera_to_base)
        if not self.map_frame.strip():
            raise ConfigError("map_frame is empty: set it to a frame, such as map")

    @property
    def descriptors(self) -> str:
        """Topic of the descriptors."""
        return self.descriptor_topic or f"perception/{self.camera}/descriptor"

    @property
    def vision_info(self) -> str:
        """Topic of the model's name."""
        return self.vision_info_topic or _sibling(self.descriptors, "vision_info", up=2)

    @property
    def images(self) -> str:
        """Topic of the images."""
        return self.image_topic or f"{self.camera}/image_raw"

    @property
    def camera_info(self) -> str:
        """Topic of the camera's intrinsics."""
        if self.camera_info_topic:
            return self.camera_info_topic
        return _sibling(self.images.removesuffix("/compressed"), "camera_info", up=1)

    @property
    def poses(self) -> str:
        """Topic of the robot's motion; empty if it is not a topic of its own."""
        if self.pose_source not in DEFAULT_POSE_TOPICS:
            return ""
        return self.pose_topic or DEFAULT_POSE_TOPICS[self.pose_source]

    @property
    def wants_images(self) -> bool:
        """Whether anything is done with images."""
        return self.verify or self.thumbnails

    @property
    def recogniser(self) -> RecogniserOptions:
        """How places are recognised."""
        return RecogniserOptions(
            top_k=max(self.top_k, RecogniserOptions.top_k),
            radius_m=self.place_radius_m,
            accept_probability=self.accept_probability,
            sequence=self.sequence,
            max_speed_m_s=self.max_speed_m_s,
        )

    @property
    def keyframes(self) -> KeyframePolicy:
        """Which views become keyframes."""
        return KeyframePolicy(
            self.keyframe_distance_m,
            self.keyframe_angle_deg,
            self.keyframe_similarity,
            self.keyframe_revisits,
        )


def _sibling(topic: str, name: str, up: int) -> str:
    """Replaces the last `up` parts of a topic by a name; a topic that is too short becomes the name."""
    parts = topic.split("/")
    return "/".join([*parts[: max(len(parts) - up, 1 if topic.startswith("/") else 0)], name])


YAML_HEADING = """Parameters of the place node, all at their defaults.
Written by: python -m robot_vision.ros.place_parameters > config/places.yaml"""


def main() -> None:
    """Prints the YAML file."""
    from robot_vision.ros.parameters import yaml_text

    print(yaml_text(PlaceParameters, YAML_HEADING), end="")


if __name__ == "__main__":
    main()
