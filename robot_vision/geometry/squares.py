"""Squares along two axes of the map: cells of a position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PLANES = {"xy": (0, 1), "xz": (0, 2), "yz": (1, 2)}  # to the axes of the map


def centres(cells: Array) -> Array:
    """Returns the centre (K, 2) of cells (K, 4)."""
    return (cells[:, :2] + cells[:, 2:]) / 2


def distances(positions: Array, cells: Array) -> Array:
    """Returns how far positions (N, 2) are from cells (K, 4): (N, K), metres, 0 in a cell."""
    p = np.asarray(positions, np.float64)[:, None]
    beyond = np.maximum(np.maximum(cells[:, :2] - p, p - cells[:, 2:]), 0.0)  # (N, K, 2)
    return np.asarray(np.hypot(beyond[..., 0], beyond[..., 1]))
