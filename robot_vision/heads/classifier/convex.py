"""A linear softmax at the minimum of its loss: convex on fixed features, so that no epoch is chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Inverse strengths of L2 that are tried, on features of variance 1, from the strongest; C of scikit-learn.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
MOST = 300_000_000  # images x features x classes: beyond, epochs are cheaper than the folds
# Up to so many, threads wait for one another longer than they compute, and in a machine that is busy for
# a hundred times as long.
_SMALL = 30_000_000

Loss = Callable[[Tensor, Tensor], Tensor]


class Softmax(NamedTuple):
    """Logits are `x @ weight.T + bias`: float64 (K, C) and (K,)."""

    weight: Tensor
    bias: Tensor


def fit_softmax(
    x: Tensor,
    labels: Tensor,
    classes: int,
    strength: float,
    loss: Loss,
    start: Softmax | None = None,
) -> Softmax:
    """Minimises the mean loss plus `|weight|^2 / (2 strength N)` by L-BFGS.

    Args:
        x: float64 (N, C), of variance 1.
        labels: int64 (N,).
        classes: K.
        strength: see `STRENGTHS`.
        loss: of logits (N, K) and labels: a mean over the samples, convex in the logits.
        start: to begin with; zeros else.
    """
    from scipy.optimize import minimize  # of training: robots need none

    begin = start or Softmax(x.new_zeros(classes, x.shape[1]), x.new_zeros(classes))

    def parts(numbers: NDArray[np.float64]) -> Softmax:
        given = torch.from_numpy(numbers).to(x.device)
        weight, bias = given.split((classes * x.shape[1], classes))
        return Softmax(weight.reshape(classes, -1), bias)

    def value_and_slope(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = [part.requires_grad_() for part in parts(numbers)]
        with torch.enable_grad():
            total = loss(x @ at[0].T + at[1], labels)
            total = total + at[0].square().sum() / (2 * strength * len(x))
            slopes = torch.autograd.grad(total, at)
        return float(total.detach()), torch.cat([slope.flatten() for slope in slopes]).cpu().numpy()

    first = torch.cat([part.flatten() for part in begin]).cpu().numpy()
    options = {"maxiter": 300, "gtol": 1e-6, "ftol": 1e-10}
    found = minimize(value_and_slope, first, jac=True, method="L-BFGS-B", options=options)
    return parts(found.x)


def solve_softmax(
    x: Tensor, labels: Tensor, classes: int, folds: NDArray[np.int64], loss: Loss
) -> tuple[Softmax, Tensor, float]:
    """Fits on features as they are, with the strength of L2 that is best for images left out.

    Args:
        x: (N, C).
        labels: int64 (N,).
        classes: K.
        folds: (N,), which images are left out together.
        loss: see `fit_softmax`.

    Returns:
        The softmax, the logits (N, K) of each image by a fit without it, and the strength.
    """
    x = x.double()
    left_out = x.new_zeros(len(STRENGTHS), len(x), classes)
    with _threads_for(x.numel() * classes):
        for fold in np.unique(folds):
            asked = torch.from_numpy(folds == fold)
            rows = ~asked if bool((~asked).any()) else asked  # a single fold has no other
            seen, own = x[rows], labels[rows]
            shift, scale = _scaling(seen)
            seen, basis = _in_its_span((seen - shift) / scale)
            others = (x[asked] - shift) / scale
            if basis is not None:
                others = others @ basis
            found = None
            for i, strength in enumerate(STRENGTHS):
                found = fit_softmax(seen, own, classes, strength, loss, found)
                left_out[i, asked] = others @ found.weight.T + found.bias
        likelihood = [float(F.cross_entropy(logits, labels)) for logits in left_out]
        best = int(np.argmin(likelihood))
        shift, scale = _scaling(x)
        seen, basis = _in_its_span((x - shift) / scale)
        found = fit_softmax(seen, labels, classes, STRENGTHS[best], loss)
    weight = (found.weight if basis is None else found.weight @ basis.T) / scale
    return Softmax(weight, found.bias - weight @ shift), left_out[best], STRENGTHS[best]


def _in_its_span(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns samples (N, C) in a basis (C, N) of their span, in which the minimum lies.

    As they are, and None, where a sample has no more numbers than there are samples.
    """
    if x.shape[1] <= len(x):
        return x, None
    basis = torch.linalg.qr(x.T).Q
    return x @ basis, basis


@contextlib.contextmanager
def _threads_for(size: int) -> Iterator[None]:
    """Computes in one thread what is small."""
    before = torch.get_num_threads()
    if size <= _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scaling(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each feature; 1 for one that does not vary."""
    scale = x.std(dim=0, correction=0)
    return x.mean(dim=0), torch.where(scale > 1e-6, scale, torch.ones_like(scale))
