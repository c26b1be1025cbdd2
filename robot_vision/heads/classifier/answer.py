"""What a classifier says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Hypothesis:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class Classification(Answer):
    """Calibrated class probabilities.

    Attributes:
        labels: class names (K).
        probabilities: float32 (K,), sums to 1.
        known_score: high for images like those trained on (`ClassifierSpec.score`).
        mutual_information: nats by which the head's several answers disagree (`EpistemicSpec`); None
            where it answers once.
        rarity: share of known images with a higher `known_score`, from the bundle's calibration; None
            where it has none.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {
        "probabilities": "probabilities",
        "known_score": "known_score",
    }

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    known_score: float
    mutual_information: float | None = None
    rarity: float | None = None

    @property
    def entropy(self) -> float:
        """Entropy of the probabilities in nats: all uncertainty, of whichever cause."""
        p = self.probabilities.astype(np.float64)
        return float(-(p * np.log(np.maximum(p, 1e-300))).sum())

    def top_k(self, k: int, unknown_threshold: float | None = None) -> list[Hypothesis]:
        """Returns the k most probable labels, most probable first; ties in the order of the labels.

        Below the threshold the first is `unknown` and k labels follow, as one distribution: whether a
        subscriber reads the first result or sorts by score, it gets `unknown`. Its score is the share of
        known images that look more familiar than this one (`rarity`), and at least one half: with a
        threshold that keeps 95 % of them it is at least 0.95. The labels share what that leaves of 1, by
        their probabilities given that it is one of them. Without a calibration `unknown` has what the best
        label leaves. Above the threshold its score is taken for zero.
        """
        order = np.argsort(-self.probabilities, kind="stable")[: max(k, 1)]
        best = [Hypothesis(self.labels[i], float(self.probabilities[i])) for i in order]
        if unknown_threshold is None or not self.known_score < unknown_threshold:
            return best
        rarity = 1.0 - best[0].score if self.rarity is None else self.rarity
        score, factor = score_of_unknown(rarity, 1.0)
        return [Hypothesis(UNKNOWN, score), *(Hypothesis(h.label, h.score * factor) for h in best)]


def score_of_unknown(score: float, others: float) -> tuple[float, float]:
    """Returns the score of `unknown` where it is the answer, and the factor of all other scores.

    Nothing that follows it may have a higher score, and all of them together are at most 1.

    Args:
        score: that it should have.
        others: sum of the scores of all others.
    """
    score = min(max(score, 0.5), 1.0)
    return score, min(1.0, (1.0 - score) / others) if others > 0 else 1.0
