"""Local features of an image: where they are, as rays of the camera, and what they look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.verification.options import VerificationOptions

# Half of OpenCV's: walls and furniture have weak texture; matching and RANSAC sort out what is noise.
_SIFT_CONTRAST = 0.02
_BINARY = ("orb", "akaze")
# Grey levels from the 1st to the 99th percentile, below which a picture is stretched, and to which; and by
# how much at most. The detectors' thresholds are absolute: in a dim room there would be nothing.
_FLAT, _STRETCHED, _MOST = 100.0, 200.0, 4.0


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Features of one image, strongest first.

    Attributes:
        detector: what found them; features of different detectors cannot be compared.
        rays: float64 (N, 2), x / z and y / z in the camera's optical frame, undistorted.
        descriptors: (N, D), uint8 for sift, orb and akaze, float32 for aliked and disk.
        focal_px: focal length of the image that they were found in: an error on the ray times this is
            an error in pixels.
    """

    detector: str
    rays: NDArray[np.float64]
    descriptors: NDArray[Any]
    focal_px: float

    def __len__(self) -> int:
        return len(self.rays)

    def subset(self, index: NDArray[Any]) -> LocalFeatures:
        """Returns some of them."""
        return LocalFeatures(
            self.detector, self.rays[index], self.descriptors[index], self.focal_px
        )


class FeatureExtractor:
    """Finds features as the options say. Not thread safe.

    Raises:
        ConfigError: this OpenCV lacks the detector, or its model file is none.
    """

    def __init__(self, options: VerificationOptions) -> None:
        self.options = options
        self._detector = _create(options)

    def __call__(
        self, image: NDArray[np.uint8], intrinsics: Intrinsics
    ) -> tuple[LocalFeatures, NDArray[np.float64]]:
        """Finds the features of an image.

        Args:
            image: RGB uint8 (H, W, 3), or grey (H, W).
            intrinsics: of the camera, for images of this size.

        Returns:
            The features, and where they are in the image (N, 2), pixels as given.

        Raises:
            ConfigError: the image is not of the intrinsics' size: the pose would be wrong.
        """
        height, width = image.shape[:2]
        if (width, height) != (intrinsics.width, intrinsics.height):
            raise ConfigError(
                f"Image of {width} x {height}, but the camera's intrinsics are for "
                f"{intrinsics.width} x {intrinsics.height}: verification needs those of this image"
            )
        scale = min(1.0, self.options.max_side / max(height, width))
        picture = image
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            picture = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        if self.options.detector not in ("aliked", "disk") and picture.ndim == 3:
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
            picture = _stretched(picture)
        elif picture.ndim == 3:
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
        keypoints, descriptors = self._detector.detectAndCompute(picture, None)
        if descriptors is None or not len(keypoints):
            return (
                LocalFeatures(
                    self.options.detector,
                    np.zeros((0, 2)),
                    np.zeros((0, 1), np.uint8),
                    intrinsics.focal * scale,
                ),
                np.zeros((0, 2)),
            )
        order = np.argsort([-k.response for k in keypoints], kind="stable")
        order = order[: self.options.max_features]
        at = np.array([keypoints[i].pt for i in order], np.float64)
        # A pixel's centre is at whole numbers, before and after shrinking.
        ratio = np.array([width / picture.shape[1], height / picture.shape[0]])
        pixels = (at + 0.5) * ratio - 0.5
        kept = np.asarray(descriptors)[order]
        if self.options.detector == "sift":
            kept = np.clip(np.rint(kept), 0, 255).astype(np.uint8)
        rays = intrinsics.rays(pixels)
        usable = np.isfinite(rays).all(axis=1)
        features = LocalFeatures(
            self.options.detector, rays[usable], kept[usable], intrinsics.focal * scale
        )
        return features, pixels[usable]


def _stretched(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a picture with more contrast where it has little, and any other as it is."""
    low, high = np.percentile(grey[::4, ::4], (1, 99))  # as good, in a tenth of the time
    if high - low >= _FLAT:
        return grey
    gain = min(_MOST, _STRETCHED / max(high - low, 1.0))
    return np.clip(np.rint((grey - low) * gain), 0, 255).astype(np.uint8)


def match(
    a: LocalFeatures, b: LocalFeatures, ratio: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns rows of a and of b that are each other's nearest and pass the ratio test both alone.

    SIFT is compared after taking roots (Arandjelovic and Zisserman 2012): the distance is then
    Hellinger's, in which a few large gradients do not outweigh all others.

    Raises:
        ConfigError: they are of different detectors.
    """
    if a.detector != b.detector:
        raise ConfigError(
            f"Features of {a.detector} cannot be compared with the map's {b.detector}: set detector to "
            f"{b.detector}, or rebuild the map's structure"
        )
    none = np.zeros(0, np.int64)
    if len(a) < 2 or len(b) < 2:
        return none, none
    if a.detector in _BINARY:
        bits = [1 - 2 * np.unpackbits(f.descriptors, axis=1).astype(np.float32) for f in (a, b)]
        distance = (bits[0].shape[1] - bits[0] @ bits[1].T) / 2  # Hamming's
    else:
        similarity = _unit(a) @ _unit(b).T  # (A, B)
        distance = np.sqrt(np.maximum(2 - 2 * similarity, 0))
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(a))
    mutual = distance.argmin(axis=0)[nearest] == rows
    best = distance[rows, nearest]
    distance[rows, nearest] = np.inf
    second = distance.min(axis=1)
    kept = np.flatnonzero(mutual & (best < ratio * second))
    return kept, nearest[kept].astype(np.int64)


def _unit(features: LocalFeatures) -> NDArray[np.float32]:
    d = features.descriptors.astype(np.float32)
    if features.detector == "sift":
        d = np.sqrt(d / np.maximum(d.sum(axis=1, keepdims=True), 1e-6))
    return np.asarray(d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-12), np.float32)


def _create(options: VerificationOptions) -> Any:
    name = f"{options.detector.upper()}_create"
    make: Any = getattr(cv2, name, None)
    if make is None:
        raise ConfigError(
            f"OpenCV {cv2.__version__} has no detector {options.detector}: use sift, or OpenCV 5"
        )
    try:
        if options.detector == "sift":
            return make(nfeatures=options.max_features, contrastThreshold=_SIFT_CONTRAST)
        if options.detector == "orb":
            return make(nfeatures=options.max_features)
        if options.detector == "akaze":
            return make(threshold=1e-4)
        return make(options.detector_model)
    except cv2.error as error:
        raise ConfigError(
            f"Detector {options.detector} cannot be made from {options.detector_model}: "
            f"{str(error).strip().splitlines()[-1]}"
        ) from error
