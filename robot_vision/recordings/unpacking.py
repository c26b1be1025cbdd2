"""Unpacks what is in bags, and never to more than a limit: a kilobyte may stand for all memory there is."""

from __future__ import annotations

import bz2
import importlib
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Recorders write chunks of one to some ten megabytes; one image more than fills a chunk that is smaller.
MAX_BYTES = 1 << 30
_STEP = 1 << 24
_SPARE = 1 << 26  # bytes that stay free on a disk


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


def unpack_file(packed: Path, target: Path) -> None:
    """Unpacks a file that zstd packed as a whole, as far as its disk has room.

    Raises:
        ValueError: damaged or cut off, or there is no room.
        OSError: of the system.
    """
    room = shutil.disk_usage(target.parent).free - _SPARE
    machine: Any = None
    written = 0
    with packed.open("rb") as source, target.open("wb") as out:
        data = source.read(_STEP)
        while data or (machine is not None and not machine.eof):
            if machine is None or machine.eof:  # one frame may follow another
                machine = _zstd()
            try:
                part = machine.decompress(data, max_length=_STEP)
            except Exception as error:  # each library has its own
                raise ValueError(f"it is damaged as a zstd file: {error}") from error
            written += len(part)
            if written > room:
                raise ValueError(
                    f"unpacked it needs more than the {max(room, 0) >> 20} MiB that are free in "
                    f"{target.parent}: set TMPDIR to a folder with room, or unpack it with zstd -d"
                )
            out.write(part)
            if machine.eof:
                data = machine.unused_data or source.read(_STEP)
            elif machine.needs_input:
                data = source.read(_STEP)
                if not data:
                    raise ValueError("it is cut off as a zstd file")
            else:
                data = b""


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
