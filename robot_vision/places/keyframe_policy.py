"""When a view is worth a keyframe: after a distance, an angle, or a change of what is seen.

Distance and angle bound how far the nearest keyframe can be from any place that was driven through. The
descriptor adds what they miss: a door that opens onto another room changes the view within a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError


@dataclass(frozen=True)
class KeyframeRule:
    """How different a view must be from the last keyframe of the drive.

    Attributes:
        distance_m: of the camera's way since then, as the crow flies.
        angle_deg: between the camera's orientations.
        similarity: cosine of the descriptors below which the view has changed; -1 never looks at them.
        min_distance_m: a change of descriptor alone counts only after so much, or ...
        min_angle_deg: ... so much turning: else people who walk by make keyframes of a robot that stands.
    """

    distance_m: float = 0.5
    angle_deg: float = 20.0
    similarity: float = 0.6
    min_distance_m: float = 0.1
    min_angle_deg: float = 5.0

    def __post_init__(self) -> None:
        if not (self.distance_m > 0 and self.angle_deg > 0):
            raise ConfigError(
                f"Keyframe distance {self.distance_m} m and angle {self.angle_deg} deg must be above 0"
            )
        if not -1 <= self.similarity <= 1:
            raise ConfigError(f"Keyframe similarity {self.similarity} must be from -1 to 1")


class KeyframePolicy:
    """Says which views of one drive become keyframes.

    Args:
        rule: thresholds.
    """

    def __init__(self, rule: KeyframeRule) -> None:
        self.rule = rule
        self._pose: NDArray[np.float64] | None = None
        self._descriptor: NDArray[np.float32] | None = None

    def reset(self) -> None:
        """Makes the next view a keyframe: a new drive begins, or the pose jumped."""
        self._pose = self._descriptor = None

    def reason(self, T_map_camera: NDArray[Any], descriptor: NDArray[Any]) -> str:
        """Returns why a view shall be a keyframe: first, distance, angle or descriptor; empty if not.

        Args:
            T_map_camera: pose (4, 4) in any fixed frame.
            descriptor: (D,), of length 1.
        """
        if self._pose is None or self._descriptor is None:
            return "first"
        rule = self.rule
        distance = float(np.linalg.norm(T_map_camera[:3, 3] - self._pose[:3, 3]))
        if distance >= rule.distance_m:
            return "distance"
        cosine = (np.sum(T_map_camera[:3, :3] * self._pose[:3, :3]) - 1) / 2  # trace of the turn
        angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        if angle >= rule.angle_deg:
            return "angle"
        has_moved = distance >= rule.min_distance_m or angle >= rule.min_angle_deg
        if has_moved and float(descriptor @ self._descriptor) < rule.similarity:
            return "descriptor"
        return ""

    def added(self, T_map_camera: NDArray[Any], descriptor: NDArray[Any]) -> None:
        """Notes that a view became a keyframe."""
        self._pose = np.array(T_map_camera, np.float64)
        self._descriptor = np.array(descriptor, np.float32)
