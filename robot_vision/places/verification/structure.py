"""What a map keeps of a keyframe for verification: features, and points where there are any, as bytes."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import RobotVisionError
from robot_vision.files.arrays import load_npz
from robot_vision.places.verification.features import LocalFeatures, refuse_other_kind
from robot_vision.places.verification.options import DETECTORS

FORMAT = 2  # 1 where the features are of no network
MAX_BYTES = 64 << 20
_MAX_FEATURES = 100_000
_HEX = re.compile("[0-9a-f]{0,64}")


class StructureError(RobotVisionError):
    """A keyframe's structure that is damaged or of another version."""


@dataclass(frozen=True, eq=False)
class KeyframeStructure:
    """Features of a keyframe with points in its own camera's frame, so that moving its pose moves them.

    Attributes:
        features: of the keyframe's image.
        points: float32 (N, 3), metres, optical frame; NaN where a feature has no point.
        depth_sigma: float32 (N,), standard deviation of z in metres; NaN in the same case.
        common_share: how large the errors are that all features of an image share, as the map's keyframes
            say (`common_errors.CommonErrors`); 1 where they did not tell.
    """

    features: LocalFeatures
    points: NDArray[np.float32]
    depth_sigma: NDArray[np.float32]
    common_share: float = 1.0

    @property
    def has_point(self) -> NDArray[np.bool_]:
        """Which features (N,) have a point."""
        return np.asarray(np.isfinite(self.points[:, 2]))

    def thinned(self, count: int) -> KeyframeStructure:
        """Returns at most this many features: those with a point first, then the strongest."""
        order = np.argsort(~self.has_point, kind="stable")[:count]
        return replace(
            self,
            features=self.features.subset(order),
            points=self.points[order],
            depth_sigma=self.depth_sigma[order],
        )

    def to_bytes(self) -> bytes:
        """Returns a compressed .npz without pickle."""
        f, buffer = self.features, io.BytesIO()
        np.savez_compressed(
            buffer,
            format=np.array([FORMAT if f.network else 1], np.int64),
            detector=np.array([DETECTORS.index(f.detector)], np.int64),
            focal_px=np.array([f.focal_px], np.float64),
            rays=f.rays.astype(np.float32),
            descriptors=f.descriptors
            if f.descriptors.dtype == np.uint8
            else f.descriptors.astype(np.float16),
            points=self.points.astype(np.float32),
            depth_sigma=self.depth_sigma.astype(np.float16),
            common_share=np.array([self.common_share], np.float32),
            network=np.frombuffer(f.network.encode(), np.uint8),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> KeyframeStructure:
        """Returns what `to_bytes` gave.

        Raises:
            StructureError: damaged, or of a newer version.
        """
        if len(content) > MAX_BYTES:
            raise StructureError(f"Structure of {len(content)} bytes: at most {MAX_BYTES} are read")
        try:
            arrays = load_npz(content, 4 * MAX_BYTES)
            version = int(arrays["format"][0])
            if version > FORMAT:
                raise StructureError(
                    f"Structure of format {version}, and this version reads up to {FORMAT}: update "
                    "robot_vision, or build the map again"
                )
            return _checked(arrays)
        except (KeyError, ValueError, IndexError, OSError, TypeError, OverflowError) as error:
            raise StructureError(f"Structure is damaged ({error}): build the map again") from error


class Kept(Protocol):
    """The part of a place map that has structure."""

    def structure(self, keyframe_id: int) -> bytes | None:
        """Returns a keyframe's structure, or None."""

    def structure_ids(self) -> NDArray[np.int64]:
        """Returns the ids of keyframes with structure, ascending."""


def kept_kind(places: Kept) -> str:
    """Returns of which kind a map's features are (`LocalFeatures.kind`), by one keyframe; empty without any.

    Raises:
        StructureError: that keyframe's structure is damaged.
    """
    for i in places.structure_ids()[:1].tolist():
        content = places.structure(i)
        if content is not None:
            return KeyframeStructure.from_bytes(content).features.kind
    return ""


def refuse_other_features(places: Kept, kind: str) -> None:
    """Refuses features of another kind than a map's, if it has any.

    Raises:
        ConfigError: see `features.refuse_other_kind`.
        StructureError: see `kept_kind`.
    """
    kept = kept_kind(places)
    if kept:
        refuse_other_kind(kind, kept)


def _checked(arrays: dict[str, NDArray[Any]]) -> KeyframeStructure:
    rays, descriptors = arrays["rays"], arrays["descriptors"]
    points, sigma = arrays["points"], arrays["depth_sigma"]
    n, focal = len(rays), float(arrays["focal_px"][0])
    # Maps of earlier versions do not have it.
    share = float(arrays["common_share"][0]) if "common_share" in arrays else 1.0
    network = bytes(arrays["network"]).decode("ascii") if "network" in arrays else ""
    if not (
        rays.shape == (n, 2)
        and points.shape == (n, 3)
        and sigma.shape == (n,)
        and descriptors.ndim == 2
        and len(descriptors) == n <= _MAX_FEATURES
        and descriptors.dtype in (np.uint8, np.float16)
        and np.all(np.isfinite(rays))
        and 0 < focal < 1e6
        and 0 <= share <= 1
        and 0 <= int(arrays["detector"][0]) < len(DETECTORS)
        and _HEX.fullmatch(network)
    ):
        raise ValueError("arrays do not belong together")
    kept = descriptors if descriptors.dtype == np.uint8 else descriptors.astype(np.float32)
    detector = DETECTORS[int(arrays["detector"][0])]
    features = LocalFeatures(detector, rays.astype(np.float64), kept, focal, network)
    return KeyframeStructure(features, points.astype(np.float32), sigma.astype(np.float32), share)
