"""The parameters of the perception node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from robot_vision.contract import registry
from robot_vision.contract.spec import NetworkSpec
from robot_vision.engines.base import MAX_THREADS
from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import KINDS, info_topic
from robot_vision.ros.node.managed_parameters import (
    ManagedParameters,
    check_camera_names,
    check_mountings,
)
from robot_vision.settings.parameters import LIVE, Setting, parameter, settings


@dataclass(frozen=True)
class NodeSettings(ManagedParameters):
    """Settings of the perception node without those of heads; each field's text is its documentation."""

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
        "auto",
        "Program of the bundle, such as int8, or numeric precision: float32, float16 or bfloat16. auto "
        "takes the fastest program that is certified for this machine, and float32 where there is none.",
    )
    threads: int = parameter(
        0, "CPU threads of the engine; 0 lets the engine choose.", low=0, high=MAX_THREADS
    )
    streams: int = parameter(
        0,
        "Batches processed at the same time, each on its share of the CPU cores. 0 is for up to 3 on a "
        "CPU where the network keeps up with 30 Hz, so that cameras which are faster get more answers; 1 "
        "gives the lowest latency at any rate.",
        low=0,
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
    camera_info_topics: tuple[str, ...] = parameter(
        ("",),
        "Topic of the sensor_msgs/CameraInfo of each camera, for heads that say where things are; an empty "
        "one is camera_info in the namespace of the image topic.",
    )
    image_kind: str = parameter(
        "auto",
        "Which calibration of the camera info applies to the images: K and distortion (raw), or P "
        "(rectified). auto takes a topic with the word rect, rectified or undistorted in its name "
        "as rectified.",
        choices=KINDS,
    )
    always_infer: bool = parameter(
        False, "Run the network even while nothing subscribes to its results.", change=LIVE
    )
    max_rate_hz: float = parameter(
        0.0,
        "Highest rate at which frames of each camera are processed, in Hz; 0 is unlimited.",
        low=0,
        high=1000,
        change=LIVE,
    )
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
        for name in ("image_topics", "camera_info_topics"):
            topics = getattr(self, name)
            if any(topics) and len(topics) != len(self.cameras):
                raise ConfigError(
                    f"{name} has {len(topics)} entries for {len(self.cameras)} cameras: "
                    "give one for each, or leave it empty"
                )
        check_mountings(self.camera_to_base, len(self.cameras))

    def topic(self, camera: str) -> str:
        """Returns the image topic of a camera."""
        given = dict(zip(self.cameras, self.image_topics, strict=False)).get(camera, "")
        return given or f"{camera}/image_raw"

    def info_topic(self, camera: str) -> str:
        """Returns the topic of a camera's calibration."""
        given = dict(zip(self.cameras, self.camera_info_topics, strict=False)).get(camera, "")
        return given or info_topic(self.topic(camera))

    def transform_numbers(self, camera: str) -> tuple[float, ...]:
        """Returns the six numbers of `camera_to_base` for a camera; empty if none are given."""
        if len(self.camera_to_base) <= 6:
            return self.camera_to_base
        start = 6 * self.cameras.index(camera)
        return self.camera_to_base[start : start + 6]


def _about(field: Any) -> tuple[Any, ...]:
    return field.type, field.default, field.metadata


def _with_heads() -> type[NodeSettings]:
    """Returns the node's settings with the options of all installed heads.

    A head that cannot be imported, or whose options do not go with those of others, has no parameters here: a
    model that uses it is refused with the reason when the node configures.
    """
    found: dict[str, Any] = {}
    own = {f.name for f in dataclasses.fields(NodeSettings)}
    for options in registry.options().values():
        fields = dataclasses.fields(options)
        about_each = {f.name: _about(f) for f in fields}
        same = all(
            name not in own and found.get(name, about) == about
            for name, about in about_each.items()
        )
        if all(f.metadata for f in fields) and same:
            found |= about_each
    declared = [
        (name, kind, dataclasses.field(default=default, metadata=about))
        for name, (kind, default, about) in found.items()
    ]
    return dataclasses.make_dataclass(
        "PerceptionParameters",
        declared,
        bases=(NodeSettings,),
        namespace={"EXTENDS": True},
        frozen=True,
    )


PerceptionParameters = _with_heads()


def named_settings(spec: NetworkSpec, current: NodeSettings) -> list[Setting]:
    """Returns the parameters of heads not named as their kind; by default they are as the kind's.

    Raises:
        ConfigError: a head's options are no parameters of the node, since another has one of their names.
    """
    declared = {f.name: _about(f) for f in dataclasses.fields(PerceptionParameters)}
    for head, _ in spec.bound:
        for f in dataclasses.fields(head.Options):
            if declared.get(f.name) != _about(f):
                raise ConfigError(
                    f"The {head.kind} head's option {f.name!r} is no parameter of the node: "
                    "it, or another of the head's options, has the name of one that is declared "
                    "otherwise; rename it in the package that brings the head"
                )
    by_name = {s.name: s for s in settings(PerceptionParameters)}
    return [
        dataclasses.replace(
            by_name[f.name], name=head.key(f.name), default=getattr(current, f.name)
        )
        for head, _ in spec.bound
        if head.name != head.kind
        for f in dataclasses.fields(head.Options)
    ]
