"""TUM RGB-D benchmark: rgb.txt (`stamp file`) and groundtruth.txt (`stamp tx ty tz qx qy qz qw`).

Conventions: stamps in seconds; the pose is the colour camera's optical frame in the map
(`T_map_camera`), metres, quaternion x y z w. Lines that begin with # are comments. Each image takes the
pose of the nearest stamp, if it is within `tolerance_s`; ground truth comes at 100 Hz and nothing is
interpolated, as the benchmark's own tools do.

A folder of such folders is a set of recordings. The benchmark's three cameras differ; the camera matrix
follows from `freiburg1`, `freiburg2` or `freiburg3` in the folder's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage, empty_files_note, first_file
from robot_vision.datasets.options import option, parse_camera_matrix
from robot_vision.datasets.pose_checks import Skipped, where
from robot_vision.datasets.pose_files import seconds_to_ns, tum_pose
from robot_vision.datasets.posed import PosedOptions, checked, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.sources.natural import natural_key

# Of the benchmark's calibration page: colour cameras, 640 x 480.
_CAMERAS = {
    "1": "517.3,516.5,318.6,255.3",
    "2": "520.9,521.0,325.1,249.7",
    "3": "535.4,539.2,320.1,247.6",
}


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    tolerance_s: float = option(0.02, "greatest distance in time of image and pose", low=0)


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    folders = [root] if (root / "rgb.txt").is_file() else _recordings(root)
    if not folders:
        raise SourceError(
            f"{root} has no rgb.txt, nor has a folder in it: give a recording's folder"
        )
    skipped = Skipped()
    samples: list[Sample] = []
    files: list[Path] = []
    notes: list[str] = []
    for folder in folders:
        K = _known_camera(folder, notes) if not options.camera_matrix else None
        samples += _recording(folder, options, K, skipped, files)
    notes = skipped.notes() + empty_files_note(files) + notes
    return splits_of(samples, options, notes)


def _recordings(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    found = [p for p in root.iterdir() if (p / "rgb.txt").is_file()]
    return sorted(found, key=lambda p: natural_key(p.name))


def _known_camera(folder: Path, notes: list[str]) -> NDArray[np.float64] | None:
    match = re.search(r"freiburg([123])|(?:^|_)fr([123])(?:_|$)", folder.name)
    if not match:
        return None
    text = _CAMERAS[match.group(1) or match.group(2)]
    notes.append(f"camera matrix of {folder.name} assumed from its name: fx,fy,cx,cy = {text}")
    return parse_camera_matrix(text)


def _recording(
    folder: Path,
    options: Options,
    K: NDArray[np.float64] | None,
    skipped: Skipped,
    files: list[Path],
) -> list[Sample]:
    truth = folder / "groundtruth.txt"
    if not truth.is_file():
        raise SourceError(
            f"{folder} has rgb.txt but no groundtruth.txt: only recordings with poses train"
        )
    pose_stamps, poses = _poses(truth, options, skipped)
    samples = []
    for number, stamp_ns, words in _stamped_lines(folder / "rgb.txt"):
        place = where(folder / "rgb.txt", number)
        if len(words) != 1:
            raise SourceError(
                f"{place}: a line is 'stamp file', and this one has {len(words)} words more"
            )
        name = f"{folder.name}/{words[0]}"
        file = folder / words[0]
        if first_file([file]) is None:
            skipped.add("whose image is not there", name)
            continue
        files.append(file)
        i = int(np.searchsorted(pose_stamps, stamp_ns))
        near = [j for j in (i - 1, i) if 0 <= j < len(pose_stamps)]
        best = min(near, key=lambda j: abs(int(pose_stamps[j]) - stamp_ns), default=None)
        if best is None or abs(int(pose_stamps[best]) - stamp_ns) > options.tolerance_s * 1e9:
            skipped.add(f"which have no pose within {options.tolerance_s:g} s", name)
            continue
        samples.append(
            Sample(name, None, poses[best], stamp_ns, folder.name, FileImage(str(file)), K)
        )
    return samples


def _poses(
    file: Path, options: Options, skipped: Skipped
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    stamps, poses = [], []
    for number, stamp_ns, words in _stamped_lines(file):
        name = f"{file.parent.name}/{file.name}:{number}"
        pose = checked(options, skipped, name, tum_pose, words, where(file, number))
        if pose is not None:
            stamps.append(stamp_ns)
            poses.append(pose)
    return np.array(stamps, np.int64), poses


def _stamped_lines(file: Path) -> list[tuple[int, int, list[str]]]:
    """Returns number, stamp in nanoseconds and the other words of each line.

    Raises:
        SourceError: a stamp that is no number, or not later than that before it.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    rows: list[tuple[int, int, list[str]]] = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        stamp_ns = seconds_to_ns(words[0], where(file, number))
        if rows and stamp_ns <= rows[-1][1]:
            raise SourceError(
                f"{where(file, number)}: stamp {words[0]} is not later than that of line {rows[-1][0]}: "
                "stamps must increase"
            )
        rows.append((number, stamp_ns, words[1:]))
    return rows
