"""What is recorded of a drive: images, where the robot was, and what its depth camera or scanner measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets import SPLIT_NAMES, Sample, Splits, open_dataset
from robot_vision.datasets.inspection import in_order
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.files.natural_order import natural_key
from robot_vision.geometry.frames import FrameTree, plain_frame
from robot_vision.geometry.intrinsics import Intrinsics, camera_of, info_topic
from robot_vision.geometry.rigid import inverse
from robot_vision.labelling.views import Eyes
from robot_vision.messages.stamps import nanoseconds
from robot_vision.messages.types import CAMERA_INFO, IMAGE, LASER_SCAN
from robot_vision.recordings.bag import COMPRESSED_IMAGE, has_distances
from robot_vision.recordings.bag_file import BagImage
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.files import readable
from robot_vision.recordings.recording_folder import is_bag
from robot_vision.recordings.storage import slashed
from robot_vision.truth.bag_poses import ODOMETRY, frame_tree, parse_transform
from robot_vision.truth.images import nearest_stamps

DEPTH = "image:depth"
_BASES = ("base_footprint", "base_link")  # REP 105, REP 120
_SCAN_WITHIN_S = 0.1
AHEAD = "0 0 0 -1.5708 0 -1.5708"  # of a camera that looks along x


@dataclass(frozen=True)
class Request:
    """Where things are, for what the recording does not say.

    Attributes:
        T_base_camera: (4, 4); None where the recording says it.
        scan: topic of the scan to measure by; empty for depth.
        rate_hz: of images without stamps; 0 where they have some.
        measure: whether depth or a scan is needed at all.
    """

    T_base_camera: NDArray[np.float64] | None = None
    scan: str = ""
    rate_hz: float = 0.0
    measure: bool = True


@dataclass(frozen=True, eq=False)
class Drive:
    """One recording.

    Attributes:
        name: of it.
        samples: its images, in order.
        splits: of each, its split's name.
        times_s: of each; NaN where nothing says it.
        T_map_base: (n, 4, 4) where the robot was; NaN where nothing says it.
        measured: of each image its depth, or the message of its scan; None for none.
        eyes: of each image what turns that into points.
    """

    name: str
    samples: Sequence[Sample]
    splits: Sequence[str]
    times_s: NDArray[np.float64]
    T_map_base: NDArray[np.float64]
    measured: Sequence[Any]
    eyes: Callable[[Sample], Eyes]


@dataclass(eq=False)
class Rig:
    """Where the sensors of one recording are on its robot.

    Attributes:
        T_base_camera: (4, 4).
        T_base_sensor: of what measures: the depth camera's optical frame, or the scanner's.
        lens: of the depth camera; None where it is that of the images.
        same_pixels: whether depth is of the pixels of the images.
    """

    T_base_camera: NDArray[np.float64]
    T_base_sensor: NDArray[np.float64]
    lens: Intrinsics | None = None
    same_pixels: bool = True


def open_drives(
    kind: str,
    path: Path,
    options: dict[str, str],
    request: Request,
    eyes: Callable[[NDArray[np.float64], Intrinsics | None, bool], Eyes],
) -> tuple[list[Drive], list[str]]:
    """Opens a data set as recordings of a robot.

    Args:
        kind: of the data set.
        path: of it.
        options: of it.
        request: what else is known.
        eyes: makes them of `T_base_sensor`, the depth camera's lens (None for a scanner), and whether its
            pixels are the images'.

    Returns:
        The recordings, and notes on them.

    Raises:
        ConfigError: nothing says where the camera is on the robot, or what measures.
        SourceError: it cannot be opened, or measures nothing.
    """
    bags = {}
    scan = slashed(request.scan) if request.scan else ""
    if kind == "rosbag":
        bags = {readable(p.name): p for p in _bags(path)}
        if request.measure and not scan:
            options, scan = _what_measures(next(iter(bags.values()), path), options)
    elif scan:
        raise ConfigError(f"--scan is a topic of a bag, and {path} is read as {kind}")
    splits = open_dataset(kind, path, **options)
    notes = list(splits.notes)
    if request.measure and not scan and not any(s.of(DEPTH) is not None for s in splits.samples):
        raise SourceError(
            f"{path} has no depth for any image, and no scan: record one, or name its topic or folder by the "
            f"options of {kind} (`robot-vision data formats {kind}`)"
        )
    split_of = {id(s): name for name in SPLIT_NAMES for s in splits.split(name)}
    drives = []
    for name, samples in in_order(splits).items():
        measured: list[Any] = [s.of(DEPTH) for s in samples]
        if kind == "rosbag":
            bag = BagFile(bags[name])
            try:
                rig, messages = _rig(bag, samples, measured, options, request, scan, notes)
            finally:
                bag.close()
            measured = messages if scan else measured
        elif request.T_base_camera is None:
            raise ConfigError(
                f"{path} does not say where the camera is on the robot: give --camera-to-base X Y Z ROLL "
                f"PITCH YAW ({AHEAD} where it looks straight ahead and its place is the robot's)"
            )
        else:
            rig = Rig(request.T_base_camera, request.T_base_camera)
        drives.append(
            Drive(
                name,
                samples,
                [split_of[id(s)] for s in samples],
                _times(samples, request.rate_hz),
                _bases(samples, rig.T_base_camera),
                measured,
                _Lenses(splits, rig, bool(scan), eyes),
            )
        )
    return drives, notes


@dataclass(eq=False)
class _Lenses:
    """Gives each image the eyes of its depth camera, made once a lens."""

    splits: Splits
    rig: Rig
    scan: bool
    make: Callable[[NDArray[np.float64], Intrinsics | None, bool], Eyes]
    made: dict[Any, Eyes] = field(default_factory=dict)

    def __call__(self, sample: Sample) -> Eyes:
        own = None if sample.camera_matrix is None else sample.camera_matrix.tobytes()
        if own not in self.made:
            lens = None if self.scan else self.rig.lens or self._of_images(sample)
            self.made[own] = self.make(self.rig.T_base_sensor, lens, self.rig.same_pixels)
        return self.made[own]

    def _of_images(self, sample: Sample) -> Intrinsics:
        K = self.splits.camera_matrix if sample.camera_matrix is None else sample.camera_matrix
        if sample.intrinsics is not None:
            return sample.intrinsics
        if K is None:
            raise ConfigError(
                "nothing says the camera's intrinsics: give --option camera_matrix=fx,fy,cx,cy, or record "
                "camera_info"
            )
        height, width = sample.source.load().shape[:2]
        return Intrinsics.of_matrix(K, width, height)


def _bags(path: Path) -> list[Path]:
    if is_bag(path) or not path.is_dir():
        return [path]
    return sorted((p for p in path.iterdir() if is_bag(p)), key=lambda p: natural_key(p.name))


def _what_measures(path: Path, options: dict[str, str]) -> tuple[dict[str, str], str]:
    """Returns the options with the depth topic of a bag, or the topic of its scan.

    Raises:
        ConfigError: there are several to choose from.
        SourceError: there is none.
    """
    asked = options.get("truth_images", "")
    if "depth=" in asked.replace(" ", ""):
        return options, ""
    bag = BagFile(path)
    try:
        depth = []
        for topic, kind in sorted(bag.kinds.items()):
            if kind in (IMAGE, COMPRESSED_IMAGE) and has_distances(bag, topic):
                depth.append(topic)
        scans = sorted(topic for topic, kind in bag.kinds.items() if kind == LASER_SCAN)
    finally:
        bag.close()
    if len(depth) == 1:
        both = ",".join(filter(None, (asked, f"depth={depth[0]}")))
        return {**options, "truth_images": both}, ""
    if depth:
        raise ConfigError(
            f"{path} has {len(depth)} topics of depth: give --option truth_images=depth=TOPIC with one of "
            f"{', '.join(depth)}"
        )
    if len(scans) == 1:
        return options, scans[0]
    if scans:
        raise ConfigError(f"{path} has {len(scans)} scans: give --scan one of {', '.join(scans)}")
    there = ", ".join(f"{t} ({k})" for t, k in sorted(bag.kinds.items())) or "no topic at all"
    raise SourceError(
        f"{path} has neither a topic of depth (16UC1, 32FC1 or compressedDepth) nor a scan to measure by: it "
        f"has {there}"
    )


def _rig(
    bag: BagFile,
    samples: Sequence[Sample],
    measured: Sequence[Any],
    options: dict[str, str],
    request: Request,
    scan: str,
    notes: list[str],
) -> tuple[Rig, list[BagImage | None]]:
    """Returns where a bag's sensors are on its robot, and the scan of each image."""

    def report(error: SourceError) -> None:
        notes.append(f"transform left out: {error}")

    tree, _ = frame_tree(bag, report)
    camera = plain_frame(options.get("camera_frame", "") or _frame_of(samples[0].source))
    base, T_base_camera = _mount(bag, tree, camera, options, request)
    notes.append(
        f"{bag.path.name}: the robot's frame is {base or 'what --camera-to-base is given in'}"
    )
    rig = Rig(T_base_camera, T_base_camera)
    if scan:
        stamps, messages = _scans(bag, scan)
        if messages:
            frame = plain_frame(_frame_of(messages[0]))
            rig.T_base_sensor = _scanner(bag, tree, base, camera, frame, rig)
        times = np.array([s.stamp_ns or 0 for s in samples], np.int64)
        near = nearest_stamps(stamps, times, nanoseconds(_SCAN_WITHIN_S))
        return rig, [None if i < 0 else messages[i] for i in near.tolist()]
    first = next((m for m in measured if m is not None), None)
    if isinstance(getattr(first, "source", None), BagImage):
        assert first is not None
        frame = plain_frame(_frame_of(first.source))
        between = tree.lookup(camera, frame) if frame and frame != camera else np.eye(4)
        if between is None:
            notes.append(
                f"{bag.path.name}: /tf_static does not connect the depth's frame {frame!r} to the images' "
                f"{camera!r}: taken as the same"
            )
            between = np.eye(4)
        rig.T_base_sensor = T_base_camera @ between
        rig.same_pixels = bool(np.allclose(between, np.eye(4), atol=1e-6))
        rig.lens = _lens(bag, first.source.topic, notes)
    return rig, []


def _frame_of(source: Any) -> str:
    return str(source.message().header.frame_id) if isinstance(source, BagImage) else ""


def _mount(
    bag: BagFile,
    tree: FrameTree[Any],
    camera: str,
    options: dict[str, str],
    request: Request,
) -> tuple[str, NDArray[np.float64]]:
    """Returns the robot's frame, empty where only a person says where the camera is, and that place."""
    base = options.get("base_frame", "")
    if not base:
        topics = [t for t, kind in bag.kinds.items() if kind == ODOMETRY]
        record = next(iter(bag.raw(topics)), None)
        child = "" if record is None else plain_frame(bag.message(record).child_frame_id)
        known = tree.frames()
        base = child or next((name for name in _BASES if name in known), "")
    base = plain_frame(base)
    if request.T_base_camera is not None:
        return base, request.T_base_camera
    if options.get("base_to_camera"):
        return base, parse_transform(options["base_to_camera"])
    fixed = tree.lookup(base, camera) if base else None
    if fixed is None:
        where = f"its robot's frame {base!r}" if base else "any frame of a robot"
        raise ConfigError(
            f"{bag.path}: /tf_static does not connect the camera's frame {camera!r} to {where}: give "
            "--camera-to-base X Y Z ROLL PITCH YAW, or --option base_frame=FRAME"
        )
    return base, fixed


def _scanner(
    bag: BagFile, tree: FrameTree[Any], base: str, camera: str, frame: str, rig: Rig
) -> NDArray[np.float64]:
    """Returns where a scanner is on the robot."""
    if base and (fixed := tree.lookup(base, frame)) is not None:
        return fixed
    if (between := tree.lookup(camera, frame)) is not None:
        return np.asarray(rig.T_base_camera @ between)
    raise ConfigError(
        f"{bag.path}: /tf_static does not connect the scan's frame {frame!r} to {base or camera!r}: record "
        f"/tf_static, or name the robot's frame by --option base_frame=FRAME"
    )


def _scans(bag: BagFile, topic: str) -> tuple[NDArray[np.int64], list[BagImage]]:
    """Returns stamps, increasing, and where the messages of a scan are."""
    there = [t for t, kind in bag.kinds.items() if kind == LASER_SCAN]
    if topic not in there:
        raise ConfigError(f"{unknown('scan', topic, there or ['none'])} (in {bag.path})")
    found: dict[int, BagImage] = {}
    for number, record in enumerate(bag.raw([topic])):
        stamp_ns, _ = bag.header(record)
        found.setdefault(stamp_ns or record.log_ns, BagImage.of(bag, record, number))
    stamps = sorted(found)
    return np.array(stamps, np.int64), [found[stamp] for stamp in stamps]


def _lens(bag: BagFile, topic: str, notes: list[str]) -> Intrinsics | None:
    """Returns the lens of a depth topic, from the camera_info next to it; None for that of the images."""
    own = info_topic(topic.removesuffix("/compressedDepth"))
    record = next(iter(bag.raw([own])), None) if bag.kinds.get(own) == CAMERA_INFO else None
    if record is None:
        return None
    try:
        return camera_of(bag.message(record), topic)
    except ConfigError as error:
        notes.append(f"{bag.path.name}:{own} is not used: {error}")
        return None


def _times(samples: Sequence[Sample], rate_hz: float) -> NDArray[np.float64]:
    """Returns when images were taken, seconds from the first; by their numbers where they have no stamps."""
    if all(s.stamp_ns is not None for s in samples):
        first = samples[0].stamp_ns or 0
        return np.array([((s.stamp_ns or 0) - first) * 1e-9 for s in samples])
    if not rate_hz:
        return np.full(len(samples), np.nan)
    digits = ["".join(c for c in _last_number(s.name)) for s in samples]
    numbers = [int(d) for d in digits] if all(digits) else list(range(len(samples)))
    return (np.array(numbers, np.float64) - numbers[0]) / rate_hz


def _last_number(name: str) -> str:
    """Returns the last digits of an image's name, without its suffix."""
    stem = name.rpartition("/")[2]
    runs = "".join(c if c.isdigit() else " " for c in stem).split()
    return runs[-1] if runs else ""


def _bases(samples: Sequence[Sample], T_base_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    T_camera_base = inverse(T_base_camera)
    nothing = np.full((4, 4), np.nan)
    return np.array(
        [nothing if s.T_map_camera is None else s.T_map_camera @ T_camera_base for s in samples]
    )
