"""What can be set of how a classifier's answers are shown and published."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_vision.settings.parameters import LIVE, parameter


@dataclass(frozen=True)
class ClassifierOptions:
    """Settings of perception node and command line; each field's text is its documentation."""

    top_k: int = parameter(
        3,
        "Number of classes in a classification, most probable first.",
        low=1,
        high=1000,
        change=LIVE,
    )
    unknown_threshold: float = parameter(
        math.nan,
        "Images with a known score below this are classified as unknown; .nan takes the model's own"
        " threshold, -.inf never says unknown.",
        change=LIVE,
    )
    known_share: float = parameter(
        0.0,
        "Share of images of known classes that should not be called unknown, such as 0.95. The "
        "threshold then comes from the model's calibration, if unknown_threshold is .nan. 0 uses "
        "the model's own threshold.",
        low=0.0,
        high=0.995,
        change=LIVE,
    )


OPTIONS = ClassifierOptions
