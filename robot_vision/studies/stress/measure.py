"""What a model is worth under one degradation: accuracy, calibration, open set, pose and descriptor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import UNKNOWN_LABEL, label_indices
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.association import Associated, associate
from robot_vision.evaluation.measure.metrics import Bound
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rigid import matrix_from_xyzw, xyzw_from_matrix
from robot_vision.heads.classifier.evaluation import score_classes
from robot_vision.heads.pose.evaluation import score_poses
from robot_vision.statistics.bootstrap import Headline, Resampler, Statistic, mean, quantiles
from robot_vision.statistics.normal import chi_squared_quantile
from robot_vision.statistics.reliability import calibration_error
from robot_vision.statistics.separation import separation
from robot_vision.studies.stress.degradations import kept_frames, rotation_of
from robot_vision.studies.stress.pixels import measure_pixels, titles
from robot_vision.truth.tracks import Truth

Statistics = Mapping[Any, Statistic]  # by a name of `METRICS`, or by several
Part = tuple[Statistics, NDArray[np.bool_]]  # with the frames that they are of

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


QUICK = EvaluationSettings(resamples=0)


@dataclass(frozen=True, eq=False)
class StressReference:
    """What every condition is compared with.

    Attributes:
        predictions: of the good frames.
        truth: of the recording.
        threshold: below this known score a frame is unknown; None where the bundle has none.
        in_order: whether neighbours follow each other in time, and so are resampled in blocks.
    """

    predictions: Predictions
    truth: Truth
    threshold: float | None = None
    in_order: bool = True

    def resampler(self, *stamps_ns: NDArray[np.int64], settings: EvaluationSettings) -> Resampler:
        """Returns a bootstrap over the frames of one or more recordings, one after another."""
        ends = np.cumsum([len(part) for part in stamps_ns]).tolist()
        times = np.concatenate(stamps_ns)
        if not self.in_order:  # so far apart that each is a block of its own
            times = np.arange(len(times)) * round(100e9 * settings.block_s)
        return Resampler(times, list(zip([0, *ends[:-1]], ends, strict=True)), settings)


def measure(
    predictions: Predictions, reference: StressReference, unknown: Predictions | None = None
) -> dict[str, float]:
    """Returns the numbers of `METRICS` that there are; see `measure_intervals`."""
    found = measure_intervals(predictions, reference, unknown, QUICK)
    return {name: float(v["value"]) for name, v in found.items() if v["value"] is not None}


def measure_intervals(
    predictions: Predictions,
    reference: StressReference,
    unknown: Predictions | None = None,
    settings: EvaluationSettings | None = None,
    bound: Bound = (),
) -> dict[str, Headline]:
    """Returns the numbers of `METRICS` and of `pixels.titles` that there are, with their intervals.

    Args:
        predictions: under the condition.
        reference: without it.
        unknown: of the unknown frames, under the condition.
        settings: of the bootstrap.
        bound: the model's heads with their settings, for those that say something of each pixel.
    """
    settings = settings or EvaluationSettings()
    found = associate(predictions, reference.truth)
    frames = found.predictions
    resampler = reference.resampler(frames.stamps_ns, settings=settings)
    numbers: dict[str, Headline] = {}

    def add(statistics: Statistics, rows: NDArray[np.bool_]) -> None:
        numbers.update(resampler.headlines(dict(statistics), rows))

    if frames.probabilities is not None:
        for statistics, rows in _classes(found):
            add(statistics, rows)
    if frames.known_score is not None:
        for statistics, rows in _open_set(found, reference):
            add(statistics, rows)
        numbers["auroc_unknown"] = _apart(found, reference, unknown, settings)
    if frames.mutual_information is not None:
        information = frames.mutual_information
        rows = np.isfinite(information)
        add({"mutual_information": mean(information[rows])}, rows)
    if frames.position is not None and found.has_pose.any():
        for statistics, rows in _poses(found):
            add(statistics, rows)
    if frames.descriptor is not None and reference.predictions.descriptor is not None:
        theirs, rows = _good_rows(frames, reference)
        cosine = (frames.descriptor[rows] * reference.predictions.descriptor[theirs]).sum(axis=1)
        add({"similarity": quantiles(cosine, (0.5,))}, rows)
    rolls = frames.meta.get(ROLLS)
    turned = None if rolls is None else [rolls[i] for i in found.source_index]
    numbers |= measure_pixels(frames, reference.truth, resampler, settings, bound, turned)
    empty: Headline = {"value": None, "low": None, "high": None}
    return {
        name: numbers[name]
        for name in (*METRICS, *titles(bound, reference.truth))
        if numbers.get(name, empty)["value"] is not None
    }


def _good_rows(
    frames: Predictions, reference: StressReference
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the good predictions' rows of those frames (mask) that have one."""
    row = {int(stamp): i for i, stamp in enumerate(reference.predictions.stamps_ns)}
    theirs = np.array([row.get(int(s), -1) for s in frames.stamps_ns], np.int64)
    return theirs[theirs >= 0], theirs >= 0


def _classes(found: Associated) -> Iterator[Part]:
    frames = found.predictions
    assert frames.probabilities is not None
    true = label_indices(found.labels, frames.labels)
    columns = score_classes(frames.probabilities, true)
    said = np.isfinite(columns["confidence"])
    yield {"confidence": mean(columns["confidence"][said])}, said
    rows = (true >= 0) & (columns["predicted_label"] >= 0)
    right = (columns["predicted_label"] == true)[rows]
    smallest = np.finfo(np.float32).tiny
    yield (
        {
            "accuracy": mean(right),
            "ece": calibration_error(columns["confidence"][rows], right),
            "nll": mean(-np.log(np.maximum(columns["true_probability"][rows], smallest))),
        },
        rows,
    )


def _open_set(found: Associated, reference: StressReference) -> Iterator[Part]:
    frames = found.predictions
    assert frames.known_score is not None and frames.probabilities is not None
    true = label_indices(found.labels, frames.labels)
    score = np.asarray(frames.known_score, np.float64)
    known = true != UNKNOWN_LABEL
    if reference.threshold is not None:
        kept = score >= reference.threshold
        yield {"kept": mean(kept[known])}, known
        wrong = frames.probabilities.argmax(axis=1) != true
        yield {"wrong_and_kept": mean((kept & wrong)[true >= 0])}, true >= 0
    theirs, both = _good_rows(frames, reference)
    good = reference.predictions.known_score
    assert good is not None
    rows = both & known
    if not rows.any():  # no frame shows what the model knows
        return
    pair = np.concatenate([np.asarray(good, np.float64)[theirs][known[both]], score[rows]])
    high = np.arange(len(pair)) < len(pair) // 2
    whole = separation(pair, high)  # a frame counts as often here as there
    yield {"auroc_clean": lambda w: whole(np.concatenate([w, w], axis=1))[:, 0]}, rows


def _apart(
    found: Associated,
    reference: StressReference,
    unknown: Predictions | None,
    settings: EvaluationSettings,
) -> Headline:
    """How well the score tells known frames from unknown ones, of the recording and of the others."""
    frames = found.predictions
    stamps, scores = [frames.stamps_ns], [np.asarray(frames.known_score, np.float64)]
    known = [label_indices(found.labels, frames.labels) != UNKNOWN_LABEL]
    if unknown is not None and unknown.known_score is not None:
        stamps.append(np.sort(unknown.stamps_ns))
        order = np.argsort(unknown.stamps_ns, kind="stable")
        scores.append(np.asarray(unknown.known_score, np.float64)[order])
        known.append(np.zeros(len(unknown), bool))
    is_known = np.concatenate(known)
    if is_known.all() or not is_known.any():
        return {"value": None, "low": None, "high": None}
    each = separation(np.concatenate(scores), is_known)
    resampler = reference.resampler(*stamps, settings=settings)
    return resampler.headlines({"auroc": lambda w: each(w)[:, 0]})["auroc"]


def auroc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Returns the chance that one of `high` is above one of `low`, ties counting half; NaN without both."""
    if not len(high) or not len(low):
        return float("nan")
    score = np.concatenate([high, low])
    known = np.arange(len(score)) < len(high)
    return float(separation(score, known)(np.ones((1, len(score))))[0, 0])


def _poses(found: Associated) -> Iterator[Part]:
    frames = found.predictions
    assert frames.position is not None and frames.orientation_xyzw is not None
    xyzw = _turned(found)
    columns = score_poses(
        frames.position, frames.orientation_xyzw, frames.covariance, found.positions, xyzw
    )
    rows = np.isfinite(columns["error_m"])
    yield (
        {
            ("median_m", "p95_m"): quantiles(columns["error_m"][rows], (0.5, 0.95)),
            "median_deg": quantiles(columns["error_deg"][rows], (0.5,)),
        },
        rows,
    )
    if "nees" in columns:
        rows = np.isfinite(columns["nees"])
        nees = columns["nees"][rows]
        yield (
            {
                "nees": mean(nees / 6),
                "coverage_95": mean(nees <= chi_squared_quantile(0.95, 6)),
            },
            rows,
        )
        rows = np.isfinite(columns["sigma_m"])
        yield {"sigma_m": quantiles(columns["sigma_m"][rows], (0.5,))}, rows
    if frames.spread is not None:
        variances = np.diagonal(frames.spread, axis1=1, axis2=2)[:, :3]
        spread = np.sqrt(variances.sum(axis=1))
        rows = np.isfinite(spread)
        yield {"spread_m": quantiles(spread[rows], (0.5,))}, rows


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
