"""Hop 2's first half: a camera image into the network's input, antialiased and at most a millisecond.

An antialiased bilinear resize (Pillow's, torchvision's) weighs source pixels with a triangle as wide as two
target pixels. Computed exactly, or with OpenCV's INTER_AREA, it reads every source pixel and takes longer
than many a network. Here each axis that shrinks is sampled bilinearly at twice the target's resolution,
smoothed with [1 2 1] / 4 and halved by averaging pairs. The last two make [1 3 3 1] / 8, which are exactly
the triangle's weights at these samples, and every step is one that OpenCV vectorises.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown
from robot_vision.images.input import RESIZE_RULES, InputSpec

# Shrinking both axes more than this, two samples a target pixel are too far apart, and four are taken.
_DENSER_FROM = 8.0
# Shrinking less than this, plain bilinear is nearer to the antialiased one than the oversampling.
_OVERSAMPLE_FROM = 1.3
_MAX_SCRATCH = 16

Image = NDArray[np.uint8]


class _Scratch(threading.local):
    """Buffers that a thread reuses: fresh megabytes cost as much in page faults as the work on them."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, int, int], Image] = {}

    def get(self, name: str, height: int, width: int) -> Image:
        key = (name, height, width)
        buffer = self.buffers.get(key)
        if buffer is None:
            if len(self.buffers) >= _MAX_SCRATCH:
                self.buffers.clear()
            buffer = self.buffers[key] = np.empty((height, width, 3), np.uint8)
        return buffer


_scratch = _Scratch()


def resize_into(image: Image, out: Image, rule: str = "squash", crop_fraction: float = 1.0) -> None:
    """Resizes an image into a given array.

    Args:
        image: uint8 (H, W, 3); any strides, so padded rows and reversed channels need no copy by the caller.
        out: uint8 (height, width, 3), C-contiguous, written.
        rule: `squash` ignores the aspect ratio, `crop` takes the largest centred region of `out`'s aspect
            ratio, `letterbox` fits the whole image and pads with black.
        crop_fraction: with `crop`, the share of that region's sides that is kept (torchvision: 224/256).

    Raises:
        ConfigError: an unknown rule.
    """
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8, image.shape
    assert out.ndim == 3 and out.shape[2] == 3 and out.dtype == np.uint8, out.shape
    if image.strides[2] == -1:
        # Few pixels are left to be reversed after the resize.
        resize_into(image[..., ::-1], out, rule, crop_fraction)
        cv2.cvtColor(out, cv2.COLOR_BGR2RGB, dst=out)
        return
    if rule == "crop":
        image = crop_to_aspect(image, out.shape[0], out.shape[1], crop_fraction)
    elif rule == "letterbox":
        top, left, height, width = letterbox_window(image.shape[:2], out.shape[:2])
        if (height, width) != out.shape[:2]:
            out[:] = 0
            _resize(image, out[top : top + height, left : left + width])
            return
    elif rule != "squash":
        raise ConfigError(unknown("resize rule", rule, RESIZE_RULES))
    _resize(image, out)


def network_inputs(images: Sequence[Image], spec: InputSpec) -> Image:
    """Returns images of any sizes as the network takes them: uint8 (N, height, width, 3)."""
    batch = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    for image, out in zip(images, batch, strict=True):
        resize_into(image, out, spec.resize, spec.crop_fraction)
    return batch


def source_size(size: InputSpec) -> tuple[int, int]:
    """Returns the (height, width) that an image needs at least, so that nothing of it is enlarged.

    It is `min_size` for `images.to_rgb`: a JPEG decoded to a half, quarter or eighth of its size but not
    below this differs from Pillow's resize of the whole by no more than 2 grey levels.
    """
    # A crop shows a part of the image, so more pixels are needed for the same sharpness.
    share = size.crop_fraction if size.resize == "crop" else 1.0
    return math.ceil(size.height / share), math.ceil(size.width / share)


def crop_to_aspect(image: Image, height: int, width: int, fraction: float) -> Image:
    """Returns the centred view of `image` whose sides are as height to width, times `fraction`."""
    top, left, rows, columns = crop_region(image.shape[:2], (height, width), fraction)
    return image[top : top + rows, left : left + columns]


def crop_region(
    source: tuple[int, ...], target: tuple[int, int], fraction: float
) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of the largest centred region of a `source` (height, width).

    Its sides are as those of `target`, times `fraction`.
    """
    scale = min(source[0] / target[0], source[1] / target[1]) * fraction
    height, width = (
        min(there, max(1, round(wanted * scale)))
        for there, wanted in zip(source, target, strict=True)
    )
    return (source[0] - height) // 2, (source[1] - width) // 2, height, width


def letterbox_window(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of a `source` (height, width) fitted into `target`."""
    scale = min(target[0] / source[0], target[1] / source[1])
    height = min(target[0], max(1, round(source[0] * scale)))
    width = min(target[1], max(1, round(source[1] * scale)))
    return (target[0] - height) // 2, (target[1] - width) // 2, height, width


def _resize(image: Image, out: Image) -> None:
    height, width = out.shape[:2]
    if image.shape == out.shape or image.shape[:2] == (1, 1):
        out[:] = image  # OpenCV before 4.6 refuses an image of one pixel with channels
        return
    if image.strides[2] != 1 or image.strides[1] != 3 or image.strides[0] < 0:
        image = np.ascontiguousarray(image)
    huge = image.shape[0] >= _DENSER_FROM * height and image.shape[1] >= _DENSER_FROM * width
    factor_y = 2 if image.shape[0] >= _OVERSAMPLE_FROM * height else 1
    factor_x = 2 if image.shape[1] >= _OVERSAMPLE_FROM * width else 1
    if factor_y == factor_x == 1:
        cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
        return
    dense = _scratch.get("dense", factor_y * height, factor_x * width)
    smooth = _scratch.get("smooth", factor_y * height, factor_x * width)
    if huge:
        denser = _scratch.get("denser", 4 * height, 4 * width)
        cv2.resize(image, (4 * width, 4 * height), dst=denser, interpolation=cv2.INTER_LINEAR)
        image = denser  # four samples a target pixel, which the next line averages in pairs
    cv2.resize(image, (dense.shape[1], dense.shape[0]), dst=dense, interpolation=cv2.INTER_LINEAR)
    kernel = (3 if factor_x == 2 else 1, 3 if factor_y == 2 else 1)
    # A kernel of 3 without a sigma is OpenCV's fixed [1 2 1] / 4.
    cv2.GaussianBlur(dense, kernel, 0, dst=smooth, borderType=cv2.BORDER_REPLICATE)
    # Halving exactly: bilinear's two samples are the pair's average.
    cv2.resize(smooth, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
