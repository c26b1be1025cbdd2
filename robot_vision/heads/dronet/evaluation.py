"""The measures of DroNet's paper: root mean square error and explained variance, accuracy, F1; AUROC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.dronet.answer import COLLIDES
from robot_vision.statistics.bootstrap import Statistic, Weights, mean, root_mean_square
from robot_vision.statistics.separation import separation

Numbers = NDArray[np.float64]


def steering_statistics(said: Numbers, true: Numbers) -> dict[str, Statistic]:
    """Returns `rmse` and `explained_variance`: 1 - Var(true - said) / Var(true)."""
    error = true - said
    moments = mean(np.stack([error, error**2, true, true**2], axis=1))

    def explained(w: Weights) -> Numbers:
        m = moments(w)
        return 1 - (m[:, 1] - m[:, 0] ** 2) / (m[:, 3] - m[:, 2] ** 2)

    return {"rmse": root_mean_square(error), "explained_variance": explained}


def collision_statistics(probability: Numbers, true: Numbers) -> dict[str, Statistic]:
    """Returns `accuracy` and `f1` of collisions, said from a probability of one half on, and `auroc`.

    That is the chance that an image with a collision has a higher probability than one without, ties
    counting half: it does not depend on where collisions begin to be said.
    """
    said, is_true = probability >= COLLIDES, true >= COLLIDES
    cases = np.stack([said & is_true, said != is_true], axis=1).astype(np.float64)

    def f1(w: Weights) -> Numbers:
        found = w @ cases
        return np.asarray(2 * found[:, 0] / (2 * found[:, 0] + found[:, 1]), np.float64)

    apart = separation(probability, is_true)

    def auroc(w: Weights) -> Numbers:
        if not len(is_true):
            return np.full(len(w), np.nan)
        return np.asarray(apart(w)[:, 0], np.float64)

    return {"accuracy": mean(said == is_true), "f1": f1, "auroc": auroc}


def random_steering(true: Numbers, count: int, seed: int = 0) -> Numbers:
    """Returns numbers of a normal distribution with mean and deviation of the true ones."""
    drawn = np.random.default_rng(seed).normal(true.mean(), true.std(), count)
    return np.asarray(drawn, np.float64)


def random_collision(count: int, seed: int = 0) -> Numbers:
    """Returns 0 and 1 equally often."""
    return np.random.default_rng(seed).integers(0, 2, count).astype(np.float64)
