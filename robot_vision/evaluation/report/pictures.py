"""The frames that a report shows: which ones, and their pictures as data in the page."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import Scores
from robot_vision.errors import ImageError, RobotVisionError
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.bag import BagSource

WIDTH = 240
_QUALITY = 82
_APART_S = 1.0

# Where an image lies in a recording: its header's stamp, and when it was recorded.
Place = tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """A frame to show.

    Attributes:
        row: of the scores.
        lines: what is said beneath it.
        match: the row of a second picture next to it; -1 for none.
        good: a success and not a failure.
    """

    row: int
    lines: tuple[str, ...]
    match: int = -1
    good: bool = False


def worst_classes(scores: Scores, count: int) -> list[Shown]:
    """Returns frames that the network is most sure of and wrong about."""
    wrong = (scores["true_label"] >= 0) & (scores["predicted_label"] != scores["true_label"])
    wrong &= scores["predicted_label"] >= 0
    order = np.argsort(-np.where(wrong, scores["confidence"], -np.inf), kind="stable")
    shown = []
    for i in _apart(scores, order[: int(wrong.sum())], count):
        said, true = (
            scores.labels[scores["predicted_label"][i]],
            scores.labels[scores["true_label"][i]],
        )
        lines = (
            f"said {said} ({scores['confidence'][i]:.2f})",
            f"is {true} (given {scores['true_probability'][i]:.2f})",
        )
        shown.append(Shown(i, lines))
    return shown


def worst_poses(scores: Scores, count: int) -> list[Shown]:
    """Returns frames whose position is furthest off."""
    error = scores["error_m"]
    order = np.argsort(-np.nan_to_num(error, nan=-np.inf), kind="stable")
    shown = []
    for i in _apart(scores, order[: int(np.isfinite(error).sum())], count):
        text = f"off by {error[i]:.2f} m, {scores['error_deg'][i]:.1f} deg"
        sigma = scores["sigma_m"][i]
        expected = f"predicted sigma {sigma:.2f} m" if np.isfinite(sigma) else ""
        shown.append(Shown(i, tuple(line for line in (text, expected) if line)))
    return shown


def matches(scores: Scores, count: int, good: bool) -> list[Shown]:
    """Returns queries with their most similar image: the surest right ones, or the surest wrong ones."""
    right = (scores["place_rank"] == 0) & (scores["place_positives"] > 0)
    wanted = (scores["place_match"] >= 0) & (right if good else ~right)
    order = np.argsort(-np.where(wanted, scores["place_similarity"], -np.inf), kind="stable")
    shown = []
    for i in _apart(scores, order[: int(wanted.sum())], count):
        away, turned = scores["place_error_m"][i], scores["place_error_deg"][i]
        lines: tuple[str, ...] = (
            f"similarity {scores['place_similarity'][i]:.3f}",
            f"{away:.2f} m, {turned:.0f} deg away",
        )
        if not good and scores["place_positives"][i] == 0:
            lines = (*lines, "there is no image of this place")
        shown.append(Shown(i, lines, int(scores["place_match"][i]), good))
    return shown


def _apart(scores: Scores, order: NDArray[Any], count: int) -> list[int]:
    """Returns the first of an order that are not neighbours in time: those look all the same."""
    owner = np.repeat(np.arange(len(scores.recordings)), [b - a for a, b in scores.bounds])
    stamps = scores["stamps_ns"]
    chosen: list[int] = []
    for i in order:
        near = any(
            owner[i] == owner[j] and abs(int(stamps[i]) - int(stamps[j])) < _APART_S * 1e9
            for j in chosen
        )
        if not near:
            chosen.append(int(i))
            if len(chosen) == count:
                break
    return chosen


def load_pictures(path: str | Path, topic: str, places: Collection[Place]) -> dict[Place, str]:
    """Returns small JPEG pictures of some frames as `data:` addresses; those that cannot be read lack."""
    wanted = set(places)
    found: dict[Place, str] = {}
    topics = [topic] if topic else None
    try:
        with open_source(path, topics) as source:
            windows: list[tuple[float, float | None]] = [(0.0, None)]
            if isinstance(source, BagSource) and not source.problems:
                # By the index: a bag of an hour is not read for ten pictures.
                starts = sorted({(log - source.start_ns) / 1e9 for _, log in wanted})
                windows = [(max(s - 1e-4, 0.0), 2e-4) for s in starts]
        for start_s, duration_s in windows:
            with open_source(path, topics, start_s, duration_s) as source:
                for frame in source:
                    place = frame.stamp_ns, frame.log_ns
                    if place in wanted and place not in found:
                        found[place] = _picture(frame.message)
                    if len(found) == len(wanted):
                        return found
    except RobotVisionError:
        pass  # a report without pictures is better than none
    return {place: data for place, data in found.items() if data}


def _picture(message: Any) -> str:
    try:
        image = to_rgb(message)
    except ImageError:
        return ""
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    small = cv2.resize(np.ascontiguousarray(image), (WIDTH, height), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode() if ok else ""
