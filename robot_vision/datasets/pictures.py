"""Two pictures of a data set: a contact sheet, and its poses from above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.lettering import put
from robot_vision.charts.paths import FromAbove, write
from robot_vision.datasets.inspection import evenly, in_order, number_words, survey_numbers
from robot_vision.datasets.sample import (
    SPLIT_NAMES,
    Sample,
    Splits,
    true_values,
)
from robot_vision.errors import ImageError, SourceError
from robot_vision.files.whole import write_whole
from robot_vision.images.canvas import colour_of_name
from robot_vision.truth.pixel_classes import NO_CLASS

THUMBNAIL = 112  # pixels a side
COLUMNS = 10
MOST_ROWS = 60
_TITLE = 22
# RGB, distinguishable by people who cannot tell red from green.
COLOURS = {"train": (70, 110, 180), "validation": (230, 159, 0), "test": (200, 40, 60)}


def contact_sheet(splits: Splits) -> NDArray[np.uint8]:
    """Returns RGB uint8: a row of evenly chosen images for each split and class.

    Without classes a split has several rows; a number that is 0 or 1 stands for one. Other numbers are
    written into their images. An image that cannot be loaded is a crossed box.
    """
    words = number_words(splits)
    flag = next((w for w in words if survey_numbers(splits, w).ones is not None), "")
    shown = [word for word in words if word != flag]

    def group(sample: Sample) -> str | None:
        number = sample.of(flag) if flag and sample.label is None else None
        return sample.label if number is None else f"{flag.partition(':')[2]} {number:g}"

    rows: list[tuple[str, tuple[int, int, int], list[Sample]]] = []
    for name in SPLIT_NAMES:
        samples = splits.split(name)
        labels = sorted({group(s) for s in samples}, key=lambda label: (label is None, label or ""))
        for label in labels:
            mine = [s for s in samples if group(s) == label]
            text = f"{name}: {'no label' if label is None else label} ({len(mine)})"
            chosen = evenly(mine, COLUMNS * (3 if label is None else 1))
            for start in range(0, len(chosen), COLUMNS):
                rows.append(
                    (text if start == 0 else "", COLOURS[name], chosen[start : start + COLUMNS])
                )
    return np.vstack([_row(*row, lambda s: _thumbnail(s, shown)) for row in rows[:MOST_ROWS]])


def truth_sheet(splits: Splits, word: str) -> NDArray[np.uint8]:
    """Returns RGB uint8: for each split a row of evenly chosen images, and below them what is true of pixels.

    Classes have the colours of their table, or else those of their names; numbers go from blue (near) to
    yellow by their logarithm. What says nothing is black.
    """
    rows = []
    for name in SPLIT_NAMES:
        mine = [s for s in splits.split(name) if s.of(word) is not None]
        chosen = evenly(mine, COLUMNS)
        if not chosen:
            continue
        rows.append(_row(f"{name}: {word} ({len(mine)})", COLOURS[name], chosen))
        rows.append(_row("", COLOURS[name], chosen, lambda s: _truth_thumbnail(s, splits, word)))
    return np.vstack(rows)


def _truth_thumbnail(sample: Sample, splits: Splits, word: str) -> NDArray[np.uint8]:
    try:
        values = true_values(sample.of(word), "float32", np.nan)
    except ImageError:
        return _crossed()
    if word in splits.pixel_classes:
        ids = np.nan_to_num(values, nan=NO_CLASS).astype(np.uint8)
        classes = splits.pixel_classes[word]
        table = np.zeros((256, 3), np.uint8)
        table[: len(classes.names)] = classes.colours or [colour_of_name(n) for n in classes.names]
        return _fitted(table[ids], cv2.INTER_NEAREST)
    known = np.isfinite(values) & (values > 0)
    logs = np.log(np.where(known, values, 1))
    low, high = np.percentile(logs[known], (2, 98)) if known.any() else (0, 1)
    share = np.clip((logs - low) / max(high - low, 1e-6), 0, 1)
    colours = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return _fitted(np.where(known[..., None], colours, 0).astype(np.uint8), cv2.INTER_NEAREST)


def _row(
    text: str,
    colour: tuple[int, int, int],
    samples: Sequence[Sample],
    thumbnail: Callable[[Sample], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    title = _TITLE if text else 0
    row = np.full((title + THUMBNAIL + 4, COLUMNS * (THUMBNAIL + 4) + 4, 3), 255, np.uint8)
    if text:
        write(row, text, (4, 16), colour)
    for i, sample in enumerate(samples):
        left = 4 + i * (THUMBNAIL + 4)
        row[title : title + THUMBNAIL, left : left + THUMBNAIL] = (thumbnail or _thumbnail)(sample)
    return row


def _thumbnail(sample: Sample, words: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Returns the whole image, letterboxed, with its numbers under these words; or a crossed box."""
    try:
        box = _fitted(sample.source.load((THUMBNAIL, THUMBNAIL)))
    except ImageError:
        return _crossed()
    known = [(word, number) for word in words if (number := sample.of(word)) is not None]
    for line, (word, number) in enumerate(known):
        put(
            box,
            f"{word.partition(':')[2]} {number:.2f}",
            (3, 12 + 12 * line),
            0.36,
            COLOURS["test"],
            outline=(255, 255, 255),
        )
    return box


def _crossed() -> NDArray[np.uint8]:
    box = np.full((THUMBNAIL, THUMBNAIL, 3), 235, np.uint8)
    cv2.line(box, (0, 0), (THUMBNAIL, THUMBNAIL), COLOURS["test"], 2)
    cv2.line(box, (0, THUMBNAIL), (THUMBNAIL, 0), COLOURS["test"], 2)
    return box


def _fitted(image: NDArray[np.uint8], how: int | None = None) -> NDArray[np.uint8]:
    """Returns an image in a box, resized by averages unless it is said how."""
    box = np.full((THUMBNAIL, THUMBNAIL, 3), 235, np.uint8)
    scale = THUMBNAIL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    usual = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, size, interpolation=usual if how is None else how)
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
