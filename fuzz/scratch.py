"""Files for targets that read files: one folder a process, in memory where the system has such a place."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

PARTS = "parts"  # file in FUZZ_SCRATCH
_parts = 0


@functools.cache
def folder() -> Path:
    """Returns the folder; FUZZ_SCRATCH names the one above it, whose owner removes it."""
    above = os.environ.get("FUZZ_SCRATCH")
    if above:
        return Path(tempfile.mkdtemp(dir=above))
    memory = Path("/dev/shm")
    made = tempfile.mkdtemp(prefix="robot_vision_fuzz_", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def file(name: str, data: bytes) -> Path:
    """Writes a file, over the one of the last input, and returns its path."""
    path = folder() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def count(parts: int) -> None:
    """Says how many parts of inputs have run, where an input holds several, such as messages."""
    global _parts
    _parts += parts
    above = os.environ.get("FUZZ_SCRATCH")
    if above:  # at once: libFuzzer ends the process without a word
        (Path(above) / PARTS).write_text(str(_parts))


class Bytes:
    """Takes numbers off the front of an input; zeros when it is at its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, size: int) -> int:
        """Returns an unsigned number of `size` bytes, little-endian."""
        value = int.from_bytes(self.data[self.at : self.at + size], "little")
        self.at += size
        return value

    def rest(self) -> bytes:
        """Returns what is left."""
        return self.data[self.at :]
