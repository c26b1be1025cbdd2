"""Local features of an image: where they are, as rays of the camera, and what they look like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.verification import xfeat
from robot_vision.places.verification.options import LEARNED, VerificationOptions

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
        descriptors: (N, D), uint8 for sift, orb, akaze and xfeat, float32 for aliked and disk.
        focal_px: focal length of the image that they were found in: an error on the ray times this is
            an error in pixels.
        network: of learned features, the first 12 digits of its file's sha256; features of different
            networks cannot be compared. Empty for others.
    """

    detector: str
    rays: NDArray[np.float64]
    descriptors: NDArray[Any]
    focal_px: float
    network: str = ""

    def __len__(self) -> int:
        return len(self.rays)

    def subset(self, index: NDArray[Any]) -> LocalFeatures:
        """Returns some of them."""
        return replace(self, rays=self.rays[index], descriptors=self.descriptors[index])

    @property
    def kind(self) -> str:
        """What they are, for people; features of different kinds cannot be compared."""
        return _kind(self.detector, self.network)


class FeatureExtractor:
    """Finds features as the options say. Not thread safe.

    Raises:
        ConfigError: this OpenCV lacks the detector, or its model file is none.
    """

    def __init__(self, options: VerificationOptions) -> None:
        self.options = options
        self._detector = _create(options)
        self.network = ""
        if options.detector in LEARNED:
            self.network = sha256(Path(options.detector_model).read_bytes()).hexdigest()[:12]

    @property
    def kind(self) -> str:
        """Of the features that it finds; see `LocalFeatures.kind`."""
        return _kind(self.options.detector, self.network)

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
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if self.options.detector == "xfeat":
            size = xfeat.fitting(*size)
        picture = image
        if size != (height, width):
            picture = np.asarray(
                cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8
            )
        at, descriptors = self._find(picture)
        # A pixel's centre is at whole numbers, before and after shrinking.
        ratio = np.array([width / size[1], height / size[0]])
        pixels = (at + 0.5) * ratio - 0.5
        rays = intrinsics.rays(pixels)
        usable = np.isfinite(rays).all(axis=1)
        features = LocalFeatures(
            self.options.detector,
            rays[usable],
            descriptors[usable],
            intrinsics.focal * scale,
            self.network,
        )
        return features, pixels[usable]

    def _find(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Returns where features are in a picture (N, 2) and their descriptors (N, D), strongest first."""
        if isinstance(self._detector, xfeat.XFeatDetector):
            if picture.ndim == 2:
                picture = np.repeat(picture[:, :, None], 3, axis=2)
            return self._detector(picture, self.options.max_features)
        if self.options.detector not in LEARNED and picture.ndim == 3:
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
            picture = _stretched(picture)
        elif picture.ndim == 3:
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
        keypoints, descriptors = self._detector.detectAndCompute(picture, None)
        if descriptors is None or not len(keypoints):
            return np.zeros((0, 2)), np.zeros((0, 1), np.uint8)
        order = np.argsort([-k.response for k in keypoints], kind="stable")
        order = order[: self.options.max_features]
        kept = np.asarray(descriptors)[order]
        if self.options.detector == "sift":
            kept = np.clip(np.rint(kept), 0, 255).astype(np.uint8)
        return np.array([keypoints[i].pt for i in order], np.float64), kept


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
    Hellinger's, in which a few large gradients do not outweigh all others. XFeat's matches have to be as
    alike as its authors ask for, too.

    Raises:
        ConfigError: they are of different detectors.
    """
    refuse_other_kind(a.kind, b.kind)
    if min(len(a), len(b)) and a.descriptors.shape[1] != b.descriptors.shape[1]:
        raise ConfigError(
            f"Descriptors of {a.descriptors.shape[1]} and {b.descriptors.shape[1]} numbers, both of "
            f"{b.kind}: build the map again"
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
    good = best < ratio * second
    if a.detector == "xfeat":
        good &= best <= np.sqrt(2 - 2 * xfeat.MIN_COSINE)
    kept = np.flatnonzero(mutual & good)
    return kept, nearest[kept].astype(np.int64)


def refuse_other_kind(asked: str, kept: str) -> None:
    """Refuses to compare features of an image with those of a map where they are of different kinds.

    Raises:
        ConfigError: they are; the message names both and the remedy.
    """
    detector, _, network = kept.partition(" ")
    # Maps of earlier versions do not say which network it was.
    if asked.split()[0] == detector and (asked == kept or not network):
        return
    remedy = {
        "sift": "leave features empty",
        "xfeat": f"give as features the file whose sha256 begins with {network}",
    }.get(detector, f"set detector to {detector}")
    raise ConfigError(
        f"Features of {asked} cannot be compared with the map's {kept}: {remedy}, or build the map "
        "again"
    )


def _kind(detector: str, network: str) -> str:
    return f"{detector} {network}".strip()


def _unit(features: LocalFeatures) -> NDArray[np.float32]:
    if features.detector == "xfeat":
        return xfeat.unit(features.descriptors)
    d = features.descriptors.astype(np.float32)
    if features.detector == "sift":
        d = np.sqrt(d / np.maximum(d.sum(axis=1, keepdims=True), 1e-6))
    return np.asarray(d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-12), np.float32)


def _create(options: VerificationOptions) -> Any:
    if options.detector == "xfeat":
        return xfeat.XFeatDetector(Path(options.detector_model))
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
