"""Numbers on probabilities of cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.squares import centres, distances
from robot_vision.heads.cells.answer import RADII
from robot_vision.statistics.bootstrap import Statistic, mean, quantiles
from robot_vision.statistics.reliability import calibration_error

# A true cell of probability 0 would make the mean infinite, whatever the other frames say.
SMALLEST_PROBABILITY = 1e-12
_CHUNK_NUMBERS = 1_000_000

Array = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


def true_cells(positions: Array, cells: Array) -> tuple[NDArray[np.int64], Array]:
    """Returns the cell (N,) that holds a position, else the nearest one, and how far it is: 0 in it.

    Args:
        positions: (N, 2), metres; NaN where there is none, which is in cell -1.
        cells: (K, 4).
    """
    found, away = np.full(len(positions), -1, np.int64), np.full(len(positions), np.nan)
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    for rows in np.array_split(known, len(known) * len(cells) // _CHUNK_NUMBERS + 1):
        d = distances(positions[rows], cells)
        found[rows], away[rows] = d.argmin(axis=1), d.min(axis=1)
    return found, away


def score_cells(probabilities: NDArray[Any], cells: Array, positions: Array) -> Columns:
    """Returns the columns of `judging.ROWS` on cells.

    Args:
        probabilities: (N, K); rows that are not finite have no prediction.
        cells: (K, 4), metres.
        positions: (N, 2), true ones along the axes of the cells' plane; NaN where there is none.
    """
    middles, n = centres(cells), len(probabilities)
    said = np.asarray(np.isfinite(probabilities).all(axis=1))
    true, away = true_cells(positions, cells)
    none = np.full(n, np.nan)
    columns: Columns = {
        "cell": np.full(n, -1, np.int64),
        "true_cell": true,
        "cell_distance_m": away,
        **{
            word: none.copy()
            for word in (
                "cell_confidence",
                "true_cell_probability",
                "cell_error_m",
                "expected_error_m",
                "cell_entropy",
            )
        },
    }
    rows = np.flatnonzero(said)
    for part in np.array_split(rows, len(rows) * len(cells) // _CHUNK_NUMBERS + 1):
        p = np.asarray(probabilities[part], np.float64)
        best = p.argmax(axis=1)
        columns["cell"][part] = best
        columns["cell_confidence"][part] = p.max(axis=1)
        columns["cell_entropy"][part] = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        of_true = p[np.arange(len(part)), np.maximum(true[part], 0)]
        columns["true_cell_probability"][part] = np.where(true[part] >= 0, of_true, np.nan)
        for word, place in (("cell_error_m", middles[best]), ("expected_error_m", p @ middles)):
            columns[word][part] = np.linalg.norm(place - positions[part], axis=1)
    return columns


def within_name(radius_m: float) -> str:
    """Returns such as `within_0.5m`."""
    return f"within_{radius_m:g}m"


def statistics(c: Mapping[str, NDArray[Any]]) -> dict[str | tuple[str, ...], Statistic]:
    """Returns the headline numbers of columns, all of whose frames have an answer and a true position."""
    error, right = c["cell_error_m"], c["cell"] == c["true_cell"]
    shares = np.stack([error <= radius for radius in RADII], axis=1)
    nll = -np.log(np.maximum(c["true_cell_probability"], SMALLEST_PROBABILITY))
    together = np.stack([nll, right, c["cell_distance_m"] == 0, c["cell_entropy"]], axis=1)
    return {
        tuple(within_name(radius) for radius in RADII): mean(shares),
        ("median_m", "p90_m"): quantiles(error, (0.5, 0.9)),
        "expected_median_m": quantiles(c["expected_error_m"], (0.5,)),
        ("nll", "top1", "covered", "entropy"): mean(together),
        "ece": calibration_error(c["cell_confidence"], right),
    }
