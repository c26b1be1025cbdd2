"""Settings of geometric verification, each with the reason for its default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from robot_vision.errors import ConfigError, unknown

# Maps keep a detector's number: new ones come last.
DETECTORS = ("sift", "orb", "akaze", "aliked", "disk", "xfeat")
# XFeat's second best match is less far behind than SIFT's: at 0.8 a third of its right matches are lost.
# Chosen on training blocks of the kitchen, 50 queries and 150 keyframes.
XFEAT_RATIO = 0.95
LEARNED = ("aliked", "disk", "xfeat")


@dataclass(frozen=True)
class VerificationOptions:
    """How features are found, matched and judged.

    Attributes:
        detector: local features, one of `DETECTORS`. SIFT needs no weights, stands scale and rotation,
            and is the most exact of OpenCV's own; `orb` takes a tenth of its time on weak computers.
        detector_model: ONNX file of `aliked` or `disk`, which OpenCV 5 runs but does not bring, or of
            `xfeat`, which ONNX Runtime runs and `robot-vision export --xfeat` writes.
        max_features: kept of an image, strongest first.
        max_side: larger images are shrunk to it (pixels): features of 4K images are no more exact than
            the poses they are compared with, and cost 16 times as much.
        stored_features: kept of a keyframe, those with a point first; 800 SIFT take about 90 kB.
        ratio: the second best match must be so much worse (Lowe 2004, section 7.1).
        error_px: how far a point may lie from where it should be, in pixels of the (shrunk) image. Twice
            the errors of SIFT would do for exact poses; the rest is for those of a map.
        min_parallax_deg: rays to a triangulated point must meet at more than this. At 1 degree an error
            of half a pixel (at a focal length of 525) moves a point by 5 percent of its distance.
        max_baseline_m: keyframes further apart are not matched for triangulation.
        neighbours: keyframes that each one is matched with.
        min_inliers: that a pose needs. Three matches fix a pose and the fourth picks among its mirror
            images; of 50 wrong matches, which fall within 4 pixels of their place by chance once in
            thousands, 20 never agree.
        min_inlier_share: of all matches.
        min_essential_inliers: that an essential matrix needs: a wrong match is consistent with it when
            it falls on a line instead of a point, once in about a hundred.
        max_position_sigma_m: a pose that is less certain along some direction is refused.
        min_spread_deg: the inliers of a pose must spread over the image by this much (standard deviation)
            in each direction: in a narrow cluster, a camera that turns sees the same as one that moves
            sideways, and errors of map and lens choose between them. 4.5 degrees are a twelfth of a
            Kinect's height.
        max_focal_error: the query's own points say how long its focal length is; where they differ by
            more than this share, and more than they leave open, the camera's intrinsics are wrong and the
            pose with them. Calibrations are right to 1 percent; at 3 a pose is wrong by 3 percent of
            the distance to what it sees.
        map_sigma_m: standard deviation of the keyframes' positions where a map does not tell: what SLAM
            reaches indoors (`map build --sigma` tells).
        map_sigma_deg: the same for their rotations.
    """

    detector: str = "sift"
    detector_model: str = ""
    max_features: int = 1500
    max_side: int = 960
    stored_features: int = 800
    ratio: float = 0.8
    error_px: float = 4.0
    min_parallax_deg: float = 1.0
    max_baseline_m: float = 2.0
    neighbours: int = 6
    min_inliers: int = 20
    min_inlier_share: float = 0.2
    min_essential_inliers: int = 40
    max_position_sigma_m: float = 0.25
    min_spread_deg: float = 4.5
    max_focal_error: float = 0.03
    map_sigma_m: float = 0.015
    map_sigma_deg: float = 0.45

    @classmethod
    def of_features(cls, path: str) -> VerificationOptions:
        """Returns the defaults with XFeat, whose graph is at a path, or with SIFT where that is empty.

        Raises:
            ConfigError: there is no file.
        """
        if not path:
            return cls()
        return cls("xfeat", str(Path(path).expanduser()), ratio=XFEAT_RATIO)

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ConfigError(unknown("detector", self.detector, DETECTORS))
        if self.detector in LEARNED and not Path(self.detector_model).is_file():
            raise ConfigError(
                f"Detector {self.detector} needs detector_model, an ONNX file; {self.detector_model!r} is no "
                "such file; robot-vision export --xfeat --out xfeat.onnx makes xfeat's, and sift needs none"
            )
        limits: dict[str, tuple[float, float]] = {
            "max_features": (50, 20_000),
            "max_side": (160, 8192),
            "stored_features": (50, 20_000),
            "ratio": (0.1, 1.0),
            "error_px": (0.1, 50.0),
            "min_parallax_deg": (0.05, 45.0),
            "max_baseline_m": (0.01, 1e4),
            "neighbours": (1, 64),
            "min_inliers": (6, 10_000),
            "min_inlier_share": (0.0, 1.0),
            "min_essential_inliers": (10, 10_000),
            "max_position_sigma_m": (1e-4, 1e4),
            "min_spread_deg": (0.0, 30.0),
            "max_focal_error": (0.005, 1.0),
            "map_sigma_m": (0.0, 100.0),
            "map_sigma_deg": (0.0, 90.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise ConfigError(f"Setting {name} is {value!r}: use {low:g} to {high:g}")
