"""`robot-vision make-bag`: frames of a folder or data set, and what is true of them, as a rosbag2."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from robot_vision.cli.arguments import add_data_options, data_options, number, open_data
from robot_vision.cli.make_bag.samples import Samples
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.geometry import rigid as geometry
from robot_vision.geometry.intrinsics import info_topic
from robot_vision.images.decode import image_size, to_rgb
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings import CompressedImage, Frame, Source, open_source
from robot_vision.recordings.bag import BagSource
from robot_vision.recordings.base import DEFAULT_FRAME, DEFAULT_TOPIC
from robot_vision.recordings.files import FileSource, upright_message
from robot_vision.recordings.image_formats import look_at
from robot_vision.recordings.opening import RATES_HZ
from robot_vision.recordings.writing import STORAGES, RecordingWriter
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted

_START_S = 1_700_000_000.0  # stamps of zero mean "not set" to many programs
_LAST_START_S = 2e9  # stamps count seconds in 32 bits, which end at 2.147e9
# https://design.ros2.org/articles/topic_and_service_names.html
_TOPIC = re.compile(r"(/?[A-Za-z_][A-Za-z0-9_]*)+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    from robot_vision.datasets import DATASETS, SPLIT_NAMES  # most verbs need none

    parser.add_argument(
        "folder", nargs="?", help="folder of images, pattern such as 'run*/*.jpg', or video"
    )
    parser.add_argument(
        "--data",
        nargs=2,
        metavar=("KIND", "PATH"),
        help="data set instead of a folder, with all that is known of its images: poses, labels, numbers, "
        f"true pixels and their classes; kinds: {', '.join(DATASETS)}",
    )
    add_data_options(parser)
    parser.add_argument(
        "--split",
        choices=(*SPLIT_NAMES, "all"),
        default="all",
        help="split of the data set (default: %(default)s)",
    )
    parser.add_argument(
        "--out", required=True, metavar="BAG", help="directory of the rosbag2 to write"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=30.0,
        help="frame rate of images without stamps, in Hz (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=STORAGES,
        default="sqlite3",
        help="storage format of the bag (default: %(default)s)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--raw", action="store_true", help="write decoded images (rgb8)")
    kind.add_argument(
        "--compressed",
        action="store_true",
        help="write the bytes of JPEG and PNG files unchanged (default)",
    )
    parser.add_argument(
        "--topic", default=DEFAULT_TOPIC, help="topic of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--frame-id", default=DEFAULT_FRAME, help="frame of the camera (default: %(default)s)"
    )
    parser.add_argument(
        "--camera-info",
        nargs=4,
        type=float,
        metavar=("FX", "FY", "CX", "CY"),
        help="focal lengths and principal point of the camera, in pixels; also writes camera_info in the"
        " namespace of the image topic",
    )
    parser.add_argument(
        "--pose-topic",
        default="/ground_truth/pose",
        help="topic of the true poses (default: %(default)s)",
    )
    parser.add_argument(
        "--map-frame", default="map", help="frame of the true poses (default: %(default)s)"
    )
    parser.add_argument(
        "--start-stamp",
        type=number(float, 0.0, _LAST_START_S),
        default=_START_S,
        metavar="S",
        help="stamp at which the bag starts, in seconds since 1970 (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="write only the first N frames (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the bag. Exit status: 0, or 1 if frames were left out because they could not be read."""
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit is {args.limit}: it must be 1 or more")
    _check_messages(args)
    given, depth = _given(args)
    source = given.source
    of_camera = info_topic(args.topic.rstrip("/"))
    start_ns = nanoseconds(args.start_stamp)
    poses = bad = frames = 0
    with RecordingWriter(args.out, args.format) as bag:
        total = min(filter(None, (source.count, args.limit)), default=None)
        shown = track(
            source,
            "writing",
            total,
            console=plain_console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        for frame in shown:
            if frames == args.limit:
                break
            stamp_ns = start_ns + frame.stamp_ns
            try:
                size = _write_image(bag, args, frame, stamp_ns)
            except ImageError as error:
                print(f"warning: {frame.name} is left out: {error}", file=sys.stderr)
                bad += 1
                continue
            if not frames:
                given.write_names(bag, stamp_ns)
            frames += 1
            if args.camera_info:
                fx, fy, cx, cy = args.camera_info
                K = ((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0))
                bag.camera_info(of_camera, stamp_ns, args.frame_id, size, K)
            elif (seen := given.camera(frame.name, size)) is not None:
                bag.camera_info(
                    of_camera, stamp_ns, args.frame_id, size, seen.K, seen.distortion, seen.model
                )
            given.write_truth(bag, frame.name, stamp_ns, size)
            pose = given.pose(frame.name)
            if pose is not None:
                position = pose[:3, 3]
                xyzw = geometry.xyzw_from_matrix(pose[:3, :3])
                bag.camera_pose(args.pose_topic, stamp_ns, position, xyzw, given.map_frame)
                poses += 1
        for note in source.notes:
            print(f"note: {note}", file=sys.stderr)
        problems = [*source.problems, *given.problems]
        for problem in problems:
            print(f"warning: {problem}", file=sys.stderr)
        if not frames:
            raise SourceError(f"{source.name} has no frame that can be read: no bag is written")
    left_out = bad + len(problems)
    print(
        f"{args.out}: {counted(frames, 'frame')}{given.rate}, {counted(poses, 'pose')}"
        + "".join(f", {text}" for text in given.said())
        + (f"; {counted(left_out, 'file')} left out" if left_out else "")
        + (
            f"; {counted(depth, 'depth image')} left out (--data seven_scenes {args.folder} writes them too)"
            if depth
            else ""
        )
    )
    return 1 if left_out else 0


def _check_messages(args: argparse.Namespace) -> None:
    """Refuses what no reader of the bag could use.

    Raises:
        ConfigError: which option that is.
    """
    slowest, fastest = RATES_HZ
    if not slowest <= args.rate <= fastest:
        raise ConfigError(
            f"--rate is {args.rate:g}: it must be from {slowest:g} to {fastest:g}, in Hz"
        )
    for option, topic in (("--topic", args.topic), ("--pose-topic", args.pose_topic)):
        if not _TOPIC.fullmatch(topic):
            raise ConfigError(
                f"{option} is {topic!r}: a topic has letters, digits and _, in parts between single "
                "slashes, of which none begins with a digit"
            )
    if args.topic.lstrip("/") == args.pose_topic.lstrip("/"):
        raise ConfigError(f"--topic and --pose-topic are both {args.topic}: give each its own")
    if args.camera_info is not None:
        fx, fy, *_ = args.camera_info
        if not all(map(math.isfinite, args.camera_info)) or fx <= 0 or fy <= 0:
            said = " ".join(f"{value:g}" for value in args.camera_info)
            raise ConfigError(
                f"--camera-info is {said}: it must be four finite numbers, FX and FY more than 0"
            )


def _given(args: argparse.Namespace) -> tuple[Folder | Samples, int]:
    """Returns what is to be written, and how many depth images are not.

    Raises:
        ConfigError: arguments that do not go together.
    """
    if bool(args.data) == bool(args.folder):
        raise ConfigError("Give a folder of images, or a data set by --data KIND PATH")
    if args.data:
        data = open_data(args.data[0], args.data[1], data_options(args.option), args.split)
        return Samples(data, nanoseconds(1 / args.rate), args.frame_id, args.map_frame), 0
    if args.option or args.split != "all":
        raise ConfigError("--option and --split belong to a data set: give --data KIND PATH")
    source = open_source(args.folder, rate=args.rate)
    if isinstance(source, BagSource):
        raise ConfigError(
            f"{args.folder} is a bag already: `rosbags-convert` makes a rosbag2 of a ROS 1 bag"
        )
    source, depth = _without_depth(source, args.rate)
    return Folder(source, args.map_frame, f" at {args.rate:g} Hz"), depth


@dataclass
class Folder:
    """Image files with their poses, or a video; the methods are those of `Samples`."""

    source: Source
    map_frame: str
    rate: str
    problems: Sequence[str] = ()

    def pose(self, name: str) -> np.ndarray | None:
        """Returns `T_map_camera` of an image, of the file next to it.

        Raises:
            SourceError: the file is no pose, or the image is stored in another orientation.
        """
        file = self.source.files[name] if isinstance(self.source, FileSource) else None
        pose = _pose_of(file) if file else None
        if file is None or pose is None:
            return None
        if look_at(file).orientation != 1:
            raise SourceError(
                f"{name} has a pose, which is of its pixels as stored, and an EXIF orientation "
                "that turns it: remove the orientation (exiftool -Orientation= FILE)"
            )
        return pose

    def camera(self, name: str, size: tuple[int, int]) -> None:
        """Returns nothing: files do not tell of their camera."""

    def write_names(self, bag: RecordingWriter, stamp_ns: int) -> None:
        """Writes nothing."""

    def write_truth(
        self, bag: RecordingWriter, name: str, stamp_ns: int, size: tuple[int, int]
    ) -> None:
        """Writes nothing."""

    def said(self) -> Sequence[str]:
        """Returns nothing."""
        return ()


def _write_image(
    bag: RecordingWriter, args: argparse.Namespace, frame: Frame, stamp_ns: int
) -> tuple[int, int]:
    message = upright_message(frame.message)
    if isinstance(message, CompressedImage) and not args.raw:
        size = image_size(message)  # also refuses a file that was cut off
        topic = f"{args.topic}/compressed"
        bag.compressed_image(topic, stamp_ns, args.frame_id, message.data, message.format)
        return size
    image = to_rgb(message)
    if args.compressed:
        data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
        bag.compressed_image(f"{args.topic}/compressed", stamp_ns, args.frame_id, data, "jpeg")
    else:
        bag.image(args.topic, stamp_ns, args.frame_id, image)
    return image.shape[0], image.shape[1]


def _without_depth(source: Source, rate: float) -> tuple[Source, int]:
    """Leaves out 7-Scenes' `frame-000123.depth.png` where `frame-000123.color.png` is there; counts them."""
    if not isinstance(source, FileSource):
        return source, 0
    files = source.files.values()
    colour = {f.with_suffix("") for f in files if f.stem.endswith(".color")}
    kept = [
        f
        for f in files
        if not f.stem.endswith(".depth")
        or f.with_name(f"{f.stem.removesuffix('.depth')}.color") not in colour
    ]
    return FileSource(source.name, kept, rate), len(files) - len(kept)


def _pose_of(file: Path) -> np.ndarray | None:
    """Reads `frame-000123.pose.txt` next to `frame-000123.color.jpg`: 4x4 `T_map_camera`, metres.

    Returns:
        float64 (4, 4) with an exact rotation; None without a file, or where tracking was lost (7-Scenes
        writes values that are not finite).

    Raises:
        SourceError: the file is no pose.
    """
    path = file.with_name(file.name.split(".")[0] + ".pose.txt")
    if not path.is_file():
        return None
    try:
        pose = np.loadtxt(path, dtype=np.float64)
    except ValueError as error:
        raise SourceError(f"{path} is no pose: it must hold 4 x 4 numbers ({error})") from error
    if pose.shape != (4, 4):
        raise SourceError(f"{path} is no pose: it holds {pose.shape} numbers and not (4, 4)")
    if not np.isfinite(pose).all():
        return None
    try:
        pose[:3, :3] = geometry.orthonormalised(pose[:3, :3])  # the files' are so to 4e-4 only
    except ValueError as error:
        raise SourceError(f"{path} is no pose: {error}") from error
    return pose
