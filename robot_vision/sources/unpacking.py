"""Unpacks the chunks of bags, and never to more than a limit: a kilobyte may stand for all memory there is.

`rosbags` unpacks without one. `limit_rosbags` puts these in the place of its functions.
"""

from __future__ import annotations

import bz2
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

# Recorders write chunks of one to some ten megabytes; one image more than fills a chunk that is smaller.
MAX_BYTES = 1 << 30
_STEP = 1 << 24


def unpack(compression: str, data: bytes, most: int = MAX_BYTES) -> bytes:
    """Returns the content of a chunk.

    Args:
        compression: as bags name it.
        data: packed.
        most: bytes of the content.

    Raises:
        ValueError: unknown compression, damaged or cut off, or more than `most`.
    """
    if compression in ("", "none"):
        return bytes(data)
    if compression not in _DECOMPRESSORS:
        raise ValueError(f"unknown compression {compression!r}")
    try:
        content = _unpacked(_DECOMPRESSORS[compression], bytes(data), most)
    except Exception as error:  # each library has its own
        raise ValueError(f"a chunk is damaged: {error}") from error
    if content is None:
        raise ValueError(f"a chunk of {len(data)} bytes unpacks to more than {most}: it is a bomb")
    return content


def limit_rosbags() -> None:
    """Makes `rosbags` unpack by `unpack`; calling it again does nothing.

    Where a version keeps its functions elsewhere, it is left as it is; a test tells.
    """
    import rosbags.rosbag1.reader as reader1
    import rosbags.rosbag2.storage_mcap as mcap

    table: Any = getattr(reader1, "decompressors", {})
    for name in ("bz2", "lz4"):
        if name in table:
            table[name] = _of_ros1(name)
    table = getattr(mcap, "DECOMPRESSORS", {})
    for name in ("lz4", "zstd"):
        if name in table:
            table[name] = _of_mcap(name)


def _of_ros1(name: str) -> Callable[[bytes], bytes]:
    return lambda data: unpack(name, data)


def _of_mcap(name: str) -> Callable[[bytes, int], bytes]:
    # An MCAP chunk says how much is in it, and what has more is damaged anyway.
    return lambda data, size: unpack(name, data, min(size, MAX_BYTES))


def _unpacked(make: Callable[[], Any], data: bytes, most: int) -> bytes | None:
    """Returns the content of the frames in `data`, one after the other; None if it is more than `most`."""
    parts: list[bytes] = []
    total = 0
    while True:
        machine = make()
        while not machine.eof:
            part = machine.decompress(data, max_length=min(_STEP, most - total + 1))
            data = b""
            parts.append(part)
            total += len(part)
            if total > most:
                return None
            if not part and machine.needs_input and not machine.eof:
                raise ValueError("it is cut off")
        data = machine.unused_data or b""
        if not data:
            return b"".join(parts)


def _lz4() -> Any:
    import lz4.frame  # rosbags brings it

    return lz4.frame.LZ4FrameDecompressor()


def _zstd() -> Any:
    # Python 3.14 has it; before, rosbags brings the other.
    for name in ("compression.zstd", "backports.zstd"):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            try:
                return importlib.import_module(name).ZstdDecompressor()
            except ModuleNotFoundError:
                continue
    raise ValueError("no zstd module is installed")


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "bz2": bz2.BZ2Decompressor,
    "lz4": _lz4,
    "zstd": _zstd,
}
