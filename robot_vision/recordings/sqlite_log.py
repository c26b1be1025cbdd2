"""SQLite's write-ahead log, read to know what of it SQLite will read (the format: sqlite.org/walformat.html).

SQLite deletes a log of which it can read nothing, of a recording that is not ours to change. So it is only
asked to read one that holds a whole transaction.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER, _FRAME = 32, 24
_MAGIC = 0x377F0682  # one more: checksums are of big-endian words
_PAGES = tuple(1 << n for n in range(9, 17))


def committed_pages(log: Path) -> tuple[int, int]:
    """Returns how many pages of a log are of whole transactions, and how many there are in all.

    Pages of an earlier round through the file do not count.
    """
    with log.open("rb") as file:
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            return 0, 1
        magic, _, page = struct.unpack_from(">III", header)
        if magic | 1 != _MAGIC | 1 or page not in _PAGES:
            return 0, 1
        order = ">" if magic & 1 else "<"
        state = np.zeros(2, np.uint32)
        state = _Checksum(24, order)(header[:24], state)
        if state.tolist() != list(struct.unpack_from(">II", header, 24)):
            return 0, 1
        checksum = _Checksum(8 + page, order)
        pages = whole = 0
        while frame := file.read(_FRAME + page):
            if frame[8:16] != header[16:24]:
                break
            pages += 1
            if len(frame) < _FRAME + page:
                break
            state = checksum(frame[:8] + frame[_FRAME:], state)
            if state.tolist() != list(struct.unpack_from(">II", frame, 16)):
                break
            if frame[4:8] != bytes(4):
                whole = pages
        return whole, pages


class _Checksum:
    """The checksum of some bytes: for each two words a, b, s0 += a + s1 and s1 += b + s0, in 32 bits.

    That is linear, so that one product of precomputed factors takes the place of the steps.
    """

    def __init__(self, size: int, order: str) -> None:
        self._words = np.dtype(f"{order}u4")
        step = np.array([[1, 1], [1, 2]], np.uint32)
        factors = [np.array([[1, 0], [1, 1]], np.uint32)]
        for _ in range(size // 8 - 1):
            factors.append(step @ factors[-1])
        # (2, size / 4): of each sum, by each word.
        self._factors = np.stack(factors[::-1], axis=1).reshape(2, -1)
        power = np.eye(2, dtype=np.uint32)
        for _ in range(size // 8):
            power = step @ power
        self._power = power

    def __call__(self, data: bytes, state: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Returns the two sums after some data, from those before it."""
        words = np.frombuffer(data, self._words).astype(np.uint32)
        found: NDArray[np.uint32] = self._power @ state + self._factors @ words
        return found
