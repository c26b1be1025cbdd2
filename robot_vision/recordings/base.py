"""What every source of frames has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_TOPIC = "/camera/image_raw"
DEFAULT_FRAME = "camera_optical_frame"


@dataclass(frozen=True)
class RawImage:
    """The fields of `sensor_msgs/Image` that `images.to_rgb` reads."""

    height: int
    width: int
    encoding: str
    step: int
    data: Any
    is_bigendian: int = 0

    @classmethod
    def of(cls, image: NDArray[np.uint8], encoding: str) -> RawImage:
        """Wraps uint8 (H, W, C) or (H, W)."""
        pixels = np.ascontiguousarray(image)
        height, width = pixels.shape[:2]
        return cls(height, width, encoding, pixels.strides[0], pixels.reshape(-1))


@dataclass(frozen=True)
class CompressedImage:
    """The fields of `sensor_msgs/CompressedImage` that `images.to_rgb` reads.

    A file of people's has an orientation, 1 to 8 as in EXIF, besides; a camera's message has none.
    """

    format: str
    data: Any
    orientation: int = 1


@dataclass(frozen=True)
class Frame:
    """One image of a recording.

    Attributes:
        stamp_ns: when it was taken: the header's stamp, or the log's where a driver left it zero.
        topic: with a leading slash.
        frame_id: the camera's optical frame.
        message: for `images.to_rgb`; damaged images are noticed there.
        name: for people: the file, or bag, topic and number.
        log_ns: when it was recorded.
    """

    stamp_ns: int
    topic: str
    frame_id: str
    message: Any
    name: str
    log_ns: int


class Source(ABC):
    """Frames of a recording, in the order in which they were recorded. Can be iterated again.

    Attributes:
        name: what was opened.
        topics: image topics that are read.
        count: how many frames there will be at most; None where that is not known.
        forms: which forms its messages may have: `raw`, `compressed` or both.
        problems: what is missing or could not be read so far, a line each. Reading goes on where it can.
        notes: what was read otherwise than the recording says of itself, a line each.
    """

    forms: tuple[str, ...] = ("raw", "compressed")

    def __init__(self, name: str, topics: tuple[str, ...], count: int | None) -> None:
        self.name = name
        self.topics = topics
        self.count = count
        self.problems: list[str] = []
        self.notes: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yields frames."""

    def _check_start(self, start_s: float, length_s: float) -> None:
        """Notes a start behind the end as a problem: nothing would come, and nobody know why."""
        if start_s > length_s:
            self.problems.append(
                f"{self.name} lasts {length_s:.3f} s, and {start_s:g} s are to be skipped: nothing is read"
            )

    def close(self) -> None:
        """Closes files that are open."""
        return None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
