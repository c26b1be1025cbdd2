"""Two pictures of a data set: a contact sheet, and its poses from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.inspection import evenly, in_order
from robot_vision.datasets.sample import SPLIT_NAMES, Sample, Splits
from robot_vision.errors import ImageError, SourceError

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
        # OpenCV's font has ASCII only.
        ascii_text = text.encode("ascii", "replace").decode()
        cv2.putText(row, ascii_text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
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


def ground_axes(splits: Splits) -> tuple[int, int, bool]:
    """Returns the axes on the ground, to draw rightwards and upwards, and whether the second is flipped.

    Up is the map's axis that the cameras' up (-y) points along on average; z without orientations.
    """
    up = np.array([0.0, 0.0, 1.0])
    if splits.has_orientation:
        ups = [-s.T_map_camera[:3, 1] for s in splits.samples if s.T_map_camera is not None]
        mean = np.mean(ups, axis=0)
        axis = int(np.abs(mean).argmax())
        up = np.sign(mean[axis]) * np.eye(3)[axis]
    a, b = (i for i in range(3) if up[i] == 0)
    # Seen from above, right x upwards on the page is up.
    return a, b, bool(np.cross(np.eye(3)[a], np.eye(3)[b]) @ up < 0)


def pose_plot(splits: Splits, title: str, matplotlib: bool = True) -> NDArray[np.uint8] | None:
    """Returns RGB uint8: paths, positions and viewing directions from above; None without poses.

    Args:
        splits: the data set.
        title: for people.
        matplotlib: draw with it where it is installed, else with OpenCV.
    """
    if not any(s.T_map_camera is not None for s in splits.samples):
        return None
    if matplotlib:
        try:
            return _with_matplotlib(splits, title)
        except ImportError:
            pass
    return _with_opencv(splits, title)


def _positions(samples: Sequence[Sample], columns: list[int]) -> NDArray[np.float64]:
    return np.array(
        [s.T_map_camera[columns, 3] for s in samples if s.T_map_camera is not None]
    ).reshape(-1, 2)


def _directions(samples: Sequence[Sample], columns: list[int]) -> NDArray[np.float64]:
    return np.array(
        [s.T_map_camera[columns, 2] for s in samples if s.T_map_camera is not None]
    ).reshape(-1, 2)


def _with_matplotlib(splits: Splits, title: str) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    a, b, flipped = ground_axes(splits)
    figure = Figure(figsize=(9, 8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for group in in_order(splits).values():
        track = _positions(group, [a, b])
        axes.plot(track[:, 0], track[:, 1], color="0.85", linewidth=1, zorder=1)
    everything = _positions(splits.samples, [a, b])
    arrow = 0.03 * max(float(np.ptp(everything, axis=0).max()), 1e-3)
    for i, name in enumerate(SPLIT_NAMES):
        samples = splits.split(name)
        if not samples:
            continue
        colour = tuple(c / 255 for c in COLOURS[name])
        points = _positions(samples, [a, b])
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=9,
            color=colour,
            label=f"{name} ({len(points)})",
            zorder=3 + i,
            linewidths=0,
        )
        if splits.has_orientation:
            some = evenly(samples, 150)
            at, to = _positions(some, [a, b]), _directions(some, [a, b]) * arrow
            axes.quiver(
                *at.T,
                *to.T,
                color=colour,
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.0018,
                alpha=0.7,
                zorder=2,
            )
    axes.set_aspect("equal", adjustable="datalim")
    if flipped:
        axes.invert_yaxis()
    axes.set_xlabel(f"{'xyz'[a]} in {splits.map_frame} (m)")
    axes.set_ylabel(f"{'xyz'[b]} in {splits.map_frame} (m)")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    axes.set_title(title)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _with_opencv(splits: Splits, title: str) -> NDArray[np.uint8]:
    a, b, flipped = ground_axes(splits)
    size, margin = 900, 70
    picture = np.full((size, size, 3), 255, np.uint8)
    everything = _positions(splits.samples, [a, b])
    low, high = everything.min(axis=0), everything.max(axis=0)
    extent = max(float((high - low).max()), 1e-3)
    centre = (low + high) / 2

    def pixel(point: NDArray[np.float64]) -> tuple[int, int]:
        x, y = (point - centre) / extent * (size - 2 * margin)
        return round(size / 2 + x), round(size / 2 + (y if flipped else -y))

    for group in in_order(splits).values():
        track = [pixel(p) for p in _positions(group, [a, b])]
        for start, end in zip(track, track[1:], strict=False):
            cv2.line(picture, start, end, (215, 215, 215), 1, cv2.LINE_AA)
    for i, name in enumerate(SPLIT_NAMES):
        samples = splits.split(name)
        for p in _positions(samples, [a, b]):
            cv2.circle(picture, pixel(p), 2, COLOURS[name], -1, cv2.LINE_AA)
        if splits.has_orientation:
            some = evenly(samples, 150)
            for p, d in zip(_positions(some, [a, b]), _directions(some, [a, b]), strict=True):
                end = pixel(p + 0.03 * extent * d)
                cv2.line(picture, pixel(p), end, COLOURS[name], 1, cv2.LINE_AA)
        _write(picture, f"{name} ({len(samples)})", (12, 46 + 18 * i), COLOURS[name])
    _write(picture, title, (12, 24), (0, 0, 0))
    # A bar of a round length instead of axes.
    bar = 10.0 ** np.floor(np.log10(extent / 2))
    length = round(bar / extent * (size - 2 * margin))
    cv2.line(picture, (12, size - 20), (12 + length, size - 20), (0, 0, 0), 2)
    upwards = f"{'-' if flipped else '+'}{'xyz'[b]}"
    _write(picture, f"{bar:g} m; right +{'xyz'[a]}, up {upwards}", (12, size - 30), (0, 0, 0))
    return picture


def _write(
    picture: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(picture, ascii_text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def save_png(file: Path, image: NDArray[np.uint8]) -> None:
    """Writes RGB uint8 as PNG.

    Raises:
        SourceError: it cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.tobytes())
    except OSError as error:
        raise SourceError(f"{file} cannot be written: {error}") from error
