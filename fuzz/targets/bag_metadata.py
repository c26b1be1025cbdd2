"""metadata.yaml of a rosbag2 folder from the internet."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from rosbags.rosbag2.enums import StoragePlugin

from fuzz import scratch
from fuzz.targets import bag_file

MAX_LEN = 1 << 12
ALLOWED_S = 10.0


@functools.cache
def _bag() -> tuple[bytes, bytes]:
    """Returns the storage and the metadata of a bag."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bag"
        bag_file._write2(folder, StoragePlugin.SQLITE3)
        return (folder / "bag.db3").read_bytes(), (folder / "metadata.yaml").read_bytes()


def one_input(data: bytes) -> None:
    """The whole file, next to a storage that is whole."""
    storage = scratch.folder() / "folder" / "bag.db3"
    if not storage.is_file():
        scratch.file("folder/bag.db3", _bag()[0])
    bag_file.read(scratch.file("folder/metadata.yaml", data).parent)


def seeds() -> list[bytes]:
    """Returns the true one, and one that names files elsewhere."""
    true = _bag()[1]
    return [true, true.replace(b"bag.db3", b"../../etc/passwd"), b"a: &a [*a]"]
