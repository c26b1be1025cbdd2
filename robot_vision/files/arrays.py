"""Arrays from .npy and .npz files that somebody else may have written: numbers and text, never objects.

`numpy.load` without pickles is safe from code, but takes memory for the size that a header claims, and raises
what zip, zlib and its parser of headers raise.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_BYTES = 1 << 32  # of all arrays of a file


def read_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns shape, whether columns come first, and type of an .npy file, and goes to its numbers.

    Raises:
        ValueError: it is none.
    """
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
    except Exception as error:  # the header is a Python literal, and its parser raises many things
        raise ValueError(f"no array: {error}") from error
    return found


def load_npy(content: bytes) -> NDArray[Any]:
    """Returns the array of an .npy file, as a view of its bytes.

    Raises:
        ValueError: it is none, holds objects, or has another number of bytes than its header says.
    """
    stream = io.BytesIO(content)
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError(f"an array of {dtype}, which may run code when it is read")
    if not dtype.itemsize or any(n < 0 for n in shape):
        raise ValueError(f"an array of {dtype} {shape}")
    size, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if size != there:
        raise ValueError(f"an array of {dtype} {shape} in {there} bytes: it is damaged")
    flat: NDArray[Any] = np.frombuffer(content, dtype, math.prod(shape), stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def load_npz(
    file: bytes | str | Path,
    most: int = MAX_BYTES,
    wanted: Callable[[str], bool] = lambda entry: True,
) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an .npz file by their names.

    Args:
        file: its path or its content.
        most: bytes that all arrays may have together.
        wanted: says of an entry's name whether it is read.

    Raises:
        ValueError: it is none, is damaged, holds objects or something else, or unpacks to more than `most`.
        OSError: it cannot be read.
    """
    import zipfile  # not for every node that starts

    try:
        with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
            entries = [entry for entry in archive.infolist() if wanted(entry.filename)]
            total = sum(entry.file_size for entry in entries)
            if total > most:
                raise ValueError(f"its arrays have {total} bytes: at most {most} are read")
            arrays = {}
            for entry in entries:
                # No more is unpacked than the entry claims, and each claim counted above.
                arrays[entry.filename.removesuffix(".npy")] = load_npy(archive.read(entry)).copy()
            return arrays
    except (OSError, ValueError):
        raise
    except Exception as error:  # of zipfile, zlib, bz2, lzma: all say that the file is damaged
        raise ValueError(f"{type(error).__name__}: {error}") from error
