"""Poses and rotations in NumPy: what the robot needs at run time, without SciPy.

Quaternions are `xyzw`; q and -q are one rotation, and functions here return the one with w >= 0.
`T_a_b` takes points from b to a: `p_a = T_a_b @ p_b`. The six numbers of a pose's covariance are x, y, z
and a rotation about the fixed axes X, Y, Z of the parent frame (geometry_msgs/PoseWithCovariance):
`R = exp(delta) @ R_mean`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def canonical_xyzw(xyzw: NDArray[Any]) -> Array:
    """Returns unit quaternions (..., 4) with w >= 0, for quaternions of any length but zero.

    Raises:
        ValueError: a quaternion is zero or not finite.
    """
    q = np.asarray(xyzw, np.float64)
    if q.shape == (4,):  # a node's one pose an image: plain numbers are several times as fast
        return np.array(_unit(*q.tolist()))
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norm)) or np.any(norm < 1e-12):
        raise ValueError(f"quaternion {xyzw!r} has no direction: it must be finite and not zero")
    q = q / norm
    return np.asarray(np.where(q[..., 3:] < 0, -q, q))


def _unit(x: float, y: float, z: float, w: float) -> tuple[float, float, float, float]:
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not 1e-12 <= norm < math.inf:  # false for NaN
        said = [x, y, z, w]
        raise ValueError(f"quaternion {said} has no direction: it must be finite and not zero")
    if w < 0:
        norm = -norm
    return x / norm, y / norm, z / norm, w / norm


def matrix_from_xyzw(xyzw: NDArray[Any]) -> Array:
    """Returns rotation matrices (..., 3, 3) of quaternions (..., 4)."""
    q = canonical_xyzw(xyzw)
    x, y, z, w = q.tolist() if q.ndim == 1 else np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrices = np.array(rows)
    return matrices if q.ndim == 1 else np.moveaxis(matrices, (0, 1), (-2, -1))


def xyzw_from_matrix(rotation: NDArray[Any]) -> Array:
    """Returns the unit quaternion (4,), w >= 0, of one rotation matrix (3, 3).

    The largest of the four squared components is taken as the divisor (Shepperd 1978), so that no
    rotation loses precision.
    """
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rotation, np.float64).tolist()
    squares = [1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i]
    sums = [d + b, g + c, h + f]
    differences = [h - f, c - g, d - b]
    largest = squares.index(max(squares))
    candidates = (
        [squares[0], sums[0], sums[1], differences[0]],
        [sums[0], squares[1], sums[2], differences[1]],
        [sums[1], sums[2], squares[2], differences[2]],
        [differences[0], differences[1], differences[2], squares[3]],
    )
    return np.array(_unit(*candidates[largest]))


def matrix_from_rpy(rpy: NDArray[Any]) -> Array:
    """Returns the rotation matrix of roll, pitch, yaw (rad) about fixed X, Y, Z (URDF's convention)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def orthonormalised(rotation: NDArray[Any]) -> Array:
    """Returns the rotation nearest (Frobenius) to a matrix (3, 3) that is one up to rounding.

    Raises:
        ValueError: the matrix is not finite, a reflection, or further than 0.05 from every rotation.
    """
    m = np.asarray(rotation, np.float64)
    if m.shape != (3, 3) or not np.all(np.isfinite(m)):
        raise ValueError(f"not a finite 3 x 3 matrix: {m.tolist()}")
    u, _, vt = np.linalg.svd(m)
    nearest = u @ vt
    if np.linalg.det(nearest) < 0 or np.linalg.norm(nearest - m) > 0.05:
        raise ValueError(f"not a rotation matrix: {m.tolist()}")
    return np.asarray(nearest)


def pose_matrix(position: NDArray[Any], xyzw: NDArray[Any]) -> Array:
    """Returns the 4 x 4 matrix of a position (3,) and a quaternion (4,)."""
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_xyzw(xyzw)
    matrix[:3, 3] = position
    return matrix


def inverse(T_a_b: NDArray[Any]) -> Array:
    """Returns `T_b_a` of a rigid transform (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = T_a_b[:3, :3].T
    matrix[:3, 3] = -T_a_b[:3, :3].T @ T_a_b[:3, 3]
    return matrix


def rotation_error_deg(a_xyzw: NDArray[Any], b_xyzw: NDArray[Any]) -> Array:
    """Returns the angle in degrees (...) of the rotation between quaternions (..., 4)."""
    a, b = canonical_xyzw(a_xyzw), canonical_xyzw(b_xyzw)
    # atan2 of chord lengths stays precise near 0, where arccos of the dot product does not.
    near = np.minimum(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    angle = 4 * np.arcsin(np.clip(near / 2, 0.0, 1.0))
    return np.asarray(np.degrees(angle))


def apart(a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
    """Returns metres and degrees between two poses (4, 4)."""
    metres = float(np.linalg.norm(a[:3, 3] - b[:3, 3]))
    cosine = (float(np.vdot(a[:3, :3], b[:3, :3])) - 1) / 2  # the trace of a.T @ b
    return metres, math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def skew(v: NDArray[Any]) -> Array:
    """Returns [v]_x (3, 3), with `[v]_x @ u = v x u`."""
    x, y, z = v
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def compose_with_covariance(
    T_map_a: NDArray[Any], covariance: NDArray[Any], T_a_b: NDArray[Any]
) -> tuple[Array, Array]:
    """Moves an uncertain pose by an exactly known transform on its right.

    To first order a rotation error `delta` of a about the map's axes moves b by `delta x (R_map_a @ t_a_b)`:
    the lever arm.

    Args:
        T_map_a: pose (4, 4).
        covariance: of `T_map_a` (6, 6).
        T_a_b: exact transform (4, 4).

    Returns:
        `T_map_b` (4, 4) and its covariance (6, 6).
    """
    T_map_b = np.asarray(T_map_a @ T_a_b, np.float64)
    jacobian = np.eye(6)
    jacobian[:3, 3:] = -skew(T_map_a[:3, :3] @ T_a_b[:3, 3])
    return T_map_b, symmetrised(jacobian @ covariance @ jacobian.T)


def symmetrised(matrix: NDArray[Any]) -> Array:
    """Returns the symmetric part of a square matrix: rounding makes a covariance lose its symmetry."""
    return np.asarray((matrix + matrix.T) / 2, np.float64)
