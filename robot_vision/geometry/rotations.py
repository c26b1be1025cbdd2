"""Rotations as quaternions, many at once: products, vectors, errors of poses and means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import canonical_xyzw


def multiply(a_xyzw: NDArray[Any], b_xyzw: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the quaternions (..., 4) of the rotations b followed by a."""
    av, aw, bv, bw = a_xyzw[..., :3], a_xyzw[..., 3:], b_xyzw[..., :3], b_xyzw[..., 3:]
    vector = aw * bv + bw * av + np.cross(av, bv)
    return np.concatenate([vector, aw * bw - (av * bv).sum(-1, keepdims=True)], axis=-1)


def conjugate(xyzw: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the quaternions (..., 4) of the inverse rotations."""
    return np.asarray(xyzw * [-1.0, -1.0, -1.0, 1.0])


def rotation_vectors(xyzw: NDArray[Any]) -> NDArray[np.float64]:
    """Returns axis times angle (..., 3), in radians and of at most pi, of unit quaternions (..., 4)."""
    q = np.asarray(np.where(xyzw[..., 3:] < 0, -xyzw, xyzw))
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., 3:])
    # sin(a / 2) / a tends to 1 / 2.
    factor = np.divide(angle, sine, out=np.full_like(sine, 2.0), where=sine > 1e-12)
    return np.asarray(q[..., :3] * factor)


def pose_error(
    position: NDArray[Any], xyzw: NDArray[Any], true_position: NDArray[Any], true_xyzw: NDArray[Any]
) -> NDArray[np.float64]:
    """Returns errors (N, 6): metres along the map's axes, then the rotation vector about them in radians.

    From the estimate to the truth: `p_true = p + e[:3]` and `R_true = exp(e[3:]) @ R`.
    """
    turn = multiply(canonical_xyzw(true_xyzw), conjugate(canonical_xyzw(xyzw)))
    return np.concatenate([true_position - position, rotation_vectors(turn)], axis=1)


def mean_pose(
    positions: NDArray[Any], xyzw: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the mean position (3,) and the mean rotation (4,) (Markley et al. 2007, eq. 12 and 13)."""
    return positions.mean(axis=0), canonical_xyzw(np.linalg.eigh(xyzw.T @ xyzw)[1][:, -1])
