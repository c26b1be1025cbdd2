"""Bags whose evaluation is known: the tiny bundle answers with the mean colours of their images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from robot_vision.recordings.writing import RecordingWriter

START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
SIZE = (32, 48)
# What the tiny bundle says of them: red, green, blue; its positions are these shares.
COLOURS = np.array([[200, 40, 60], [30, 190, 50], [20, 60, 210], [180, 50, 20]], np.uint8)
NAMES = ("red", "green", "blue", "red")
IMAGE_TOPIC = "/front/image_raw"


def picture(i: int) -> np.ndarray:
    """Returns the image of frame i, RGB uint8 (32, 48, 3): one colour, so that every resize keeps it."""
    return np.full((*SIZE, 3), COLOURS[i % len(COLOURS)], np.uint8)


def position(i: int) -> np.ndarray:
    """Returns where the tiny bundle sees frame i, metres."""
    return COLOURS[i % len(COLOURS)] / 255.0


def orientation(i: int) -> np.ndarray:
    """Returns how the tiny bundle sees it turned: by the red share about z, xyzw."""
    red = COLOURS[i % len(COLOURS)][0] / 255.0
    return np.array([0, 0, np.sin(red), np.cos(red)])


def label(i: int) -> str:
    return NAMES[i % len(NAMES)]


def write_bag(
    path: Path,
    count: int = 40,
    offset: tuple[float, float, float] = (0.1, 0.0, 0.0),
    wrong: frozenset[int] = frozenset(),
    storage: str = "sqlite3",
    jpeg: bool = False,
    labels: bool = True,
    poses: bool = True,
    start: int = START,
    image_topic: str = IMAGE_TOPIC,
) -> Path:
    """Writes a bag whose true positions are `offset` from where the tiny bundle sees them.

    Args:
        path: of the bag.
        count: frames.
        offset: metres.
        wrong: frames whose true label is another than the bundle's answer.
        storage: sqlite3 or mcap.
        jpeg: write compressed images.
        labels: write /truth/room.
        poses: write /truth/pose.
        start: first stamp.
        image_topic: of the images.
    """
    with RecordingWriter(path, storage) as bag:
        for i in range(count):
            stamp = start + i * PERIOD
            if poses:
                bag.camera_pose("/truth/pose", stamp, position(i) + offset, orientation(i))
            if labels:
                true = label(i) if i not in wrong else ("green" if label(i) != "green" else "blue")
                bag.label("/truth/room", stamp, true)
            if jpeg:
                ok, data = cv2.imencode(".jpg", picture(i)[..., ::-1])
                assert ok
                bag.compressed_image(image_topic, stamp, "front_optical", data.tobytes(), "jpeg")
            else:
                bag.image(image_topic, stamp, "front_optical", picture(i))
    return path
