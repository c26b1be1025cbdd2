"""What bundle.yaml says of a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

REFERENCES = "open_set.npy"  # features of known images
KNOWN_SCORES = ("max_probability", "max_logit", "energy", "knn", "mahalanobis")
FEATURE_SCORES = ("knn", "mahalanobis")  # these compare features with those of known images
LOGIT_SCORES = tuple(score for score in KNOWN_SCORES if score not in FEATURE_SCORES)


@dataclass(frozen=True)
class ClassifierSpec:
    """The classifier head: dropout, then a linear layer on the tap's pooled features.

    Attributes:
        labels: class names in the order of the network's outputs (kept in `labels.txt`).
        tap: the backbone's feature tap; empty for the backbone's default.
        dropout: probability while training.
        temperature: logits are divided by it before the softmax (Guo et al. 2017, eq. 9).
        score: what `known_score` is: high for images like those trained on.
        unknown_threshold: below this `known_score` the answer is `unknown`; None never says so.
        feature_size: numbers in `features`, which the graph gives in place of `known_score` where the
            score needs them (`FEATURE_SCORES`); 0 else.
    """

    KIND: ClassVar[str] = "classifier"

    labels: tuple[str, ...]
    tap: str = ""
    dropout: float = 0.0
    temperature: float = 1.0
    score: str = "max_probability"
    unknown_threshold: float | None = None
    feature_size: int = 0

    def __post_init__(self) -> None:
        require(len(self.labels) >= 2, "number of labels", len(self.labels), "at least 2")
        require(len(set(self.labels)) == len(self.labels), "labels", self.labels, "all different")
        bad = [label for label in self.labels if not label.strip() or "\n" in label]
        require(not bad, "label", bad[:1], "a non-empty single line")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(
            self.temperature > 0 and math.isfinite(self.temperature),
            "temperature",
            self.temperature,
            "positive and finite",
        )
        if self.score not in KNOWN_SCORES:
            raise ConfigError(unknown("score", self.score, KNOWN_SCORES))
        require(0 <= self.feature_size <= 1 << 16, "feature_size", self.feature_size, "0 to 2^16")
