"""Single images of bags in any order: training asks for image 4711, then for 12.

`bag_reader` goes through a bag once, and says of each message where it lies.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError, SourceError
from robot_vision.images.decode import to_rgb
from robot_vision.images.planes import to_plane
from robot_vision.recordings.bag_reader import BagFile, Record, read_again
from robot_vision.recordings.recording_folder import open_storage
from robot_vision.recordings.storage import Storage

_OPEN_AT_ONCE = 8


class _OpenFiles(threading.local):
    """The files that this thread of this process has open; neither may share a SQLite connection."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[str, Storage] = OrderedDict()

    def get(self, path: str) -> Storage:
        if self.process != os.getpid():  # forked: what the parent opened is the parent's
            self.process, self.files = os.getpid(), OrderedDict()
        if path in self.files:
            self.files.move_to_end(path)
            return self.files[path]
        file = open_storage(Path(path), path)
        self.files[path] = file
        if len(self.files) > _OPEN_AT_ONCE:
            self.files.popitem(last=False)[1].close()
        return file


_open_files = _OpenFiles()


@dataclass(frozen=True, slots=True)
class BagImage:
    """A `sample.ImageSource` over one message; its file is opened when the first image is asked for.

    Attributes:
        path: the bag's.
        topic: the image's, with its slash.
        kind: its type.
        ros1: whether ROS 1 serialised it.
        place: file, chunk and place in it.
        number: among all messages of the topic, for people.
    """

    path: str
    topic: str
    kind: str
    ros1: bool
    place: tuple[str, int, int]
    number: int

    @classmethod
    def of(cls, bag: BagFile, record: Record, number: int) -> BagImage:
        """Remembers where a message lies."""
        return cls(str(bag.path), record.topic, record.kind, record.ros1, record.place, number)

    def __str__(self) -> str:
        return f"{self.path}:{self.topic}#{self.number}"

    def load(self, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Returns RGB uint8 (H, W, 3); see `sample.ImageSource`."""
        message = self.message()
        try:
            return np.require(to_rgb(message, min_size), requirements=["C", "W"])
        except ImageError as error:
            raise ImageError(error.reason, f"{self}: {error}") from error

    def plane(self) -> NDArray[Any]:
        """Returns uint8, uint16 or float32 (H, W) of a message with one number a pixel.

        Raises:
            ImageError: it cannot be read or decoded, or has several.
        """
        message = self.message()
        try:
            return to_plane(message)
        except ImageError as error:
            raise ImageError(error.reason, f"{self}: {error}") from error

    def encoded(self) -> bytes:
        """Returns the compressed bytes, or what describes the raw ones followed by them."""
        return stored_bytes(self.message())

    def message(self) -> Any:
        """Returns the message.

        Raises:
            ImageError: it is no longer there.
        """
        file, block, inner = self.place
        try:
            data = _open_files.get(file).fetch(block, inner)
            return read_again(Record(self.topic, self.kind, 0, data, self.ros1))
        except (SourceError, ValueError, OSError) as error:
            raise ImageError("corrupt", f"{self}: it is no longer in the bag: {error}") from error


def stored_bytes(message: Any) -> bytes:
    """Returns what an image message is compared by: see `BagImage.encoded`."""
    data = bytes(memoryview(message.data))
    if not hasattr(message, "encoding"):
        return data
    return f"{message.height} {message.width} {message.encoding} {message.step} ".encode() + data
