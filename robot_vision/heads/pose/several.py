"""Several poses of one image brought together, by arithmetic that ONNX has."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQUARINGS = 3  # of a matrix with trace 1 between two normalisations: its trace stays above 4^-8
_ROUNDS = 3  # so the eigenvalues are raised to the power 2^9
_TINY = 1e-12


def mean_pose(
    position: Tensor, orientation_xyzw: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Averages poses and adds their spread to their covariances.

    The mean of rotations is the eigenvector of the largest eigenvalue of the mean of q q^T (Markley et al.,
    "Averaging Quaternions", JGCD 2007, eq. 12 and 13), to which q and -q are one. The total covariance is
    the law of total variance over the answers (Kendall and Gal 2017, eq. 9, there for scalars): the mean of
    their covariances plus the covariance of their means. The spread of rotations is that of their rotation
    vectors about the map's fixed axes, `R_s = exp(delta_s) R_mean`, as in `robot_vision.geometry.rigid`.

    Args:
        position: (N, S, 3), metres.
        orientation_xyzw: (N, S, 4), unit.
        covariance: (N, S, 6, 6).

    Returns:
        Mean position (N, 3); mean orientation (N, 4), unit, w >= 0; total covariance (N, 6, 6); and the part
        of it that is the answers' spread (N, 6, 6).
    """
    centre = position.mean(dim=1)
    q = orientation_xyzw
    matrix = (q.unsqueeze(3) * q.unsqueeze(2)).mean(dim=1)  # (N, 4, 4), trace 1
    mean = dominant_eigenvector(matrix)
    mean = torch.where(mean[:, 3:] < 0, -mean, mean)
    delta = rotation_vectors(q, mean.unsqueeze(1))  # (N, S, 3)
    offset = torch.cat([position - centre.unsqueeze(1), delta], dim=2)  # (N, S, 6)
    count = position.shape[1]
    spread = offset.transpose(1, 2) @ offset / count
    return centre, mean, covariance.mean(dim=1) + spread, spread


def dominant_eigenvector(matrix: Tensor) -> Tensor:
    """Returns the unit eigenvector (N, 4) of the largest eigenvalue of positive matrices (N, 4, 4).

    They are symmetric. By squaring, as ONNX has no eigenvectors: M^512 is its projection up to
    (lambda_2 / lambda_1)^512. That is nothing for rotations that have a mean; where both eigenvalues are
    alike there is none, and some unit vector of their plane comes out.
    """
    identity = torch.eye(4).to(matrix)
    for _ in range(_ROUNDS):
        matrix = matrix / (matrix * identity).sum(dim=(1, 2), keepdim=True)
        for _ in range(_SQUARINGS):
            matrix = matrix @ matrix
    # Every column is a multiple of it; the one with the largest diagonal has the most digits.
    column = (matrix * identity).sum(dim=2).argmax(dim=1)  # (N,)
    vector = matrix.gather(2, column[:, None, None].expand(-1, 4, 1)).squeeze(2)
    vector = vector / vector.abs().amax(dim=1, keepdim=True)  # so that squares do not underflow
    return vector / vector.square().sum(dim=1, keepdim=True).sqrt()


def rotation_vectors(q: Tensor, mean: Tensor) -> Tensor:
    """Returns delta (..., 3), radians, of `R_q = exp(delta) R_mean`, for unit xyzw quaternions (..., 4)."""
    v, w = q[..., :3], q[..., 3:]
    mv, mw = -mean[..., :3], mean[..., 3:]  # the inverse
    cross = torch.stack(
        [
            v[..., 1] * mv[..., 2] - v[..., 2] * mv[..., 1],
            v[..., 2] * mv[..., 0] - v[..., 0] * mv[..., 2],
            v[..., 0] * mv[..., 1] - v[..., 1] * mv[..., 0],
        ],
        dim=-1,
    )
    vector = w * mv + mw * v + cross
    scalar = w * mw - (v * mv).sum(dim=-1, keepdim=True)
    vector = torch.where(scalar < 0, -vector, vector)  # the shorter way round
    sine = vector.square().sum(dim=-1, keepdim=True).sqrt()
    # Half the angle, by an arc tangent, which is exact near 0 and near pi.
    half = torch.where(
        scalar.abs() > _TINY, torch.atan(sine / scalar.abs().clamp(min=_TINY)), math.pi / 2
    )
    return 2 * half * vector / sine.clamp(min=_TINY)
