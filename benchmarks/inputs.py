"""Frames that are measured with, and their hash: real photographs where they are at hand."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.images.resizing import network_inputs

ROOT = Path(__file__).resolve().parent.parent
JPEG_QUALITY = 80  # what compressed_image_transport writes if nobody asks for another
SIZES = {"480p": (480, 640), "1080p": (1080, 1920)}
STREAMS = 0  # what the node chooses, compared with one stream


def frames(count: int = 16) -> tuple[list[NDArray[np.uint8]], str]:
    """Returns RGB frames (480, 640, 3) and where they are from.

    Real camera frames from ROBOT_VISION_DATA where it has them, else frames of the simulated world.
    """
    folder = Path(os.environ.get("ROBOT_VISION_DATA", ROOT.parent / "shared/data")) / "kitchen"
    files = sorted(folder.glob("*.color.jpg"))
    if files:
        chosen = files[:: max(1, len(files) // count)][:count]
        return [cv2.imread(str(f))[..., ::-1].copy() for f in chosen], "7-Scenes RedKitchen frames"
    return [
        _rendered(i) for i in range(count)
    ], "smoothed noise (no recording in ROBOT_VISION_DATA)"


def _rendered(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8)


def enlarged(images: list[NDArray[np.uint8]], size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Returns the images at (height, width); larger ones are interpolated."""
    height, width = size
    return [
        image
        if image.shape[:2] == size
        else np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        for image in images
    ]


def network_batch(bundle: ModelBundle, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Returns RGB images of any sizes as the network takes them: (N, height, width, 3)."""
    return network_inputs(images, bundle.spec.input)


def sha256(images: list[NDArray[np.uint8]]) -> str:
    """Returns the hash of all pixels."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
