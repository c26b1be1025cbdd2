"""What a segmentation head says of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer

NONE = 255  # id of a pixel of which nothing is said, or nothing is known


@dataclass(frozen=True)
class Segmentation(Answer):
    """The class of each pixel of what the network saw.

    Attributes:
        class_ids: uint8 (h, w), index among the labels.
        confidence: uint8 (h, w), 255 times the class's probability; None where the model does not say.
    """

    class_ids: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None = None

    def shares(self, count: int) -> NDArray[np.float64]:
        """Returns which share (count,) of the pixels each class has."""
        ids = self.class_ids
        return np.bincount(ids.reshape(-1), minlength=count)[:count] / max(ids.size, 1)
