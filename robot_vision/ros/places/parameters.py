"""The parameters of the place node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import KINDS, info_topic
from robot_vision.places.map.keyframe_policy import KeyframePolicy
from robot_vision.places.recognition.options import RecogniserOptions
from robot_vision.ros.node.managed_parameters import (
    ManagedParameters,
    check_camera_name,
    check_mountings,
)
from robot_vision.settings.parameters import LIVE, NEVER, parameter, part

POSE_SOURCES = ("none", "odometry", "pose", "pose_with_covariance", "tf")
DEFAULT_POSE_TOPICS = {"odometry": "odom", "pose": "pose", "pose_with_covariance": "pose"}
NO_POSES = "pose_source is none: set it to odometry, pose or tf, since a keyframe needs a pose"


@dataclass(frozen=True)
class PlaceParameters(ManagedParameters):
    """Settings of the place node; each field's text is its documentation."""

    map: str = parameter(
        "",
        "Place map: a file, or postgresql://user@host/database?map=NAME. If it does not exist, the "
        "first keyframe creates it. Empty keeps the keyframes of this session only, for loop "
        "closures.",
    )
    model: str = parameter(
        "",
        "Model bundle that computes the descriptors: a directory or a name. Empty asks the "
        "perception node.",
    )
    autostart: bool = parameter(
        True,
        "Configure and activate the node without a lifecycle manager, and retry while the map "
        "cannot be opened.",
        change=NEVER,
    )
    retry_period_s: float = parameter(
        5.0,
        "Time between two attempts to open a map, or to write to one that was full or locked, in "
        "seconds.",
        low=0.1,
        high=3600,
        change=LIVE,
    )
    camera: str = parameter("camera", "Name of the camera, stored with each keyframe.")
    descriptor_topic: str = parameter(
        "",
        "Topic of the descriptors, sensor_msgs/Image of one row, as the perception node publishes "
        "them; empty is perception/<camera>/descriptor in the node's namespace.",
    )
    vision_info_topic: str = parameter(
        "",
        "Topic of the vision_msgs/VisionInfo that names the model; empty is vision_info of the node"
        " that publishes the descriptors.",
    )
    verify: bool = parameter(
        False,
        "Check the best places with local features of the image, which also refines the pose. Needs"
        " images, camera info and a map that was built with structure. Places that cannot be "
        "checked are not accepted.",
    )
    features: str = parameter(
        "",
        "File of XFeat's graph (robot-vision export --xfeat), whose features verify compares and new "
        "keyframes get; empty is SIFT. The map has to have the same features.",
    )
    thumbnails: bool = parameter(
        False, "Store a small picture with each new keyframe. Needs images."
    )
    image_topic: str = parameter(
        "",
        "Image topic for verify and thumbnails; empty is <camera>/image_raw in the node's "
        "namespace.",
    )
    camera_info_topic: str = parameter(
        "",
        "Topic of the sensor_msgs/CameraInfo for verify; empty is camera_info in the namespace of "
        "the image topic.",
    )
    image_kind: str = parameter(
        "auto",
        "Which calibration of the camera info applies to the images: K and distortion (raw), or P "
        "(rectified). auto takes a topic with the word rect, rectified or undistorted in its name "
        "as rectified.",
        choices=KINDS,
    )
    transport: str = parameter(
        "raw",
        "raw subscribes to sensor_msgs/Image; compressed subscribes to sensor_msgs/CompressedImage "
        "on the image topic with /compressed added, or on the image topic itself where that carries"
        " compressed images.",
        choices=("raw", "compressed"),
    )
    pose_source: str = parameter(
        "none",
        "Where the robot's motion comes from: odometry (nav_msgs/Odometry); pose "
        "(geometry_msgs/PoseStamped) or pose_with_covariance, in the map frame; tf, from the map "
        "frame; or none, without which no map can be built.",
        choices=POSE_SOURCES,
    )
    pose_topic: str = parameter(
        "",
        "Topic of the poses; empty is odom for odometry and pose for poses, in the node's "
        "namespace.",
    )
    map_frame: str = parameter("map", "Frame of a newly created map; an existing map has its own.")
    base_frame: str = parameter(
        "",
        "Frame of the robot whose pose is published on ~/pose and initialpose, such as base_link; "
        "empty is the camera. Needed to relocalise.",
    )
    camera_to_base: tuple[float, ...] = parameter(
        (),
        "Pose of the camera's optical frame in base_frame (for odometry: in its child frame), as in"
        " a URDF: x y z (m) roll pitch yaw (rad). Empty looks it up on /tf_static.",
        low=-1e6,
        high=1e6,
    )
    sync_tolerance_s: float = parameter(
        0.1,
        "Largest difference between the stamps of an image and its pose, in seconds. Between two "
        "poses at their usual interval, however long, the pose is interpolated.",
        low=0.0,
        high=10,
        change=LIVE,
    )
    sync_wait_s: float = parameter(
        0.2,
        "Longest time for which a descriptor waits for the pose of its stamp, in seconds.",
        low=0.0,
        high=10,
        change=LIVE,
    )
    max_rate_hz: float = parameter(
        0.0,
        "Highest rate at which descriptors are processed, in Hz; 0 is unlimited.",
        low=0,
        high=1000,
        change=LIVE,
    )
    top_k: int = parameter(
        5,
        "Number of places in a message on ~/places, most probable first.",
        low=1,
        high=100,
        change=LIVE,
    )
    accept_probability: float = parameter(
        RecogniserOptions.accept_probability,
        "Lowest probability with which a place is accepted and published on ~/pose.",
        low=0.0,
        high=1.0,
        change=LIVE,
    )
    sequence: bool = parameter(
        RecogniserOptions.sequence,
        "Use the sequence of images (a Bayes filter over places); false recognises each image "
        "independently.",
    )
    place_radius_m: float = parameter(
        RecogniserOptions.radius_m,
        "Keyframes within this distance that face the same way are one place, in m.",
        low=0.001,
        high=10000,
    )
    max_speed_m_s: float = parameter(
        RecogniserOptions.max_speed_m_s,
        "Highest speed of the camera where there is no odometry, in m/s; 0 learns it from the map.",
        low=0.0,
        high=1000,
    )
    mapping: bool = parameter(
        False,
        "Add keyframes from the start; ~/start_mapping and ~/stop_mapping switch it later.",
        change=LIVE,
    )
    source: str = parameter(
        "",
        "Name of the run or robot, stored with new keyframes; empty is the host name and the start "
        "time.",
    )
    keyframe_distance_m: float = parameter(
        KeyframePolicy.distance_m,
        "Distance from the last keyframe after which a new one is added, in m.",
        low=0.001,
        high=1000,
        change=LIVE,
    )
    keyframe_angle_deg: float = parameter(
        KeyframePolicy.angle_deg,
        "Turn since the last keyframe after which a new one is added, in degrees.",
        low=0.1,
        high=180,
        change=LIVE,
    )
    keyframe_similarity: float = parameter(
        KeyframePolicy.similarity,
        "A keyframe is added when the camera has moved and its descriptor's similarity to the last "
        "keyframe's falls below this; 0 ignores the similarity.",
        low=0,
        high=1,
        change=LIVE,
    )
    keyframe_revisits: bool = parameter(
        KeyframePolicy.revisits,
        "Also add views that an earlier keyframe of this run already shows.",
        change=LIVE,
    )
    loop_closure: bool = parameter(
        True,
        "Compare new images with the keyframes of the running session and publish ~/loop_closure.",
    )
    loop_min_probability: float = parameter(
        0.9, "Lowest probability of a loop closure.", low=0.0, high=1.0, change=LIVE
    )
    loop_exclude_s: float = parameter(
        20.0,
        "A keyframe is a loop closure only if it is older than this, in seconds.",
        low=0.0,
        high=86400,
        change=LIVE,
    )
    loop_exclude_m: float = parameter(
        5.0,
        "A keyframe is a loop closure only if the robot has travelled further than this since, in "
        "m.",
        low=0.0,
        high=1e6,
        change=LIVE,
    )
    snapshot_folder: str = parameter(
        "", "Folder that ~/save_snapshot writes to; empty is the folder of the map.", change=LIVE
    )
    initialpose_topic: str = parameter(
        "initialpose",
        "Topic on which ~/relocalise publishes the pose, for AMCL, Nav2 and slam_toolbox.",
    )
    relocalise_timeout_s: float = parameter(
        10.0,
        "Time after which ~/relocalise gives up if no place was accepted, in seconds.",
        low=0.1,
        high=600,
        change=LIVE,
    )
    pose_covariance_scale: float = parameter(
        1.0,
        "Factor applied to the covariances of the published poses.",
        low=1e-6,
        high=1e6,
        change=LIVE,
    )
    signed_covariance: bool = parameter(
        False,
        "Publish negative covariances on ~/pose unchanged. initialpose never has any, since AMCL "
        "refuses them.",
        change=LIVE,
    )
    subscribe_depth: int = parameter(
        5, "QoS history of the subscriptions, in messages.", low=1, high=100
    )
    stale_after_s: float = parameter(
        2.0,
        "Time without descriptors or poses after which they are reported as stopped, in seconds.",
        low=0.1,
        high=3600,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        check_camera_name("camera is", self.camera)
        check_mountings(self.camera_to_base)
        if not self.map_frame.strip():
            raise ConfigError("map_frame is empty: set it to a frame, such as map")
        if self.mapping and self.pose_source == "none":
            raise ConfigError(f"mapping is true and {NO_POSES}")
        if self.features and not self.verify:
            raise ConfigError("features has no effect without verify: set verify to true")

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
        return self.camera_info_topic or info_topic(self.images)

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
        return part(self, KeyframePolicy, "keyframe_")


def _sibling(topic: str, name: str, up: int) -> str:
    """Replaces the last `up` parts of a topic by a name; a topic that is too short becomes the name."""
    parts = topic.split("/")
    return "/".join([*parts[: max(len(parts) - up, 1 if topic.startswith("/") else 0)], name])
