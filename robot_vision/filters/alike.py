"""What a measurement is worth whose error is like the last one's."""

from __future__ import annotations

import math

_ALIKE = 1.0 - 1e-6  # a correlation of 1 would make an infinite covariance


def inflation(away: float) -> float:
    """Returns the factor on a measurement's covariance: the inverse of (1 - rho) / (1 + rho).

    A robot that stands still so does not become certain by looking again.

    Args:
        away: how far it is from the last measurement of its source, in correlation lengths, so that
            rho = exp(-away); infinity where there was none.
    """
    rho = min(math.exp(-away), _ALIKE)
    return (1 + rho) / (1 - rho)
