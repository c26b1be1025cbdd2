"""Rotations in torch, with gradients that are finite everywhere: quaternions xyzw, batches first.

q and -q are one rotation, and nothing here tells them apart. The NumPy core has the same functions for
the robot (`robot_vision.geometry.rigid`).
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12


def unit(q: Tensor) -> Tensor:
    """Returns q (..., 4) with length 1; the zero quaternion stays zero, with a finite gradient."""
    return q / torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp(min=TINY)


def aligned(q: Tensor, to: Tensor) -> Tensor:
    """Returns q or -q (..., 4), whichever is nearer to `to`."""
    return torch.where((q * to).sum(dim=-1, keepdim=True) < 0, -q, q)


def conjugate(q: Tensor) -> Tensor:
    """Returns the inverse rotation of unit quaternions (..., 4)."""
    return torch.cat([-q[..., :3], q[..., 3:]], dim=-1)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Returns the quaternion (..., 4) that rotates by b, then by a."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat([vector, aw * bw - (av * bv).sum(dim=-1, keepdim=True)], dim=-1)


def rotate(q: Tensor, points: Tensor) -> Tensor:
    """Returns points (..., 3) rotated by unit quaternions (..., 4), which broadcast against them."""
    vector, w = q[..., :3].expand_as(points), q[..., 3:]
    once = 2 * torch.linalg.cross(vector, points)
    return points + w * once + torch.linalg.cross(vector, once)


def rotation_vector(q: Tensor) -> Tensor:
    """Returns the rotation vectors (..., 3), radians, of length at most pi, of unit quaternions.

    `v theta / |v|` with `theta = 2 atan2(|v|, w)`; near the identity its series `2 v / w` is used, because
    |v| has no gradient at zero.
    """
    q = torch.where(q[..., 3:] < 0, -q, q)
    vector, w = q[..., :3], q[..., 3:]
    squared = vector.square().sum(dim=-1, keepdim=True)
    small = squared < 1e-10 if q.dtype == torch.float64 else squared < 1e-8
    # Both branches are differentiated: the one that is not taken gets a harmless argument.
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    scale = 2 * torch.atan2(length, w) / length
    series = 2 / w.clamp(min=0.5) * (1 - squared / (3 * w.clamp(min=0.5).square()))
    return vector * torch.where(small, series, scale)


def xyzw_of(rotation: Tensor) -> Tensor:
    """Returns unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3).

    Of the four ways to compute them, each sample takes the one with the largest divisor (Shepperd
    1978).
    """
    m = rotation
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    xx, yy = 1 + m00 - m11 - m22, 1 - m00 + m11 - m22
    zz, ww = 1 - m00 - m11 + m22, 1 + m00 + m11 + m22
    xy, xz, yz = (
        m[..., 1, 0] + m[..., 0, 1],
        m[..., 2, 0] + m[..., 0, 2],
        m[..., 2, 1] + m[..., 1, 2],
    )
    xw, yw, zw = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    rows = torch.stack(
        [
            torch.stack([xx, xy, xz, xw], dim=-1),
            torch.stack([xy, yy, yz, yw], dim=-1),
            torch.stack([xz, yz, zz, zw], dim=-1),
            torch.stack([xw, yw, zw, ww], dim=-1),
        ],
        dim=-2,
    )  # 4 q q^T, (..., 4, 4): each row is a multiple of q
    best = torch.stack([xx, yy, zz, ww], dim=-1).argmax(dim=-1)  # (...)
    index = best[..., None, None].expand(*best.shape, 1, 4)
    q = unit(rows.gather(-2, index).squeeze(-2))
    return torch.where(q[..., 3:] < 0, -q, q)
