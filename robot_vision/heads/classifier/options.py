"""How answers of a classifier are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassifierOptions:
    """Settings of node and command line.

    Attributes:
        top_k: labels of an answer.
        unknown_threshold: below this known score the answer is `unknown`; NaN for the model's own.
        known_share: of known images that shall not be called unknown; 0 for the model's own threshold.
    """

    top_k: int = 3
    unknown_threshold: float = math.nan
    known_share: float = 0.0
