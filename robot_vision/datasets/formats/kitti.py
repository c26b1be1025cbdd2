"""KITTI odometry: sequences/NN with image_2 (or 0, 1, 3), calib.txt and times.txt; poses/NN.txt.

Conventions: a line of poses/NN.txt is the 3 x 4 matrix of the **left grey camera** (camera 0) of that frame
in the map, which is where the camera was in the first one; optical axes (x right, y down, z forward), metres.
calib.txt gives each rectified camera as P = K [I | t], t the way from camera 0's points to its own: so

    T_map_camera = T_map_camera0 @ [I | -t].

Line n of the poses is of image n (000000 on). Sequences 11 to 21 have no poses and are left out. Each
sequence has a map of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.posed import PosedOptions, checked, several_maps_note, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.files import image_notes
from robot_vision.recordings.image_formats import is_image
from robot_vision.settings.declared import option
from robot_vision.text.counts import agreeing, counted
from robot_vision.truth.pose_checks import Skipped, numbers, pose_from_matrix, where
from robot_vision.truth.pose_files import to_ns, unit_of_stamps
from robot_vision.truth.tables import read_lines, read_table

_CAMERAS = ("2", "3", "0", "1")  # colour before grey, left before right


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    camera: str = option(
        "auto",
        "camera to read: 0 or 1: left or right grey, 2 or 3: left or right colour; auto: the first "
        "that exists of 2, 3, 0, 1",
        choices=("auto", "0", "1", "2", "3"),
    )
    poses: str = option("", "file of the poses of one sequence; empty: poses/NN.txt")


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`, a sequence's folder or one of several; see `registry.open_dataset`."""
    folders = [root] if _is_sequence(root) else _below(root) or _below(root / "sequences")
    if not folders:
        raise SourceError(
            f"{root} has no sequence of KITTI odometry: sequences/NN with image_2 (or image_0) and calib.txt"
        )
    if options.poses and len(folders) > 1:
        raise ConfigError("Option poses is for one sequence: open them one at a time")
    skipped, files, notes = Skipped(), list[Path](), list[str]()
    samples: list[Sample] = []
    without = []
    for folder in folders:
        name = folder.resolve().name
        poses = Path(options.poses).expanduser() if options.poses else _poses_file(folder, name)
        if poses is None:
            without.append(name)
        else:
            samples += _sequence(folder, name, poses, options, skipped, files, notes)
    if without and not samples:
        raise SourceError(
            f"{root} has no poses of {', '.join(without)}: put poses/{without[0]}.txt next to sequences, "
            "or set poses"
        )
    if without:
        notes.append(
            counted(len(without), "sequence has no poses and is", "sequences have no poses and are")
            + " left out: "
            f"{', '.join(without)}"
        )
    if len(folders) - len(without) > 1:
        notes.append(several_maps_note([f.resolve().name for f in folders]))
    return splits_of(samples, options, [*skipped.notes(), *image_notes(files, turn=False), *notes])


def _is_sequence(folder: Path) -> bool:
    return (folder / "calib.txt").is_file() and any(
        (folder / f"image_{c}").is_dir() for c in _CAMERAS
    )


def _below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        (p for p in folder.iterdir() if _is_sequence(p)), key=lambda p: natural_key(p.name)
    )


def _poses_file(folder: Path, name: str) -> Path | None:
    above = folder.resolve().parent
    places = (
        folder / "poses.txt",
        above / "poses" / f"{name}.txt",
        above.parent / "poses" / f"{name}.txt",
    )
    return next((p for p in places if p.is_file()), None)


def _sequence(
    folder: Path,
    name: str,
    poses: Path,
    options: Options,
    skipped: Skipped,
    files: list[Path],
    notes: list[str],
) -> list[Sample]:
    there = [c for c in _CAMERAS if (folder / f"image_{c}").is_dir()]
    camera = there[0] if options.camera == "auto" else options.camera
    if camera not in there:
        raise SourceError(
            f"{folder} has no image_{camera}: set camera to one of {', '.join(there)}"
        )
    if others := [f"image_{c}" for c in sorted(there) if c != camera]:
        notes.append(f"{name}: {', '.join(others)} is not used (set camera)")
    K, T_camera0_camera = _calibration(folder / "calib.txt", camera)
    rows = read_table(poses).rows
    stamps = _stamps(folder / "times.txt", len(rows), lambda text: notes.append(f"{name}: {text}"))
    below = [p for p in (folder / f"image_{camera}").iterdir() if is_image(p)]
    images = {int(p.stem): p for p in below if p.stem.isdecimal()}
    if len(images) < len(below):
        notes.append(
            f"{name}: "
            + counted(
                len(below) - len(images),
                "image has no number of its own",
                "images have no number of their own",
            )
            + ": left out"
        )
    files += images.values()
    samples = []
    for i, file in sorted(images.items()):
        unique = f"{name}/{file.parent.name}/{file.name}"
        if i >= len(rows):
            skipped.add(f"beyond the {counted(len(rows), 'line')} of {poses.name}", unique)
            continue
        T = checked(options, skipped, unique, _pose, rows[i].words, where(poses, rows[i].number))
        if T is not None:
            T = T @ T_camera0_camera
            stamp_ns = stamps[i] if stamps else None
            samples.append(
                Sample(unique, None, T, stamp_ns, name, FileImage(str(file), turn=False), K)
            )
    if lacking := len(rows) - len([i for i in images if i < len(rows)]):
        notes.append(
            f"{name}: {lacking} of {counted(len(rows), 'pose')} {agreeing(lacking, 'have')} no image in "
            f"image_{camera}"
        )
    notes.append(f"{name}: images are those of image_{camera}, moved from camera 0 by calib.txt")
    return samples


def _pose(words: list[str], place: str) -> NDArray[np.float64]:
    return pose_from_matrix(numbers(words, 12, place, "a pose of KITTI").reshape(3, 4), place)


def _stamps(file: Path, count: int, say: Callable[[str], None]) -> list[int]:
    if not file.is_file():
        say("there is no times.txt: images have no stamps")
        return []
    rows = read_table(file).rows
    if len(rows) < count:
        raise SourceError(
            f"{file} has {counted(len(rows), 'stamp')}, and there are {counted(count, 'pose')}"
        )
    unit = unit_of_stamps([row.words[0] for row in rows])
    return [to_ns(row.words[0], unit, where(file, row.number)) for row in rows]


def _calibration(file: Path, camera: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns K of a rectified camera, and `T_camera0_camera`."""
    for number, line in enumerate(read_lines(file), 1):
        name, _, values = line.partition(":")
        if name.strip() == f"P{camera}":
            place = where(file, number)
            P = numbers(values.split(), 12, place, f"P{camera}").reshape(3, 4)
            K = P[:, :3].copy()
            if min(K[0, 0], K[1, 1]) <= 0 or not np.allclose(K[2], [0, 0, 1]):
                raise SourceError(f"{place}: P{camera} is {P.tolist()}: not K [I | t]")
            T = np.eye(4)
            T[:3, 3] = -np.linalg.solve(K, P[:, 3])
            return K, T
    raise SourceError(f"{file} has no P{camera}")
