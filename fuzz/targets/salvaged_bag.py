"""Damaged bags: the records of MCAP and ROS 1 files, read from their start."""

from __future__ import annotations

from fuzz import scratch
from fuzz.targets import bag_file
from robot_vision.recordings.recording_folder import surveyed
from robot_vision.recordings.storage import merged
from robot_vision.recordings.storage_mcap import MAGIC as MCAP_MAGIC
from robot_vision.recordings.storage_ros1 import MAGIC as ROS1_MAGIC

MAX_LEN = 1 << 13
ALLOWED_S = 5.0
_MOST = 10_000  # records that an input of this length can hold


def one_input(data: bytes) -> None:
    """Byte 0: the format; then the file after its magic."""
    magic = ROS1_MAGIC if data[:1] == b"\1" else MCAP_MAGIC
    try:
        storage = surveyed(scratch.file("salvaged", magic + data[1:]), "salvaged")
    except ValueError:
        return
    topics = {channel.topic for channel in storage.channels.values()}
    count = 0
    for _, message in merged((0, part) for part in storage.parts(topics, None, None)):
        count += 1
        assert isinstance(message.channel.topic, str) and isinstance(message.channel.kind, str)
        assert count <= _MOST


def seeds() -> list[bytes]:
    """Returns small bags."""
    inputs = []
    for seed in bag_file.seeds():
        for first, magic in ((b"\0", MCAP_MAGIC), (b"\1", ROS1_MAGIC)):
            if seed[1:].startswith(magic):
                inputs.append(first + seed[1 + len(magic) :])
    return inputs
