"""What a depth head says of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer
from robot_vision.statistics.normal import REACH_90

# The share of intervals that should hold the truth, for which `calibrate` makes sigma right; and half of such
# an interval of a normal distribution, in standard deviations.
INTERVAL, REACH = 0.9, REACH_90


@dataclass(frozen=True)
class DepthAnswer(Answer):
    """How far away what each pixel shows is, along the optical axis.

    Attributes:
        depth: float32 (h, w), metres; NaN where nothing is said.
        deviation: float32 (h, w), its standard deviation in metres, the depth times that of its logarithm;
            None where a recording does not have it.
    """

    depth: NDArray[np.float32]
    deviation: NDArray[np.float32] | None = None

    @property
    def sigma(self) -> NDArray[np.float32] | None:
        """Standard deviation of the depth's logarithm; intervals reach to a factor of exp(1.645 sigma)."""
        return None if self.deviation is None else self.deviation / self.depth

    def not_finite(self) -> str:
        """Returns why nobody may be given this: an infinite depth, which a network that overflowed says."""
        return "the network's depth is not finite" if np.isinf(self.depth).any() else ""
