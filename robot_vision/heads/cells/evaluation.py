"""Numbers on probabilities of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.cells.ground import EARTH_RADII, RADII, Earth, Ground
from robot_vision.statistics.bootstrap import Statistic, mean, quantiles
from robot_vision.statistics.reliability import calibration_error

# A true cell of probability 0 would make the mean infinite, whatever the other frames say.
SMALLEST_PROBABILITY = 1e-12
_CHUNK_NUMBERS = 1_000_000

Array = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


def true_cells(positions: Array, ground: Ground) -> tuple[NDArray[np.int64], Array]:
    """Returns the cell (N,) that holds a position, else the nearest one, and how far it is: 0 in it.

    Args:
        positions: (N, D), places on the ground; NaN where there is none, which is in cell -1.
        ground: of the cells.
    """
    found, away = np.full(len(positions), -1, np.int64), np.full(len(positions), np.nan)
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    for rows in np.array_split(known, len(known) * len(ground.sides_m) // _CHUNK_NUMBERS + 1):
        found[rows], away[rows] = ground.nearest(positions[rows])
    return found, away


def score_cells(probabilities: NDArray[Any], ground: Ground, positions: Array) -> Columns:
    """Returns the columns of `judging.ROWS` on cells.

    Args:
        probabilities: (N, K); rows that are not finite have no prediction.
        ground: of the cells.
        positions: (N, D), true places on it; NaN where there is none.
    """
    n = len(probabilities)
    said = np.asarray(np.isfinite(probabilities).all(axis=1))
    true, away = true_cells(positions, ground)
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
                "cell_error_km",
            )
        },
    }
    rows = np.flatnonzero(said)
    for part in np.array_split(rows, len(rows) * len(ground.sides_m) // _CHUNK_NUMBERS + 1):
        p = np.asarray(probabilities[part], np.float64)
        best = p.argmax(axis=1)
        columns["cell"][part] = best
        columns["cell_confidence"][part] = p.max(axis=1)
        columns["cell_entropy"][part] = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        of_true = p[np.arange(len(part)), np.maximum(true[part], 0)]
        columns["true_cell_probability"][part] = np.where(true[part] >= 0, of_true, np.nan)
        for word, place in (
            ("cell_error_m", ground.centres[best]),
            ("expected_error_m", ground.expected(p)),
        ):
            columns[word][part] = ground.apart(place, positions[part])
    if isinstance(ground, Earth):
        columns["cell_error_km"] = columns["cell_error_m"] / 1000
    return columns


def within_name(radius_m: float) -> str:
    """Returns such as `within_0.5m` and `within_25km`."""
    return f"within_{radius_m / 1e3:g}km" if radius_m >= 1e3 else f"within_{radius_m:g}m"


def shares(error_m: Array, radii: Sequence[float]) -> dict[str | tuple[str, ...], Statistic]:
    """Returns the share of frames within each radius, by its name."""
    hits = np.stack([error_m <= radius for radius in radii], axis=1)
    return {tuple(within_name(radius) for radius in radii): mean(hits)}


def far_shares(c: Mapping[str, NDArray[Any]]) -> dict[str | tuple[str, ...], Statistic]:
    """Returns the share of frames within kilometres, of cells on the earth."""
    return shares(1000 * c["cell_error_km"], EARTH_RADII)


def statistics(c: Mapping[str, NDArray[Any]]) -> dict[str | tuple[str, ...], Statistic]:
    """Returns the headline numbers of columns, all of whose frames have an answer and a true position."""
    error, right = c["cell_error_m"], c["cell"] == c["true_cell"]
    nll = -np.log(np.maximum(c["true_cell_probability"], SMALLEST_PROBABILITY))
    together = np.stack([nll, right, c["cell_distance_m"] == 0, c["cell_entropy"]], axis=1)
    return {
        **shares(error, RADII),
        ("median_m", "p90_m"): quantiles(error, (0.5, 0.9)),
        "expected_median_m": quantiles(c["expected_error_m"], (0.5,)),
        ("nll", "top1", "covered", "entropy"): mean(together),
        "ece": calibration_error(c["cell_confidence"], right),
    }
