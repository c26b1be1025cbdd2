"""Changes of light, lens and transmission, which leave a camera's pose as it is. NumPy and OpenCV."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class PhotometricSettings:
    """How much may change. Probabilities are of each image; 0 switches a change off.

    Attributes:
        brightness: factor of the light, drawn in [1 - b, 1 + b].
        contrast: factor about mid grey, in [1 - c, 1 + c].
        saturation: factor of the colours' distance from grey, in [1 - s, 1 + s].
        hue: shift of the hue, in turns, in [-h, h]; small where a colour is the label.
        white_balance: factor of each channel, in [1 - w, 1 + w].
        gamma: exponent of the exposure curve, in [1 / (1 + g), 1 + g].
        blur: probability of defocus or motion blur.
        blur_px: largest standard deviation of defocus, and half the largest motion, in pixels.
        noise: probability of sensor noise.
        noise_std: its largest standard deviation, in grey levels.
        jpeg: probability of compression.
        jpeg_quality: the lowest.
        occlusion: probability that a part of the image is covered.
        occlusion_area: the largest covered share of the image.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02
    white_balance: float = 0.08
    gamma: float = 0.3
    blur: float = 0.2
    blur_px: float = 1.5
    noise: float = 0.3
    noise_std: float = 8.0
    jpeg: float = 0.2
    jpeg_quality: int = 40
    occlusion: float = 0.25
    occlusion_area: float = 0.15

    def __post_init__(self) -> None:
        for field in fields(self):
            value, high = getattr(self, field.name), _HIGHEST.get(field.name, 1.0)
            low = 1 if field.name == "jpeg_quality" else 0
            if not low <= value <= high:
                raise ConfigError(f"{field.name} is {value!r}: it must be from {low} to {high:g}")


_HIGHEST = {"hue": 0.5, "gamma": 4.0, "blur_px": 20.0, "noise_std": 128.0, "jpeg_quality": 100.0}


def photometric(image: Image, s: PhotometricSettings, rng: np.random.Generator) -> Image:
    """Returns a changed copy of an RGB uint8 image (H, W, 3).

    The order is that of a camera: light and colour, occlusion (before the lens: its edge is blurred with
    everything else), lens, sensor noise, compression.
    """
    image = _colours(image, s, rng)
    # Every draw is made whether or not it is used, so that one setting's value does not change what
    # the others do to the same image.
    chance = rng.random(4)
    seeds = rng.integers(0, 2**63, 4)
    if chance[0] < s.occlusion:
        _occlude(image, s.occlusion_area, np.random.default_rng(seeds[0]))
    if chance[1] < s.blur:
        image = _blur(image, s.blur_px, np.random.default_rng(seeds[1]))
    if chance[2] < s.noise:
        image = _noise(image, s.noise_std, np.random.default_rng(seeds[2]))
    if chance[3] < s.jpeg:
        image = _jpeg(image, int(np.random.default_rng(seeds[3]).integers(s.jpeg_quality, 101)))
    return image


def _colours(image: Image, s: PhotometricSettings, rng: np.random.Generator) -> Image:
    def factor(spread: float, size: int | None = None) -> Any:
        return rng.uniform(1 - spread, 1 + spread, size)

    brightness, contrast, saturation = (
        factor(s.brightness),
        factor(s.contrast),
        factor(s.saturation),
    )
    balance = factor(s.white_balance, 3)
    exponent = (1 + s.gamma) ** rng.uniform(-1, 1)
    # Everything that treats channels alone is one table of 256 levels for each.
    level = np.linspace(0, 1, 256)[:, None]
    table = (level * brightness * balance).clip(0, 1) ** exponent
    table = ((table - 0.5) * contrast + 0.5) * 255
    table = np.rint(table.clip(0, 255)).astype(np.uint8)[None]  # (1, 256, 3)
    changed = cv2.LUT(np.ascontiguousarray(image), table)
    if s.saturation > 0:
        grey = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        changed = cv2.addWeighted(changed, saturation, grey, 1 - saturation, 0)
    shift = round(rng.uniform(-s.hue, s.hue) * 180)  # OpenCV's hues are from 0 to 179
    if shift:
        hsv = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV)
        hues = (np.arange(256) + shift) % 180
        hsv[..., 0] = cv2.LUT(np.ascontiguousarray(hsv[..., 0]), hues.astype(np.uint8))
        changed = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.asarray(changed, np.uint8)


def _occlude(image: Image, most: float, rng: np.random.Generator) -> None:
    """Covers a rectangle with one colour or with noise, in place."""
    height, width = image.shape[:2]
    area, ratio = rng.uniform(0.02, max(0.02, most)), np.exp(rng.uniform(-1, 1))
    h = int(np.clip(round(np.sqrt(area * ratio) * height), 1, height))
    w = int(np.clip(round(np.sqrt(area / ratio) * width), 1, width))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    size = (h, w, 3) if rng.random() < 0.5 else (1, 1, 3)
    image[y : y + h, x : x + w] = rng.integers(0, 256, size, np.uint8)


def _blur(image: Image, most: float, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        sigma = rng.uniform(0.3, max(0.3, most))
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    reach, angle = rng.uniform(1, max(1.0, 2 * most)), rng.uniform(0, np.pi)
    size = 2 * int(np.ceil(reach)) + 1
    kernel = np.zeros((size, size), np.float32)
    along = np.linspace(-reach / 2, reach / 2, 4 * size)
    centre = size // 2
    x, y = centre + along * np.cos(angle), centre + along * np.sin(angle)
    np.add.at(kernel, (np.rint(y).astype(int), np.rint(x).astype(int)), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _noise(image: Image, most: float, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, most))
    return np.asarray(np.rint(image + noise).clip(0, 255), np.uint8)


def _jpeg(image: Image, quality: int) -> Image:
    bgr = np.ascontiguousarray(image[..., ::-1])
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1])
