"""The parameters of the filter node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.filters.odometry import OdometryNoise
from robot_vision.filters.pose_filter import PoseFilterSettings
from robot_vision.ros.managed_parameters import ManagedParameters, check_camera_names
from robot_vision.ros.parameters import LIVE, parameter

ODOMETRY_SOURCES = ("topic", "tf", "none")


@dataclass(frozen=True)
class FilterParameters(ManagedParameters):
    """Settings of the filter node; each field's text is its documentation."""

    perception_node: str = parameter(
        "perception",
        "Name of the perception node, whose topics are the default ones; one without a leading / is in the "
        "node's namespace.",
    )
    cameras: tuple[str, ...] = parameter(
        ("camera",), "Names of the cameras, as in the perception node."
    )
    # Classes
    filter_classes: bool = parameter(True, "Filter the classes.")
    classification_topics: tuple[str, ...] = parameter(
        ("",),
        "Classification topic of each camera; an empty one is that of the perception node.",
    )
    labels: tuple[str, ...] = parameter(
        (), "Classes of the network, in its order; empty asks the perception node's label_info."
    )
    top_k: int = parameter(
        3, "Classes in a classification, most probable first.", low=1, high=1000, change=LIVE
    )
    class_dwell_s: float = parameter(
        10.0,
        "Mean time in seconds for which the class stays the same.",
        low=0.001,
        high=1e9,
        change=LIVE,
    )
    class_rates: tuple[float, ...] = parameter(
        (),
        "Changes a second from each class (row) to each other (column), K x K numbers in the order of the "
        "labels, in place of class_dwell_s; the diagonal is ignored.",
        low=0,
        high=1e6,
    )
    class_prior: tuple[float, ...] = parameter(
        (),
        "How probable each class is without any image, in the order of the labels; 0 for a room that does "
        "not exist. Empty: all alike. ~/prior replaces it.",
        low=0,
        high=1e9,
    )
    training_prior: tuple[float, ...] = parameter(
        (),
        "Images of each class that the classifier was trained on, or their shares: what it says is divided "
        "by them. Empty: all alike.",
        low=0,
        high=1e12,
    )
    class_file: str = parameter(
        "", "YAML file with prior, training_prior and rates by the names of the classes."
    )
    class_correlation_s: float = parameter(
        0.3,
        "Seconds after which a camera's errors are others: how far frames are taken for one piece of "
        "evidence. 0 takes all for independent.",
        low=0,
        high=3600,
        change=LIVE,
    )
    class_memory: float = parameter(
        0.15,
        "How far what was seen before is trusted beside the newest image: 0 gives what the classifier says, "
        "1 lets the past overrule it.",
        low=0,
        high=1,
        change=LIVE,
    )
    camera_correlation: float = parameter(
        0.5, "Correlation of the errors of two cameras at one time.", low=0, high=1, change=LIVE
    )
    unknown_prior: float = parameter(
        0.02,
        "How probable it is that it is none of the classes; 0 never says unknown.",
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
        0.5, "Share of other images that it refuses.", low=0, high=1, change=LIVE
    )
    # Pose
    filter_pose: bool = parameter(True, "Filter the pose.")
    pose_topics: tuple[str, ...] = parameter(
        ("",),
        "Topics of measured poses, PoseWithCovarianceStamped; empty takes those of the perception node's "
        "cameras and places/pose in the node's namespace.",
    )
    pose_frames: tuple[str, ...] = parameter(
        ("",),
        "Frame whose pose each topic gives, such as camera_optical_frame; it is joined to base_frame by "
        "/tf_static. An empty one is base_frame.",
    )
    map_frame: str = parameter("map", "Frame of all poses; others are refused.")
    base_frame: str = parameter(
        "",
        "Frame of the robot whose pose is estimated; empty takes the odometry's child frame as it is.",
    )
    odometry_source: str = parameter(
        "topic",
        "topic reads nav_msgs/Odometry, tf the transform from odom_frame to base_frame; none has only "
        "the poses to go by.",
        choices=ODOMETRY_SOURCES,
    )
    odometry_topic: str = parameter("odom", "Topic of the odometry.")
    odom_frame: str = parameter("odom", "Frame of the odometry on /tf.")
    odometry_position_per_m: float = parameter(
        0.05,
        "Standard deviation of the odometry's position after one metre, in m; it grows as the root.",
        low=1e-6,
        high=100,
        change=LIVE,
    )
    odometry_rotation_per_m_deg: float = parameter(
        1.0, "Degrees of rotation after one metre, likewise.", low=1e-6, high=180, change=LIVE
    )
    odometry_rotation_per_rad_deg: float = parameter(
        2.0, "Degrees after turning by one radian, likewise.", low=1e-6, high=180, change=LIVE
    )
    odometry_position_per_s: float = parameter(
        0.005,
        "Metres after one second, moving or not, likewise.",
        low=1e-6,
        high=100,
        change=LIVE,
    )
    odometry_rotation_per_s_deg: float = parameter(
        0.1, "Degrees after one second, likewise.", low=1e-6, high=180, change=LIVE
    )
    speed_m_s: float = parameter(
        1.5,
        "Standard deviation of the velocity along each axis, where odometry says nothing of it. Odometry "
        "five times as fast, and twice as fast as it was of late, has jumped.",
        low=0.001,
        high=1000,
        change=LIVE,
    )
    turn_deg_s: float = parameter(
        90.0, "Standard deviation of the turning rate, likewise.", low=0.01, high=10000, change=LIVE
    )
    gate_probability: float = parameter(
        0.99,
        "Share of good poses that pass the gate; others are refused by their Mahalanobis distance.",
        low=0.5,
        high=0.999999999,
        change=LIVE,
    )
    initialise_count: int = parameter(
        3,
        "Poses that must agree before there is an estimate, and again where a gap let its covariance grow.",
        low=1,
        high=1000,
        change=LIVE,
    )
    reinitialise_count: int = parameter(
        5,
        "Refused poses in a row that must agree with each other before they replace the estimate.",
        low=1,
        high=1000,
        change=LIVE,
    )
    reinitialise_after_s: float = parameter(
        2.0, "And for so long.", low=0.001, high=3600, change=LIVE
    )
    pose_correlation_m: float = parameter(
        0.5,
        "Way of the robot after which the errors of a source of poses are others.",
        low=1e-6,
        high=1e6,
        change=LIVE,
    )
    pose_correlation_deg: float = parameter(
        30.0, "Turn after which they are.", low=1e-6, high=1e6, change=LIVE
    )
    pose_correlation_s: float = parameter(
        10.0, "Seconds after which they are while it stands.", low=1e-6, high=1e6, change=LIVE
    )
    localised_m: float = parameter(
        0.5,
        "Largest standard deviation of the position, along its worst axis, of a robot that becomes "
        "localised; it stays so up to 1.3 times that.",
        low=1e-3,
        high=1e6,
        change=LIVE,
    )
    localised_deg: float = parameter(
        10.0, "Likewise of the rotation.", low=1e-3, high=360, change=LIVE
    )
    history_s: float = parameter(
        5.0, "How late a pose may come, after its image.", low=0.1, high=60
    )
    odometry_timeout_s: float = parameter(
        0.5,
        "How long a pose waits for the odometry of its time before it is used without.",
        low=0.001,
        high=10,
        change=LIVE,
    )
    max_ahead_s: float = parameter(
        1.0,
        "A stamp that is further ahead of the node's clock is refused: the clocks of two machines differ.",
        low=0.001,
        high=1e9,
        change=LIVE,
    )
    max_rate_hz: float = parameter(
        0.0, "Filtered poses a second at most; 0 is unlimited.", low=0, high=1000, change=LIVE
    )
    signed_covariance: bool = parameter(
        False,
        "Publish negative covariances as they are. Nav2's AMCL refuses a pose that has one; the default "
        "lifts them to zero and raises the variances to match.",
        change=LIVE,
    )
    publish_tf: bool = parameter(
        False,
        "Broadcast the transform from map_frame to the odometry's frame on /tf, as localisers do.",
        change=LIVE,
    )
    # Both
    subscribe_depth: int = parameter(
        50,
        "QoS history of the subscriptions: none of the odometry shall be lost.",
        low=1,
        high=1000,
    )
    stale_after_s: float = parameter(
        2.0,
        "An input without a message for so long is reported as stopped.",
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
        if len(self.pose_frames) not in (0, 1, len(self.poses())):
            raise ConfigError(
                f"pose_frames has {len(self.pose_frames)} entries for {len(self.poses())} pose topics: "
                "give one for all, or one for each"
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

    def pose_frame(self, index: int) -> str:
        """Returns the frame whose pose a topic gives; empty for `base_frame`."""
        if len(self.pose_frames) > 1:
            return self.pose_frames[index]
        return self.pose_frames[0] if self.pose_frames else ""

    def pose_settings(self) -> PoseFilterSettings:
        """Returns the settings of the pose filter."""
        noise = OdometryNoise(
            self.odometry_position_per_m,
            self.odometry_rotation_per_m_deg,
            self.odometry_rotation_per_rad_deg,
            self.odometry_position_per_s,
            self.odometry_rotation_per_s_deg,
        )
        return PoseFilterSettings(
            noise=noise,
            speed_m_s=self.speed_m_s,
            turn_deg_s=self.turn_deg_s,
            gate_probability=self.gate_probability,
            initialise_count=self.initialise_count,
            reinitialise_count=self.reinitialise_count,
            reinitialise_after_s=self.reinitialise_after_s,
            correlation_m=self.pose_correlation_m,
            correlation_deg=self.pose_correlation_deg,
            correlation_s=self.pose_correlation_s,
            localised_m=self.localised_m,
            localised_deg=self.localised_deg,
            history_s=self.history_s,
            odometry_timeout_s=self.odometry_timeout_s,
        )


YAML_HEADING = """Parameters of the filter node, all at their defaults.
Written by: python -m robot_vision.ros.filter_parameters > config/filters.yaml"""


def main() -> None:
    """Prints the YAML file."""
    from robot_vision.ros.parameters import yaml_text

    print(yaml_text(FilterParameters, YAML_HEADING), end="")


if __name__ == "__main__":
    main()
