"""Finds out what a path is, and opens it."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Collection
from pathlib import Path

from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.recordings.bag import BagSource
from robot_vision.recordings.base import Source
from robot_vision.recordings.files import FileSource, find_images
from robot_vision.recordings.image_formats import IMAGE_SUFFIXES, is_image
from robot_vision.recordings.recording_folder import BAG_SUFFIXES, is_bag
from robot_vision.recordings.video import VIDEO_SUFFIXES, VideoSource

# Of images without stamps: whole nanoseconds apart, and in messages' 32 bits of seconds
RATES_HZ = (1e-3, 1e6)


def open_source(
    path: str | Path,
    topics: Collection[str] | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    rate: float = 30.0,
    distances: bool = False,
) -> Source:
    """Opens a recording.

    Args:
        path: a rosbag (ROS 1 `.bag`, rosbag2 folder, `.db3`, `.mcap`), a video, a folder of images (with
            those below it), an image, or a pattern such as `run*/*.jpg`.
        topics: image topics of a bag; None for all that are a camera's pictures.
        start_s: seconds from the recording's start from which frames are given.
        duration_s: seconds to read; None until the end.
        rate: frames per second of images, which bear no stamps.
        distances: None means topics of distances, too.

    Raises:
        SourceError: nothing there, or nothing in it can be read; the message says what is there.
        ConfigError: a time or rate that makes no sense, or topics of something that has none.
    """
    slowest, fastest = RATES_HZ
    if (
        not 0 <= start_s < math.inf
        or (duration_s is not None and not 0 < duration_s < math.inf)
        or not slowest <= rate <= fastest
    ):
        raise ConfigError(
            f"start {start_s} s, duration {duration_s} s, rate {rate} Hz: start must be 0 or more, "
            f"duration more than 0, rate from {slowest:g} to {fastest:g}"
        )
    if not os.fspath(path):
        raise SourceError(
            "The recording's path is empty: give a bag, video, folder, image or pattern"
        )
    place = Path(path).expanduser()
    if not place.exists():
        return _pattern(str(place), topics, start_s, duration_s, rate, distances)
    if not (place.is_dir() or place.is_file()):
        raise SourceError(f"{place} is no regular file: copy what comes from it into one")
    if is_bag(place):
        return BagSource(place, topics, start_s, duration_s, distances)
    if topics:
        raise ConfigError(f"{place} is no bag and has no topics: leave out {', '.join(topics)}")
    if place.is_dir():
        bags = sorted(p for p in place.iterdir() if is_bag(p) and not p.name.startswith("."))
        found = find_images(place)
        if bags and not found.images:
            raise SourceError(f"{place} holds bags: name one of {', '.join(p.name for p in bags)}")
        source = FileSource(str(place), found.files, rate, start_s, duration_s, root=place)
        source.notes += found.notes()
        if bags:
            names = ", ".join(p.name for p in bags)
            source.notes.append(f"{place} holds bags, too, which are not read with images: {names}")
        return source
    if is_image(place):
        return FileSource(str(place), [place], rate, start_s, duration_s, root=place.parent)
    if place.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(place, start_s, duration_s)
    ends = ", ".join((*BAG_SUFFIXES, *VIDEO_SUFFIXES, *IMAGE_SUFFIXES))
    raise SourceError(
        f"{place} is of no known kind: use a folder, or a file that ends in one of {ends}"
    )


def _pattern(
    pattern: str,
    topics: Collection[str] | None,
    start_s: float,
    duration_s: float | None,
    rate: float,
    distances: bool,
) -> Source:
    found = [Path(p) for p in glob.glob(pattern, recursive=True)] if glob.has_magic(pattern) else []
    if not found:
        raise SourceError(f"{pattern} does not exist: give a bag, video, folder, image or pattern")
    if len(found) == 1 and not is_image(found[0]):
        return open_source(found[0], topics, start_s, duration_s, rate, distances)
    if topics:
        raise ConfigError(f"{pattern} is no bag and has no topics: leave out {', '.join(topics)}")
    bags = sorted(str(p) for p in found if is_bag(p))
    if bags:
        raise SourceError(
            f"{pattern} matches {len(bags)} bags, which are read one at a time: give them by name, or the "
            f"folder of a recording's files: {', '.join(bags)}"
        )
    files = sorted((p for p in found if is_image(p)), key=lambda p: natural_key(str(p)))
    return FileSource(pattern, files, rate, start_s, duration_s)
