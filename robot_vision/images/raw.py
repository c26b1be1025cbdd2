"""Raw pixel encodings of `sensor_msgs/Image`, decoded with NumPy views and OpenCV's conversions.

Names are those of sensor_msgs/image_encodings, and `nv12`, which camera drivers send as well.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError


@dataclass(frozen=True)
class Packed:
    """Whole pixels one after the other: `channels` samples of `dtype` in the order `order`."""

    order: str  # "rgb", "bgr", "rgba", "bgra" or "gray"
    channels: int
    dtype: str = "u1"


@dataclass(frozen=True)
class Bayer:
    """A colour filter mosaic.

    Attributes:
        conversion: OpenCV's. OpenCV names a pattern by the second and third pixel of its second row, ROS
            by the first two of the first row, so `bayer_rggb` is OpenCV's BG.
        dtype: of a sample.
    """

    conversion: int
    dtype: str = "u1"


@dataclass(frozen=True)
class Yuv422:
    """Two pixels in four bytes."""

    conversion: int


@dataclass(frozen=True)
class TwoPlane:
    """A plane Y of height rows, then the interleaved chroma, rows as far apart as Y's.

    Attributes:
        conversion: OpenCV's for 4:2:0.
        full_chroma: 4:4:4 (nv24): a chroma row has two bytes a pixel and takes two steps.
    """

    conversion: int
    full_chroma: bool = False


_FORMATS: dict[str, Packed | Bayer | Yuv422 | TwoPlane] = {
    "rgb8": Packed("rgb", 3),
    "bgr8": Packed("bgr", 3),
    "rgba8": Packed("rgba", 4),
    "bgra8": Packed("bgra", 4),
    "mono8": Packed("gray", 1),
    "8UC1": Packed("gray", 1),
    "8UC3": Packed("bgr", 3),
    "8UC4": Packed("bgra", 4),
    "rgb16": Packed("rgb", 3, "u2"),
    "bgr16": Packed("bgr", 3, "u2"),
    "rgba16": Packed("rgba", 4, "u2"),
    "bgra16": Packed("bgra", 4, "u2"),
    "mono16": Packed("gray", 1, "u2"),
    "16UC1": Packed("gray", 1, "u2"),
    "16UC3": Packed("bgr", 3, "u2"),
    "16UC4": Packed("bgra", 4, "u2"),
    "32FC1": Packed("gray", 1, "f4"),
    "32FC3": Packed("bgr", 3, "f4"),
    "32FC4": Packed("bgra", 4, "f4"),
    "yuv422": Yuv422(cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": Yuv422(cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": Yuv422(cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": Yuv422(cv2.COLOR_YUV2RGB_YUY2),
    "nv12": TwoPlane(cv2.COLOR_YUV2RGB_NV12),
    "nv21": TwoPlane(cv2.COLOR_YUV2RGB_NV21),
    "nv24": TwoPlane(cv2.COLOR_YUV2RGB_NV12, full_chroma=True),
    **{
        f"bayer_{pattern}{bits}": Bayer(conversion, f"u{bits // 8}")
        for bits in (8, 16)
        for pattern, conversion in {
            "rggb": cv2.COLOR_BayerBG2RGB,
            "bggr": cv2.COLOR_BayerRG2RGB,
            "gbrg": cv2.COLOR_BayerGR2RGB,
            "grbg": cv2.COLOR_BayerGB2RGB,
        }.items()
    },
}
_TO_RGB = {
    "bgr": cv2.COLOR_BGR2RGB,
    "rgba": cv2.COLOR_RGBA2RGB,
    "bgra": cv2.COLOR_BGRA2RGB,
    "gray": cv2.COLOR_GRAY2RGB,
}


@functools.cache
def supported_encodings() -> tuple[str, ...]:
    """Returns the names that `decode_raw` knows."""
    return tuple(_FORMATS)


@functools.cache
def plane_encodings() -> tuple[str, ...]:
    """Returns the names that `decode_plane` knows."""
    return tuple(n for n, f in _FORMATS.items() if isinstance(f, Packed) and f.channels == 1)


def is_planar(encoding: str) -> bool:
    """Says whether luma and chroma lie apart, so that a grey image of the bytes is no picture."""
    return isinstance(_FORMATS.get(encoding), (Yuv422, TwoPlane))


def row_bytes(encoding: str, width: int) -> int:
    """Returns how many bytes a row of (luma) pixels has without padding."""
    layout = _FORMATS[encoding]
    if isinstance(layout, Packed):
        return width * layout.channels * np.dtype(layout.dtype).itemsize
    if isinstance(layout, Bayer):
        return width * np.dtype(layout.dtype).itemsize
    return width * 2 if isinstance(layout, Yuv422) else width


def decode_raw(
    data: NDArray[np.uint8], height: int, width: int, step: int, encoding: str, big_endian: bool
) -> NDArray[np.uint8]:
    """Decodes uint8 (N,) into RGB uint8 (height, width, 3).

    Raises:
        ImageError: `data` has another length, the size does not fit the encoding, or a value is not finite.
    """
    layout = _FORMATS[encoding]
    if isinstance(layout, TwoPlane):
        return _two_plane(data, height, width, step, encoding, layout)
    if isinstance(layout, Yuv422):
        _check_even(encoding, width=width)
    _check_length(data, height, step, row_bytes(encoding, width), f"{height} rows of {encoding}")
    if isinstance(layout, Yuv422):
        return _rgb(cv2.cvtColor(_rows(data, (height, width, 2), step), layout.conversion))
    channels = layout.channels if isinstance(layout, Packed) else 1
    pixels = _rows(data, (height, width, channels), step, layout.dtype, big_endian)
    if isinstance(layout, Bayer):
        if height < 3 or width < 3:  # OpenCV leaves smaller ones black
            raise ImageError(
                "size", f"The image is {width} x {height}: {encoding} needs 3 x 3 pixels"
            )
        return _to_8_bits(np.asarray(cv2.cvtColor(pixels, layout.conversion)))
    octets = _to_8_bits(pixels)
    if layout.order == "rgb":
        return octets
    if layout.order == "bgr":
        # Reversed without a copy; `resizing` sees it and reverses the few pixels that are left.
        return octets[..., ::-1]
    return _rgb(cv2.cvtColor(octets, _TO_RGB[layout.order]))


def decode_plane(
    data: NDArray[np.uint8], height: int, width: int, step: int, encoding: str, big_endian: bool
) -> NDArray[Any]:
    """Decodes uint8 (N,) of one number a pixel into uint8, uint16 or float32 (height, width), as stored.

    Raises:
        ImageError: `data` has another length.
    """
    layout = _FORMATS[encoding]
    assert isinstance(layout, Packed) and layout.channels == 1
    _check_length(data, height, step, row_bytes(encoding, width), f"{height} rows of {encoding}")
    return _rows(data, (height, width, 1), step, layout.dtype, big_endian)[..., 0]


def _rows(
    data: NDArray[np.uint8],
    shape: tuple[int, int, int],
    step: int,
    dtype: str = "u1",
    big_endian: bool = False,
) -> NDArray[Any]:
    """Views bytes as (height, width, channels) of native, aligned samples; copies only to get there."""
    kind = np.dtype(dtype)
    strides = (step, shape[2] * kind.itemsize, kind.itemsize)
    stored = kind.newbyteorder(">" if big_endian else "<")
    view: NDArray[Any] = np.ndarray(shape, stored, data.data, 0, strides)
    swapped = kind.itemsize > 1 and big_endian != (sys.byteorder == "big")
    if swapped or step % kind.itemsize or not view.flags.aligned:
        return view.astype(kind)
    return view.view(kind) if view.dtype != kind else view


def _to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    shape = pixels.shape
    if pixels.dtype == np.uint16:
        return np.asarray(cv2.convertScaleAbs(pixels, alpha=1 / 257), np.uint8).reshape(shape)
    if not np.isfinite(pixels).all():
        bad = int(pixels.size - np.isfinite(pixels).sum())
        raise ImageError(
            "non_finite",
            f"The float image has {bad} values that are NaN or infinite: send finite ones",
        )
    # Clipped first: OpenCV's conversion takes the absolute value, and huge values overflow.
    unit = np.clip(pixels, 0.0, 1.0)
    return np.asarray(cv2.convertScaleAbs(unit, alpha=255.0), np.uint8).reshape(shape)


def _two_plane(
    data: NDArray[np.uint8], height: int, width: int, step: int, encoding: str, layout: TwoPlane
) -> NDArray[np.uint8]:
    if layout.full_chroma:
        rows, chroma_rows = 3 * height, height
    else:
        _check_even(encoding, width=width, height=height)
        rows, chroma_rows = height * 3 // 2, height // 2
    last = 2 * width - step if layout.full_chroma else width
    _check_length(data, rows, step, max(last, 0), f"{height} rows of {encoding} with their chroma")
    luma = _rows(data, (height, width, 1), step)[..., 0]
    chroma_data = data[height * step :]
    if not layout.full_chroma:
        chroma = _rows(chroma_data, (chroma_rows, width // 2, 2), step)
        return _rgb(cv2.cvtColorTwoPlane(luma, chroma, layout.conversion))
    chroma = _rows(chroma_data, (chroma_rows, width, 2), 2 * step)
    return _full_chroma_to_rgb(luma, chroma)


def _full_chroma_to_rgb(luma: NDArray[np.uint8], chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Converts 4:4:4 studio-range BT.601 (ITU-R BT.601, as OpenCV's 4:2:0 conversions do) to RGB."""
    scaled = 1.164 * (luma.astype(np.float32) - 16)
    u, v = (chroma[..., i].astype(np.float32) - 128 for i in (0, 1))
    rgb = np.stack(
        (scaled + 1.596 * v, scaled - 0.813 * v - 0.391 * u, scaled + 2.018 * u), axis=-1
    )
    return _rgb(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))


def _check_length(data: NDArray[np.uint8], rows: int, step: int, last: int, what: str) -> None:
    least, most = (rows - 1) * step + last, rows * step
    if not least <= len(data) <= most:
        raise ImageError(
            "data_length", f"data has {len(data)} bytes: {what}, {step} bytes apart, have {most}"
        )


def _check_even(encoding: str, **sides: int) -> None:
    for name, value in sides.items():
        if value % 2:
            raise ImageError("size", f"{name} is {value}: {encoding} needs an even {name}")


def _rgb(image: object) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    return pixels
