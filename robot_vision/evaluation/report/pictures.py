"""The frames that a report shows: which ones, and their pictures as data in the page."""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np

from robot_vision.errors import ImageError, RobotVisionError
from robot_vision.evaluation.predict.samples import SampleSource
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.bag import BagSource

WIDTH = 240
_QUALITY = 82

# Where an image lies in a recording: its header's stamp, and when it was recorded.
Place = tuple[int, int]


def load_pictures(
    path: str | SampleSource, topic: str, places: Collection[Place]
) -> dict[Place, str]:
    """Returns small JPEG pictures of some frames as `data:` addresses; those that cannot be read lack."""
    wanted = set(places)
    found: dict[Place, str] = {}
    if isinstance(path, SampleSource):
        for frame in path.only({stamp for stamp, _ in wanted}):
            found[frame.stamp_ns, frame.log_ns] = _picture(frame.message)
        return {place: data for place, data in found.items() if data}
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
