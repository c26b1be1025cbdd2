"""Damaged bags: the records of MCAP and ROS 1 files, read from their start."""

from __future__ import annotations

import io

from fuzz.targets import bag_file
from robot_vision.sources import salvage
from robot_vision.sources.salvage import MCAP_MAGIC, ROS1_MAGIC

MAX_LEN = 1 << 13
ALLOWED_S = 5.0
_MOST = 10_000  # records that an input of this length can hold


def one_input(data: bytes) -> None:
    """Byte 0: the format; then the file after its magic."""
    read = salvage._ros1 if data[:1] == b"\1" else salvage._mcap
    count = 0
    for record in read(io.BytesIO(data[1:])):
        count += 1
        assert isinstance(record.topic, str) and isinstance(record.kind, str)
        assert count <= _MOST


def seeds() -> list[bytes]:
    """Returns small bags."""
    inputs = []
    for seed in bag_file.seeds():
        for first, magic in ((b"\0", MCAP_MAGIC), (b"\1", ROS1_MAGIC)):
            if seed[1:].startswith(magic):
                inputs.append(first + seed[1 + len(magic) :])
    return inputs
