"""What a pose head says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer
from robot_vision.geometry.camera_pose import CameraPose


@dataclass(frozen=True)
class PoseAnswer(CameraPose, Answer):
    """A pose, and what several answers say of it.

    Covariances may be not finite: messages say "unknown" for them.

    Attributes:
        spread: float64 (6, 6), the part of the covariance by which the head's several answers differ
            (`EpistemicSpec`); None where it answers once.
        known_view: high for views like those trained on (`KnownViews`), from 0 to 1; None where the
            bundle has no such score.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {
        "position": "position",
        "orientation_xyzw": "orientation",
        "known_view": "known-view score",
    }

    spread: NDArray[np.float64] | None = None
    known_view: float | None = None

    def is_unknown(self, threshold: float) -> bool:
        """Whether its view is like none that was trained on."""
        return self.known_view is not None and self.known_view < threshold
