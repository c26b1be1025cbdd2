"""The parameters of the perception node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError
from robot_vision.ros.node.managed_parameters import (
    ManagedParameters,
    check_camera_names,
    check_mountings,
)
from robot_vision.ros.node.parameters import LIVE, parameter

NAN = float("nan")


@dataclass(frozen=True)
class PerceptionParameters(ManagedParameters):
    """Settings of the perception node; each field's text is its documentation."""

    model: str = parameter(
        "", "Model bundle: a directory, or the name of one of the installed models, such as demo."
    )
    engine: str = parameter(
        "auto",
        "Inference engine that runs the network; auto takes the fastest one available.",
        choices=("auto", "onnx", "openvino", "torch"),
    )
    device: str = parameter(
        "auto", "Device of the engine, such as cpu, cuda:0 or tensorrt:0; auto takes the fastest."
    )
    precision: str = parameter(
        "float32", "Numeric precision of the network.", choices=("float32", "float16", "bfloat16")
    )
    threads: int = parameter(
        0, "CPU threads of the engine; 0 lets the engine choose.", low=0, high=256
    )
    streams: int = parameter(
        1,
        "Batches processed at the same time, each on its share of the CPU cores. 1 gives the lowest"
        " latency; one more than there are cores answers the most frames, each later, when the "
        "cameras are faster than the network.",
        low=1,
        high=64,
    )
    max_batch: int = parameter(
        16,
        "Largest number of cameras in one run of the network; further cameras go into the next "
        "batch.",
        low=1,
        high=64,
    )
    cameras: tuple[str, ...] = parameter(
        ("camera",), "Names of the cameras; results appear under ~/<camera>/."
    )
    image_topics: tuple[str, ...] = parameter(
        ("",),
        "Image topic of each camera; an empty one is <camera>/image_raw in the node's namespace.",
    )
    transport: str = parameter(
        "raw",
        "raw subscribes to sensor_msgs/Image; compressed subscribes to sensor_msgs/CompressedImage "
        "on the image topic with /compressed added, or on the image topic itself where that carries"
        " compressed images.",
        choices=("raw", "compressed"),
    )
    always_infer: bool = parameter(
        False, "Run the network even while nothing subscribes to its results.", change=LIVE
    )
    top_k: int = parameter(
        3,
        "Number of classes in a classification, most probable first.",
        low=1,
        high=1000,
        change=LIVE,
    )
    unknown_threshold: float = parameter(
        NAN,
        "Images with a known score below this are classified as unknown; .nan takes the model's own"
        " threshold, -.inf never says unknown.",
        change=LIVE,
    )
    known_share: float = parameter(
        0.0,
        "Share of images of known classes that should not be called unknown, such as 0.95. The "
        "threshold then comes from the model's calibration, if unknown_threshold is .nan. 0 uses "
        "the model's own threshold.",
        low=0.0,
        high=0.995,
        change=LIVE,
    )
    max_rate_hz: float = parameter(
        0.0,
        "Highest rate at which frames of each camera are processed, in Hz; 0 is unlimited.",
        low=0,
        high=1000,
        change=LIVE,
    )
    map_frame: str = parameter("", "Frame of the poses; empty takes the one in the model.")
    base_frame: str = parameter(
        "",
        "Frame whose pose is published, such as base_link. Empty publishes the pose of the camera; "
        "another frame needs camera_to_base or static transforms on /tf_static.",
    )
    camera_to_base: tuple[float, ...] = parameter(
        (),
        "Pose of the camera's optical frame in base_frame, as a URDF gives it: x y z (m) roll pitch yaw "
        "(rad); six numbers for all cameras or six for each. Empty looks it up on /tf_static.",
        low=-1e6,
        high=1e6,
    )
    pose_covariance_scale: float = parameter(
        1.0, "Factor applied to the network's pose covariance.", low=1e-6, high=1e6, change=LIVE
    )
    signed_covariance: bool = parameter(
        False,
        "Publish negative covariances unchanged. Nav2's AMCL refuses a pose that has one; by "
        "default they are raised to zero and the variances are increased to match.",
        change=LIVE,
    )
    publish_tf: bool = parameter(
        False,
        "Also broadcast each pose on /tf, with tf_suffix added to the frame's name. If several "
        "cameras give the pose of the same frame, as all do with base_frame, the first one is "
        "broadcast while it delivers.",
        change=LIVE,
    )
    tf_suffix: str = parameter(
        "_estimated",
        "Suffix of the child frame's name on /tf, where a frame can have only one parent. Set it to"
        " empty if nothing else gives the frame a parent.",
    )
    annotated_rate_hz: float = parameter(
        0.0,
        "Highest rate of annotated images per camera, in Hz; 0 draws every result while someone "
        "subscribes.",
        low=0,
        high=1000,
        change=LIVE,
    )
    subscribe_depth: int = parameter(
        1,
        "QoS history of the image subscriptions, in messages; only the newest image is used.",
        low=1,
        high=100,
    )
    stale_after_s: float = parameter(
        2.0,
        "Time without a frame after which a camera is reported as stopped, in seconds.",
        low=0.1,
        high=3600,
        change=LIVE,
    )
    max_engine_failures: int = parameter(
        3,
        "Failed runs of the network in a row after which /diagnostics reports ERROR.",
        low=1,
        high=1000,
        change=LIVE,
    )

    def __post_init__(self) -> None:
        check_camera_names(self.cameras)
        if any(self.image_topics) and len(self.image_topics) != len(self.cameras):
            raise ConfigError(
                f"image_topics has {len(self.image_topics)} entries for {len(self.cameras)} cameras: "
                "give one for each, or leave it empty"
            )
        if len(self.camera_to_base) not in (0, 6, 6 * len(self.cameras)):
            raise ConfigError(
                f"camera_to_base has {len(self.camera_to_base)} numbers: give six for all cameras or "
                "six for each, or leave it empty"
            )
        check_mountings(self.camera_to_base)

    def topic(self, camera: str) -> str:
        """Returns the image topic of a camera."""
        given = dict(zip(self.cameras, self.image_topics, strict=False)).get(camera, "")
        return given or f"{camera}/image_raw"

    def transform_numbers(self, camera: str) -> tuple[float, ...]:
        """Returns the six numbers of `camera_to_base` for a camera; empty if none are given."""
        if len(self.camera_to_base) <= 6:
            return self.camera_to_base
        start = 6 * self.cameras.index(camera)
        return self.camera_to_base[start : start + 6]


YAML_HEADING = """Parameters of the perception node, all at their defaults.
Written by: python -m robot_vision.ros.perception.parameters > config/perception.yaml"""


def main() -> None:
    """Prints the YAML file."""
    from robot_vision.ros.node.parameters import yaml_text

    print(yaml_text(PerceptionParameters, YAML_HEADING), end="")


if __name__ == "__main__":
    main()
