"""transforms.json of NeRF, Instant-NGP and Nerfstudio, also as written from COLMAP.

Conventions: `transform_matrix` is 4 x 4, camera to world, with **OpenGL camera axes** (x right, y up, z
backward); here its y and z columns change sign, so that the camera's axes are optical (x right, y down,
z forward). The world's axes and unit stay as in the file; `scale` multiplies positions (such files are
often not in metres).

Intrinsics: `fl_x fl_y cx cy` (and `w h`) in pixels, for all or in a frame, or `camera_angle_x` in
radians.

Split: transforms_train.json, transforms_val.json, transforms_test.json beside each other; or
`train_filenames`, `val_filenames`, `test_filenames` in the file; else blocks of frames in the file's
order.
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

from robot_vision.datasets.image_files import FileImage, first_file
from robot_vision.datasets.options import option
from robot_vision.datasets.pose_checks import Skipped, pose_from_matrix, where
from robot_vision.datasets.posed import PosedOptions, checked, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.datasets.tables import read_text
from robot_vision.errors import SourceError
from robot_vision.images import image_size
from robot_vision.sources.files import image_notes
from robot_vision.sources.image_formats import IMAGE_SUFFIXES, read_image

OPTICAL_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    scale: float = option(1.0, "metres in the file's unit of length", low=1e-9)


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`, the file or its folder; see `registry.open_dataset`."""
    skipped = Skipped()
    notes: list[str] = []
    files: list[Path] = []
    if root.is_dir() and not (root / "transforms.json").is_file():
        parts = {part: root / f"transforms_{part}.json" for part in _PARTS}
        there = {part: file for part, file in parts.items() if file.is_file()}
        if "train" not in there:
            raise SourceError(f"{root} has no transforms.json and no transforms_train.json")
        read = {p: _frames(f, options, skipped, notes, files) for p, f in there.items()}
        official: dict[str, str] | None = {s.name: p for p, ss in read.items() for s in ss}
        samples = [sample for part in read.values() for sample in part]
    else:
        file = root / "transforms.json" if root.is_dir() else root
        samples = _frames(file, options, skipped, notes, files)
        official = _listed(file, samples)
    notes = skipped.notes() + image_notes(files, turn=False) + notes
    if options.scale == 1:
        notes.append("positions are in the file's unit: set scale where that is not metres")
    with_val = official is not None and "val" in official.values()
    if official is not None and with_val and options.split in ("auto", "official"):
        chosen: dict[str, list[Sample]] = {part: [] for part in _PARTS}
        for sample in samples:
            if sample.name in official:
                chosen[official[sample.name]].append(sample)
        three = chosen["train"], chosen["val"], chosen["test"]
        return splits_of(samples, options, notes, parts=three)
    if official is None:
        return splits_of(samples, options, notes)
    roles = official
    return splits_of(
        samples, options, notes, is_test=lambda sample: roles.get(sample.name) == "test"
    )


def _load(file: Path) -> tuple[dict[str, Any], str]:
    try:
        text = read_text(file)
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"{where(file, error.lineno)}: not JSON: {error.msg}") from error
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise SourceError(f"{where(file, 1)}: not a transforms file: it needs a list named frames")
    return data, text


def _frames(
    file: Path, options: Options, skipped: Skipped, notes: list[str], files: list[Path]
) -> list[Sample]:
    data, text = _load(file)
    seen: set[str] = set()
    samples = []
    at, line = 0, 1
    for number, frame in enumerate(data["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise SourceError(f"{where(file, line)}: frame {number} has no file_path")
        path = frame["file_path"]
        found = text.find(json.dumps(path), at)
        if found >= 0:  # counted on from the last frame: from the start would be quadratic
            line += text.count("\n", at, found)
            at = found
        place = where(file, line)
        if path in seen:
            raise SourceError(f"{place}: file_path {path!r} is there twice")
        seen.add(path)
        image = _found(file.parent / path)
        name = f"{file.stem}/{path}" if file.stem != "transforms" else path
        if image is None:
            skipped.add("whose image is not there", name)
            continue
        files.append(image)
        T = checked(
            options, skipped, name, _pose, frame.get("transform_matrix"), place, options.scale
        )
        if T is None:
            continue
        K = _intrinsics({**data, **frame}, image, place)
        samples.append(Sample(name, None, T, None, file.stem, FileImage(str(image), turn=False), K))
    distorted = [k for k in ("k1", "k2", "k3", "k4", "p1", "p2") if _any_nonzero(data, k)]
    if distorted:
        notes.append(
            f"{file.name} has lens distortion ({', '.join(distorted)}), which is not undone"
        )
    if "applied_transform" in data:
        notes.append(f"{file.name} has an applied_transform: poses are in the world after it")
    return samples


def _any_nonzero(data: Mapping[str, Any], key: str) -> bool:
    return any(d.get(key) for d in (data, *data["frames"]))


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _found(image: Path) -> Path | None:
    """Returns the image; NeRF's synthetic scenes leave the suffix out."""
    return first_file([image, *(f"{image}{suffix}" for suffix in IMAGE_SUFFIXES)])


def _pose(matrix: Any, place: str, scale: float) -> NDArray[np.float64]:
    try:
        values = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        raise SourceError(f"{place}: transform_matrix is not a matrix of numbers") from None
    T: NDArray[np.float64] = pose_from_matrix(values, place) @ OPTICAL_FROM_OPENGL
    T[:3, 3] *= scale
    return T


def _intrinsics(data: Mapping[str, Any], image: Path, place: str) -> NDArray[np.float64] | None:
    """Returns K of a frame, whose own keys come before those of the file; None where there are none."""
    try:
        if "fl_x" in data:
            fx = float(data["fl_x"])
            fy = float(data.get("fl_y", fx))
        elif "camera_angle_x" in data:
            fx = fy = _width(data, image) / 2 / math.tan(float(data["camera_angle_x"]) / 2)
        else:
            return None
        size = None if "cx" in data and "cy" in data else _size(data, image)
        cx = float(data["cx"]) if size is None else size[1] / 2
        cy = float(data["cy"]) if size is None else size[0] / 2
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise SourceError(f"{place}: intrinsics are not numbers: {error}") from error
    if not np.all(np.isfinite([fx, fy, cx, cy])) or min(fx, fy) <= 0:
        raise SourceError(f"{place}: focal lengths {fx:g}, {fy:g} must be positive and finite")
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _width(data: Mapping[str, Any], image: Path) -> float:
    return float(data["w"]) if "w" in data else float(_size(data, image)[1])


def _size(data: Mapping[str, Any], image: Path) -> tuple[float, float]:
    if "w" in data and "h" in data:
        return float(data["h"]), float(data["w"])
    try:
        return image_size(read_image(image, turn=False))
    except Exception as error:  # an unreadable image is the loader's to count; here it has no size
        raise ValueError(f"w and h are not there, and {image} has no size ({error})") from error


def _listed(file: Path, samples: list[Sample]) -> dict[str, str] | None:
    """Returns each listed frame's part; None where the file has no lists."""
    data, text = _load(file)
    parts = {part: data.get(f"{part}_filenames") for part in _PARTS}
    if parts["train"] is None:
        return None
    names = {sample.name for sample in samples}
    roles: dict[str, str] = {}
    for part, listed in parts.items():
        for name in listed or []:
            if name in roles:
                line = _line(text, text.rfind(json.dumps(name)))
                raise SourceError(f"{where(file, line)}: {name!r} is in two splits")
            if name in names:
                roles[name] = part
    return roles
