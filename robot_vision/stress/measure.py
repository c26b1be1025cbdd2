"""What a model is worth under one degradation: accuracy, calibration, open set, pose and descriptor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.evaluation.association import Associated, associate
from robot_vision.evaluation.calibration import calibration_error, chi_squared_quantile
from robot_vision.evaluation.classification import label_indices, score_classes
from robot_vision.evaluation.columns import Predictions
from robot_vision.evaluation.openset import separation
from robot_vision.evaluation.pose import score_poses
from robot_vision.evaluation.truth import Truth
from robot_vision.geometry import matrix_from_xyzw, xyzw_from_matrix
from robot_vision.stress.degradations import kept_frames, rotation_of

ROLLS = "roll_deg"  # in the predictions' meta: by how much each frame was turned

# Metric to its title and what it says, in the order of tables.
METRICS: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "share of frames whose most probable class is right"),
    "ece": ("ECE", "expected calibration error, 15 bins"),
    "nll": ("NLL", "negative log likelihood, nats"),
    "confidence": ("confidence", "mean probability of the predicted class"),
    "kept": ("kept", "share of frames that the unknown threshold takes for known"),
    "wrong_and_kept": ("wrong and kept", "share of frames that are taken for known and are wrong"),
    "auroc_clean": (
        "AUROC good",
        "chance that the known score ranks a good frame above a worse one",
    ),
    "auroc_unknown": ("AUROC unknown", "chance that it ranks a known frame above an unknown one"),
    "mutual_information": ("mutual information", "mean over the frames, nats"),
    "median_m": ("median m", "position error"),
    "p95_m": ("p95 m", "position error"),
    "median_deg": ("median deg", "rotation error"),
    "sigma_m": ("sigma m", "median of what the covariance says of the position error"),
    "spread_m": ("spread m", "median of the part of it by which several answers differ"),
    "nees": ("NEES / ideal", "1 is honest, more is overconfident"),
    "coverage_95": ("coverage 95", "share of true poses in the 95 percent ellipsoid"),
    "similarity": ("similarity", "median cosine to the good frame's descriptor"),
}


@dataclass(frozen=True, eq=False)
class Reference:
    """What every condition is compared with.

    Attributes:
        predictions: of the good frames.
        truth: of the recording.
        threshold: below this known score a frame is unknown; None where the bundle has none.
    """

    predictions: Predictions
    truth: Truth
    threshold: float | None = None


def measure(
    predictions: Predictions, reference: Reference, unknown: Predictions | None = None
) -> dict[str, float]:
    """Returns the numbers of `METRICS` that there are.

    Args:
        predictions: under the condition.
        reference: without it.
        unknown: of the unknown frames, under the condition.
    """
    found = associate(predictions, reference.truth)
    frames = found.predictions
    good = reference.predictions
    numbers: dict[str, float] = {}
    if frames.probabilities is not None:
        numbers.update(_classes(found))
    if frames.known_score is not None:
        numbers.update(_open_set(found, reference, unknown))
    if frames.mutual_information is not None:
        numbers["mutual_information"] = float(np.nanmean(frames.mutual_information))
    if frames.position is not None and found.has_pose.any():
        numbers.update(_poses(found))
    if frames.descriptor is not None and good.descriptor is not None:
        row = {int(stamp): i for i, stamp in enumerate(good.stamps_ns)}
        both = [(i, row[int(s)]) for i, s in enumerate(frames.stamps_ns) if int(s) in row]
        mine, theirs = np.array(both, np.int64).reshape(-1, 2).T
        cosine = (frames.descriptor[mine] * good.descriptor[theirs]).sum(axis=1)
        numbers["similarity"] = float(np.median(cosine)) if len(cosine) else float("nan")
    return {name: numbers[name] for name in METRICS if np.isfinite(numbers.get(name, np.nan))}


def _classes(found: Associated) -> dict[str, float]:
    frames = found.predictions
    assert frames.probabilities is not None
    true = label_indices(found.labels, frames.labels)
    columns = score_classes(frames.probabilities, true)
    numbers = {"confidence": float(np.nanmean(columns["confidence"]))}
    rows = (true >= 0) & (columns["predicted_label"] >= 0)
    if not rows.any():
        return numbers
    right = (columns["predicted_label"] == true)[rows]
    confidence = columns["confidence"][rows]
    weights = np.ones((1, len(right)))
    numbers["accuracy"] = float(right.mean())
    numbers["ece"] = float(calibration_error(confidence, right)(weights)[0])
    smallest = np.finfo(np.float32).tiny
    numbers["nll"] = float(-np.log(np.maximum(columns["true_probability"][rows], smallest)).mean())
    return numbers


def _open_set(
    found: Associated, reference: Reference, unknown: Predictions | None
) -> dict[str, float]:
    frames = found.predictions
    assert frames.known_score is not None and frames.probabilities is not None
    true = label_indices(found.labels, frames.labels)
    known = true != -2  # a label that the model does not know
    score = np.asarray(frames.known_score, np.float64)
    numbers: dict[str, float] = {}
    if reference.threshold is not None:
        kept = score >= reference.threshold
        numbers["kept"] = float(kept[known].mean())
        wrong = frames.probabilities.argmax(axis=1) != true
        if (true >= 0).any():
            numbers["wrong_and_kept"] = float((kept & wrong)[true >= 0].mean())
    good = reference.predictions.known_score
    assert good is not None
    numbers["auroc_clean"] = auroc(np.asarray(good, np.float64), score[known])
    strange = [score[~known]]
    if unknown is not None and unknown.known_score is not None:
        strange.append(np.asarray(unknown.known_score, np.float64))
    numbers["auroc_unknown"] = auroc(score[known], np.concatenate(strange))
    return numbers


def auroc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Returns the chance that one of `high` is above one of `low`, ties counting half; NaN without both."""
    if not len(high) or not len(low):
        return float("nan")
    score = np.concatenate([high, low])
    known = np.arange(len(score)) < len(high)
    return float(separation(score, known)(np.ones((1, len(score))))[0, 0])


def _poses(found: Associated) -> dict[str, float]:
    frames = found.predictions
    assert frames.position is not None and frames.orientation_xyzw is not None
    xyzw = _turned(found)
    columns = score_poses(
        frames.position, frames.orientation_xyzw, frames.covariance, found.position, xyzw
    )
    error_m = columns["error_m"][np.isfinite(columns["error_m"])]
    numbers = {
        "median_m": float(np.median(error_m)),
        "p95_m": float(np.quantile(error_m, 0.95)),
        "median_deg": float(np.nanmedian(columns["error_deg"])),
    }
    if "nees" in columns and np.isfinite(columns["nees"]).any():
        nees = columns["nees"][np.isfinite(columns["nees"])]
        numbers["sigma_m"] = float(np.nanmedian(columns["sigma_m"]))
        numbers["nees"] = float(nees.mean() / 6)
        numbers["coverage_95"] = float((nees <= chi_squared_quantile(0.95, 6)).mean())
    if frames.spread is not None:
        variances = np.diagonal(frames.spread, axis1=1, axis2=2)[:, :3]
        numbers["spread_m"] = float(np.nanmedian(np.sqrt(variances.sum(axis=1))))
    return numbers


def _turned(found: Associated) -> NDArray[np.float64]:
    """The true orientations (N, 4), of frames that were turned about the optical axis too."""
    rolls = found.predictions.meta.get(ROLLS)
    if rolls is None:
        return found.xyzw
    turned = found.xyzw.copy()
    for i in np.flatnonzero(found.has_pose):
        rotation = matrix_from_xyzw(found.xyzw[i]) @ rotation_of(rolls[found.source_index[i]])
        turned[i] = xyzw_from_matrix(rotation)
    return turned


def held(predictions: Predictions, strength: float, seed: int) -> Predictions:
    """Returns what a robot goes by where frames do not come: for each frame the last one's answer.

    Args:
        predictions: of all frames.
        strength: percent of the frames that do not come.
        seed: of which.
    """
    order = np.argsort(predictions.stamps_ns, kind="stable")
    kept = kept_frames(len(order), strength, seed)
    last = np.maximum.accumulate(np.where(kept, np.arange(len(order)), 0))
    log = predictions.log_ns  # by which some labels are found: of the frame that did not come
    return replace(
        predictions.take(order[last]),
        stamps_ns=predictions.stamps_ns[order],
        log_ns=None if log is None else log[order],
    )
