"""Which part of a camera's image the network saw: where a head's map of numbers lies in that image."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import crop_region, letterbox_window

Size = tuple[int, int]  # (height, width)
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Window:
    """Which part of the camera's image became which part of the network's input, as `resize_into` does it.

    A map of (h, w) covers the whole input, at any resolution. Pixel centres are whole numbers, so that
    along an axis, here of columns,

        x_input + 0.5 = (x_map + 0.5) * input_width / w
        x_camera + 0.5 = region_left + (x_input + 0.5 - inside_left) * region_width / inside_width

    Attributes:
        camera: (height, width) of the camera's image, as its message says; a JPEG may be decoded smaller.
        region: top, left, height and width of what is used of it: all, but with `crop`.
        inside: top, left, height and width of where that lies in the input: everywhere, but with `letterbox`.
        input: (height, width) of the network's input.
    """

    camera: Size
    region: tuple[int, int, int, int]
    inside: tuple[int, int, int, int]
    input: Size

    @classmethod
    def of(cls, camera: Size, spec: InputSpec) -> Window:
        """Returns the window of images of a size (height, width)."""
        camera = (int(camera[0]), int(camera[1]))
        target = (spec.height, spec.width)
        region, inside = (0, 0, *camera), (0, 0, *target)
        if spec.resize == "crop":
            region = crop_region(camera, target, spec.crop_fraction)
        elif spec.resize == "letterbox":
            inside = letterbox_window(camera, target)
        return cls(camera, region, inside, target)

    def truth(self, image: NDArray[Any], size: Size, none: float) -> NDArray[Any]:
        """Returns what is true of each pixel of a map: that of the nearest pixel of the camera's image.

        Args:
            image: (H, W) or (H, W, C), of the camera's size.
            size: (height, width) of the map.
            none: for pixels that the camera did not see.

        Returns:
            The map, of the image's type.

        Raises:
            ValueError: the image is of another size.
        """
        if image.shape[:2] != self.camera:
            raise ValueError(
                f"{image.shape[1]} x {image.shape[0]} pixels of truth for a camera's image of "
                f"{self.camera[1]} x {self.camera[0]}"
            )
        return _taken(image, *_into_camera(self, tuple(size)), none)

    def to_camera(self, values: NDArray[Any], none: float) -> NDArray[Any]:
        """Returns a map in the camera's size: each pixel has what the nearest of the map says.

        Args:
            values: the map, (h, w) or (h, w, C).
            none: for pixels that the network did not see.
        """
        return _taken(values, *_into_map(self, values.shape[:2]), none)

    def covered(self, size: Size) -> NDArray[np.bool_]:
        """Returns which pixels of a map of a size (h, w) show the camera's image, and not the padding."""
        rows, columns = _into_camera(self, tuple(size))
        return np.asarray((rows >= 0)[:, None] & (columns >= 0))

    def pixels(self, size: Size) -> NDArray[np.float64]:
        """Returns where in the camera's image a map's pixel centres lie: x and y, float64 (h, w, 2)."""
        y, x = (_camera_of(self, axis, size[axis]) for axis in (0, 1))
        return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1)

    def intrinsics(self, K: NDArray[Any], size: Size) -> NDArray[np.float64]:
        """Returns a camera matrix (3, 3) for a map of a size (h, w) in place of the camera's image.

        The distortion is of rays and stays as it is.
        """
        scaled = np.array(K, np.float64)
        for row, axis in ((0, 1), (1, 0)):
            pitch, start = self._pitch(axis, size[axis])
            scaled[row] /= pitch
            scaled[row, 2] = (K[row, 2] + 0.5 - start) / pitch - 0.5
        return scaled

    def _pitch(self, axis: int, count: int) -> tuple[float, float]:
        """Returns pixels of the camera for one of a map, and `x_camera + 0.5` of the map's first edge."""
        scale = self.region[axis + 2] / self.inside[axis + 2]
        return self.input[axis] / count * scale, self.region[axis] - self.inside[axis] * scale


def _camera_of(window: Window, axis: int, count: int) -> NDArray[np.float64]:
    pitch, start = window._pitch(axis, count)
    return np.asarray(start + (np.arange(count) + 0.5) * pitch - 0.5, np.float64)


@functools.lru_cache(maxsize=64)
def _into_camera(window: Window, size: Size) -> tuple[Indices, Indices]:
    """Returns the camera's row of each row of a map, and the columns; -1 outside of the region."""

    def nearest(axis: int) -> Indices:
        found = np.floor(_camera_of(window, axis, size[axis]) + 0.5).astype(np.intp)
        first, length = window.region[axis], window.region[axis + 2]
        return np.where((found >= first) & (found < first + length), found, -1)

    return nearest(0), nearest(1)


@functools.lru_cache(maxsize=64)
def _into_map(window: Window, size: Size) -> tuple[Indices, Indices]:
    """Returns a map's row of each row of the camera's image, and the columns; -1 outside of the region."""

    def nearest(axis: int) -> Indices:
        pitch, start = window._pitch(axis, size[axis])
        there = np.arange(window.camera[axis])
        found = np.floor((there + 0.5 - start) / pitch).astype(np.intp)
        first, length = window.region[axis], window.region[axis + 2]
        found = np.clip(found, 0, size[axis] - 1)
        return np.where((there >= first) & (there < first + length), found, -1)

    return nearest(0), nearest(1)


def _taken(values: NDArray[Any], rows: Indices, columns: Indices, none: float) -> NDArray[Any]:
    found = values.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
    found[rows < 0] = none
    found[:, columns < 0] = none
    return found
