"""Reads the truth of a recording: topics of its bag, or files next to it.

Labels come from a topic (std_msgs/String or vision_msgs/Classification) or a YAML file of labelled time spans
(`bag_labels`); poses from a topic, odometry or tf (`bag_poses`), or from a TUM, EuRoC or
KITTI file (`pose_files`); numbers as `bag_numbers` says, and images as `images` does. Stamps of
files and headers are on the same clock as the images'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings.bag import calls_itself_truth
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.storage import slashed
from robot_vision.text.counts import counted
from robot_vision.truth.bag_labels import LABEL_KINDS, read_label_topic, read_spans
from robot_vision.truth.bag_numbers import numbers_of_topic, parse_numbers
from robot_vision.truth.bag_poses import (
    NAV_SAT_FIX,
    POSE_KINDS,
    PoseRequest,
    camera_poses,
    parse_transform,
)
from robot_vision.truth.images import IMAGE_KINDS, ImagesFrom, ImageTrack, images_of_topic
from robot_vision.truth.pixel_classes import ForeignClasses
from robot_vision.truth.pose_files import FORMATS, read_pose_file
from robot_vision.truth.tracks import LabelTrack, NumberTrack, PoseTrack, Truth

POSE_SOURCES = ("auto", "topic", "tf", "file", "none")
LABEL_SOURCES = ("auto", "topic", "spans", "none")
_NOTED = 3


@dataclass(frozen=True)
class TruthRequest:
    """Where truth comes from.

    Attributes:
        label_source: auto takes the spans or topic given, else the only label topic in a namespace called
            truth.
        label_topic: of type String or Classification.
        label_spans: a YAML file.
        label_hold_s: how long a topic's label holds at most; 0: until the next.
        pose_source: auto takes the file or topic given, else the only pose topic in a namespace called
            truth, else what `bag_poses` finds (tf, a pose topic, odometry).
        pose_topic: PoseStamped, PoseWithCovarianceStamped or Odometry.
        pose_file: TUM, EuRoC or KITTI.
        pose_format: of the file.
        pose_times: stamps of a KITTI file; empty takes times.txt next to it.
        map_frame: of the poses.
        camera_frame: the camera's optical frame in tf; empty takes the images'.
        base_frame: frame whose poses the topic gives, where it is not the camera's.
        base_to_camera: the camera in that frame, where /tf_static does not say: x,y,z,qx,qy,qz,qw or
            identity.
        max_gap_s: poses on both sides of an image are at most so far apart.
        labels_of: label topic or file of spans of each head by another name than its kind, by that name.
        bad_poses: error stops at a pose that is not finite, not unit or goes back in time; skip counts it.
        numbers: see `truth.bag_numbers`.
        number_hold_s: how long a topic's number holds at most; 0: until the next.
        images: see `truth.images`.
        image_names: of images that the model is judged by: where `images` lacks one, it is the only topic of
            that name in a namespace called truth.
        image_classes: the model's classes of pixels, for images of ids; those of a bag that names
            its own become these.
        image_within_s: how far the stamps of an image and of what is true of it may be apart.
    """

    label_source: str = "auto"
    label_topic: str = ""
    label_spans: str = ""
    label_hold_s: float = 0.0
    pose_source: str = "auto"
    pose_topic: str = ""
    pose_file: str = ""
    pose_format: str = "auto"
    pose_times: str = ""
    map_frame: str = "map"
    camera_frame: str = ""
    base_frame: str = ""
    base_to_camera: str = ""
    max_gap_s: float = 0.5
    bad_poses: str = "error"
    labels_of: Mapping[str, str] = field(default_factory=dict)
    numbers: str = ""
    number_hold_s: float = 0.0
    images: tuple[ImagesFrom, ...] = ()
    image_names: tuple[str, ...] = ()
    image_classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    image_within_s: float = 0.02

    def __post_init__(self) -> None:
        for name, allowed in (
            ("label_source", LABEL_SOURCES),
            ("pose_source", POSE_SOURCES),
            ("pose_format", FORMATS),
            ("bad_poses", ("error", "skip")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(unknown(f"value of {name}", getattr(self, name), allowed))
        for name in ("label_hold_s", "max_gap_s", "number_hold_s", "image_within_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"Setting {name} is {getattr(self, name)}: use at least 0 seconds"
                )
        if self.label_topic and self.label_spans:
            raise ConfigError("Settings label_topic and label_spans exclude each other: give one")
        if self.pose_topic and self.pose_file:
            raise ConfigError("Settings pose_topic and pose_file exclude each other: give one")
        for source, needs in (("spans", "label_spans"), ("topic", "label_topic")):
            if self.label_source == source and not getattr(self, needs):
                raise ConfigError(f"Setting label_source is {source}: give {needs}")
        if self.pose_source == "file" and not self.pose_file:
            raise ConfigError("Setting pose_source is file: give pose_file")
        if self.pose_file and self.base_frame and not self.base_to_camera:
            raise ConfigError(
                f"Setting base_frame is {self.base_frame!r}, which is for a topic: for the poses of a file "
                "give base_to_camera (x,y,z,qx,qy,qz,qw)"
            )


class _Refused:
    """Entries that fail their checks: the first is raised, or all are counted; `said` is noted as it is."""

    def __init__(self, policy: str) -> None:
        self.policy, self.texts, self.said = policy, list[str](), list[str]()

    def __call__(self, error: SourceError) -> None:
        if self.policy == "error":
            raise SourceError(f"{error}; bad_poses=skip leaves such poses out") from error
        self.texts.append(str(error))

    def notes(self) -> list[str]:
        more = len(self.texts) - _NOTED
        shown = [f"pose left out: {text}" for text in self.texts[:_NOTED]]
        return (
            self.said + shown + ([f"and {counted(more, 'more pose')} left out"] if more > 0 else [])
        )


def read_truth(path: Path, request: TruthRequest, camera_frame: str = "") -> Truth:
    """Reads the truth of a bag's images.

    Of a damaged bag, what is readable is read, and the notes say so.

    Args:
        path: the bag.
        request: where truth comes from.
        camera_frame: `frame_id` of the images.

    Raises:
        ConfigError: a topic or frame that is not there, or several to choose from.
        SourceError: files or messages that cannot be read, or a pose that fails its checks.
    """
    bag = BagFile(path)
    refused = _Refused(request.bad_poses)
    try:
        labels = _labels(bag, request)
        others = {
            name: _labels_of(bag, request, where) for name, where in request.labels_of.items()
        }
        numbers = _numbers(bag, request, labels)
        images = _images(bag, request)
        poses = _poses(bag, request, camera_frame, refused)
    finally:
        bag.close()
    notes = [f"labels: {labels.text}" if labels else "no true labels"]
    notes += [f"labels of {name}: {track.text}" for name, track in others.items()]
    notes += [f"poses: {poses.text}" if poses else "no true poses", *refused.notes()]
    notes += [f"{name}: {track.text}" for name, track in numbers.items()]
    notes += [f"images of {name}: {track.text}" for name, track in images.items()]
    notes += [f"truth: {text}" for text in (*bag.problems, *bag.notes)]
    counts = {"poses": len(refused.texts)} if refused.texts else {}
    return Truth(labels, poses, counts, tuple(notes), others, numbers, images)


def _labels(bag: BagFile, request: TruthRequest) -> LabelTrack | None:
    if request.label_source == "none":
        return None
    if request.label_spans:
        return spans_track(Path(request.label_spans).expanduser(), bag.start_ns)
    topic = slashed(request.label_topic) if request.label_topic else ""
    topic = topic or _truth_topic(bag, LABEL_KINDS)
    if not topic:
        return None
    rows, by_header = read_label_topic(bag, topic)
    hold_ns = nanoseconds(request.label_hold_s) or None
    held = f"held for {request.label_hold_s:g} s" if hold_ns else "held until the next"
    return LabelTrack.held(
        [time for time, _ in rows],
        [name for _, name in rows],
        hold_ns,
        not by_header,
        f"topic {topic}, {held}",
    )


def _labels_of(bag: BagFile, request: TruthRequest, where: str) -> LabelTrack:
    topic = slashed(where) if slashed(where) in bag.kinds else ""
    asked = replace(
        request, label_source="auto", label_topic=topic, label_spans="" if topic else where
    )
    found = _labels(bag, asked)
    assert found is not None  # one of both is given
    return found


def _numbers(
    bag: BagFile, request: TruthRequest, labels: LabelTrack | None
) -> dict[str, NumberTrack]:
    found = {}
    for source in parse_numbers(request.numbers):
        if source.topic:
            hold_ns = nanoseconds(request.number_hold_s) or None
            found[source.name] = numbers_of_topic(bag, source, hold_ns)
        elif labels is None:
            raise ConfigError(
                f"Number {source.name} is of a label, and {bag.path} has none: give labels"
            )
        else:
            found[source.name] = NumberTrack.of_label(labels, source.label)
    return found


def _images(bag: BagFile, request: TruthRequest) -> dict[str, ImageTrack]:
    within_ns = nanoseconds(request.image_within_s)
    asked = {source.name: source for source in request.images}
    for name in request.image_names:
        topic = "" if name in asked else _truth_topic(bag, IMAGE_KINDS, name)
        if topic:
            asked[name] = ImagesFrom(name, topic)
    given = {source.name for source in request.images}
    found: dict[str, ImageTrack] = {}
    for name, source in asked.items():
        classes = request.image_classes.get(name, ())
        try:
            found[name] = images_of_topic(bag, source, within_ns, classes)
        except ForeignClasses as error:
            if name in given:
                raise
            bag.notes.append(f"images of {name} are left out: {error}")
    return found


def spans_track(file: Path, start_ns: int) -> LabelTrack:
    """Returns the labels of a YAML file of time spans; see `bag_labels`.

    Args:
        file: the YAML file.
        start_ns: log time of the bag's first message, from which the file's seconds count.

    Raises:
        SourceError: the file cannot be read, or a span is not valid or overlaps another (with its line).
    """
    spans = read_spans(file)
    return LabelTrack(
        np.array([start_ns + nanoseconds(a) for a, _, _ in spans], np.int64),
        np.array([start_ns + nanoseconds(b) for _, b, _ in spans], np.int64),
        tuple(name for _, _, name in spans),
        True,
        f"spans of {file}",
    )


def _truth_topic(bag: BagFile, kinds: tuple[str, ...], name: str = "") -> str:
    """Returns the only topic of some kinds (of this name) that calls itself the truth, or nothing."""
    named = [
        topic
        for topic, kind in bag.kinds.items()
        if kind in kinds and calls_itself_truth(topic) and (not name or name in topic.split("/"))
    ]
    return named[0] if len(named) == 1 else ""


def _poses(
    bag: BagFile, request: TruthRequest, camera_frame: str, refused: _Refused
) -> PoseTrack | None:
    if request.pose_source == "none":
        return None
    max_gap_ns = nanoseconds(request.max_gap_s)
    if request.pose_file:
        file = Path(request.pose_file).expanduser()
        times = Path(request.pose_times).expanduser() if request.pose_times else None
        trajectory = read_pose_file(file, refused, request.pose_format, times, refused.said.append)
        moved = parse_transform(request.base_to_camera) if request.base_to_camera else None
        how = (
            "taken as the camera's own (set base_to_camera if they are the robot's, or an IMU's as EuRoC's)"
            if moved is None
            else "moved by base_to_camera"
        )
        text = f"file {file}, {how}"
        return PoseTrack.of(trajectory, max_gap_ns, moved, request.map_frame, text)
    source, topic = request.pose_source, slashed(request.pose_topic) if request.pose_topic else ""
    if not topic and source != "tf":
        topic = _truth_topic(bag, POSE_KINDS)
    if topic and bag.kinds.get(topic) == NAV_SAT_FIX:
        raise ConfigError(
            f"Pose topic {topic} gives positions by GPS and no poses: evaluate the bag as --data rosbag with "
            f"--option pose_topic={topic} and --option datum=LATITUDE,LONGITUDE, or leave its poses out"
        )
    found = camera_poses(
        bag,
        PoseRequest(
            source,
            topic,
            request.map_frame,
            request.camera_frame or camera_frame,
            request.base_frame,
            request.base_to_camera,
            max_gap_ns,
        ),
        refused,
    )
    if found is None:
        return None
    return PoseTrack(found.at, found.stamps_ns, found.map_frame, found.text)
