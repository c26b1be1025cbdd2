"""Random recordings for the tests of the evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.truth.tracks import Truth

LABELS = ("kitchen", "hall", "office", "lab", "store", "stairs", "lobby")
QUICK = EvaluationSettings(resamples=60, place_exclude_s=1.0, rpe_delta_s=0.5)


def recording(
    name: str = "drive", n: int = 200, seed: int = 0, **changes: Any
) -> tuple[Predictions, Truth]:
    """Returns predictions that are right now and then, at 10 Hz along a smooth closed path."""
    rng = np.random.default_rng(seed)
    stamps = 1_700_000_000_000_000_000 + (np.arange(n) * 1e8).astype(np.int64)
    angle = np.linspace(0, 4 * np.pi, n)
    positions = np.stack([3 * np.cos(angle), 2 * np.sin(angle), 0.2 * np.sin(3 * angle)], 1)
    xyzw = canonical_xyzw(
        np.stack([0.1 * np.sin(angle), 0 * angle, np.sin(angle / 2), np.cos(angle / 2)], 1)
    )
    label = (np.arange(n) // 25) % len(LABELS)
    logits = rng.normal(size=(n, len(LABELS)))
    logits[np.arange(n), label] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    factor = rng.normal(size=(n, 6, 6)) * 0.05
    covariance = factor @ factor.transpose(0, 2, 1) + np.eye(6) * 0.01
    descriptor = np.concatenate([positions, xyzw, rng.normal(size=(n, 9)) * 0.5], axis=1)
    descriptor /= np.linalg.norm(descriptor, axis=1, keepdims=True)
    columns: dict[str, Any] = {
        "labels": LABELS,
        "probabilities": probabilities.astype(np.float32),
        "known_score": logits.max(1),
        "position": positions + rng.normal(size=(n, 3)) * 0.1,
        "orientation_xyzw": canonical_xyzw(xyzw + rng.normal(size=(n, 4)) * 0.03),
        "covariance": covariance,
        "descriptor": descriptor.astype(np.float32),
        "recording": name,
    }
    names = [LABELS[i] if i < 6 else "garden" for i in label]  # the last one is not known
    return Predictions(stamps, **{**columns, **changes}), Truth.of_arrays(
        stamps, names, positions, xyzw
    )
