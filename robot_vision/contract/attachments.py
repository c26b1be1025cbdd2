"""Files that JSON lines point to: what a head says of each pixel has no place in a line of text."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.files.whole import write_whole


@dataclass(frozen=True)
class Attachments:
    """The files of one frame. Each is whole or not there.

    Attributes:
        folder: that they are written to.
        prefix: of their names: the frame's number.
        seen_from: the folder that the returned paths are relative to.
    """

    folder: Path
    prefix: str
    seen_from: Path

    def image(self, word: str, values: NDArray[np.uint8 | np.uint16]) -> str:
        """Writes (H, W) as PNG, by a name that ends in the word, and returns its path.

        Raises:
            ConfigError: it cannot be written.
        """
        import cv2

        assert values.ndim == 2 and values.dtype in (np.uint8, np.uint16), values.dtype
        done, data = cv2.imencode(".png", np.ascontiguousarray(values))
        assert done, values.shape
        return self._write(f"{word}.png", data.tobytes())

    def array(self, word: str, values: NDArray[np.floating]) -> str:
        """Writes an array of numbers as NPY; see `image`."""
        data = io.BytesIO()
        np.save(data, np.ascontiguousarray(values), allow_pickle=False)
        return self._write(f"{word}.npy", data.getvalue())

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / f"{self.prefix}.{name}"
        try:
            write_whole(path, data)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error}") from error
        return Path(os.path.relpath(path, self.seen_from)).as_posix()
