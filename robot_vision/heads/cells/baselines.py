"""Positions that are looked up among the training images: what cells are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.training import Features, Metrics
from robot_vision.heads.cells.answer import RADII
from robot_vision.heads.cells.evaluation import within_name
from robot_vision.heads.pose import baselines
from robot_vision.statistics.bootstrap import mean, quantiles, values


def most_similar(
    seen: Features, asked: Features, axes: list[int]
) -> dict[str, NDArray[np.float64]]:
    """Returns the position (N, 2) of the most similar training image, for each way of pooling."""
    found: dict[str, Any] = baselines.most_similar(seen, asked)
    return {title: answer["position"][:, axes] for title, answer in found.items()}


def measured(positions: NDArray[np.float64], true: NDArray[np.float64]) -> Metrics:
    """Returns what can be said of positions (N, 2) without probabilities."""
    error = np.linalg.norm(positions - true, axis=1)
    error = error[np.isfinite(error)]
    shares = np.stack([error <= radius for radius in RADII], axis=1)
    names = tuple(within_name(radius) for radius in RADII)
    return {
        **values(
            {names: mean(shares), ("median_m", "p90_m"): quantiles(error, (0.5, 0.9))}, len(error)
        ),
        "frames": len(error),
    }
