"""The pose covariance as it is published: the node and the recorded results of an evaluation share it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Nav2's AMCL refuses entries that are not finite, above 1e9 or negative. Below the smallest variance
# a filter would take the pose for exact and divide by zero.
MAX_COVARIANCE = 1e9
MIN_VARIANCE = 1e-9


def covariance_numbers(
    covariance: NDArray[np.float64], scale: float = 1.0, signed: bool = False
) -> NDArray[np.float64]:
    """Returns a covariance (6, 6) as the 36 numbers of a message, usable by every filter.

    Variances are kept within [MIN_VARIANCE, MAX_COVARIANCE] and covariances within what the variances
    allow, so the result is finite, not zero, and symmetric. A covariance that is not finite says that
    nothing is known: the largest variances, and no correlation.

    Nav2's AMCL refuses a pose with any negative entry, and a correct covariance has some. So each negative
    covariance c_ij is lifted to zero by adding |r_ij| of both variances (r: correlation). What is added
    is positive semidefinite: the result is a covariance, and never smaller than the true one.

    Args:
        covariance: (6, 6).
        scale: it is multiplied by it.
        signed: keep negative covariances instead, for filters that take them.
    """
    matrix = np.asarray(covariance, np.float64).reshape(6, 6) * scale
    if not np.isfinite(matrix).all():
        matrix = np.diag(np.full(6, MAX_COVARIANCE))
    # Few and plain calls: this runs for every image, where a call costs more than six by six numbers.
    deviation = np.sqrt(np.maximum(matrix.diagonal(), MIN_VARIANCE))
    correlation = (matrix + matrix.T) / (2 * (deviation[:, None] * deviation))
    np.minimum(np.maximum(correlation, -1.0, out=correlation), 1.0, out=correlation)
    diagonal = correlation.reshape(-1)[::7]  # a view
    diagonal[:] = 1.0
    if not signed and correlation.min() < 0:
        lift = np.maximum(-correlation, 0.0)
        correlation += lift
        diagonal += lift.sum(axis=1)
    deviation *= np.minimum(1.0, np.sqrt(MAX_COVARIANCE / (diagonal * deviation**2)))
    result = correlation * (deviation[:, None] * deviation)
    np.minimum(np.maximum(result, -MAX_COVARIANCE, out=result), MAX_COVARIANCE, out=result)
    return np.asarray(result.reshape(36), np.float64)
