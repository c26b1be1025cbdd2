"""A camera's pose from scene coordinates: PnP in RANSAC, weighted refinement, covariance from residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry import pnp
from robot_vision.geometry.rigid import symmetrised, xyzw_from_matrix
from robot_vision.heads.coordinates.spec import CoordinatesSpec

Array = NDArray[np.float64]

_DRAWN = 400  # surest cells from which RANSAC draws
_ROUNDS = 10
_LEAST = 6  # inliers; a pose has six numbers, and each inlier gives two


@dataclass(frozen=True)
class Solved:
    """A pose that cells agree on.

    Attributes:
        position: float64 (3,), metres in the map; NaN where it is refused.
        xyzw: float64 (4,).
        covariance: float64 (6, 6), as `CameraPose` has it.
        inliers: share of the cells that agree.
    """

    position: Array
    xyzw: Array
    covariance: Array
    inliers: float


def solve(
    points: NDArray[np.float32],
    deviation: NDArray[np.float32],
    rays: Array,
    spec: CoordinatesSpec,
) -> Solved:
    """Returns the camera's pose from scene coordinates.

    P3P in RANSAC over the surest cells, as DSAC* and ACE solve for the pose (Brachmann and Rother 2021;
    Brachmann et al. 2023), then Gauss-Newton on reprojection errors of all inliers with Huber's weights. A
    cell's noise on its ray is its deviation over its depth, which the papers do not have. The covariance is
    the inverse of the information times the squared residuals per degree of freedom, which would be right if
    cells erred independently; neighbours do not, so the head's calibrated factors multiply it.

    Args:
        points: (h, w, 3), metres from the head's centre.
        deviation: (h, w), metres.
        rays: (h, w, 2), x / z and y / z where the camera sees the cells; NaN where it does not.
        spec: of the head.
    """
    x, sigma = points.reshape(-1, 3).astype(np.float64), deviation.reshape(-1).astype(np.float64)
    seen = np.isfinite(rays).all(axis=-1).reshape(-1)
    if not (np.isfinite(x).all() and np.isfinite(sigma).all()):
        return _refused(0.0)
    x, sigma, r = x[seen], np.maximum(sigma[seen], 1e-4), rays.reshape(-1, 2)[seen]
    if len(x) < _LEAST:
        return _refused(0.0)
    every = pnp.Correspondences(x, np.zeros(len(x)), r)
    surest = np.zeros(len(x), bool)
    surest[np.argsort(sigma, kind="stable")[:_DRAWN]] = True
    T = pnp.ransac(every.subset(surest), spec.max_error)
    if T is None:
        return _refused(0.0)
    before: NDArray[np.bool_] | None = None
    inliers = pnp.reprojection_errors(T, every) <= spec.max_error
    for _ in range(_ROUNDS):
        if inliers.sum() < _LEAST:
            return _refused(0.0)
        residual, jacobian, weight = _linearised(T, every.subset(inliers), sigma[inliers])
        information, gradient = pnp.normal_equations(residual, jacobian, weight)
        inverse = pnp.inverse_of(information)
        if inverse is None:
            return _refused(0.0)
        step = -inverse @ gradient
        T = pnp.moved(T, step)
        if before is not None and np.array_equal(before, inliers) and np.abs(step).max() < 1e-6:
            break
        before, inliers = inliers, pnp.reprojection_errors(T, every) <= spec.max_error
    share = float(inliers.mean())
    if share < spec.least_inliers or inliers.sum() < _LEAST:
        return _refused(share)
    residual, jacobian, weight = _linearised(T, every.subset(inliers), sigma[inliers])
    inverse = pnp.inverse_of(pnp.normal_equations(residual, jacobian, weight)[0])
    if inverse is None:
        return _refused(0.0)
    chi_squared = float(np.einsum("ni,nij,nj->", residual, weight, residual))
    scale = np.sqrt([spec.position_scale] * 3 + [spec.rotation_scale] * 3)
    covariance = chi_squared / max(1, 2 * len(residual) - 6) * inverse * np.outer(scale, scale)
    return Solved(
        T[:3, 3] + np.array(spec.centre),
        xyzw_from_matrix(T[:3, :3]),
        symmetrised(covariance),
        share,
    )


def _linearised(T: Array, data: pnp.Correspondences, sigma: Array) -> tuple[Array, Array, Array]:
    """Returns `pnp.linearise`, each ray with the noise of its cell at its depth."""
    depth = np.maximum((data.points - T[:3, 3]) @ T[:3, 2], 1e-3)
    return pnp.linearise(T, data, sigma / depth)


def _refused(share: float) -> Solved:
    nan = np.full(6, np.nan)
    return Solved(nan[:3], nan[:4], np.full((6, 6), np.nan), share)
