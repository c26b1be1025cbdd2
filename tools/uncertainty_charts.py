"""Charts of docs/uncertainty_results.md; `uncertainty_results.py` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.svg import Chart
from robot_vision.statistics.bootstrap import Resampler, mean
from robot_vision.statistics.normal import chi_squared_quantile

NOMINAL = np.array([*np.arange(5, 100, 5), 99]) / 100
COLOURS = ("c0", "c1", "c2", "c3", "c5")

Array = NDArray[np.float64]


def coverage(
    nees: Mapping[str, Array], resampler: Resampler
) -> tuple[str, dict[str, dict[str, list[float]]]]:
    """Returns a chart of how many true poses lie in the ellipsoid of each nominal share, and its numbers.

    Args:
        nees: name to e^T C^-1 e (N,) of six degrees of freedom.
        resampler: over the N poses; its intervals are drawn as bands.
    """
    chart = Chart(
        "Kitchen poses: coverage of the ellipsoids", "nominal share", "share inside", (0, 1), (0, 1)
    )
    bounds = np.array([chi_squared_quantile(p, 6) for p in NOMINAL])
    names = tuple(f"{round(100 * p)}" for p in NOMINAL)
    numbers = {}
    for (name, values), colour in zip(nees.items(), COLOURS, strict=False):
        found = resampler.headlines({names: mean(values[:, None] <= bounds)})
        rows = np.array([[found[n][k] for k in ("value", "low", "high")] for n in names], float)
        chart.band(NOMINAL, rows[:, 1], rows[:, 2], colour)
        chart.line(NOMINAL, rows[:, 0], colour, name)
        numbers[name] = {n: row.tolist() for n, row in zip(names, rows, strict=True)}
    chart.line([0, 1], [0, 1], "c4", "honest", "dashed")
    return chart.render(), numbers


def errors_of_blocks(
    title: str, unit: str, error: Sequence[Array], sigma: Sequence[Array], names: Sequence[str]
) -> str:
    """Returns a chart of each error against the stated deviation, a colour for each block.

    Args:
        title: of the chart.
        unit: of both axes.
        error: of each block, (n,).
        sigma: root of the trace of the covariance's block; with it the mean square of honest errors agrees.
        names: of the blocks.
    """
    far = 1.05 * max(float(np.max(v)) for v in (*error, *sigma))
    wide = 1.05 * max(float(np.max(v)) for v in sigma)
    chart = Chart(title, f"stated ({unit})", f"error ({unit})", (0, wide), (0, far))
    chart.line([0, wide], [0, wide], "c4", "", "dashed")
    for e, s, name, colour in zip(error, sigma, names, COLOURS, strict=False):
        chart.points(s, e, colour, name)
    return chart.render()


def matches(rows: Sequence[tuple[float, float, float, float, int]]) -> str:
    """Returns a reliability diagram of place probabilities.

    Args:
        rows: of each bin the mean probability, the share right, the interval of it, and how many matches.
    """
    chart = Chart(
        "Kitchen places: probability of the best match", "stated", "share right", (0, 1), (0, 1)
    )
    chart.line([0, 1], [0, 1], "c4", "honest", "dashed")
    total = sum(row[4] for row in rows)
    for i, (stated, right, low, high, count) in enumerate(rows):
        chart.line([stated, stated], [low, high], "c0", "" if i else "95 % interval")
        radius = 2.5 + 7 * float(np.sqrt(count / total))
        chart.points(np.array([stated]), np.array([right]), "c0", radius=radius)
    return chart.render()
