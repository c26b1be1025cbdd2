"""Rigid motions as a Lie group: the exponential, its inverse, the adjoint and the Jacobian.

A tangent vector xi (6,) is a translation (m), then a rotation (rad), the order of a pose's covariance. Errors
are in the moving frame, `T_true = T @ exp(xi)`; messages give them about the map's axes, see
`body_covariance`. Source: Sola, Deray and Atchuthan 2018, "A micro Lie theory", equations 134 to 180.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import matrix_from_xyzw, skew, xyzw_from_matrix

Array = NDArray[np.float64]

_SMALL = 1e-4  # rad: below, series to the second order are exact to the last digits


def exp(xi: NDArray[np.float64]) -> Array:
    """Returns the motion (4, 4) of a tangent vector (6,)."""
    rho, W = xi[:3], skew(xi[3:])
    angle = math.sqrt(float(xi[3:] @ xi[3:]))
    if angle < _SMALL:
        a, b, c = 1 - angle**2 / 6, 0.5 - angle**2 / 24, 1 / 6 - angle**2 / 120
    else:
        a, b = math.sin(angle) / angle, (1 - math.cos(angle)) / angle**2
        c = (1 - a) / angle**2
    W2 = W @ W
    T = np.eye(4)
    T[:3, :3] += a * W + b * W2
    T[:3, 3] = rho + b * (W @ rho) + c * (W2 @ rho)
    return T


def log(T: NDArray[np.float64]) -> Array:
    """Returns the tangent vector (6,) of a motion (4, 4); the rotation is of at most pi."""
    q = xyzw_from_matrix(T[:3, :3])  # w >= 0
    sine = math.sqrt(float(q[:3] @ q[:3]))
    angle = 2 * math.atan2(sine, float(q[3]))
    phi = q[:3] * (angle / sine if sine > 1e-12 else 2.0)
    W = skew(phi)
    if angle < _SMALL:
        c = 1 / 12 + angle**2 / 720
    else:
        c = (1 - angle * math.cos(angle / 2) / (2 * math.sin(angle / 2))) / angle**2
    t = T[:3, 3]
    Wt = W @ t
    return np.concatenate([t - 0.5 * Wt + c * (W @ Wt), phi])


def adjoint(T: NDArray[np.float64]) -> Array:
    """Returns Ad_T (6, 6): `T @ exp(xi) @ inverse(T) = exp(Ad_T @ xi)`."""
    R = T[:3, :3]
    result = np.zeros((6, 6))
    result[:3, :3] = result[3:, 3:] = R
    result[:3, 3:] = skew(T[:3, 3]) @ R
    return result


def right_jacobian(xi: NDArray[np.float64]) -> Array:
    """Returns J_r (6, 6): `exp(xi + d) = exp(xi) @ exp(J_r d)` to first order in d.

    As the series sum_n (-ad_xi)^n / (n + 1)!, with as many terms as it takes.
    """
    ad = np.zeros((6, 6))
    ad[:3, :3] = ad[3:, 3:] = skew(xi[3:])
    ad[:3, 3:] = skew(xi[:3])
    total, term = np.eye(6), np.eye(6)
    size = float(np.abs(ad).sum(axis=1).max())
    bound = 1.0
    for n in range(1, 60):
        term = term @ ad * (-1.0 / (n + 1))
        total += term
        bound *= size / (n + 1)
        if bound < 1e-15:
            break
    return total


def orthonormal(T: NDArray[np.float64]) -> Array:
    """Returns the motion (4, 4) without the rounding that a long product leaves in its rotation."""
    result = np.array(T, np.float64)
    result[:3, :3] = matrix_from_xyzw(xyzw_from_matrix(T[:3, :3]))
    result[3] = (0.0, 0.0, 0.0, 1.0)
    return result


def body_covariance(T: NDArray[np.float64], covariance: NDArray[np.float64]) -> Array:
    """Returns a covariance (6, 6) about the map's axes as one in the frame of the pose `T` itself."""
    turn = np.zeros((6, 6))
    turn[:3, :3] = turn[3:, 3:] = T[:3, :3].T
    return np.asarray(turn @ covariance @ turn.T)


def map_covariance(T: NDArray[np.float64], covariance: NDArray[np.float64]) -> Array:
    """Returns a covariance (6, 6) in the frame of the pose `T` as one about the map's axes."""
    turn = np.zeros((6, 6))
    turn[:3, :3] = turn[3:, 3:] = T[:3, :3]
    return np.asarray(turn @ covariance @ turn.T)
