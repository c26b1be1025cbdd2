"""Columns of one array a frame, such as images, that stay on disk: only what is asked for is in memory.

A file is a zip that holds each array as a deflated .npy, under the column's name and the frame's number. What
is made new goes into a file without a name, which is gone with the last column that reads it.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.files.arrays import load_npy

MAX_BYTES = 1 << 28  # of one array
_LEVEL = 1  # of zlib: six takes ten times as long for a few percent
_OPEN_AT_ONCE = 4  # a file's table of contents takes megabytes


def member(name: str, number: int) -> str:
    """Returns the name of a frame's array in a file."""
    return f"{name}/{number:06d}.npy"


def is_member(entry: str) -> bool:
    """Whether an entry of a file is a frame's array."""
    return "/" in entry


class _Archive(Protocol):
    def zip(self) -> zipfile.ZipFile:
        """Returns the open file."""

    def __str__(self) -> str: ...


class Stream:
    """One array a frame: `[i]` reads that of frame i, None where there is none; other indices pick frames.

    Args:
        archive: where the arrays are.
        name: of the column.
        numbers: int64 (N,), of the array of each frame in the file; -1 for none.
        dtype: of the arrays.
    """

    def __init__(
        self, archive: _Archive, name: str, numbers: NDArray[np.int64], dtype: str
    ) -> None:
        self._archive, self.name, self._numbers = archive, name, numbers
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any] | None: ...

    @overload
    def __getitem__(self, index: slice | NDArray[Any]) -> Stream: ...

    def __getitem__(self, index: Any) -> Any:
        """Returns the array of a frame, or the column of a slice, an index array or a mask of frames.

        Raises:
            SourceError: it cannot be read, or is no array of the column's type.
            IndexError: there is no such frame.
        """
        if not isinstance(index, (int, np.integer)):
            return Stream(self._archive, self.name, self._numbers[index], self.dtype.name)
        number = int(self._numbers[index])
        return None if number < 0 else self._read(number)

    def __iter__(self) -> Iterator[NDArray[Any] | None]:
        for i in range(len(self)):
            yield self[i]

    def _read(self, number: int) -> NDArray[Any]:
        try:
            archive = self._archive.zip()
            entry = archive.getinfo(member(self.name, number))
            if entry.file_size > MAX_BYTES:
                raise ValueError(f"it has {entry.file_size} bytes: at most {MAX_BYTES} are read")
            # No more is unpacked than the entry claims.
            array = load_npy(archive.read(entry))
            if array.dtype != self.dtype:
                raise ValueError(f"it is of {array.dtype}, and the column of {self.dtype}")
        except SourceError:
            raise
        except Exception as error:  # of zipfile and zlib: all say that the file is damaged
            raise SourceError(
                f"{self._archive}: array {number} of column {self.name} cannot be read: {error}"
            ) from error
        return array


class StreamWriter:
    """Takes arrays frame by frame.

    Args:
        folder: on whose disk they lie meanwhile; None for the system's place for large files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = _Unnamed(folder)

    def put(self, name: str, number: int, array: NDArray[Any]) -> None:
        """Writes a frame's array; each number once a column.

        Raises:
            SourceError: it cannot be written.
        """
        try:
            put(self._file.zip(), name, number, array)
        except OSError as error:
            raise SourceError(
                f"Column {name} cannot be written to {self._file}: {error}; free some space, or name another "
                "disk in TMPDIR"
            ) from error

    def stream(self, name: str, numbers: NDArray[np.int64], dtype: str) -> Stream:
        """Returns a column of what was written."""
        return Stream(self._file, name, numbers, dtype)


def put(archive: zipfile.ZipFile, name: str, number: int, array: NDArray[Any]) -> None:
    """Writes a frame's array into a file that is open for writing."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    archive.writestr(member(name, number), content.getvalue(), zipfile.ZIP_DEFLATED, _LEVEL)


def streams_of(path: Path, columns: Iterable[tuple[str, str]], count: int) -> dict[str, Stream]:
    """Returns the columns of a file.

    Args:
        path: of the file.
        columns: name and dtype of each.
        count: number of frames.

    Raises:
        ValueError: a dtype that is none, or that holds objects.
        OSError, zipfile.BadZipFile: the file cannot be read.
    """
    file = _Named(path)
    held: dict[str, list[int]] = {}
    for entry in file.zip().namelist():
        name, _, number = entry.removesuffix(".npy").rpartition("/")
        if number.isdecimal() and member(name, int(number)) == entry and int(number) < count:
            held.setdefault(name, []).append(int(number))
    found = {}
    for name, dtype in columns:
        try:
            kind = np.dtype(dtype)
        except TypeError as error:
            raise ValueError(f"column {name}: {error}") from error
        if kind.hasobject or kind.fields:
            raise ValueError(f"column {name} is of {dtype}, which is no number")
        numbers = np.full(count, -1, np.int64)
        there = held.get(name, [])
        numbers[there] = there
        found[name] = Stream(file, name, numbers, kind.name)
    return found


class _Unnamed:
    """A temporary file without a name: nothing is left of it, however the process ends."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = str(folder or _large_files() or tempfile.gettempdir())
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._zip = zipfile.ZipFile(tempfile.TemporaryFile(dir=self._folder), "w")

    def zip(self) -> zipfile.ZipFile:
        return self._zip

    def __str__(self) -> str:
        return f"a temporary file in {self._folder}"


class _Named:
    """A file that was there; it is opened again where others were read meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path, self._identity = path, _identity(path)

    def zip(self) -> zipfile.ZipFile:
        return _opened(self._path, self._identity)

    def __str__(self) -> str:
        return str(self._path)


@functools.lru_cache(_OPEN_AT_ONCE)
def _opened(path: Path, identity: tuple[int, ...]) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path)
    if _identity(path) != identity:
        raise SourceError(f"{path} was written again since it was opened: start again")
    return archive


def _identity(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _large_files() -> str | None:
    # /tmp is often memory; /var/tmp is a disk's.
    place = os.environ.get("TMPDIR") or "/var/tmp"
    return place if os.access(place, os.W_OK) else None
