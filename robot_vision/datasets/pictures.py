"""Two pictures of a data set: a contact sheet, and its poses from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.paths import FromAbove, write
from robot_vision.datasets.inspection import evenly, in_order
from robot_vision.datasets.sample import SPLIT_NAMES, Sample, Splits
from robot_vision.errors import ImageError, SourceError
from robot_vision.files.whole import write_whole

THUMBNAIL = 112  # pixels a side
COLUMNS = 10
MOST_ROWS = 60
_TITLE = 22
# RGB, distinguishable by people who cannot tell red from green.
COLOURS = {"train": (70, 110, 180), "validation": (230, 159, 0), "test": (200, 40, 60)}


def contact_sheet(splits: Splits) -> NDArray[np.uint8]:
    """Returns RGB uint8: a row of evenly chosen images for each split and class.

    Without classes a split has several rows. An image that cannot be loaded is a crossed box.
    """
    rows: list[tuple[str, tuple[int, int, int], list[Sample]]] = []
    for name in SPLIT_NAMES:
        samples = splits.split(name)
        labels = sorted({s.label for s in samples}, key=lambda label: (label is None, label or ""))
        for label in labels:
            mine = [s for s in samples if s.label == label]
            text = f"{name}: {'no label' if label is None else label} ({len(mine)})"
            chosen = evenly(mine, COLUMNS * (3 if label is None else 1))
            for start in range(0, len(chosen), COLUMNS):
                rows.append(
                    (text if start == 0 else "", COLOURS[name], chosen[start : start + COLUMNS])
                )
    return np.vstack([_row(*row) for row in rows[:MOST_ROWS]])


def _row(text: str, colour: tuple[int, int, int], samples: Sequence[Sample]) -> NDArray[np.uint8]:
    title = _TITLE if text else 0
    row = np.full((title + THUMBNAIL + 4, COLUMNS * (THUMBNAIL + 4) + 4, 3), 255, np.uint8)
    if text:
        write(row, text, (4, 16), colour)
    for i, sample in enumerate(samples):
        left = 4 + i * (THUMBNAIL + 4)
        row[title : title + THUMBNAIL, left : left + THUMBNAIL] = _thumbnail(sample)
    return row


def _thumbnail(sample: Sample) -> NDArray[np.uint8]:
    """Returns the whole image, letterboxed, or a crossed box."""
    box = np.full((THUMBNAIL, THUMBNAIL, 3), 235, np.uint8)
    try:
        image = sample.source.load((THUMBNAIL, THUMBNAIL))
    except ImageError:
        cv2.line(box, (0, 0), (THUMBNAIL, THUMBNAIL), COLOURS["test"], 2)
        cv2.line(box, (0, THUMBNAIL), (THUMBNAIL, 0), COLOURS["test"], 2)
        return box
    scale = THUMBNAIL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (THUMBNAIL - size[1]) // 2, (THUMBNAIL - size[0]) // 2
    box[top : top + size[1], left : left + size[0]] = small
    return box


def pose_plot(splits: Splits, title: str) -> NDArray[np.uint8] | None:
    """Returns RGB uint8: paths, positions and viewing directions from above; None without poses."""
    posed = [s for group in in_order(splits).values() for s in group if s.T_map_camera is not None]
    if not posed:
        return None
    poses = np.array([s.T_map_camera for s in posed])
    rotations = poses[:, :3, :3] if splits.has_orientation else np.empty((0, 3, 3))
    page = FromAbove(poses[:, :3, 3], rotations, 900, least_m=1e-3)
    row = {id(sample): i for i, sample in enumerate(posed)}

    def rows(samples: Sequence[Sample]) -> NDArray[np.int64]:
        return np.array([row[id(s)] for s in samples if id(s) in row], np.int64)

    for group in in_order(splits).values():
        page.line(rows(group), (215, 215, 215))
    for i, name in enumerate(SPLIT_NAMES):
        mine = rows(splits.split(name))
        page.cameras(mine, COLOURS[name], radius=2)
        write(page.image, f"{name} ({len(mine)})", (12, 46 + 18 * i), COLOURS[name])
    return page.finish(f"{title}, in {splits.map_frame}")


def save_png(file: Path, image: NDArray[np.uint8]) -> None:
    """Writes RGB uint8 as PNG.

    Raises:
        SourceError: it cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    try:
        write_whole(file, data.tobytes())
    except OSError as error:
        raise SourceError(f"{file} cannot be written: {error}") from error
