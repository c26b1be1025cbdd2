"""The parameters of the filter node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.filters.odometry import OdometryNoise
from robot_vision.filters.pose_filter import PoseFilterSettings
from robot_vision.ros.node.managed_parameters import ManagedParameters, check_camera_names
from robot_vision.settings.parameters import LIVE, parameter, part

ODOMETRY_SOURCES = ("topic", "tf", "none")


@dataclass(frozen=True)
class FilterParameters(ManagedParameters):
    """Settings of the filter node; each field's text is its documentation."""

    perception_node: str = parameter(
        "perception",
        "Name of the perception node, from which the default topic names are built; a name without "
        "a leading / is in the filter node's namespace.",
    )
    cameras: tuple[str, ...] = parameter(
        ("camera",), "Names of the cameras, the same as in the perception node."
    )
    # Classes
    filter_classes: bool = parameter(True, "Filter the classes over time.")
    classification_topics: tuple[str, ...] = parameter(
        ("",),
        "Classification topic of each camera; an empty entry takes the perception node's topic.",
    )
    labels: tuple[str, ...] = parameter(
        (),
        "Classes of the network, in the network's order; empty reads them from the perception "
        "node's label_info.",
    )
    top_k: int = parameter(
        3,
        "Number of classes in a classification, most probable first.",
        low=1,
        high=1000,
        change=LIVE,
    )
    class_dwell_s: float = parameter(
        10.0,
        "Mean time for which the class stays the same, in seconds.",
        low=0.001,
        high=1e9,
        change=LIVE,
    )
    class_rates: tuple[float, ...] = parameter(
        (),
        "Rate of change from each class (row) to each other class (column), in changes per second: "
        "K x K numbers in the order of the labels. It replaces class_dwell_s; the diagonal is "
        "ignored.",
        low=0,
        high=1e6,
    )
    class_prior: tuple[float, ...] = parameter(
        (),
        "Probability of each class before any image is seen, in the order of the labels; 0 for a "
        "class that does not occur. Empty: all equal. ~/prior replaces it.",
        low=0,
        high=1e9,
    )
    training_prior: tuple[float, ...] = parameter(
        (),
        "Number of training images of each class, or their shares, in the order of the labels; the "
        "classifier's probabilities are divided by them. Empty: all equal.",
        low=0,
        high=1e12,
    )
    class_file: str = parameter("", "YAML file with prior, training_prior and rates by class name.")
    class_correlation_s: float = parameter(
        0.3,
        "Time after which the errors of one camera are independent, in seconds: frames closer "
        "together count as one piece of evidence. 0 treats all frames as independent.",
        low=0,
        high=3600,
        change=LIVE,
    )
    class_memory: float = parameter(
        0.15,
        "Weight of earlier images against the newest one: 0 repeats the classifier's answer, 1 lets"
        " the past overrule it.",
        low=0,
        high=1,
        change=LIVE,
    )
    camera_correlation: float = parameter(
        0.5,
        "Correlation of the errors of two cameras at the same time.",
        low=0,
        high=1,
        change=LIVE,
    )
    unknown_prior: float = parameter(
        0.02,
        "Prior probability that the image shows none of the classes; 0 never says unknown.",
        low=0,
        high=0.99,
        change=LIVE,
    )
    refused_known: float = parameter(
        0.05,
        "Share of images of known classes that the open-set threshold refuses.",
        low=0,
        high=0.99,
        change=LIVE,
    )
    refused_unknown: float = parameter(
        0.5,
        "Share of images of unknown classes that the open-set threshold refuses.",
        low=0,
        high=1,
        change=LIVE,
    )
    # Pose
    filter_pose: bool = parameter(True, "Filter the pose over time.")
    pose_topics: tuple[str, ...] = parameter(
        ("",),
        "Topics of measured poses, PoseWithCovarianceStamped; empty takes the pose topics of the "
        "perception node's cameras and places/pose in the node's namespace.",
    )
    pose_frames: tuple[str, ...] = parameter(
        ("",),
        "Frame whose pose each topic gives, such as camera_optical_frame; /tf_static connects it to"
        " base_frame. An empty entry is base_frame.",
    )
    cell_topics: tuple[str, ...] = parameter(
        ("",),
        "Topics of cells with the probability of each that the camera is in it, PointCloud2 with x y z size "
        "probability, such as perception/camera/cell_points. Empty: none.",
    )
    cell_frames: tuple[str, ...] = parameter(
        ("",),
        "Frame whose position each of cell_topics gives, such as camera_optical_frame; /tf_static connects "
        "it to base_frame. An empty entry takes the camera to be at base_frame.",
    )
    map_frame: str = parameter(
        "map", "Frame of all poses and cells; those in another frame are refused."
    )
    base_frame: str = parameter(
        "",
        "Frame of the robot whose pose is estimated; empty takes the child frame of the odometry.",
    )
    odometry_source: str = parameter(
        "topic",
        "Where the odometry comes from: topic reads nav_msgs/Odometry, tf the transform from "
        "odom_frame to base_frame, none uses the measured poses alone.",
        choices=ODOMETRY_SOURCES,
    )
    odometry_topic: str = parameter("odom", "Topic of the odometry.")
    odom_frame: str = parameter(
        "odom", "Frame of the odometry on /tf, used if odometry_source is tf."
    )
    odometry_position_per_m: float = parameter(
        0.022,
        "Standard deviation of the odometry's position after one metre travelled, in m; it grows with "
        "the square root of the distance.",
        low=1e-6,
        high=100,
        change=LIVE,
    )
    odometry_rotation_per_m_deg: float = parameter(
        0.5,
        "Standard deviation of the odometry's rotation after one metre travelled, in degrees; it "
        "grows with the square root of the distance.",
        low=1e-6,
        high=180,
        change=LIVE,
    )
    odometry_rotation_per_rad_deg: float = parameter(
        1.1,
        "Standard deviation of the odometry's rotation after turning by one radian, in degrees; it "
        "grows with the square root of the turn.",
        low=1e-6,
        high=180,
        change=LIVE,
    )
    odometry_position_per_s: float = parameter(
        0.005,
        "Standard deviation of the odometry's position after one second, moving or not, in m; it "
        "grows with the square root of the time.",
        low=1e-6,
        high=100,
        change=LIVE,
    )
    odometry_rotation_per_s_deg: float = parameter(
        0.1,
        "Standard deviation of the odometry's rotation after one second, moving or not, in degrees;"
        " it grows with the square root of the time.",
        low=1e-6,
        high=180,
        change=LIVE,
    )
    odometry_scale: float = parameter(
        0.02,
        "Share by which all the odometry's distances and turns may be wrong: 0.02 for wheels that are "
        "2 percent larger than it takes them to be.",
        low=1e-6,
        high=1,
        change=LIVE,
    )
    speed_m_s: float = parameter(
        1.5,
        "Standard deviation of the velocity along each axis where there is no odometry, in m/s. "
        "Odometry that is five times as fast, and twice as fast as it was recently, has jumped.",
        low=0.001,
        high=1000,
        change=LIVE,
    )
    turn_deg_s: float = parameter(
        45.0,
        "Standard deviation of the turning rate where there is no odometry, in degrees per second.",
        low=0.01,
        high=10000,
        change=LIVE,
    )
    gate_probability: float = parameter(
        0.99,
        "Share of correct poses that pass the gate; poses with a larger Mahalanobis distance are "
        "refused.",
        low=0.5,
        high=0.999999999,
        change=LIVE,
    )
    initialise_count: int = parameter(
        3,
        "Number of poses that must agree before there is an estimate, and again after a gap in "
        "which its covariance grew.",
        low=1,
        high=1000,
        change=LIVE,
    )
    reinitialise_count: int = parameter(
        5,
        "Number of refused poses in a row that must agree with each other before they replace the "
        "estimate.",
        low=1,
        high=1000,
        change=LIVE,
    )
    reinitialise_after_s: float = parameter(
        2.0,
        "Shortest time over which refused poses must agree with each other before they replace the "
        "estimate, in seconds.",
        low=0.001,
        high=3600,
        change=LIVE,
    )
    pose_correlation_m: float = parameter(
        0.5,
        "Distance travelled after which the errors of one source of poses are independent, in m.",
        low=1e-6,
        high=1e6,
        change=LIVE,
    )
    pose_correlation_deg: float = parameter(
        30.0,
        "Turn of the robot after which the errors of one source of poses are independent, in "
        "degrees.",
        low=1e-6,
        high=1e6,
        change=LIVE,
    )
    pose_correlation_s: float = parameter(
        10.0,
        "Time after which the errors of one source of poses are independent while the robot stands "
        "still, in seconds.",
        low=1e-6,
        high=1e6,
        change=LIVE,
    )
    localised_m: float = parameter(
        0.5,
        "Largest standard deviation of the position, along its worst axis, with which a robot "
        "becomes localised, in m; it stays localised up to 1.3 times this value.",
        low=1e-3,
        high=1e6,
        change=LIVE,
    )
    localised_deg: float = parameter(
        10.0,
        "Largest standard deviation of the rotation, about its worst axis, with which a robot "
        "becomes localised, in degrees; it stays localised up to 1.3 times this value.",
        low=1e-3,
        high=360,
        change=LIVE,
    )
    history_s: float = parameter(
        5.0,
        "Longest delay of a pose after its image, in seconds; later poses are refused.",
        low=0.1,
        high=60,
    )
    odometry_timeout_s: float = parameter(
        0.5,
        "Longest time for which a pose waits for the odometry of its stamp, in seconds; then it is "
        "used without.",
        low=0.001,
        high=10,
        change=LIVE,
    )
    max_ahead_s: float = parameter(
        1.0,
        "Messages with a stamp further ahead of the node's clock are refused, in seconds. The "
        "clocks of two machines may differ.",
        low=0.001,
        high=1e9,
        change=LIVE,
    )
    max_rate_hz: float = parameter(
        0.0, "Highest rate of filtered poses, in Hz; 0 is unlimited.", low=0, high=1000, change=LIVE
    )
    signed_covariance: bool = parameter(
        False,
        "Publish negative covariances unchanged. Nav2's AMCL refuses a pose that has one; by "
        "default they are raised to zero and the variances are increased to match.",
        change=LIVE,
    )
    publish_tf: bool = parameter(
        False,
        "Broadcast the transform from map_frame to the frame of the odometry on /tf, as "
        "localisation nodes do.",
        change=LIVE,
    )
    # Both
    subscribe_depth: int = parameter(
        50,
        "QoS history of the subscriptions, in messages; long enough that no odometry is lost.",
        low=1,
        high=1000,
    )
    stale_after_s: float = parameter(
        2.0,
        "Time without a message after which an input is reported as stopped, in seconds.",
        low=0.1,
        high=3600,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        check_camera_names(self.cameras)
        if any(self.classification_topics) and len(self.classification_topics) != len(self.cameras):
            raise ConfigError(
                f"classification_topics has {len(self.classification_topics)} entries for "
                f"{len(self.cameras)} cameras: give one for each, or leave it empty"
            )
        for name, frames, topics in (
            ("pose", self.pose_frames, self.poses()),
            ("cell", self.cell_frames, self.cells()),
        ):
            if len(frames) not in (0, 1, len(topics)):
                raise ConfigError(
                    f"{name}_frames has {len(frames)} entries for {len(topics)} {name} topics: give one for "
                    "all, or one for each"
                )
        for name in ("class_rates", "class_prior", "training_prior"):
            if getattr(self, name) and self.class_file:
                raise ConfigError(f"{name} and class_file exclude each other: give one")
        if self.odometry_source == "tf" and not self.base_frame:
            raise ConfigError("odometry_source is tf: set base_frame, such as base_link")
        if self.labels and self.class_rates and len(self.class_rates) != len(self.labels) ** 2:
            raise ConfigError(
                f"class_rates has {len(self.class_rates)} numbers for {len(self.labels)} labels: "
                f"give {len(self.labels) ** 2}"
            )
        if not (self.filter_classes or self.filter_pose):
            raise ConfigError("filter_classes and filter_pose are false: set one of them")

    def classification_topic(self, camera: str) -> str:
        """Returns the topic of a camera's classes."""
        given = dict(zip(self.cameras, self.classification_topics, strict=False)).get(camera, "")
        return given or f"{self.perception_node}/{camera}/classification"

    def poses(self) -> tuple[str, ...]:
        """Returns the topics of measured poses."""
        given = tuple(topic for topic in self.pose_topics if topic)
        own = (f"{self.perception_node}/{camera}/pose" for camera in self.cameras)
        return given or (*own, "places/pose")

    def cells(self) -> tuple[str, ...]:
        """Returns the topics of cells."""
        return tuple(topic for topic in self.cell_topics if topic)

    def pose_frame(self, index: int) -> str:
        """Returns the frame whose pose a topic gives; empty for `base_frame`."""
        return _one_of(self.pose_frames, index)

    def cell_frame(self, index: int) -> str:
        """Returns the frame whose position a topic of cells gives; empty for `base_frame`."""
        return _one_of(self.cell_frames, index)

    def pose_settings(self) -> PoseFilterSettings:
        """Returns the settings of the pose filter."""
        noise = part(self, OdometryNoise, "odometry_")
        return part(self, PoseFilterSettings, "", "pose_", noise=noise)


def _one_of(frames: tuple[str, ...], index: int) -> str:
    """Returns the frame of a topic: one for all, or one for each."""
    return frames[index if len(frames) > 1 else 0] if frames else ""
