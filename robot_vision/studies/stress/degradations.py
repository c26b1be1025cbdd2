"""Seven ways in which a camera's image gets worse, and one in which it does not come; each at five strengths.

What is random (the direction of a blur, the place of an occlusion) follows from the seed, the degradation,
and the number of the frame: each strength meets each frame in the same way, and a run repeats itself. The
strengths were laid down before anything was measured: from hardly seen to what nobody would drive by.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Apply = Callable[[Image, float, np.random.Generator], Image]

_GAMMA = 2.2  # of pixel values over light, near enough to sRGB's


@dataclass(frozen=True)
class Degradation:
    """One way of getting worse.

    Attributes:
        name: of it.
        unit: of its strengths, for axes and tables.
        strengths: five, each worse than the one before.
        apply: image, strength and random numbers to the worse image; None where the image stays.
    """

    name: str
    unit: str
    strengths: tuple[float, float, float, float, float]
    apply: Apply | None


def generator(seed: int, name: str, frame: int) -> np.random.Generator:
    """Returns the random numbers of one frame under one degradation, whatever its strength."""
    return np.random.default_rng((seed, zlib.crc32(name.encode()), frame))


def motion_blur(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Smears along a straight line, `strength` percent of the image's diagonal long, any direction."""
    angle = rng.uniform(0, math.pi)
    length = strength / 100 * math.hypot(*image.shape[:2])
    # The line is drawn as samples a quarter of a pixel apart, each shared by its four neighbours.
    reach = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for t in np.linspace(-length / 2, length / 2, max(2, math.ceil(4 * length))):
        x, y = reach + t * math.cos(angle), reach + t * math.sin(angle)
        i, j = int(y), int(x)
        v, u = y - i, x - j
        kernel[i : i + 2, j : j + 2] += np.outer((1 - v, v), (1 - u, u))
    kernel /= kernel.sum()
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def expose(image: Image, stops: float) -> Image:
    """Multiplies the light by 2^stops; what is brighter than white is white, and values are whole."""
    levels = 255 * np.minimum(2.0 ** (stops / _GAMMA) * np.arange(256) / 255, 1.0)
    return np.asarray(cv2.LUT(image, np.rint(levels).astype(np.uint8)), np.uint8)


def darken(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Takes this many stops of light; a sensor's noise stays as it is, so it drowns the rest.

    Two grey levels of noise are that of a camera at its usual gain.
    """
    dark = expose(image, -strength).astype(np.float32)
    dark += rng.standard_normal(image.shape, np.float32) * 2.0
    return np.asarray(np.clip(np.rint(dark), 0, 255), np.uint8)


def brighten(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Adds this many stops of light."""
    return expose(image, strength)


def add_noise(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Adds Gaussian noise of this many grey levels to each channel of each pixel."""
    noisy = image + rng.standard_normal(image.shape, np.float32) * np.float32(strength)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def occlude(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Covers this percentage of the image with one rectangle of one colour, as a hand or a person would."""
    height, width = image.shape[:2]
    share = strength / 100
    stretch = math.exp(rng.uniform(math.log(0.5), math.log(2.0)))  # of its aspect over the image's
    tall = min(1.0, max(share, math.sqrt(share * stretch)))
    h, w = round(height * tall), round(width * share / tall)
    y, x = round(rng.uniform(0, height - h)), round(rng.uniform(0, width - w))
    covered = image.copy()
    covered[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return covered


def compress(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Goes through a JPEG of that quality (libjpeg's scale, 95 is good)."""
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(strength)])[1]
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def roll_of(strength: float, rng: np.random.Generator) -> float:
    """Returns by how many degrees the camera is turned about its optical axis: to either side."""
    return strength * float(rng.choice((-1, 1)))


def rotation_of(roll_deg: float) -> NDArray[np.float64]:
    """Returns `R_camera_turned` (3, 3) of a turn about the optical axis (z forward)."""
    c, s = math.cos(math.radians(roll_deg)), math.sin(math.radians(roll_deg))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def roll(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Shows what the camera sees when it is turned by this many degrees about its optical axis.

    A point that the camera sees at p the turned one sees at `R^T p`. The axis is taken to pass through the
    image's centre; what comes into view is a mirror image of what is there.
    """
    return np.asarray(rolled(image, roll_of(strength, rng)), np.uint8)


def rolled(
    image: NDArray[Any],
    roll_deg: float,
    flags: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_REFLECT_101,
    filling: float = 0.0,
) -> NDArray[Any]:
    """Returns an image (H, W, ...) turned as `roll` does; flags and border are OpenCV's."""
    height, width = image.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    turn = rotation_of(roll_deg)[:2, :2].T
    affine = np.column_stack([turn, centre - turn @ centre])
    return np.asarray(
        cv2.warpAffine(
            image, affine, (width, height), None, flags, borderMode=border, borderValue=filling
        )
    )


DROPPED = "dropped"
ROLL = "rotation"

DEGRADATIONS: dict[str, Degradation] = {
    d.name: d
    for d in (
        Degradation("blur", "% of the diagonal", (0.5, 1.0, 2.0, 4.0, 8.0), motion_blur),
        Degradation("dark", "stops", (1.0, 2.0, 3.0, 4.0, 5.0), darken),
        Degradation("bright", "stops", (0.5, 1.0, 1.5, 2.0, 3.0), brighten),
        Degradation("noise", "grey levels", (5.0, 10.0, 20.0, 40.0, 80.0), add_noise),
        Degradation("occlusion", "% of the image", (5.0, 10.0, 20.0, 35.0, 50.0), occlude),
        Degradation("jpeg", "quality", (50.0, 30.0, 15.0, 8.0, 3.0), compress),
        Degradation(ROLL, "degrees", (2.0, 5.0, 10.0, 20.0, 45.0), roll),
        Degradation(DROPPED, "% of the frames", (20.0, 50.0, 80.0, 90.0, 95.0), None),
    )
}


def kept_frames(count: int, strength: float, seed: int) -> NDArray[np.bool_]:
    """Returns which of the frames (N,) come where `strength` percent are dropped; the first one does.

    A frame that is dropped at one strength is dropped at every higher one.
    """
    draws = np.random.default_rng((seed, zlib.crc32(DROPPED.encode()))).random(count)
    kept = draws >= strength / 100
    kept[:1] = True
    return np.asarray(kept)
