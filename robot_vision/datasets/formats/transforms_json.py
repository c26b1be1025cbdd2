"""transforms.json of NeRF, Instant-NGP and Nerfstudio, also as written from COLMAP.

Conventions: `transform_matrix` is 4 x 4, camera to world, with **OpenGL camera axes** (x right, y up, z
backward); here its y and z columns change sign, so that the camera's axes are optical (x right, y down,
z forward). The world's axes and unit stay as in the file; `scale` multiplies positions (such files are
often not in metres).

Intrinsics: `fl_x fl_y cx cy` in pixels of an image of `w h`, for all or in a frame, or `camera_angle_x` (and
`_y`) in radians. For an image of another size they are scaled, or refused where it is no scaled picture.

Split: transforms_train.json, transforms_val.json, transforms_test.json next to each other; or
`train_filenames`, `val_filenames`, `test_filenames` in the file, which may spell a frame's `file_path`
otherwise (`./`, backslashes, without suffix or folder); else blocks of frames in the order of their names.
Images in val and test are test; in train and another part they are refused; frames in no list are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.formats.transforms_splits import (
    PARTS,
    in_order,
    listed_parts,
    once,
    separate,
)
from robot_vision.datasets.image_files import FileImage, listed_file, listed_path
from robot_vision.datasets.posed import (
    PosedOptions,
    checked,
    is_turned,
    matrix_for_image,
    splits_of,
)
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.recordings.files import image_notes
from robot_vision.recordings.image_formats import IMAGE_SUFFIXES, stored_size
from robot_vision.settings.declared import option
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped, pose_from_matrix, where
from robot_vision.truth.tables import read_text

OPTICAL_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_NO_PINHOLE = ("OPENCV_FISHEYE", "EQUIRECTANGULAR", "VR180_L", "VR180_R", "OMNIDIRECTIONALSTEREO_L")


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    scale: float = option(1.0, "length of the file's unit, in metres", low=1e-9)


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`, the file or its folder; see `registry.open_dataset`."""
    skipped = Skipped()
    notes: list[str] = []
    parts: dict[str, list[Sample]] = {}
    by_part = {part: root / f"transforms_{part}.json" for part in PARTS}
    there = {part: file for part, file in by_part.items() if root.is_dir() and file.is_file()}
    if root.is_dir() and not (root / "transforms.json").is_file():
        if "train" not in there:
            raise SourceError(f"{root} has no transforms.json and no transforms_train.json")
        parts = {part: _frames(file, options, skipped, notes) for part, file in there.items()}
        samples = [sample for part in parts.values() for sample in part]
    else:
        if there:
            notes.append(
                f"{', '.join(f.name for f in there.values())}: not read, since there is a transforms.json"
            )
        file = root / "transforms.json" if root.is_dir() else root
        samples = _frames(file, options, skipped, notes)
        parts = listed_parts(file, _load(file)[0], samples, notes)
    notes = skipped.notes() + notes
    if options.scale == 1:
        notes.append("positions are in the file's unit: set scale where that is not metres")
    if not parts or options.split not in ("auto", "official"):
        return splits_of(once(samples, notes), options, notes)
    separate(parts, notes)
    if parts.get("val"):
        three = parts["train"], parts["val"], parts.get("test", [])
        return splits_of(samples, options, notes, parts=three)
    test = {id(sample) for sample in parts.get("test", [])}
    samples = parts["train"] + parts.get("test", [])
    return splits_of(samples, options, notes, is_test=lambda sample: id(sample) in test)


def _load(file: Path) -> tuple[dict[str, Any], str]:
    try:
        text = read_text(file)
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"{where(file, error.lineno)}: not JSON: {error.msg}") from error
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise SourceError(f"{where(file, 1)}: not a transforms file: it needs a list named frames")
    if not data["frames"]:
        raise SourceError(f"{file} has no frame: its list named frames is empty")
    return data, text


def _frames(file: Path, options: Options, skipped: Skipped, notes: list[str]) -> list[Sample]:
    data, text = _load(file)
    seen: set[str] = set()
    samples = []
    files: dict[bool, list[Path]] = {False: [], True: []}
    scaled: set[str] = set()
    at, line = 0, 1
    for number, frame in enumerate(data["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise SourceError(f"{where(file, line)}: frame {number} has no file_path")
        path = frame["file_path"]
        found = text.find(json.dumps(path), at)
        if found >= 0:  # counted on from the last frame: from the start would be quadratic
            line += text.count("\n", at, found)
            at = found
        place = f"{where(file, line)}: {path}"  # many files are one line
        key = listed_path(path)
        if key in seen:
            raise SourceError(
                f"{place}: this file_path is that of two frames: take one of them out"
            )
        seen.add(key)
        image = listed_file(file.parent, path, IMAGE_SUFFIXES)  # synthetic scenes leave the end out
        name = f"{file.stem}/{key}" if file.stem != "transforms" else key
        if image is None:
            skipped.add(MISSING_IMAGE, name)
            continue
        T = checked(
            options, skipped, name, _pose, frame.get("transform_matrix"), place, options.scale
        )
        own = {**data, **frame}
        K, turn = None, False
        if not options.camera_matrix:
            K, turn = _camera(own, image, place, file, scaled)
        files[turn].append(image)
        sequence = name.rpartition("/")[0] or file.stem  # a walk, or a camera of several
        if T is not None:
            samples.append(Sample(name, None, T, None, sequence, FileImage(str(image), turn), K))
    notes += image_notes(files[False], turn=False) + image_notes(files[True])
    notes += sorted(scaled)
    models = {str(f.get("camera_model", "")) for f in (data, *data["frames"])} & set(_NO_PINHOLE)
    if models:
        notes.append(
            f"{file.name} has cameras {', '.join(sorted(models))}: such have no camera matrix"
        )
    distorted = [k for k in ("k1", "k2", "k3", "k4", "p1", "p2") if _any_nonzero(data, k)]
    if distorted:
        notes.append(
            f"{file.name} has lens distortion ({', '.join(distorted)}), which is not undone"
        )
    if "applied_transform" in data:
        notes.append(f"{file.name} has an applied_transform: poses are in the world after it")
    if [s.name for s in samples] != [s.name for s in sorted(samples, key=in_order)]:
        notes.append(
            f"{file.name} has its frames in another order than their names, which is taken"
        )
    return samples


def _any_nonzero(data: Mapping[str, Any], key: str) -> bool:
    return any(d.get(key) for d in (data, *data["frames"]))


def _pose(matrix: Any, place: str, scale: float) -> NDArray[np.float64]:
    try:
        values = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        raise SourceError(f"{place}: transform_matrix is not a matrix of numbers") from None
    T: NDArray[np.float64] = pose_from_matrix(values, place) @ OPTICAL_FROM_OPENGL
    T[:3, 3] *= scale
    return T


def _camera(
    data: Mapping[str, Any], image: Path, place: str, file: Path, notes: set[str]
) -> tuple[NDArray[np.float64] | None, bool]:
    """Returns K of a frame in pixels of its image, and whether the image has to be turned upright for it."""
    K = _intrinsics(data, image, place)
    try:
        stored = stored_size(image)
    except Exception:  # an unreadable image is the loader's to count
        return K, False
    if "w" not in data or "h" not in data:
        if K is not None and (K[0, 2] >= stored[1] or K[1, 2] >= stored[0]):
            raise SourceError(
                f"{place}: cx, cy = {K[0, 2]:g}, {K[1, 2]:g} is not inside {image} of {stored[1]} x "
                f"{stored[0]} pixels: give the w and h that the camera matrix is for"
            )
        return K, False
    try:
        size = int(_number(data, "h")), int(_number(data, "w"))
        if min(size) < 1:
            raise ValueError(f"{size[1]} x {size[0]}")
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{place}: w and h are no size of an image: {error}") from error
    if is_turned(size, image):
        return K, True
    said: list[str] = []
    K = matrix_for_image(K, size, image, f"the camera of {file}", said)
    notes.update(said)
    return K, False


def _intrinsics(data: Mapping[str, Any], image: Path, place: str) -> NDArray[np.float64] | None:
    """Returns K of a frame, whose own keys come before those of the file; None where there are none."""
    if data.get("camera_model") in _NO_PINHOLE:
        return None
    try:
        if "fl_x" in data:
            fx = _number(data, "fl_x")
            fy = _number(data, "fl_y") if "fl_y" in data else fx
        elif "camera_angle_x" in data:
            fx = _size(data, image)[1] / 2 / math.tan(_number(data, "camera_angle_x") / 2)
            fy = fx
            if "camera_angle_y" in data:
                fy = _size(data, image)[0] / 2 / math.tan(_number(data, "camera_angle_y") / 2)
        else:
            return None
        size = None if "cx" in data and "cy" in data else _size(data, image)
        cx = _number(data, "cx") if size is None else size[1] / 2
        cy = _number(data, "cy") if size is None else size[0] / 2
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise SourceError(f"{place}: intrinsics are not numbers: {error}") from error
    if not np.all(np.isfinite([fx, fy, cx, cy])) or min(fx, fy) <= 0:
        raise SourceError(f"{place}: focal lengths {fx:g}, {fy:g} must be positive and finite")
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _number(data: Mapping[str, Any], key: str) -> float:
    return float(data[key])


def _size(data: Mapping[str, Any], image: Path) -> tuple[float, float]:
    if "w" in data and "h" in data:
        return _number(data, "h"), _number(data, "w")
    try:
        height, width = stored_size(image)
    except Exception as error:  # an unreadable image is the loader's to count; here it has no size
        raise ValueError(f"w and h are not there, and {image} has no size ({error})") from error
    return float(data.get("h", height)), float(data.get("w", width))
