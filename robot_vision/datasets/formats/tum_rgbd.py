"""TUM RGB-D benchmark: rgb.txt (`stamp file`) and groundtruth.txt (`stamp tx ty tz qx qy qz qw`).

Conventions: the pose is the colour camera's optical frame in the map (`T_map_camera`), metres, quaternion
x y z w; stamps in seconds, or nanoseconds by their size (`pose_files`). Each image takes the pose of the
nearest stamp, if it is within `tolerance_s`; ground truth comes at 100 Hz and nothing is interpolated, as the
benchmark's own tools do. Where there is no rgb.txt, associations.txt lists the images with their depth.

A folder of such folders is a set of recordings. The benchmark's three cameras differ; the camera matrix
follows from `freiburg1`, `freiburg2` or `freiburg3` in the folder's name.

ICL-NUIM (associations.txt, and `*.gt.freiburg` as ground truth) counts frames instead of seconds, and its
poses are those of POV-Ray: left-handed, camera y up (its published fy is -480). Both y axes are turned
over here, `F @ T @ F` with F = diag(1, -1, 1, 1), so that the camera's axes are optical and fy is 480.

Depth images, of depth.txt or next to the images in associations.txt, are distances along the camera's axis:
uint16, 5000 for a metre, 0 where nothing was measured, registered to the colour image. Each image takes that
of the nearest stamp within `tolerance_s`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import (
    FileImage,
    first_file,
    listed_path,
    unlisted_note,
    without_repeats,
)
from robot_vision.datasets.pixel_truth import PixelFile
from robot_vision.datasets.posed import (
    PosedOptions,
    matrix_for_image,
    report_to,
    several_maps_note,
    splits_of,
)
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings.files import image_notes
from robot_vision.recordings.image_formats import is_image
from robot_vision.settings.declared import option, parse_camera_matrix
from robot_vision.text.counts import counted
from robot_vision.truth.images import nearest_stamps
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped, where
from robot_vision.truth.pose_files import read_pose_file, to_ns, unit_of_stamps
from robot_vision.truth.tables import read_table

# Of the benchmark's calibration page: colour cameras, 640 x 480.
_CAMERAS = {
    "1": "517.3,516.5,318.6,255.3",
    "2": "520.9,521.0,325.1,249.7",
    "3": "535.4,539.2,320.1,247.6",
}
_ICL_NUIM = "481.2,480,319.5,239.5"
_LISTS = ("rgb.txt", "associations.txt", "associate.txt", "associated.txt")
_DEPTH_UNIT_M = 1 / 5000
_FRAMES_NS = 10**6 * 10**9  # whole seconds below it are no time since 1970
_FLIPPED_Y = np.diag([1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    tolerance_s: float = option(
        0.02, "largest time difference between an image and its pose or depth, in seconds", low=0
    )
    depth: bool = option(True, "use the depth images, where there are some")


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    folders = [root] if _list(root) else _recordings(root)
    if not folders:
        raise SourceError(
            f"{root} has neither rgb.txt nor associations.txt, nor has a folder in it: give a recording's"
        )
    skipped = Skipped()
    samples: list[Sample] = []
    files: list[Path] = []
    notes: list[str] = []
    for folder in folders:
        samples += _recording(folder, options, skipped, files, notes)
    if len(folders) > 1:
        notes.append(several_maps_note([folder.name for folder in folders]))
    measured = sum(bool(s.truth) for s in samples)
    if measured:
        notes.append(f"{measured} of {counted(len(samples), 'image has', 'images have')} depth")
    notes = skipped.notes() + image_notes(files, turn=False) + unlisted_note(files) + notes
    return splits_of(samples, options, notes)


def _list(folder: Path) -> Path | None:
    return first_file(folder / name for name in _LISTS)


def _recordings(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    found = [p for p in root.iterdir() if p.is_dir() and _list(p)]
    return sorted(found, key=lambda p: natural_key(p.name))


def _known_camera(
    folder: Path, povray: bool, image: Path, notes: list[str]
) -> NDArray[np.float64] | None:
    match = re.search(r"freiburg([123])|(?:^|_)fr([123])(?:_|$)", folder.name)
    if povray:
        text, why = _ICL_NUIM, "assumed to be ICL-NUIM's"
    elif match:
        text, why = _CAMERAS[match.group(1) or match.group(2)], "assumed from its name"
    else:
        return None
    notes.append(f"camera matrix of {folder.name} {why}: fx,fy,cx,cy = {text} at 640 x 480")
    K = parse_camera_matrix(text)
    return matrix_for_image(K, (480, 640), image, f"the camera of {folder.name}", notes)


def _truth(folder: Path) -> tuple[Path, bool]:
    """Returns the file of poses, and whether they are POV-Ray's."""
    if (folder / "groundtruth.txt").is_file():
        return folder / "groundtruth.txt", False
    found = sorted(folder.glob("*.gt.freiburg"))
    if len(found) != 1:
        why = f"several ({', '.join(p.name for p in found)})" if found else "none either"
        raise SourceError(
            f"{folder} has images but no groundtruth.txt, and of *.gt.freiburg {why}: only a recording with "
            "one file of poses trains"
        )
    return found[0], True


def _recording(
    folder: Path, options: Options, skipped: Skipped, files: list[Path], notes: list[str]
) -> list[Sample]:
    truth, povray = _truth(folder)

    def say(text: str) -> None:
        notes.append(f"{folder.name}: {text}")

    track = read_pose_file(truth, report_to(options, skipped), "tum", say=say)
    if povray:
        say(
            f"poses of {truth.name} are ICL-NUIM's, left-handed with y up: y of camera and map is turned over"
        )
    listed = _images(folder, say)
    if not povray and listed[-1][0] < _FRAMES_NS and all(ns % 10**9 == 0 for ns, _ in listed):
        say(
            f"stamps are numbers of frames: if this is ICL-NUIM, call {truth.name} a .gt.freiburg, since its "
            "poses are left-handed"
        )
    first = first_file(folder / image for _, image in listed)
    K = None
    if first is not None and not options.camera_matrix:
        K = _known_camera(folder, povray, first, notes)
    depth_ns, depth = _depth(folder) if options.depth else (np.empty(0, np.int64), [])
    samples = []
    stamps_ns = np.array([stamp_ns for stamp_ns, _ in listed], np.int64)
    within_ns = nanoseconds(options.tolerance_s)
    near = nearest_stamps(track.stamps_ns, stamps_ns, within_ns)
    near_depth = nearest_stamps(depth_ns, stamps_ns, within_ns)
    for row, (stamp_ns, image) in enumerate(listed):
        name = f"{folder.name}/{image}"
        file = folder / image
        if first_file([file]) is None:
            skipped.add(MISSING_IMAGE, name)
            continue
        files.append(file)
        best = int(near[row])
        if best < 0:
            skipped.add(f"which have no pose within {options.tolerance_s:g} s", name)
            continue
        T = pose_matrix(track.positions[best], track.xyzw[best])
        T = _FLIPPED_Y @ T @ _FLIPPED_Y if povray else T
        source = FileImage(str(file), turn=False)
        sample = Sample(name, None, T, stamp_ns, folder.name, source, K)
        of = int(near_depth[row])
        if of >= 0 and first_file([folder / depth[of]]):
            measured = PixelFile(str(folder / depth[of]), (0,), _DEPTH_UNIT_M)
            sample = replace(sample, truth={"image:depth": measured})
        samples.append(sample)
    return samples


def _depth(folder: Path) -> tuple[NDArray[np.int64], list[str]]:
    """Returns stamps and files of the depth images, in the order of the stamps; none without a list.

    Raises:
        SourceError: a stamp is no number.
    """
    file = first_file(folder / name for name in ("depth.txt", *_LISTS))
    if file is None or file.name == "rgb.txt":
        return np.empty(0, np.int64), []
    alone = file.name == "depth.txt"
    rows = [row for row in read_table(file).rows if len(row.words) in ((2, 4) if alone else (4,))]
    stamp, image = 0, 1
    if not alone:  # the stamp is that of the colour image, to which the line gives it
        stamp, image = (2, 1) if rows and _is_depth(rows[0].words[1]) else (0, 3)
    unit = unit_of_stamps([row.words[0] for row in rows])
    found = sorted(
        (to_ns(row.words[stamp], unit, where(file, row.number)), listed_path(row.words[image]))
        for row in rows
    )
    return np.array([time_ns for time_ns, _ in found], np.int64), [name for _, name in found]


def _images(folder: Path, say: Callable[[str], None]) -> list[tuple[int, str]]:
    """Returns stamp and file of each colour image.

    Raises:
        SourceError: a stamp that is no number or before that above it, a line with other words than stamp and
            file (of associations: twice), or one image or stamp listed for two.
    """
    file = _list(folder)
    assert file is not None
    table = read_table(file)
    pairs = file.name != "rgb.txt"
    unit = unit_of_stamps([row.words[0] for row in table.rows if row.words])
    listed: list[tuple[int, int, str]] = []
    for row in table.rows:
        place = where(file, row.number)
        words = row.words
        stamp_ns = to_ns(words[0], unit, place)
        if pairs and len(words) == 4 and _is_depth(words[1]) and not _is_depth(words[3]):
            words = words[2:]  # depth may come first
            stamp_ns = to_ns(words[0], unit, place)
        elif len(words) not in ((2, 4) if pairs else (2,)):
            raise SourceError(
                f"{place}: a line is 'stamp file'{', once or twice' * pairs}, and this one has "
                f"{counted(len(words) - 1, 'word')} after the stamp"
            )
        listed.append((row.number, stamp_ns, listed_path(words[1])))
    rows = without_repeats(file, listed, say)
    if not any(is_image(Path(image)) for _, image in rows):
        raise SourceError(f"{file} lists no image")
    return rows


def _is_depth(name: str) -> bool:
    return "depth" in name.lower()
