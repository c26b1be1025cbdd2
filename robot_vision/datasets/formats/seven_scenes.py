"""Microsoft 7-Scenes: `frame-NNNNNN.color.png` (or jpg) with `frame-NNNNNN.pose.txt`.

Conventions: a pose file is four lines of four numbers, camera to world (`T_map_camera`), metres; the
camera's axes are x right, y down, z forward already. The published rotations are orthonormal only to about
4e-4: within `pose_checks.ROTATION_TOLERANCE` they are replaced by the nearest rotation, beyond it refused.

Layouts: a scene with folders `seq-NN` and, for the official split, TrainSplit.txt and TestSplit.txt with
lines such as `sequence1`; or one flat folder of frames.

The camera is a Kinect: where `camera_matrix` is not given, fx = fy = 525, cx = 320, cy = 240 at 640 x 480
(its uncalibrated colour camera; 585 is its depth camera's), scaled to images of another size.

`frame-NNNNNN.depth.png`, where there are some, are distances along the depth camera's axis: uint16
millimetres, 65535 and 0 where nothing was measured. They are of the depth camera's pixels: at the sides
what they show is 32 of 640 pixels away from what the image shows there. `depth_camera` corrects that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.pixel_truth import PixelFile
from robot_vision.datasets.posed import PosedOptions, checked, matrix_for_image, splits_of
from robot_vision.datasets.registered_depth import RegisteredDepth, parse_depth_camera
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.files import image_notes, some
from robot_vision.recordings.image_formats import is_image
from robot_vision.settings.declared import option, parse_camera_matrix
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import Skipped, numbers, pose_from_matrix, where
from robot_vision.truth.tables import read_lines, read_text

KINECT = "525,525,320,240"
_FRAME = re.compile(r"^(frame-\d+)\.color\.\w+$", re.IGNORECASE)
_POSE = re.compile(r"^(frame-\d+)\.pose\.txt$", re.IGNORECASE)
_SIZE = (480, 640)
_LOST = re.compile(r"inf|nan|#ind", re.IGNORECASE)
_SEQUENCE = re.compile(r"^seq-?(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    depth: str = option(
        "",
        "folder of the depth images (below it as the frames are), if they are not next to them; none: they "
        "are not used",
    )
    depth_camera: str = option(
        "",
        "the depth camera as fx,fy,cx,cy,x, in pixels and metres to the right of the colour camera "
        "(a Kinect's: 585,585,320,240,-0.025): depth is brought to the image's pixels; empty: as stored",
    )


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give the scene's folder")
    folders = sorted(
        (p for p in root.iterdir() if p.is_dir() and _SEQUENCE.match(p.name)),
        key=lambda p: natural_key(p.name),
    )
    if not folders and any(_SEQUENCE.match(p.stem) for p in root.glob("*.zip")):
        raise SourceError(f"{root} holds its sequences as zip files: unzip them there first")
    skipped = Skipped()
    samples: list[Sample] = []
    files: list[Path] = []
    measured = 0
    for folder in folders or [root]:
        found, images = frames_in(folder, folder.name if folders else root.name, options, skipped)
        found, count = _with_depth(found, folder, root, options)
        measured += count
        samples += found
        files += images
    if not files:
        raise SourceError(
            f"{root} has no frame: 7-Scenes has frame-NNNNNN.color.png (or jpg) and "
            "frame-NNNNNN.pose.txt, in folders seq-NN or in the folder itself"
        )
    notes = [*skipped.notes(), *image_notes(files, turn=False)]
    if options.depth not in ("", "none") and not measured:
        raise SourceError(
            f"{_depth_root(root, options)} has no depth image of these frames: frame-NNNNNN.depth.png"
        )
    if measured:
        whose = (
            "brought to the image's pixels by depth_camera"
            if options.depth_camera
            else "of the depth camera's pixels, which are not the image's: depth_camera brings it to these"
        )
        notes.append(
            f"{measured} of {counted(len(samples), 'frame has', 'frames have')} depth, {whose}"
        )
    unread = [p.name for p in root.glob("*.zip") if folders and not root.joinpath(p.stem).is_dir()]
    loose = [p.name for p in root.iterdir() if folders and _FRAME.match(p.name)]
    if unread:
        notes.append(
            counted(
                len(unread), "zip file is not unpacked and is", "zip files are not unpacked and are"
            )
            + " left out: "
            f"{some(sorted(unread))}"
        )
    if loose:
        notes.append(
            counted(
                len(loose),
                "image is outside the sequences and is",
                "images are outside the sequences and are",
            )
            + " left out: "
            f"{some(loose)}"
        )
    test = _official_test(root, {p.name for p in folders}, notes) if folders else None
    K = None
    if not options.camera_matrix:
        K = matrix_for_image(parse_camera_matrix(KINECT), _SIZE, files[0], "the Kinect", notes)
        notes.append(f"camera matrix assumed: fx,fy,cx,cy = {KINECT} (set camera_matrix)")
    if options.depth_camera:
        if not measured:
            raise ConfigError(f"Option depth_camera has no effect: no frame of {root} has depth")
        camera = K if K is not None else parse_camera_matrix(options.camera_matrix)
        assert camera is not None
        samples = _registered(samples, options.depth_camera, camera)
    is_test = None if test is None else lambda sample: sample.sequence in test
    return splits_of(samples, options, notes, is_test=is_test, K=K)


def frames_in(
    folder: Path,
    sequence: str,
    options: PosedOptions,
    skipped: Skipped,
    lost_is_skipped: bool = False,
) -> tuple[list[Sample], list[Path]]:
    """Returns the frames of a folder that have a pose, in order, and all its images.

    Args:
        folder: of frames.
        sequence: their recording's name.
        options: of the data set.
        skipped: counts those without a pose.
        lost_is_skipped: a pose that is not finite means that the tracking was lost, and no fault.
    """
    entries = {p.name: p for p in folder.iterdir()}
    samples, images, seen = [], [], set()
    for name in sorted(entries, key=natural_key):
        match = _FRAME.match(name)
        if not match or not is_image(entries[name]):
            continue
        file, stem = entries[name], match.group(1)
        pose_file = folder / f"{stem}.pose.txt"
        unique = f"{sequence}/{stem}"
        if stem in seen:
            skipped.add("as the frame has another image", name)
            continue
        seen.add(stem)
        images.append(file)
        if pose_file.name not in entries:
            skipped.add("which have no pose file", unique)
            continue
        if lost_is_skipped and _LOST.search(read_text(pose_file)):
            skipped.add("whose tracking was lost (the pose is not finite)", unique)
            continue
        T = checked(options, skipped, unique, read_pose, pose_file)
        if T is not None:
            samples.append(
                Sample(unique, None, T, None, sequence, FileImage(str(file), turn=False))
            )
    for name in sorted(entries, key=natural_key):
        pose = _POSE.match(name)
        if pose and pose.group(1) not in seen:
            skipped.add("which have a pose and no image", f"{sequence}/{pose.group(1)}")
    return samples, images


def _depth_root(root: Path, options: Options) -> Path:
    return root / Path(options.depth).expanduser()


def _with_depth(
    samples: list[Sample], folder: Path, root: Path, options: Options
) -> tuple[list[Sample], int]:
    """Returns the frames of a folder with their depth images, and how many have one."""
    if options.depth == "none":
        return samples, 0
    place = _depth_root(root, options) / folder.relative_to(root)
    there = {p.name for p in place.iterdir()} if place.is_dir() else set()
    found = []
    for sample in samples:
        name = f"{sample.name.rpartition('/')[2]}.depth.png"
        if name in there:
            truth = {"image:depth": PixelFile(str(place / name), (0, 65535), 1e-3)}
            sample = replace(sample, truth=truth)
        found.append(sample)
    return found, sum(bool(sample.truth) for sample in found)


def _registered(samples: list[Sample], depth_camera: str, K: NDArray[np.float64]) -> list[Sample]:
    depth, x_m = parse_depth_camera(depth_camera)
    colour = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    word = "image:depth"
    return [
        replace(s, truth={word: RegisteredDepth(s.truth[word], depth, colour, x_m)})
        if s.truth
        else s
        for s in samples
    ]


def read_pose(file: Path) -> NDArray[np.float64]:
    """Returns `T_map_camera` (4, 4) of a pose file.

    Raises:
        SourceError: not four lines of four finite numbers, or no rigid transform.
    """
    lines = read_lines(file)
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            rows.append(numbers(line.split(), 4, where(file, number), "a row of a pose"))
    if len(rows) != 4:
        raise SourceError(
            f"{where(file, len(lines))}: a pose has 4 rows, and there are {len(rows)}"
        )
    return pose_from_matrix(np.array(rows), where(file, 1))


def _official_test(root: Path, present: set[str], notes: list[str]) -> set[str] | None:
    """Returns the test sequences of TestSplit.txt; None where the split files are not there."""
    files = [root / "TrainSplit.txt", root / "TestSplit.txt"]
    if not all(file.is_file() for file in files):
        return None
    train, test = (_listed(file, present, notes) for file in files)
    both = train & test
    if both:
        raise SourceError(f"{files[1]}: {', '.join(sorted(both))} is also in {files[0].name}")
    rest = present - train - test
    if rest:
        raise SourceError(f"{root}: {', '.join(sorted(rest))} is in neither split file")
    return test


def _listed(file: Path, present: set[str], notes: list[str]) -> set[str]:
    by_number = {int(_SEQUENCE.match(name).group(1)): name for name in present}  # type: ignore[union-attr]
    found = set()
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(?:sequence|seq-?)\s*(\d+)", line.strip(), re.IGNORECASE)
        if not match:
            raise SourceError(f"{where(file, number)}: {line.strip()!r} is not like sequence1")
        if int(match.group(1)) in by_number:
            found.add(by_number[int(match.group(1))])
        else:
            notes.append(f"{where(file, number)}: {line.strip()} does not exist and is left out")
    return found
