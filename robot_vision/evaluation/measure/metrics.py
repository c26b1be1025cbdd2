"""From predictions and truth to numbers, in two steps.

`score_recording` compares the frames of one recording with the truth: a row of numbers each.
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

Parts of a head under another name than its kind carry the name (`lights.classification`). A part for which
there was nothing is None. docs/evaluation.md explains every number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from robot_vision.contract import registry
from robot_vision.contract.head import Head
from robot_vision.contract.metrics import (
    Frames,
    FrameTruth,
    Judge,
    Reference,
    Section,
    image_words,
    measure,
)
from robot_vision.contract.rows import (
    TRUE_LABEL,
    Rows,
    Scores,
    heads_of,
    label_indices,
    table,
)
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.association import Associated, associate
from robot_vision.evaluation.predict.columns import UNJUDGED, Predictions
from robot_vision.files.array_stream import Stream
from robot_vision.geometry.rotations import mean_pose
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.text.counts import counted
from robot_vision.truth.tracks import LABEL, POSE, Truth

SCHEMA = "robot_vision.evaluation"
SCHEMA_VERSION = 1

_BLOCK = 1024  # frames that are scored at a time

Metrics = dict[str, Any]
Bound = Sequence[tuple[Head[Any, Any], Any]]  # heads with their settings, as `NetworkSpec.bound`


@dataclass(frozen=True, eq=False)
class PlaceReference:
    """A mapping recording, whose images answers are looked up in.

    Attributes:
        predictions: of it.
        truth: with poses.
    """

    predictions: Predictions
    truth: Truth

    @cached_property
    def found(self) -> Associated:
        """Its frames, in the order of their stamps.

        Raises:
            ConfigError: it has no poses.
        """
        found = associate(self.predictions, self.truth)
        if not found.has_pose.any():
            raise self.lacks("true poses")
        return found

    def lacks(self, what: str) -> ConfigError:
        """Returns why nothing can be looked up in it."""
        return ConfigError(
            f"The mapping recording {self.predictions.recording!r} has no {what}: places cannot be looked "
            "up in it"
        )

    def frames(self, head: Head[Any, Any], judge: Judge) -> Reference:
        """Returns it as a head sees it.

        Raises:
            ConfigError: it lacks what the head said.
        """
        frames = _frames(self.found, head, ())
        missing = [word for word in judge.needs if word not in frames.columns]
        if missing:
            raise self.lacks(f"{missing[0]}s")
        return Reference(self.predictions.recording, frames)

    def facts(self) -> dict[str, Any]:
        """Returns plain data: which map it is, and the mean of its poses."""
        found = self.found
        position, xyzw = mean_pose(found.positions[found.has_pose], found.xyzw[found.has_pose])
        return {
            "map": {
                "name": self.predictions.recording,
                "frames": len(found.positions),
                "meta": self.predictions.meta,
            },
            "map_mean_pose": [*position.tolist(), *xyzw.tolist()],
        }


def score_recording(
    predictions: Predictions,
    truth: Truth,
    settings: EvaluationSettings | None = None,
    reference: PlaceReference | None = None,
    bound: Bound = (),
) -> Scores:
    """Compares the frames of one recording with the truth.

    Args:
        predictions: of the recording.
        truth: of the same.
        settings: what counts as the same place.
        reference: a map; None looks places up in the recording itself.
        bound: the model's heads with their settings; without them the package's own, as far as they said
            something, but for those that say something of each pixel.

    Raises:
        ConfigError: the truth asks for something that was not predicted at all.
        SourceError: truth and frames have no time in common.
    """
    settings = settings or EvaluationSettings()
    found = associate(predictions, truth)
    frames, n = found.predictions, len(found.predictions)
    facts = {head.name: head.judge().facts(spec) for head, spec in bound}
    named = {
        head.name: {"kind": head.kind, **facts[head.name]}
        for head, _ in bound
        if head.name not in registry.BUILT_IN or _rows_depend(head.judge(), facts[head.name])
    }
    columns = {name: column.empty(n) for name, column in table(tuple(named), named).items()}
    columns["stamps_ns"], columns["source_index"] = frames.stamps_ns, found.source_index
    columns["true_position"], columns["true_xyzw"] = found.positions, found.xyzw
    columns[TRUE_LABEL] = label_indices(found.labels, frames.labels)
    judged: dict[str, Judge] = {}
    unbound: list[str] = []
    for head in heads_of(tuple(named), named):
        judge, own = head.judge(), named.get(head.name, {})
        of_frames = LABEL in judge.truth  # a head that names pixels has labels too
        labels = tuple(own.get("labels", frames.labels)) if of_frames else frames.labels
        part = _frames(found, head, labels)
        if any(word not in part.columns for word in judge.needs):
            continue
        if head.name not in facts and any(isinstance(part.columns[w], Stream) for w in judge.needs):
            unbound.append(head.name)
            continue
        judged[head.name] = judge
        if of_frames:
            columns[head.key(TRUE_LABEL)] = part.truth.label
        looked_up_in = reference.frames(head, judge) if reference and judge.reference else None
        recording = judge.begin(facts.get(head.name, {}), settings.of(head.kind), looked_up_in)
        for start in range(0, max(n, 1), _BLOCK):
            recording.add(part.taken(slice(start, start + _BLOCK)))
        rows = recording.finish()
        columns.update({head.key(word): column for word, column in rows.items()})
    if reference is not None and not any(judge.reference for judge in judged.values()):
        raise reference.lacks("answers of this model that are looked up")
    _require_heads(found, judged.values(), truth)
    unknown_labels = dict(
        Counter(n for n in found.labels if n is not None and n not in frames.labels)
    )
    facts_of_recording = {
        "name": predictions.recording,
        "frames": n,
        "start_ns": int(frames.stamps_ns[0]) if n else None,
        "end_ns": int(frames.stamps_ns[-1]) if n else None,
        "association": {**found.counts, "truth_refused": dict(truth.refused)},
        "truth": [
            *truth.notes,
            *_unread(found),
            *_unknown_note(unknown_labels, frames.labels),
            *(UNJUDGED.format(name) for name in unbound),
        ],
        "unknown_labels": unknown_labels,
        "meta": predictions.meta,
    }
    named = {name: own for name, own in named.items() if name in judged}
    types = table(tuple(judged), named)
    return Scores(
        {name: np.asarray(columns[name], column.dtype) for name, column in types.items()},
        (facts_of_recording,),
        frames.labels,
        tuple(judged),
        reference is not None,
        reference.facts() if reference else {},
        named,
    )


def _rows_depend(judge: Judge, facts: Mapping[str, Any]) -> bool:
    """Whether the columns of a head's rows follow from its settings, such as one a class."""
    return dict(judge.rows(facts)) != dict(judge.rows({}))


def _frames(found: Associated, head: Head[Any, Any], labels: tuple[str, ...]) -> Frames:
    """Returns frames as a head sees them: what it said, and what is true of that."""
    names = found.labels if head.name == head.kind else found.others.get(head.name)
    true = label_indices(names or [None] * len(found.positions), labels)
    given = {w: found.images[n] for w, n in image_words(head).items() if n in found.images}
    positions = found.positions
    if head.judge().oriented:
        positions = np.where(found.has_pose[:, None], positions, np.nan)
    truth = FrameTruth(true, positions, found.xyzw, head.own(found.numbers), given)
    return Frames(found.predictions.stamps_ns, head.own(found.predictions.columns), truth)


def _unread(found: Associated) -> list[str]:
    return [
        f"{counted(len(images.unread), 'true image')} of {name} cannot be read: "
        f"{next(iter(images.unread.values()))}"
        for name, images in found.images.items()
        if images.unread
    ]


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


def _require_heads(found: Associated, judges: Iterable[Judge], truth: Truth) -> None:
    there = _what(truth.words)
    if len(there) != 1 or any(there & _what(judge.truth) for judge in judges):
        return
    (word,) = there
    kinds = [kind for kind in registry.BUILT_IN if word in _what(registry.head(kind).judge().truth)]
    lacks = f"neither a {' nor a '.join(kinds)} head"
    if len(kinds) < 2:
        lacks = f"no {kinds[0] if kinds else 'such'} head"
    other = "labels" if word == POSE else "poses"
    raise ConfigError(
        f"The truth of {found.predictions.recording!r} has {word}s, and the model has {lacks}: give {other}, "
        "or a model that has one"
    )


def _what(words: Iterable[str]) -> set[str]:
    """Returns which kinds of truth words of truth are."""
    return {word.partition(":")[0] for word in words}


def sections_of(
    scores: Scores, settings: EvaluationSettings | None = None
) -> dict[str, list[tuple[Rows, Section]]]:
    """Returns the sections of metrics.json by key, each with the rows as its heads see them."""
    found: dict[str, list[tuple[Rows, Section]]] = {}
    for rows in scores.each():
        if settings is not None:
            rows = replace(rows, settings=settings.of(rows.head.kind))
        for section in rows.head.judge().sections():
            found.setdefault(rows.head.key(section.key), []).append((rows, section))
    return found


def summarise(scores: Scores, settings: EvaluationSettings | None = None) -> Metrics:
    """Returns the metrics of rows; see the module's text for their layout."""
    settings = settings or EvaluationSettings()
    resampler = Resampler(scores["stamps_ns"], scores.bounds, settings)
    counts = [r["association"] for r in scores.recordings]
    metrics = {
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
    }
    if scores.facts:
        metrics["kinds"] = {name: own["kind"] for name, own in scores.facts.items()}
    for key, given in sections_of(scores, settings).items():
        metrics[key] = measure(given, resampler)
    return metrics


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
