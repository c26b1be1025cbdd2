"""A 6 x 6 covariance from unbounded numbers: always positive definite, always bounded.

The matrix is split into its variances and its correlations, `Sigma = D C D` with `D = diag(sigma)`, and
the correlations have a Cholesky factor `C = U U^T` whose rows have length 1. So the diagonal of
`Sigma` is exactly `sigma^2`, whatever the correlations are, and `D U` is the Cholesky factor of `Sigma`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_VARIANCE = 1e-8  # m^2 or rad^2; consumers divide by it
MAX_POSITION_VARIANCE = 1e6  # m^2
MAX_ROTATION_VARIANCE = math.pi**2  # rad^2; an angle is never further off than pi
CORRELATIONS = 15  # entries below the diagonal of a 6 x 6 matrix
# How far an entry left of a row's diagonal may exceed it: two axes correlate by 0.89 at most, and the
# smallest eigenvalue of C stays far above float32's rounding.
MAX_SLOPE = 2.0


def log_variance_bounds() -> tuple[Tensor, Tensor]:
    """Returns the lowest and highest log variances (6,), of x, y, z and the three rotations."""
    highest = [math.log(MAX_POSITION_VARIANCE)] * 3 + [math.log(MAX_ROTATION_VARIANCE)] * 3
    low = torch.full((6,), math.log(MIN_VARIANCE), device="cpu")
    return low, torch.tensor(highest, device="cpu")


def below_diagonal() -> Tensor:
    """Returns (15, 36): `c @ it` puts 15 numbers, row by row, below the diagonal of a 6 x 6 matrix.

    A product with a constant, because ONNX has no simple operator that writes into a triangle.
    """
    rows, columns = torch.tril_indices(6, 6, offset=-1, device="cpu")
    scatter = torch.zeros(CORRELATIONS, 36, device="cpu")
    scatter[torch.arange(CORRELATIONS), rows * 6 + columns] = 1.0
    return scatter


def correlation_factor(correlation: Tensor, scatter: Tensor) -> Tensor:
    """Returns U (N, 6, 6): lower triangular, positive diagonal, rows of length 1.

    Args:
        correlation: (N, 15), any finite numbers; zeros give the identity.
        scatter: what `below_diagonal` returns.
    """
    bounded = MAX_SLOPE * torch.tanh(correlation / MAX_SLOPE)
    lower = (bounded @ scatter).unflatten(1, (6, 6)) + torch.eye(6).to(scatter)  # (N, 6, 6)
    return lower / lower.square().sum(dim=2, keepdim=True).sqrt()
