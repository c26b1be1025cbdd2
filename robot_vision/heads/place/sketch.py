"""Descriptors in few numbers, and a bound on how similar the whole ones can be.

With an orthonormal basis B of r directions, x . y = (x B) . (y B) + the product of what B leaves out, which
is at most the product of their lengths. Where that cannot reach what is looked for, the whole product of a
pair is not needed. Descriptors of places lie near few directions, so that nearly all pairs are ruled out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS = 4096  # that the directions are chosen on
_LEFT_OUT = 0.35  # share of the squared length that the directions may leave out
_LEAST_ROWS, _LEAST_GAIN = 16_384, 4
_ROUNDING = 1e-5  # of float32, over the product of the lengths


class Sketch:
    """Bounds on the similarity to rows (M, D) of a database, whose numbers are few.

    Args:
        rows: float32 (M, D).
        basis: float32 (D, r), orthonormal.
    """

    def __init__(self, rows: NDArray[np.float32], basis: NDArray[np.float32]) -> None:
        self._basis = basis
        self._rows = self._short(rows)

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> Sketch | None:
        """Returns a sketch that leaves little out; None where there is none that saves time."""
        count, size = rows.shape
        if count < _LEAST_ROWS:
            return None
        some = rows[np.linspace(0, count - 1, _ROWS).astype(np.intp)]
        square = float((some**2).sum())
        if not 0 < square < np.inf:
            return None
        # Directions from one half, what they leave out from the other.
        half, other = some[::2], some[1::2]
        values, vectors = np.linalg.eigh((half @ half.T).astype(np.float64))
        most = min(size // _LEAST_GAIN, int((values > 1e-6 * values[-1]).sum()))
        basis = (half.T @ vectors[:, ::-1][:, :most]) / np.sqrt(values[::-1][:most])
        found = np.cumsum(((other @ basis) ** 2).sum(axis=0)) / (other**2).sum()
        enough = np.flatnonzero(found >= 1 - _LEFT_OUT)
        if not len(enough):
            return None
        directions = np.linalg.qr(basis[:, : int(enough[0]) + 1])[0]
        return cls(rows, np.ascontiguousarray(directions, np.float32))

    def _short(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (n, r + 1): rows in the basis, and the length of what it leaves out."""
        short = np.empty((len(rows), self._basis.shape[1] + 1), np.float32)
        np.matmul(rows, self._basis, out=short[:, :-1])
        square = np.einsum("ij,ij->i", rows, rows)
        left = np.maximum(square - np.einsum("ij,ij->i", short[:, :-1], short[:, :-1]), 0)
        short[:, -1] = np.sqrt(left + _ROUNDING * square)
        return short

    def most(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (q, M): no row is more similar to x (q, D) than this."""
        return np.asarray(self._short(x) @ self._rows.T)
