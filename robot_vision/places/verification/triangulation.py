"""Points from views whose poses are known: linear triangulation with gates, all features at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import skew

Array = NDArray[np.float64]

_NEAREST_M, _DROPS = 0.05, 3


@dataclass(frozen=True, eq=False)
class Sighting:
    """What another camera saw of the features of the first.

    Attributes:
        T_view_first: (4, 4), takes points of the first camera to this one.
        rays: float64 (N, 2), x / z and y / z here, of the first camera's N features.
        seen: bool (N,), which of them were matched here.
    """

    T_view_first: Array
    rays: Array
    seen: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Points:
    """Triangulated features, in the first camera's frame.

    Attributes:
        xyz: float64 (N, 3), metres; NaN where a gate refused the point.
        depth_sigma: float64 (N,), standard deviation of z in metres; NaN in the same case.
    """

    xyz: Array
    depth_sigma: Array


def epipolar_error(T_b_a: NDArray[Any], rays_a: NDArray[Any], rays_b: NDArray[Any]) -> Array:
    """Returns the first-order distance (Sampson) of matches (N, 2) from the epipolar constraint.

    In the units of the rays. See Hartley and Zisserman (2004), eq. 11.9, with the essential matrix.

    Args:
        T_b_a: (4, 4), takes points of a to b.
        rays_a: (N, 2).
        rays_b: (N, 2).
    """
    baseline = T_b_a[:3, 3]
    E = skew(baseline / max(float(np.linalg.norm(baseline)), 1e-12)) @ T_b_a[:3, :3]
    a = np.concatenate([rays_a, np.ones((len(rays_a), 1))], axis=1)
    b = np.concatenate([rays_b, np.ones((len(rays_b), 1))], axis=1)
    line_b, line_a = a @ E.T, b @ E
    square = line_b[:, 0] ** 2 + line_b[:, 1] ** 2 + line_a[:, 0] ** 2 + line_a[:, 1] ** 2
    return np.asarray(np.abs((b * line_b).sum(axis=1)) / np.sqrt(np.maximum(square, 1e-18)))


def triangulate(
    rays: NDArray[Any],
    views: Sequence[Sighting],
    max_error: float,
    min_parallax_deg: float,
    noise: float,
) -> Points:
    """Triangulates the first camera's features.

    The linear method on normalised rays; a view in which the point is too far from its feature is
    dropped, worst first, and the rest solved again.

    Args:
        rays: (N, 2), x / z and y / z in the first camera.
        views: of other cameras.
        max_error: reprojection error on the rays, in each view.
        min_parallax_deg: two rays of a point must meet at more than this.
        noise: standard deviation of a ray, for `depth_sigma`.
    """
    n = len(rays)
    T = np.stack([np.eye(4)[:3], *(view.T_view_first[:3] for view in views)])  # (V, 3, 4)
    seen = np.stack([np.ones(n, bool), *(view.seen for view in views)])  # (V, N)
    x = np.stack([np.asarray(rays, np.float64), *(view.rays for view in views)])  # (V, N, 2)
    used, everyone = seen.copy(), np.arange(n)
    for drop in range(_DROPS + 1):
        xyz = _linear(T, x, used)
        camera = np.einsum("vab,nb->vna", T[:, :, :3], xyz) + T[:, None, :, 3]  # (V, N, 3)
        z = camera[..., 2]
        front = z > _NEAREST_M
        gap = camera[..., :2] / np.where(front, z, 1.0)[..., None] - x
        error = np.where(front, np.linalg.norm(gap, axis=-1), np.inf)
        error = np.where(used, error, -1.0)
        bad = error.max(axis=0, initial=-1.0) > max_error
        if drop == _DROPS or not bad.any():
            break
        others = error.copy()
        others[0] = -1.0  # the feature itself stays
        worst = others.argmax(axis=0)
        used[worst[bad], everyone[bad]] = False
        used[0] = True
    centres = -np.einsum("vba,vb->va", T[:, :, :3], T[:, :, 3])  # (V, 3)
    directions = xyz[None] - centres[:, None]
    lengths = np.linalg.norm(directions, axis=-1)
    cosine = np.einsum("vna,na->vn", directions, directions[0])
    cosine /= np.maximum(lengths * lengths[0], 1e-12)
    cosine = np.where(used, cosine, 1.0).min(axis=0)
    good = (used.sum(axis=0) >= 2) & ~bad & (cosine < np.cos(np.radians(min_parallax_deg)))
    sigma = _depth_sigma(T, xyz, camera, used, noise)
    good &= np.isfinite(sigma) & np.isfinite(xyz).all(axis=1)
    return Points(np.where(good[:, None], xyz, np.nan), np.where(good, sigma, np.nan))


def _linear(T: Array, x: Array, used: NDArray[np.bool_]) -> Array:
    """Returns (N, 3): the smallest eigenvector of the normal equations of each point."""
    weight = used.astype(np.float64)
    first = x[..., :1] * T[:, None, 2] - T[:, None, 0]  # (V, N, 4)
    second = x[..., 1:] * T[:, None, 2] - T[:, None, 1]
    normal = np.einsum("vn,vna,vnb->nab", weight, first, first)
    normal += np.einsum("vn,vna,vnb->nab", weight, second, second)
    vector = np.linalg.eigh(normal)[1][:, :, 0]
    w = vector[:, 3:]
    return np.asarray(vector[:, :3] / np.where(np.abs(w) < 1e-9, 1e-9, w))


def _depth_sigma(
    T: Array, xyz: Array, camera: Array, used: NDArray[np.bool_], noise: float
) -> Array:
    """Returns the standard deviation (N,) of z from the information of all views."""
    z = np.where(np.abs(camera[..., 2]) < 1e-9, 1e-9, camera[..., 2])
    n = len(xyz)
    information = np.zeros((n, 3, 3))
    for v in range(len(T)):
        jacobian = np.zeros((n, 2, 3))
        jacobian[:, 0, 0] = jacobian[:, 1, 1] = 1 / z[v]
        jacobian[:, :, 2] = -camera[v, :, :2] / z[v][:, None] ** 2
        jacobian = jacobian @ T[v, :, :3]
        jacobian[~used[v]] = 0
        information += jacobian.transpose(0, 2, 1) @ jacobian
    information /= noise**2
    information += 1e-12 * np.eye(3)
    return np.asarray(np.sqrt(np.linalg.inv(information)[:, 2, 2]))
