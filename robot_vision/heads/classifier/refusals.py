"""What the threshold for unknown images does, and by how much several answers to one image differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import UNKNOWN_LABEL, Scores
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.statistics.bootstrap import Headline, Resampler, mean, quantiles

Columns = dict[str, NDArray[Any]]


def score_uncertainty(frames: Predictions, threshold: float | None) -> Columns:
    """Returns the columns of `scores.COLUMNS` on the threshold and on several answers.

    Args:
        frames: of one recording; if they say what was called unknown, that counts.
        threshold: below this known score an image is called unknown; None where nothing is.
    """
    columns: Columns = {}
    if frames.kept is not None:
        columns["kept"] = np.where(np.isfinite(frames.kept), frames.kept == 1, -1)
    elif threshold is not None and frames.known_score is not None:
        score = np.asarray(frames.known_score, np.float64)
        columns["kept"] = np.where(np.isfinite(score), score >= threshold, -1)
    if frames.mutual_information is not None:
        columns["mutual_information"] = np.asarray(frames.mutual_information, np.float64)
    if frames.spread is not None:
        variances = np.diagonal(frames.spread, axis1=1, axis2=2).astype(np.float64)
        columns["spread_m"] = np.sqrt(variances[:, :3].sum(axis=1))
        columns["spread_deg"] = np.degrees(np.sqrt(variances[:, 3:].sum(axis=1)))
    return columns


def measure_uncertainty(scores: Scores, resampler: Resampler) -> dict[str, Any] | None:
    """Returns plain data; None where the model has no threshold and answers once.

    `kept` is the share of all frames that are not called unknown, `known_kept` that of frames of known
    classes, `unknown_refused` the share called unknown of frames whose true label the model does not know,
    and `kept_and_wrong` the share of frames of known classes that are kept and have a wrong class.
    `mutual_information` is its mean in nats, `spread_m` and `spread_deg` are medians.
    """
    found: dict[str, Headline] = {}
    there = np.zeros(len(scores), bool)
    label, kept = scores["true_label"], scores["kept"] == 1
    judged = scores["kept"] >= 0
    wrong = scores["predicted_label"] != label
    shares = {
        "kept": (kept, judged),
        "known_kept": (kept, judged & (label >= 0)),
        "unknown_refused": (~kept, judged & (label == UNKNOWN_LABEL)),
        "kept_and_wrong": (kept & wrong, judged & (label >= 0)),
    }
    for name, (values, rows) in shares.items():
        if rows.any():
            found.update(resampler.headlines({name: mean(values[rows])}, rows))
            there |= rows
    for name in ("mutual_information", "spread_m", "spread_deg"):
        rows = np.isfinite(scores[name])
        if rows.any():
            each = scores[name][rows]
            middle = mean(each) if name == "mutual_information" else quantiles(each, (0.5,))
            found.update(resampler.headlines({name: middle}, rows))
            there |= rows
    return {"frames": int(there.sum()), **found} if found else None
