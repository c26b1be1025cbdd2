"""EuRoC MAV and others in its layout (TUM VI): mav0 with cam0, cam1 and a ground truth.

Conventions: cam0/data.csv lists stamps in nanoseconds and files; sensor.yaml gives `T_BS`, the sensor in the
body (p_body = T_BS @ p_sensor), `intrinsics` fu, fv, cu, cv and the lens. The ground truth is of a sensor
too (of the IMU, which is the body: w x y z, metres), so that

    T_map_camera = T_map_sensor @ inv(T_BS of the ground truth) @ T_BS of the camera.

The camera's axes are optical. Poses are interpolated to the images' stamps. Of a folder of such recordings
all are opened; their maps are one where they were recorded in one room (Vicon Room, Machine Hall).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import (
    FileImage,
    first_file,
    listed_file,
    unlisted_note,
    without_repeats,
)
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
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.geometry.rigid import inverse
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings.files import image_notes
from robot_vision.settings.declared import option
from robot_vision.truth.bag_poses import parse_transform
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped, pose_from_matrix, where
from robot_vision.truth.pose_files import read_pose_file, to_ns, unit_of_stamps
from robot_vision.truth.tables import read_table, read_text

_TRUTHS = ("state_groundtruth_estimate0", "mocap0", "vicon0", "gt0")


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    camera: str = option("cam0", "folder of the camera below mav0")
    base_to_camera: str = option(
        "",
        "pose of the camera in the body frame, if sensor.yaml has no T_BS: x,y,z,qx,qy,qz,qw or "
        "identity",
    )
    max_gap_s: float = option(
        0.1, "longest gap between the two poses around an image, in seconds", low=0.0
    )


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    recordings = [
        (root.resolve().parent.name if root.name == "mav0" else root.name, p) for p in _mav0(root)
    ]
    if not recordings and root.is_dir():
        below = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: natural_key(p.name))
        recordings = [(p.name, found) for p in below for found in _mav0(p)]
    if not recordings:
        raise SourceError(
            f"{root} has no mav0 with cam0: give a recording's folder, or one of several"
        )
    skipped, files, notes = Skipped(), list[Path](), list[str]()
    samples = [
        sample
        for name, folder in recordings
        for sample in _recording(name, folder, options, skipped, files, notes)
    ]
    if len(recordings) > 1:
        notes.append(several_maps_note([name for name, _ in recordings]))
    notes = [*skipped.notes(), *image_notes(files, turn=False), *unlisted_note(files), *notes]
    return splits_of(samples, options, notes)


def _mav0(folder: Path) -> list[Path]:
    return [p for p in (folder, folder / "mav0") if next(p.glob("cam*/data.csv"), None)][:1]


def _recording(
    name: str, mav0: Path, options: Options, skipped: Skipped, files: list[Path], notes: list[str]
) -> list[Sample]:
    camera = mav0 / options.camera
    if not (camera / "data.csv").is_file():
        there = ", ".join(sorted(p.parent.name for p in mav0.glob("cam*/data.csv")))
        raise SourceError(f"{mav0} has no {options.camera}/data.csv: set camera to one of {there}")
    truth = first_file(mav0 / kind / "data.csv" for kind in _TRUTHS)
    if truth is None:
        raise SourceError(
            f"{mav0} has no ground truth with orientations ({', '.join(_TRUTHS)}): only recordings with "
            "poses train"
        )
    sensor = _sensor(camera / "sensor.yaml")
    if options.base_to_camera:
        T_body_camera = parse_transform(options.base_to_camera)
    elif "T_BS" in sensor:
        T_body_camera = _T_BS(sensor, camera / "sensor.yaml")
    else:
        raise SourceError(f"{camera / 'sensor.yaml'} has no T_BS: set base_to_camera")
    of_truth = _sensor(truth.with_name("sensor.yaml"))
    T_body_truth = (
        _T_BS(of_truth, truth.with_name("sensor.yaml")) if "T_BS" in of_truth else np.eye(4)
    )
    others = sorted(p.parent.name for p in mav0.glob("cam*/data.csv") if p.parent != camera)
    if others:
        notes.append(f"{name}: {', '.join(others)} is not used (set camera)")
    how = "its T_BS" if "T_BS" in of_truth else "the body taken as its frame (it has no T_BS)"
    notes.append(
        f"{name}: poses are those of {truth.parent.name}, {how}, moved to {options.camera}"
    )

    def say(text: str) -> None:
        notes.append(f"{name}: {text}")

    track = read_pose_file(truth, report_to(options, skipped), "euroc", say=say)
    listed = read_table(camera / "data.csv").rows
    listed = listed[1:] if listed and not listed[0].words[0].lstrip("-").isdecimal() else listed
    unit = (
        "ns"
        if all(row.words[0].isdecimal() for row in listed)
        else unit_of_stamps([listed[0].words[0]])
    )
    lines: list[tuple[int, int, str]] = []
    for row in listed:
        place = where(camera / "data.csv", row.number)
        if len(row.words) < 2:
            raise SourceError(f"{place}: a line is 'stamp,file'")
        lines.append((row.number, to_ns(row.words[0], unit, place), row.words[1]))
    stamps, images = list[int](), list[Path]()
    for stamp_ns, word in without_repeats(camera / "data.csv", lines, say):
        image = listed_file(camera / "data", word) or listed_file(camera, word)
        if image is None:
            skipped.add(MISSING_IMAGE, f"{name}/{word}")
            continue
        stamps.append(stamp_ns)
        images.append(image)
    files += images
    poses, holds = track.at(np.array(stamps, np.int64), nanoseconds(options.max_gap_s))
    poses = poses @ inverse(T_body_truth) @ T_body_camera
    K = _matrix(sensor, camera, images, options, say)
    samples = []
    for stamp_ns, image, T, fine in zip(stamps, images, poses, holds, strict=True):
        unique = f"{name}/{image.name}"
        if not fine:
            skipped.add(f"which have no poses within {options.max_gap_s:g} s around them", unique)
            continue
        T = np.ascontiguousarray(T)
        samples.append(
            Sample(unique, None, T, stamp_ns, name, FileImage(str(image), turn=False), K)
        )
    return samples


def _sensor(file: Path) -> dict[str, Any]:
    """Returns what a sensor.yaml says; nothing where there is none."""
    if not file.is_file():
        return {}
    text = read_text(file)
    if text.startswith("%YAML:"):  # OpenCV's, which is no directive of YAML
        text = text.partition("\n")[2]
    try:
        data = load_yaml(text, foreign=True)
    except YamlError as error:
        raise SourceError(f"{where(file, error.line)}: not YAML: {error}") from error
    return data if isinstance(data, dict) else {}


def _T_BS(sensor: dict[str, Any], file: Path) -> NDArray[np.float64]:
    value = sensor["T_BS"]
    try:
        matrix = np.array(value["data"] if isinstance(value, dict) else value, np.float64).reshape(
            4, 4
        )
    except (KeyError, TypeError, ValueError):
        raise SourceError(f"{file}: T_BS is {value!r}: use 16 numbers") from None
    return pose_from_matrix(matrix, f"{file}: T_BS")


def _matrix(
    sensor: dict[str, Any], camera: Path, images: list[Path], options: Options, say: Any
) -> NDArray[np.float64] | None:
    """Returns K of the camera where it is a pinhole with a lens that its K stands for."""
    if options.camera_matrix or not images:
        return None
    try:
        fx, fy, cx, cy = (float(v) for v in sensor["intrinsics"])
        width, height = (int(v) for v in sensor["resolution"])
    except (KeyError, TypeError, ValueError):
        say(f"{camera.name}/sensor.yaml has no intrinsics and resolution: set camera_matrix")
        return None
    if not np.all(np.isfinite([fx, fy, cx, cy])) or min(fx, fy) <= 0:
        raise SourceError(
            f"{camera / 'sensor.yaml'}: intrinsics {fx}, {fy}, {cx}, {cy}: not a camera"
        )
    model, lens = sensor.get("camera_model", "pinhole"), sensor.get("distortion_model", "none")
    if model != "pinhole" or lens not in ("none", "radial-tangential", "radtan", "plumb_bob"):
        say(
            f"{camera.name} is {model} with {lens} distortion, which no pinhole fits: its images have no "
            "camera matrix (undistort them, or set camera_matrix)"
        )
        return None
    if any(np.ravel(sensor.get("distortion_coefficients", []))):
        say(f"{camera.name} has lens distortion ({lens}), which is not undone")
    notes: list[str] = []
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    found = matrix_for_image(K, (height, width), images[0], camera.name, notes)
    for note in notes:
        say(note)
    return found
