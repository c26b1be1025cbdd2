"""Hypotheses of messages back to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import MeasurementError
from robot_vision.heads.classifier.answer import UNKNOWN

Array = NDArray[np.float64]

_ROUNDING = 1e-3  # of scores that somebody wrote with few digits


def from_hypotheses(
    labels: Sequence[str], results: Sequence[tuple[str, float]]
) -> tuple[Array, bool]:
    """Returns the probabilities of all K classes given that it is one of them, and whether it is `unknown`.

    What the list leaves of 1 is shared evenly by the classes that it lacks. It is `unknown` where that is the
    first or has the highest score; before the scores were one distribution, it had one of its own.

    Args:
        labels: of the K classes.
        results: label and score, in any order.

    Raises:
        MeasurementError: empty, a label that is not among the classes or there twice, a score that is no
            probability, or scores whose sum is above 1.
    """
    if not results:
        raise MeasurementError("shape", "the classification is empty")
    index = {label: i for i, label in enumerate(labels)}
    p, unknown = np.full(len(labels), np.nan), 0.0
    apart = UNKNOWN not in index
    seen: set[str] = set()
    for label, score in results:
        if label not in index and not (apart and label == UNKNOWN):
            raise MeasurementError(
                "shape", f"class {label!r} is not among those of the model: {', '.join(labels[:8])}"
            )
        if not 0 <= score <= 1 + _ROUNDING:
            raise MeasurementError("non_finite", f"class {label!r} has the score {score}")
        if label in seen:
            raise MeasurementError("shape", f"class {label!r} is listed twice")
        seen.add(label)
        if label in index:
            p[index[label]] = score
        else:
            unknown = score
    missing, total = np.isnan(p), float(np.nansum(p))
    if total > 1 + _ROUNDING:
        raise MeasurementError("non_finite", f"the scores of the classes have the sum {total:.4g}")
    refused = (
        UNKNOWN in seen
        and apart
        and (results[0][0] == UNKNOWN or unknown >= np.nanmax(p, initial=0.0))
    )
    left = 1.0 - unknown if total + unknown <= 1 + _ROUNDING else 1.0
    if missing.any():
        p[missing] = max(0.0, left - total) / int(missing.sum())
    if p.sum() <= 0:
        if not refused:
            raise MeasurementError("non_finite", "all scores are 0")
        p[:] = 1.0
    # Without `unknown` to the bit what was published: of scores that are equal none becomes the higher one.
    return np.asarray(p / p.sum() if unknown else p), refused
