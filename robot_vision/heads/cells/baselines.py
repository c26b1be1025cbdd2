"""Positions that are looked up among the training images: what cells are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.training import Features, Metrics
from robot_vision.heads.cells.evaluation import within_name
from robot_vision.heads.cells.ground import Ground
from robot_vision.heads.pose import baselines
from robot_vision.statistics.bootstrap import mean, quantiles, values


def most_similar(seen: Features, asked: Features, ground: Ground) -> dict[str, NDArray[np.float64]]:
    """Returns the position (N, D) of the most similar training image, for each way of pooling."""
    found: dict[str, Any] = baselines.most_similar(seen, asked)
    return {title: ground.positions(answer["position"]) for title, answer in found.items()}


def measured(positions: NDArray[np.float64], true: NDArray[np.float64], ground: Ground) -> Metrics:
    """Returns what can be said of positions (N, D) without probabilities."""
    error = ground.apart(positions, true)
    error = error[np.isfinite(error)]
    shares = np.stack([error <= radius for radius in ground.radii], axis=1)
    names = tuple(within_name(radius) for radius in ground.radii)
    return {
        **values(
            {names: mean(shares), ("median_m", "p90_m"): quantiles(error, (0.5, 0.9))}, len(error)
        ),
        "frames": len(error),
    }
