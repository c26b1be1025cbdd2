"""Two images alone: do their matches agree on one motion of the camera (an essential matrix)?"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def count_inliers(a: NDArray[np.float64], b: NDArray[np.float64], max_error: float) -> int:
    """Returns how many matches agree on one essential matrix, with points in front of both cameras.

    Five points (Nister 2004) in RANSAC. Length of the motion and depths remain unknown.

    Args:
        a: rays x / z, y / z (N, 2) of one camera.
        b: those of the other, matched.
        max_error: distance from the epipolar line, on the rays.
    """
    if len(a) < 8:
        return 0
    one, other = (np.ascontiguousarray(r, np.float64) for r in (a, b))
    try:
        matrix, inliers = cv2.findEssentialMat(
            one, other, np.eye(3), method=cv2.RANSAC, prob=0.9999, threshold=max_error
        )
        if matrix is None or matrix.shape != (3, 3):
            return 0
        # A pure rotation has its points at infinity, and a distance is set at which they still count.
        count, *_ = cv2.recoverPose(matrix, one, other, np.eye(3), distanceThresh=1e6, mask=inliers)
    except cv2.error:
        return 0
    return int(count)
