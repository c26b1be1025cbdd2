"""From predictions and truth to numbers, in two steps.

`score_recording` compares the frames of one recording with the truth: a row of numbers each (`scores`).
`summarise` turns the rows of any number of recordings into metrics: plain data, ready for JSON. A number
with an interval is `{"value", "low", "high"}`; None stands where there is no such number. The layout:

    schema, schema_version, settings, frames, labels, heads
    recordings      [name, frames, start_ns, end_ns, association, meta]
    association     summed over the recordings
    bootstrap       method, block_frames, block_s, blocks, resamples, seed, confidence
    classification  frames, top1, top5, macro_recall, macro_precision, nll, brier, ece, aurc, per_class,
                    confusion, reliability, risk_coverage, baselines.class_prior
    open_set        known, unknown, auroc, aupr_known, aupr_unknown, fpr_at_95_tpr, baselines
    uncertainty     frames, kept, known_kept, unknown_refused, kept_and_wrong, mutual_information, spread_m,
                    spread_deg
    pose            frames, median_m, p90_m, mean_m, median_deg, p90_deg, mean_deg, within_0.05m_2deg, ...,
                    covariance.{nees,nees_position,nees_rotation}, baselines
    trajectory      recordings: alignments.{none,se3,sim3}.{ate,rpe}
    place           queries, answerable, recall_at_1, ..., average_precision, recall_at_100_precision,
                    precision_recall, distance_error, retrieved_pose, matches, baselines.chance

A part for which there was nothing is None. docs/evaluation.md explains every number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import COLUMNS, Scores, empty_columns, joined, label_indices
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.association import Associated, associate
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rotations import mean_pose
from robot_vision.heads.classifier.evaluation import (
    measure_classes,
    measure_open_set,
    score_classes,
)
from robot_vision.heads.classifier.refusals import measure_uncertainty, score_uncertainty
from robot_vision.heads.place.evaluation import Views, measure_places, score_places
from robot_vision.heads.pose.evaluation import measure_poses, score_poses
from robot_vision.heads.pose.trajectory_errors import measure_trajectories
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.settings import EvaluationSettings
from robot_vision.text.counts import counted
from robot_vision.truth.tracks import Truth

SCHEMA = "robot_vision.evaluation"
SCHEMA_VERSION = 1

Metrics = dict[str, Any]


@dataclass(frozen=True, eq=False)
class PlaceReference:
    """A mapping recording, whose images places are looked up in.

    Attributes:
        predictions: with descriptors.
        truth: with poses.
    """

    predictions: Predictions
    truth: Truth

    @cached_property
    def views(self) -> Views:
        """Its frames, in the order of their stamps.

        Raises:
            ConfigError: it has no descriptors or no poses.
        """
        found = associate(self.predictions, self.truth)
        if found.predictions.descriptor is None or not found.has_pose.any():
            what = "descriptors" if found.predictions.descriptor is None else "true poses"
            raise ConfigError(
                f"The mapping recording {self.predictions.recording!r} has no {what}: places cannot be "
                "looked up in it"
            )
        return _views(found)


def score_recording(
    predictions: Predictions,
    truth: Truth,
    settings: EvaluationSettings | None = None,
    reference: PlaceReference | None = None,
    unknown_threshold: float | None = None,
) -> Scores:
    """Compares the frames of one recording with the truth.

    Args:
        predictions: of the recording.
        truth: of the same.
        settings: what counts as the same place.
        reference: a map; None looks places up in the recording itself.
        unknown_threshold: of the model; None for one that calls nothing unknown.

    Raises:
        ConfigError: the truth asks for something that was not predicted at all.
        SourceError: truth and frames have no time in common.
    """
    settings = settings or EvaluationSettings()
    found = associate(predictions, truth)
    frames = found.predictions
    n = len(frames)
    columns = empty_columns(n)
    columns["stamps_ns"], columns["source_index"] = frames.stamps_ns, found.source_index
    columns["true_position"], columns["true_xyzw"] = found.position, found.xyzw
    heads = []
    columns["true_label"] = label_indices(found.labels, frames.labels)
    if frames.probabilities is not None:
        heads.append("classifier")
        columns.update(score_classes(frames.probabilities, columns["true_label"]))
        if frames.known_score is not None:
            columns["known_score"] = np.asarray(frames.known_score, np.float64)
    if frames.position is not None and frames.orientation_xyzw is not None:
        heads.append("pose")
        columns.update(
            score_poses(
                frames.position,
                frames.orientation_xyzw,
                frames.covariance,
                found.position,
                found.xyzw,
            )
        )
    columns.update(score_uncertainty(frames, unknown_threshold))
    extra: dict[str, Any] = {}
    if frames.descriptor is not None:
        heads.append("place")
        own = _views(found)
        database = own
        if reference is not None:
            database = reference.views
            if database.descriptor.shape[1] != own.descriptor.shape[1]:
                raise ConfigError(
                    f"Descriptors of {predictions.recording!r} have {own.descriptor.shape[1]} numbers, "
                    f"those of the map {database.descriptor.shape[1]}: use one model for both"
                )
        columns.update(score_places(own, database, settings, reference is None))
    if reference is not None:
        extra = _map_facts(reference)
    _require_heads(found, heads, truth)
    unknown_labels = _unknown_labels(found, frames.labels)
    recording = {
        "name": predictions.recording,
        "frames": n,
        "start_ns": int(frames.stamps_ns[0]) if n else None,
        "end_ns": int(frames.stamps_ns[-1]) if n else None,
        "association": {**found.counts, "truth_refused": dict(truth.refused)},
        "truth": [*truth.notes, *_unknown_note(unknown_labels, frames.labels)],
        "unknown_labels": unknown_labels,
        "meta": predictions.meta,
    }
    typed = {name: np.asarray(columns[name], dtype) for name, (dtype, _, _) in COLUMNS.items()}
    return Scores(typed, (recording,), frames.labels, tuple(heads), reference is not None, extra)


def _views(found: Associated) -> Views:
    descriptor: NDArray[Any] | None = found.predictions.descriptor
    assert descriptor is not None
    return Views(descriptor, found.position, found.xyzw, found.predictions.stamps_ns)


def _map_facts(reference: PlaceReference) -> dict[str, Any]:
    views = reference.views
    there = np.isfinite(views.position[:, 0])
    position, xyzw = mean_pose(views.position[there], views.xyzw[there])
    return {
        "map": {
            "name": reference.predictions.recording,
            "frames": len(there),
            "meta": reference.predictions.meta,
        },
        "map_mean_pose": [*position.tolist(), *xyzw.tolist()],
    }


def _unknown_labels(found: Associated, labels: tuple[str, ...]) -> dict[str, int]:
    return dict(Counter(n for n in found.labels if n is not None and n not in labels))


def _unknown_note(unknown: dict[str, int], labels: tuple[str, ...]) -> list[str]:
    if not unknown or not labels:
        return []
    shown = ", ".join(
        f"{name} ({counted(count, 'frame')})" for name, count in sorted(unknown.items())[:5]
    )
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return [
        f"true labels that the model does not know count as unknown: {shown}{more}; it knows "
        f"{', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}"
    ]


def _require_heads(found: Associated, heads: list[str], truth: Truth) -> None:
    if truth.labels is not None and "classifier" not in heads and truth.poses is None:
        raise ConfigError(
            f"The truth of {found.predictions.recording!r} has labels, and the model has no classifier head: "
            "give poses, or a model that classifies"
        )
    if truth.poses is not None and not {"pose", "place"} & set(heads) and truth.labels is None:
        raise ConfigError(
            f"The truth of {found.predictions.recording!r} has poses, and the model has neither a pose nor "
            "a place head: give labels, or a model that has one"
        )


def summarise(scores: Scores, settings: EvaluationSettings | None = None) -> Metrics:
    """Returns the metrics of rows; see the module's text for their layout."""
    settings = settings or EvaluationSettings()
    resampler = Resampler(scores["stamps_ns"], scores.bounds, settings)
    counts = [r["association"] for r in scores.recordings]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "settings": settings.to_dict(),
        "frames": len(scores),
        "labels": list(scores.labels),
        "heads": list(scores.heads),
        "recordings": [dict(r) for r in scores.recordings],
        "association": _summed(counts),
        "map": scores.extra.get("map"),
        "bootstrap": resampler.describe(),
        "classification": measure_classes(scores, resampler),
        "open_set": measure_open_set(scores, resampler),
        "uncertainty": measure_uncertainty(scores, resampler),
        "pose": measure_poses(scores, resampler),
        "trajectory": measure_trajectories(scores, settings),
        "place": measure_places(scores, resampler),
    }


def _summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns nested counts, added up."""
    total: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, Mapping):
                total[key] = _summed([total.get(key, {}), dict(value)])
            else:
                total[key] = total.get(key, 0) + value
    return total


def evaluate_frames(
    predictions: Predictions,
    truth: Truth,
    settings: EvaluationSettings | None = None,
    reference: PlaceReference | None = None,
) -> Metrics:
    """Returns the metrics of one recording; see `score_recording` and `summarise`."""
    return summarise(score_recording(predictions, truth, settings, reference), settings)


def evaluate_recordings(
    recordings: list[tuple[Predictions, Truth]],
    settings: EvaluationSettings | None = None,
    reference: PlaceReference | None = None,
) -> Metrics:
    """Returns the metrics of all frames of several recordings together."""
    parts = [score_recording(p, t, settings, reference) for p, t in recordings]
    return summarise(joined(parts), settings)
