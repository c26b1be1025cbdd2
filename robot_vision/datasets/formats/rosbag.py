"""Rosbags: images, the camera's poses (interpolated to the image's stamps), labels, numbers, true pixels.

A path is a ROS 1 bag, a rosbag2 (its folder or bare file), or a folder of bags, each of which is a
recording. `bag_poses`, `bag_labels` and `bag_numbers` state the conventions of poses, labels and numbers.

An image is a sample when it has what the bag is asked for: a pose, where poses have a source; else a
label, a number or an image of truth, where these have one; else always. Images that have none are counted
in the notes.

Topics of true pixels have one number a pixel: distances (by REP 118: 16UC1 and compressedDepth of it in
millimetres, 0 for none; 32FC1 in metres, NaN for none), or ids of classes (mono8, 8UC1, mono16). They are as
large as the image, and an image has that of the nearest stamp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.pixel_truth import Entry, LabelTable, PixelMessage, read_classes
from robot_vision.datasets.posed import PosedOptions, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import ConfigError, ImageError, SourceError, unknown
from robot_vision.files.natural_order import natural_key
from robot_vision.geometry.intrinsics import Intrinsics, numbers_of
from robot_vision.messages.stamps import nanoseconds
from robot_vision.messages.types import CAMERA_INFO
from robot_vision.recordings.bag import calls_itself_truth, camera_topics, names_topic
from robot_vision.recordings.bag_file import BagImage
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.bag_stamps import StampNotes
from robot_vision.recordings.recording_folder import is_bag
from robot_vision.recordings.storage import slashed
from robot_vision.settings.declared import names_in, option
from robot_vision.text.counts import counted
from robot_vision.truth.bag_labels import LABEL_KINDS, Labeller, labels_of_spans, labels_of_topic
from robot_vision.truth.bag_numbers import NUMBERS, numbers_of_topic, parse_numbers
from robot_vision.truth.bag_poses import NAV_SAT_FIX, PoseRequest, camera_poses
from robot_vision.truth.images import (
    IMAGE_KINDS,
    ImagesFrom,
    class_names,
    meaning,
    messages_of_topic,
    nearest_stamps,
    parse_images,
)
from robot_vision.truth.pose_checks import Skipped


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    image_topic: str = option(
        "", "topic of the images; not needed if there is only one image topic"
    )
    pose_source: str = option(
        "auto",
        "where poses come from; auto takes the first that exists of pose_topic, tf, a pose topic, "
        "odometry",
        choices=("auto", "topic", "tf", "none"),
    )
    pose_topic: str = option(
        "",
        "topic of the poses: PoseStamped, PoseWithCovarianceStamped or Odometry; or NavSatFix, which has no "
        "orientation",
    )
    datum: str = option(
        "",
        "with a NavSatFix topic, the map's origin: latitude,longitude in degrees; or earth, for positions "
        "from the middle of the earth",
    )
    camera_frame: str = option(
        "", "optical frame of the camera in tf; empty: the frame_id of the images"
    )
    base_frame: str = option("", "frame whose poses pose_topic gives, if it is not the camera")
    base_to_camera: str = option(
        "",
        "pose of the camera in base_frame, if /tf_static does not give it: x,y,z,qx,qy,qz,qw or "
        "identity",
    )
    max_gap_s: float = option(
        0.5, "longest gap between the two poses around an image, in seconds", low=0.0
    )
    label_topic: str = option(
        "", "topic of the labels: std_msgs/String or vision_msgs/Classification"
    )
    label_hold_s: float = option(
        0.0,
        "longest time for which a label stays valid, in seconds; 0: until the next label",
        low=0.0,
    )
    label_spans: str = option("", "YAML or CSV file of labelled time spans")
    numbers: str = option("", NUMBERS)
    number_hold_s: float = option(
        0.0,
        "longest time for which a number of a topic stays valid, in seconds; 0: until the next message",
        low=0.0,
    )
    truth_images: str = option(
        "",
        "topics of what is true of each pixel, separated by commas: NAME=TOPIC, such as "
        "depth=/camera/depth/image or segmentation=/mask; NAME is the head's; "
        "NAME=TOPIC*FACTOR multiplies the numbers",
    )
    classes: str = option(
        "",
        "table of the classes of a topic of ids, or their names separated by commas, with the ids 0, 1, ...; "
        "empty: those of the LabelInfo on TOPIC_label_info",
    )
    ignore: str = option(
        "",
        "names or ids of pixels without truth, separated by commas; 255 and void always are among them",
    )
    truth_tolerance_s: float = option(
        0.02, "largest time difference between an image and its true pixels, in seconds", low=0.0
    )
    every: int = option(1, "use one image out of every n", low=1)


@dataclass(frozen=True)
class _Image:
    """One message of the image topic."""

    stamp_ns: int
    log_ns: int
    source: BagImage


@dataclass(frozen=True, eq=False)
class _Camera:
    """What a bag says of its camera."""

    K: NDArray[np.float64] | None = None
    intrinsics: Intrinsics | None = None


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    paths = [root] if is_bag(root) else _bags_under(root)
    if not paths:
        raise SourceError(
            f"{root} is not a bag, nor has a bag in it: give a .bag, .db3, .mcap or a folder"
        )
    if options.label_topic and options.label_spans:
        raise ConfigError("Options label_topic and label_spans exclude each other: give one")
    if options.label_spans and len(paths) > 1:
        raise ConfigError("Option label_spans is for one bag: open the bags one at a time")
    skipped = Skipped()
    notes: list[str] = []
    samples: list[Sample] = []
    frames: set[str] = set()
    oriented = True
    cameras: dict[str, _Camera] = {}
    for path in paths:
        bag = BagFile(path)
        try:
            found, frame, camera, turned = _recording(bag, options, skipped, notes)
            notes += [*bag.problems, *bag.notes]
        finally:
            bag.close()
        samples += found
        oriented = oriented and turned
        cameras[_name(path)] = camera
        frames |= {frame} if frame else set()
    if len(frames) > 1:
        raise SourceError(
            f"{root}: poses are in several frames ({', '.join(sorted(frames))}): open one at a time"
        )
    matrices = [camera.K for camera in cameras.values()]
    same = all(K is not None and np.array_equal(K, matrices[0]) for K in matrices)  # type: ignore[arg-type]
    if options.camera_matrix:  # what people say counts
        cameras = dict.fromkeys(cameras, _Camera())
    samples = [_with_camera(s, cameras[s.sequence], not same) for s in samples]
    splits = splits_of(
        samples,
        options,
        [*skipped.notes(), *notes],
        K=matrices[0] if same else None,
        has_orientation=oriented,
    )
    tables = {
        word: table.classes
        for s in samples
        for word, truth in s.truth.items()
        if (table := getattr(truth, "table", None)) is not None
    }
    frame = next(iter(frames), options.map_frame)
    return replace(splits, map_frame=frame, pixel_classes=tables, datum=options.datum)


def _bags_under(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if is_bag(p)), key=lambda p: natural_key(p.name))


def _name(path: Path) -> str:
    return path.name


def _recording(
    bag: BagFile, options: Options, skipped: Skipped, notes: list[str]
) -> tuple[list[Sample], str, _Camera, bool]:
    """Returns a bag's samples, the frame of its poses (empty without), its camera, and if poses turn."""
    topic = _image_topic(bag, options)
    images, frame_id = _images(bag, topic, options, skipped)

    def report(error: SourceError) -> None:
        if options.bad_poses == "error":
            raise SourceError(f"{error}; bad_poses=skip leaves such poses out") from error
        notes.append(f"pose left out: {error}")

    request = PoseRequest(
        options.pose_source,
        slashed(options.pose_topic) if options.pose_topic else "",
        options.map_frame,
        options.camera_frame or frame_id,
        options.base_frame,
        options.base_to_camera,
        nanoseconds(options.max_gap_s),
        options.datum,
    )
    poses = camera_poses(bag, request, report)
    stamps = np.array([image.stamp_ns for image in images], np.int64)
    matrices, holds = poses.at(stamps) if poses else (None, np.ones(len(images), bool))
    labeller = _labeller(bag, options, notes)
    labels = [labeller(i.stamp_ns, i.log_ns) if labeller else None for i in images]
    numbers = _numbers(bag, images, labels, options)
    pixels = _pixels(bag, stamps, options, notes)
    samples, unlabelled = [], 0
    for i, image in enumerate(images):
        name = f"{_name(bag.path)}:{topic}#{image.source.number}"
        label = labels[i]
        truth: dict[str, Any] = {w: v[i] for w, v in numbers.items() if np.isfinite(v[i])}
        if not holds[i]:
            skipped.add(f"which have no poses within {options.max_gap_s:g} s around them", name)
            continue
        truth |= {word: found[i] for word, found in pixels.items() if found[i] is not None}
        if poses is None and (labeller or numbers or pixels) and label is None and not truth:
            wanted = ["label"] * bool(labeller) + ["number"] * bool(numbers)
            wanted += ["image of truth"] * bool(pixels)
            skipped.add(f"which have no {' and no '.join(wanted)}", name)
            continue
        unlabelled += bool(labeller and label is None and not truth)
        T = None if matrices is None else np.ascontiguousarray(matrices[i])
        stamp_ns, source = image.stamp_ns, image.source
        samples.append(Sample(name, label, T, stamp_ns, _name(bag.path), source, truth=truth))
    notes.append(
        f"{bag.path.name}: images are those of {topic}, {poses.text if poses else 'no poses'}"
    )
    fixes = [t for t, k in bag.kinds.items() if k == NAV_SAT_FIX]
    if fixes and poses is None and options.pose_source != "none":
        notes.append(
            f"{bag.path.name} could give positions by GPS: set pose_topic to {' or '.join(fixes)}"
        )
    if unlabelled:
        notes.append(
            f"{bag.path.name}: {counted(unlabelled, 'image has', 'images have')} a pose and no "
            "label"
        )
    camera = _camera(bag, topic, images, notes)
    return samples, poses.map_frame if poses else "", camera, poses is None or poses.oriented


def _image_topic(bag: BagFile, options: Options) -> str:
    wanted = options.image_topic
    if wanted:
        there = [t for t, k in bag.kinds.items() if k in IMAGE_KINDS]
        if slashed(wanted) not in there:
            raise ConfigError(
                f"{unknown('image topic', wanted, there or ['none'])} (in {bag.path})"
            )
        return slashed(wanted)
    truth = {slashed(s.where) for s in parse_images(names_in(options.truth_images))}
    pictures, _ = camera_topics(bag)
    rest = [topic for topic in pictures if topic not in truth] or pictures
    if len(rest) > 1:
        raise ConfigError(
            f"{bag.path} has {len(rest)} image topics: set image_topic to one of {', '.join(rest)}"
        )
    return rest[0]


def _images(
    bag: BagFile, topic: str, options: Options, skipped: Skipped
) -> tuple[list[_Image], str]:
    """Returns the topic's images in the order of their stamps, and their frame."""
    images: list[_Image] = []
    frame_id = ""
    stamps = StampNotes(bag)
    for number, record in enumerate(bag.raw([topic])):
        log_ns = record.log_ns
        stamp_ns, frame = bag.header(record)
        stamp_ns = stamps.add(topic, (stamp_ns, frame), log_ns)
        frame_id = frame_id or frame.lstrip("/")
        if number % options.every:
            continue
        source = BagImage.of(bag, record, number)
        if images and stamp_ns <= images[-1].stamp_ns:
            late = (images[-1].stamp_ns - stamp_ns) / 1e9
            text = f"{source}: stamp {stamp_ns / 1e9:.6f} s is {late:.6f} s before the last one's"
            if options.bad_poses == "error":
                raise SourceError(
                    f"{text}: stamps must increase; bad_poses=skip leaves such images out"
                )
            skipped.add("whose stamp does not increase", str(source))
            continue
        images.append(_Image(stamp_ns, log_ns, source))
    stamps.finish()
    return images, frame_id


def _labeller(bag: BagFile, options: Options, notes: list[str]) -> Labeller | None:
    if options.label_topic:
        hold_ns = nanoseconds(options.label_hold_s) or None
        return labels_of_topic(bag, slashed(options.label_topic), hold_ns)
    if options.label_spans:
        return labels_of_spans(bag, Path(options.label_spans).expanduser())
    topics = [t for t, k in bag.kinds.items() if k in LABEL_KINDS]
    if topics:
        notes.append(f"{bag.path.name} could give labels: set label_topic to {' or '.join(topics)}")
    return None


def _numbers(
    bag: BagFile, images: list[_Image], labels: list[str | None], options: Options
) -> dict[str, list[float]]:
    """Returns the images' numbers by their words of truth, NaN where there is none."""
    stamps, logs = (
        np.array([getattr(i, t) for i in images], np.int64) for t in ("stamp_ns", "log_ns")
    )
    found: dict[str, list[float]] = {}
    for source in parse_numbers(options.numbers):
        word = f"number:{source.name}"
        if source.topic:
            track = numbers_of_topic(bag, source, nanoseconds(options.number_hold_s) or None)
            found[word] = track.at(logs if track.by_log else stamps).tolist()
            continue
        if not (options.label_topic or options.label_spans):
            raise ConfigError(f"Number {source.name} is of a label: set label_topic or label_spans")
        found[word] = [np.nan if x is None else float(x == source.label) for x in labels]
    return found


def _pixels(
    bag: BagFile, stamps: NDArray[np.int64], options: Options, notes: list[str]
) -> dict[str, list[PixelMessage | None]]:
    """Returns the images' true pixels by their words of truth.

    Raises:
        ConfigError: a text is none of `truth.images`, there is no such topic, or ids without classes.
        SourceError: a topic's first message has several numbers a pixel.
    """
    found: dict[str, list[PixelMessage | None]] = {}
    asked = parse_images(names_in(options.truth_images))
    there = [t for t, k in bag.kinds.items() if k in IMAGE_KINDS and calls_itself_truth(t)]
    if there and not asked:
        could = ", ".join(f"{topic.rpartition('/')[2]}={topic}" for topic in there)
        notes.append(f"{bag.path.name} could give true pixels: set truth_images to {could}")
    for source in asked:
        topic = slashed(source.where)
        times, messages, first = messages_of_topic(bag, source)
        form = _form(messages[0], first, source, options, bag, notes) if messages else {}
        near = nearest_stamps(times, stamps, nanoseconds(options.truth_tolerance_s))
        found[f"image:{source.name}"] = [
            None if j < 0 else PixelMessage(messages[j], **form) for j in near.tolist()
        ]
        count = counted(len(stamps), "image has", "images have")
        notes.append(
            f"{bag.path.name}: {int((near >= 0).sum())} of {count} {source.name} of {topic} within "
            f"{options.truth_tolerance_s:g} s"
        )
    return found


def _form(
    first: BagImage,
    message: Any,
    asked: ImagesFrom,
    options: Options,
    bag: BagFile,
    notes: list[str],
) -> dict[str, Any]:
    """Returns what the numbers of a topic are, by its first message."""
    try:
        plane = first.plane()
    except ImageError as error:
        raise SourceError(f"{first} is no image of true pixels: {error}") from error
    none, unit = meaning(message)
    if asked.factor or none or plane.dtype == np.float32:
        return {"none": none, "unit": asked.factor or unit}
    if not options.classes:
        named = class_names(bag, asked.where)
        if named:
            entries = [Entry(i, name) for i, name in named.items()]
            return {"table": LabelTable.of(entries, options.ignore, notes)}
        raise ConfigError(
            f"{first} has whole numbers that are no distances by REP 118 (16UC1, 32FC1), and no LabelInfo on "
            f"{names_topic(asked.where)} names classes. For ids of classes set classes to their names, or to "
            f"a file with them; for other numbers give their factor, as in {asked.name}={asked.where}*0.001"
        )
    return {"table": read_classes(options.classes, bag.path.parent, options.ignore, notes)}


def _camera(bag: BagFile, topic: str, images: list[_Image], notes: list[str]) -> _Camera:
    """Returns what the camera_info topic nearest to the images' topic says."""
    there = [t for t, k in bag.kinds.items() if k == CAMERA_INFO]
    siblings = [t for t in there if topic.startswith(t.rsplit("/", 1)[0] + "/")]
    chosen = max(siblings, key=len, default=there[0] if len(there) == 1 else None)
    record = None if chosen is None else next(iter(bag.raw([chosen])), None)
    if record is None or not images:
        return _Camera()
    try:
        height, width = _first_size(images)
        numbers = numbers_of(bag.message(record), topic, size=(width, height))
    except (ConfigError, ImageError) as error:
        notes.append(f"{bag.path.name}:{chosen} is not used: {error}")
        return _Camera()
    K, distortion = numbers[2:4]
    if np.any(np.abs(distortion) > 1e-9):
        notes.append(
            f"{bag.path.name}:{chosen} has lens distortion, which is not undone in the images"
        )
    try:
        return _Camera(K, Intrinsics(*numbers))
    except ConfigError as error:  # such as a model of distortion that is not known
        notes.append(f"{bag.path.name}:{chosen} gives K and no more: {error}")
        return _Camera(K)


def _first_size(images: list[_Image]) -> tuple[int, ...]:
    """Returns (height, width) of the first image that can be read: a recording may begin with a damaged one.

    Raises:
        ImageError: none can, as the first one says.
    """
    first: ImageError | None = None
    for image in images:
        try:
            return image.source.load().shape[:2]
        except ImageError as error:
            first = first or error
    assert first is not None
    raise first


def _with_camera(sample: Sample, camera: _Camera, own: bool) -> Sample:
    """Returns a sample with its camera, and with its own K where cameras differ."""
    K = camera.K if own else sample.camera_matrix
    return replace(sample, camera_matrix=K, intrinsics=camera.intrinsics)
