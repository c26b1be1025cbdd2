"""The frames that a report shows: which ones, and their pictures as data in the page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError, RobotVisionError
from robot_vision.evaluation.predict.samples import SampleSource
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.bag import BagSource

WIDTH, MOST = 240, 480  # as pages show them, and when a reader enlarges one
_QUALITY = 82

# Where an image lies in a recording: its header's stamp, and when it was recorded.
Place = tuple[int, int]
Paint = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # of an image RGB (H, W, 3)
K = TypeVar("K")


def load_pictures(
    path: str | SampleSource, topic: str, wanted: Mapping[Place, Mapping[K, Paint]]
) -> dict[K, str]:
    """Returns small JPEG pictures of some frames as `data:` addresses; those that cannot be read lack.

    Args:
        path: of the recording, or what gives its frames.
        topic: of the images; empty for the only one.
        wanted: what is made of the image of each place, by any keys.
    """
    found: dict[Place, dict[K, str]] = {}
    if isinstance(path, SampleSource):
        for frame in path.only({stamp for stamp, _ in wanted}):
            place = frame.stamp_ns, frame.log_ns
            found[place] = _pictures(frame.message, wanted[place])
        return _joined(found)
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
                        found[place] = _pictures(frame.message, wanted[place])
                    if len(found) == len(wanted):
                        return _joined(found)
    except RobotVisionError:
        pass  # a report without pictures is better than none
    return _joined(found)


def _joined(found: Mapping[Place, Mapping[K, str]]) -> dict[K, str]:
    return {key: data for each in found.values() for key, data in each.items() if data}


def _pictures(message: Any, paints: Mapping[K, Paint]) -> dict[K, str]:
    try:
        image = to_rgb(message)
    except ImageError:
        return {}
    return {key: _picture(paint(image)) for key, paint in paints.items()}


def _picture(image: NDArray[np.uint8]) -> str:
    width = min(max(WIDTH, image.shape[1]), MOST)
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    small = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode() if ok else ""
