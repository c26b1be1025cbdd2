"""Video files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from robot_vision.errors import SourceError
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings.base import DEFAULT_FRAME, DEFAULT_TOPIC, Frame, RawImage, Source

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")


class VideoSource(Source):
    """Frames of a video as raw `bgr8` images, stamped with their time in the video.

    Args:
        path: the file.
        start_s: seconds from which frames are given.
        duration_s: seconds to read; None until the end.

    Raises:
        SourceError: OpenCV cannot open it.
    """

    forms = ("raw",)

    def __init__(self, path: Path, start_s: float = 0.0, duration_s: float | None = None) -> None:
        self._path = path
        self._first = nanoseconds(start_s)
        self._last = None if duration_s is None else self._first + nanoseconds(duration_s)
        capture = self._open()
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self._period_ns = (
            nanoseconds(1 / rate) if np.isfinite(rate) and rate > 0 else nanoseconds(1 / 30)
        )
        whole = start_s == 0 and duration_s is None
        super().__init__(str(path), (DEFAULT_TOPIC,), frames if whole and frames > 0 else None)
        if frames > 0:
            self._check_start(start_s, frames * self._period_ns / 1e9)

    def _open(self) -> cv2.VideoCapture:
        try:
            capture = cv2.VideoCapture(str(self._path))
        except cv2.error as error:
            raise SourceError(f"{self._path} cannot be read as a video: {error.err}") from error
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} cannot be read as a video: OpenCV lacks its format, or it is damaged"
            )
        # A video's rotation flag turns the picture, and a calibrated camera's pictures must not be turned.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return capture

    def __iter__(self) -> Iterator[Frame]:
        capture = self._open()
        number, stamp_ns = 0, -1
        try:
            while True:
                ok, image = capture.read()
                if not ok:
                    break
                position = nanoseconds(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
                # Some containers have no times: then count frames. Stamps must grow.
                stamp_ns = position if position > stamp_ns else stamp_ns + self._period_ns
                stamp_ns = max(stamp_ns, 0)
                number += 1
                if stamp_ns < self._first:
                    continue
                if self._last is not None and stamp_ns >= self._last:
                    break
                name = f"{self._path.name}#{number - 1}"
                message = RawImage.of(np.asarray(image), "bgr8")
                yield Frame(stamp_ns, DEFAULT_TOPIC, DEFAULT_FRAME, message, name, stamp_ns)
        finally:
            capture.release()
        if number == 0:
            raise SourceError(f"{self._path} has no frame that can be decoded: it is damaged")
