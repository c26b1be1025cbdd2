"""Brings predictions and truth together by their stamps, and counts what has no partner and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.images.window import Window
from robot_vision.truth.images import ImageTrack
from robot_vision.truth.tracks import LABEL, POSE, LabelTrack, PoseTrack, Truth


@dataclass(frozen=True, eq=False)
class Associated:
    """Predictions in the order of their stamps, each with what is true.

    Attributes:
        predictions: stamps increase and differ.
        source_index: int64 (N,), which row of the predictions given each one was.
        labels: (N,), None where there is none.
        others: the same for heads by another name than their kind, by that name.
        numbers: by name float64 (N,), NaN where there is none.
        positions: float64 (N, 3), true, metres; NaN where there is none.
        xyzw: float64 (N, 4), true; NaN where there is none, also where a position is known.
        images: by name, what is true of each frame's pixels.
        counts: plain data: frames, unsorted_stamps, duplicate_stamps, and for label and pose how many
            were found and how many were not, by reason.
    """

    predictions: Predictions
    source_index: NDArray[np.int64]
    labels: tuple[str | None, ...]
    positions: NDArray[np.float64]
    xyzw: NDArray[np.float64]
    counts: dict[str, Any]
    others: dict[str, Sequence[str | None]] = field(default_factory=dict)
    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    images: dict[str, TrueImages] = field(default_factory=dict)

    @property
    def has_pose(self) -> NDArray[np.bool_]:
        """Which frames (N,) have a true pose, and not a position alone."""
        return np.isfinite(self.positions[:, 0]) & np.isfinite(self.xyzw[:, 0])


@dataclass(frozen=True, eq=False)
class TrueImages:
    """What is true of the pixels of some frames; it is read when it is asked for, and not kept.

    Attributes:
        track: the images.
        index: int64 (N,), which of them is each frame's; -1 for none.
        windows: returns which part of an image of (height, width) the network saw, of a frame's number.
        counts: of the association; images that cannot be read are moved from `found` to `missing`.
        unread: why images could not be read, by frame.
    """

    track: ImageTrack
    index: NDArray[np.int64]
    windows: Callable[[int, tuple[int, int]], Window]
    counts: dict[str, Any]
    unread: dict[int, str] = field(default_factory=dict)

    def __call__(self, i: int, size: tuple[int, int], none: float) -> NDArray[Any] | None:
        """See `FrameTruth.image`."""
        if self.index[i] < 0:
            return None
        true = self.track.images[int(self.index[i])]
        try:
            stored = true.load()
        except ImageError as error:
            if i not in self.unread:
                self.unread[i] = str(error)
                missing = self.counts["missing"]
                self.counts["found"] -= 1
                missing["cannot be read"] = missing.get("cannot be read", 0) + 1
            return None
        window = self.windows(i, (stored.shape[0], stored.shape[1]))
        values = window.truth(stored, size, 0)
        said = window.covered(size) & np.isfinite(values)
        for value in true.none:
            said &= values != value
        if values.dtype.kind == "f" or true.unit != 1 or not float(none).is_integer():
            values = values.astype(np.float32) * np.float32(true.unit)
        return np.where(said, values, np.asarray(none, values.dtype))


def associate(predictions: Predictions, truth: Truth) -> Associated:
    """Finds the truth of every frame.

    Stamps that go back are sorted; of frames with the same stamp the first one counts. Both are counted.

    Raises:
        SourceError: there are frames and truth, and they have no time in common.
    """
    given = predictions.stamps_ns
    order = np.argsort(given, kind="stable")
    ordered = given[order]
    first = np.concatenate([[True], np.diff(ordered) > 0])[: len(ordered)]
    index = order[first]
    frames = predictions.take(index)
    stamps = frames.stamps_ns
    counts: dict[str, Any] = {
        "frames": len(given),
        "unsorted_stamps": int((np.diff(given) < 0).sum()),
        "duplicate_stamps": int((~first).sum()),
    }
    position, xyzw = np.full((len(stamps), 3), np.nan), np.full((len(stamps), 4), np.nan)
    named: dict[str, Sequence[str | None]] = {}
    for name, track in {"": truth.labels, **truth.others}.items():
        if track is None:
            continue
        times = stamps if not track.by_log or frames.log_ns is None else frames.log_ns
        word = f"{LABEL}:{name}" if name else LABEL
        named[name] = track.at(times)
        counts[word] = _found(named[name], _label_reasons(track, times, named[name]))
        _require_overlap("labels", counts[word], times, track.starts_ns)
    labels = named.pop("", [None] * len(stamps))
    numbers: dict[str, NDArray[np.float64]] = {}
    for name, held in truth.numbers.items():
        times = stamps if not held.by_log or frames.log_ns is None else frames.log_ns
        numbers[name] = held.at(times)
        lacking = int(np.isnan(numbers[name]).sum())
        counts[f"number:{name}"] = _found(numbers[name], ["no number there"] * lacking)
        _require_overlap(f"numbers {name}", counts[f"number:{name}"], times, held.starts_ns)
    if truth.poses is not None:
        matrices, holds = truth.poses.at(stamps)
        position[holds] = matrices[holds, :3, 3]
        for i in np.flatnonzero(holds) if truth.poses.oriented else ():
            xyzw[i] = xyzw_from_matrix(matrices[i, :3, :3])
        counts[POSE] = _found(holds, _pose_reasons(truth.poses, stamps, holds))
        _require_overlap("poses", counts[POSE], stamps, truth.poses.stamps_ns)
    images = {}
    for name, pictures in truth.images.items():
        which = pictures.at(stamps)
        lacking = int((which < 0).sum())
        counted = _found(which, ["no image near"] * lacking)
        counts[f"image:{name}"] = counted
        _require_overlap(f"images of {name}", counted, stamps, pictures.stamps_ns)
        images[name] = TrueImages(pictures, which, _windows(frames, name), counted)
    return Associated(frames, index, tuple(labels), position, xyzw, counts, named, numbers, images)


def _windows(frames: Predictions, name: str) -> Callable[[int, tuple[int, int]], Window]:
    def window(i: int, true: tuple[int, int]) -> Window:
        found = frames.window(i, true)
        if found is None:
            raise ConfigError(
                f"{frames.recording}: which part of the images the network saw is not known, so true images "
                f"of {name} cannot be compared: give the model"
            )
        if found.camera != true:
            raise SourceError(
                f"{frames.recording}: a true image of {name} has {true[1]} x {true[0]} pixels, and the "
                f"camera's {found.camera[1]} x {found.camera[0]}: both must be of one size"
            )
        return found

    return window


def _found(values: Any, reasons: list[str]) -> dict[str, Any]:
    return {"found": len(values) - len(reasons), "missing": dict(Counter(reasons))}


def _label_reasons(
    track: LabelTrack, times: NDArray[np.int64], labels: Sequence[str | None]
) -> list[str]:
    at = np.searchsorted(track.starts_ns, times, side="right") - 1
    reasons = []
    for i, time, label in zip(at, times, labels, strict=True):
        if label is not None:
            continue
        if i < 0:
            reasons.append("before the first label" if len(track.starts_ns) else "no labels")
        elif time < track.ends_ns[i]:
            reasons.append("label is empty")
        elif i == len(track.starts_ns) - 1:
            reasons.append("after the last label")
        else:
            reasons.append("between labels")
    return reasons


def _pose_reasons(
    track: PoseTrack, stamps: NDArray[np.int64], holds: NDArray[np.bool_]
) -> list[str]:
    missing = stamps[~holds]
    if track.stamps_ns is None:
        return ["not covered by tf"] * len(missing)
    if len(track.stamps_ns) == 0:
        return ["no poses"] * len(missing)
    first, last = track.stamps_ns[0], track.stamps_ns[-1]
    return [
        "before the first pose"
        if stamp < first
        else "after the last pose"
        if stamp > last
        else "gap between poses"
        for stamp in missing
    ]


def _require_overlap(
    what: str, counts: dict[str, Any], times: NDArray[np.int64], known: NDArray[np.int64] | None
) -> None:
    if counts["found"] or len(times) == 0:
        return
    span = "" if known is None or not len(known) else f" are of {_span(known)} and"
    raise SourceError(
        f"No frame has true {what}: these{span} the frames of {_span(times)} "
        f"({', '.join(counts['missing'])}); check the clocks, or give truth of the same recording"
    )


def _span(stamps: NDArray[np.int64]) -> str:
    return f"{stamps[0] / 1e9:.3f} to {stamps[-1] / 1e9:.3f} s"
