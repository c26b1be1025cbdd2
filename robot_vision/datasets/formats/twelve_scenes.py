"""12-Scenes: data/frame-NNNNNN.color.jpg with .pose.txt, split.txt and info.txt.

Conventions: poses are as in 7-Scenes, camera to world, metres, optical axes. Where the tracking was lost
a pose is not finite (also written -1.#INF): such frames are left out and counted. info.txt has the colour
camera's 4 x 4 matrix (m_calibrationColorIntrinsic) for images of m_colorWidth x m_colorHeight.

split.txt gives the sequences, `sequence0 [frames=357]  [start=0 ; end=356]`: the first one is test, the
others train. Each scene (apt1/kitchen, ...) has a world of its own: one is opened at a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.formats.seven_scenes import frames_in
from robot_vision.datasets.posed import PosedOptions, matrix_for_image, splits_of
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.recordings.files import image_notes
from robot_vision.truth.pose_checks import Skipped, numbers, where
from robot_vision.truth.tables import read_lines

_SEQUENCE = re.compile(r"(sequence\d+)\s.*\[\s*start\s*=\s*(\d+)\s*;\s*end\s*=\s*(\d+)\s*\]")


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`, a scene's folder; see `registry.open_dataset`."""
    scene = root.parent if root.name == "data" else root
    if not (scene / "data").is_dir():
        below = sorted(
            p.parent.relative_to(scene).as_posix() for p in scene.glob("**/data") if p.is_dir()
        )
        hint = f": give one scene, such as {below[0]}" if below else ""
        raise SourceError(f"{root} has no folder data with frames{hint}")
    skipped, notes = Skipped(), list[str]()
    samples, files = frames_in(scene / "data", scene.name, options, skipped, lost_is_skipped=True)
    if not files:
        raise SourceError(
            f"{scene / 'data'} has no frame-NNNNNN.color.jpg with frame-NNNNNN.pose.txt"
        )
    K = None
    if not options.camera_matrix:
        K = _camera_matrix(scene / "info.txt", files[0], notes)
    spans = _spans(scene / "split.txt") if (scene / "split.txt").is_file() else []
    if spans:
        samples = _in_sequences(samples, spans, skipped)
    else:
        notes.append("there is no split.txt: frames are divided into blocks")
    notes = [*skipped.notes(), *image_notes(files, turn=False), *notes]
    test = spans[0][0] if spans else ""
    is_test = (lambda sample: sample.sequence == test) if spans else None
    return splits_of(samples, options, notes, is_test=is_test, K=K)


def _spans(file: Path) -> list[tuple[str, int, int]]:
    """Returns name, first and last frame of each sequence."""
    spans: list[tuple[str, int, int]] = []
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        match = _SEQUENCE.match(line.strip())
        if not match:
            raise SourceError(
                f"{where(file, number)}: {line.strip()!r} is not like 'sequence0 [start=0 ; end=8]'"
            )
        first, last = int(match.group(2)), int(match.group(3))
        if first > last or any(first <= end and start <= last for _, start, end in spans):
            raise SourceError(
                f"{where(file, number)}: frames {first} to {last} overlap others, or are none"
            )
        spans.append((match.group(1), first, last))
    return spans


def _in_sequences(
    samples: list[Sample], spans: list[tuple[str, int, int]], skipped: Skipped
) -> list[Sample]:
    chosen = []
    for sample in samples:
        frame = int(sample.name.rpartition("-")[2])
        name = next((name for name, first, last in spans if first <= frame <= last), None)
        if name is None:
            skipped.add("which are in no sequence of split.txt", sample.name)
        else:
            chosen.append(replace(sample, sequence=name))
    return chosen


def _camera_matrix(file: Path, image: Path, notes: list[str]) -> NDArray[np.float64] | None:
    if not file.is_file():
        notes.append("there is no info.txt: set camera_matrix")
        return None
    said: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(read_lines(file), 1):
        key, _, value = line.partition("=")
        said[key.strip()] = value.strip(), where(file, number)
    try:
        (matrix, place), (width, at), (height, _) = (
            said[key] for key in ("m_calibrationColorIntrinsic", "m_colorWidth", "m_colorHeight")
        )
    except KeyError as error:
        raise SourceError(f"{file} has no {error.args[0]}") from None
    m = numbers(matrix.split(), 16, place, "m_calibrationColorIntrinsic").reshape(4, 4)
    w, h = numbers([width, height], 2, at, "the colour images' size")
    if min(m[0, 0], m[1, 1]) <= 0:
        raise SourceError(f"{place}: focal lengths {m[0, 0]:g}, {m[1, 1]:g} must be positive")
    K = np.array([[m[0, 0], 0.0, m[0, 2]], [0.0, m[1, 1], m[1, 2]], [0.0, 0.0, 1.0]])
    return matrix_for_image(K, (int(h), int(w)), image, "the colour camera of info.txt", notes)
