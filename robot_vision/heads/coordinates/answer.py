"""What a head of scene coordinates says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer
from robot_vision.geometry.camera_pose import CameraPose


@dataclass(frozen=True)
class CoordinatesAnswer(CameraPose, Answer):
    """Where in the map each cell of the image lies, and the pose of the training images' camera from that.

    Position, orientation and covariance are NaN where too few cells agree on a pose.

    Attributes:
        points: float32 (h, w, 3), metres from the head's `centre` along the map's axes.
        deviation: float32 (h, w), standard deviation of each of their coordinates, metres.
        inliers: share of the cells that agree on the pose.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {
        "points": "scene coordinates",
        "deviation": "deviation of scene coordinates",
    }

    points: NDArray[np.float32]
    deviation: NDArray[np.float32]
    inliers: float

    @property
    def is_refused(self) -> bool:
        """Whether too few cells agree on a pose."""
        return not bool(np.isfinite(self.position[0]))
