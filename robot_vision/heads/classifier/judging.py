"""How classifiers are judged: classes, known or unknown, the threshold, doubt of several answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.metrics import (
    Baseline,
    Columns,
    Frames,
    Gallery,
    Judge,
    Mask,
    Metric,
    Part,
    Section,
    Shown,
    Statistics,
    never,
    same_labels,
)
from robot_vision.contract.rows import UNKNOWN_LABEL, RowColumn, Rows
from robot_vision.heads.classifier import figures
from robot_vision.heads.classifier.evaluation import score_classes, statistics
from robot_vision.statistics.bootstrap import Resampler, mean, plain
from robot_vision.statistics.paired import Bound, PairedEvidence
from robot_vision.statistics.reliability import reliability, risk_coverage
from robot_vision.statistics.separation import TRUE_POSITIVE_RATE, separation

ROWS = {
    "predicted_label": RowColumn("<i8", 1, "index of the most probable class", label=True),
    "label_rank": RowColumn("<i8", 1, "how many classes come before the true one"),
    "confidence": RowColumn("<f8", 1, "probability of the predicted class", identity=True),
    "true_probability": RowColumn("<f8", 1, "probability of the true class"),
    "brier": RowColumn(
        "<f8", 1, "squared distance of probabilities and truth, from 0 to 2", identity=True
    ),
    "known_score": RowColumn("<f8", 1, "high for images like those trained on", identity=True),
    "kept": RowColumn(
        "<i8",
        1,
        "1: the known score reaches the model's threshold; 0: called unknown",
        optional=True,
    ),
    "mutual_information": RowColumn("<f8", 1, "of several answers, nats", optional=True),
}

AGREEMENT, LOST = 0.97, 0.02  # of a program with float32, and of right answers by it
_SEPARATIONS = ("auroc", "aupr_known", "aupr_unknown", "fpr_at_95_tpr")


def score_refusals(
    columns: Mapping[str, NDArray[Any]], threshold: float | None
) -> dict[str, NDArray[Any]]:
    """Returns the rows' columns on the threshold and on several answers.

    Args:
        columns: of the predictions; if they say what was called unknown (`kept`), that counts.
        threshold: below this known score an image is called unknown; None where nothing is.
    """
    found: Columns = {}
    if "kept" in columns:
        found["kept"] = np.where(np.isfinite(columns["kept"]), columns["kept"] == 1, -1)
    elif threshold is not None and "known_score" in columns:
        score = np.asarray(columns["known_score"], np.float64)
        found["kept"] = np.where(np.isfinite(score), score >= threshold, -1)
    for word in ("known_score", "mutual_information"):
        if word in columns:
            found[word] = np.asarray(columns[word], np.float64)
    return found


# Classes


def _classified(rows: Rows) -> Mask:
    return np.asarray((rows["true_label"] >= 0) & (rows["predicted_label"] >= 0))


def _class_statistics(rows: Rows, mask: Mask) -> Statistics:
    words = (
        "true_label",
        "predicted_label",
        "label_rank",
        "confidence",
        "true_probability",
        "brier",
    )
    return statistics({word: rows[word][mask] for word in words})


def _class_prior(rows: Rows, mask: Mask) -> Statistics:
    true = rows["true_label"][mask]
    prior = np.bincount(true, minlength=len(rows.labels)) / max(len(true), 1)
    classes, which = np.unique(true, return_inverse=True)
    each = score_classes(np.tile(prior, (len(classes), 1)), classes)
    return statistics({name: v[which] for name, v in {**each, "true_label": classes}.items()})


def _class_details(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    mask, count = _classified(rows), len(rows.labels)
    true, said, confidence = (
        rows[word][mask] for word in ("true_label", "predicted_label", "confidence")
    )
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (true, said), 1)
    return {
        "per_class": _per_class(rows.labels, confusion),
        "confusion": {"rows": "true", "columns": "predicted", "counts": confusion.tolist()},
        "reliability": reliability(confidence, said == true),
        "risk_coverage": risk_coverage(confidence, said == true),
    }


def _per_class(labels: Sequence[str], confusion: NDArray[np.int64]) -> list[dict[str, Any]]:
    true, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    return [
        {
            "label": label,
            "frames": int(true[i]),
            "predicted": int(predicted[i]),
            "recall": plain(hits[i] / true[i]) if true[i] else None,
            "precision": plain(hits[i] / predicted[i]) if predicted[i] else None,
        }
        for i, label in enumerate(labels)
    ]


def _surest_mistakes(rows: Rows) -> list[Shown]:
    """Returns frames that the network is most sure of and wrong about."""
    said, true, confidence = rows["predicted_label"], rows["true_label"], rows["confidence"]
    wrong = _classified(rows) & (said != true)
    order = np.argsort(-np.where(wrong, confidence, -np.inf), kind="stable")
    return [
        Shown(
            i,
            (
                f"said {rows.labels[said[i]]} ({confidence[i]:.2f})",
                f"is {rows.labels[true[i]]} (given {rows['true_probability'][i]:.2f})",
            ),
        )
        for i in rows.apart(order[: int(wrong.sum())], 6)
    ]


CLASSIFICATION = Section(
    "classification",
    "Classification",
    "How often the most probable class is the true one, and whether probabilities mean what they say. "
    "The class prior always answers with the shares of the classes.",
    (
        Metric("top1", "Top-1 accuracy", "%"),
        Metric("top5", "Top-5 accuracy", "%", more_classes_than=5),
        Metric("macro_recall", "Macro recall", "%"),
        Metric("macro_precision", "Macro precision", "%"),
        Metric("nll", "Negative log likelihood", "", False),
        Metric("brier", "Brier score", "", False),
        Metric("ece", "Expected calibration error", "%", False),
        Metric("aurc", "Area under risk-coverage", "", False),
    ),
    (Part(_classified, _class_statistics, same_labels),),
    {
        "class_prior": Baseline(
            "class prior", "always the shares of the classes in these very frames", _class_prior
        )
    },
    lambda rows, mask: {"frames": int(mask.sum()), "labels": list(rows.labels)},
    details=_class_details,
    figures=figures.classes,
    galleries=(Gallery("Surest mistakes", _surest_mistakes),),
    headline="top-1 {top1}",
)


# Known or unknown


def _told_apart(rows: Rows) -> Mask:
    """Which frames have a known score and a label, if there are both known and unknown ones."""
    label = rows["true_label"]
    mask = np.isfinite(rows["known_score"]) & ((label >= 0) | (label == UNKNOWN_LABEL))
    known = label[mask] >= 0
    return np.asarray(mask & (known.any() and not known.all()))


def _separation(word: str) -> Callable[[Rows, Mask], Statistics]:
    return lambda rows, mask: {
        _SEPARATIONS: separation(rows[word][mask], rows["true_label"][mask] >= 0)
    }


def _chance(rows: Rows, mask: Mask) -> Statistics:
    share = float((rows["true_label"][mask] >= 0).mean())
    return dict(zip(_SEPARATIONS, (0.5, share, 1 - share, TRUE_POSITIVE_RATE), strict=True))


OPEN_SET = Section(
    "open_set",
    "Known or unknown",
    "Whether the known score tells images of known classes from all others.",
    (
        Metric("auroc", "AUROC", "%"),
        Metric("aupr_known", "AUPR, known", "%"),
        Metric("aupr_unknown", "AUPR, unknown", "%"),
        Metric("fpr_at_95_tpr", "False positives at 95 % true positives", "%", False),
    ),
    (Part(_told_apart, _separation("known_score")),),
    {
        "chance": Baseline("chance", "a score that knows nothing", _chance),
        "max_probability": Baseline(
            "max. probability",
            "the probability of the predicted class as the score (Hendrycks and Gimpel 2017)",
            _separation("confidence"),
        ),
    },
    lambda rows, mask: {
        "known": int((rows["true_label"][mask] >= 0).sum()),
        "unknown": int((rows["true_label"][mask] < 0).sum()),
    },
    shown=lambda numbers: int(numbers["known"] + numbers["unknown"]),
    figures=lambda rows, numbers: [figures.known_score_histogram(rows)],
)


# The threshold, and several answers


def _share(
    key: str, hit: Callable[[Rows], Mask], frames: Callable[[NDArray[np.int64]], Mask]
) -> Part:
    return Part(
        lambda rows: np.asarray((rows["kept"] >= 0) & frames(rows["true_label"])),
        lambda rows, mask: {key: mean(hit(rows)[mask])},
        never,
        optional=True,
    )


def _known(label: NDArray[np.int64]) -> Mask:
    return np.asarray(label >= 0)


def _kept(rows: Rows) -> Mask:
    return np.asarray(rows["kept"] == 1)


UNCERTAINTY = Section(
    "uncertainty",
    "Unknown images, and several answers to one",
    "What the model's own threshold calls unknown, and by how much its answers to one image differ where "
    "it answers several times.",
    (
        Metric("kept", "Kept, of all frames", "%"),
        Metric("known_kept", "Kept, of known classes", "%"),
        Metric("unknown_refused", "Called unknown, of other labels", "%"),
        Metric("kept_and_wrong", "Kept and wrong", "%", False),
        Metric("mutual_information", "Mean mutual information", "nats", False),
    ),
    (
        _share("kept", _kept, lambda label: np.ones(len(label), bool)),
        _share("known_kept", _kept, _known),
        _share("unknown_refused", lambda rows: ~_kept(rows), lambda label: label == UNKNOWN_LABEL),
        _share(
            "kept_and_wrong",
            lambda rows: _kept(rows) & (rows["predicted_label"] != rows["true_label"]),
            _known,
        ),
        Part(
            lambda rows: np.isfinite(rows["mutual_information"]),
            lambda rows, mask: {"mutual_information": mean(rows["mutual_information"][mask])},
            never,
            optional=True,
        ),
    ),
)


class ClassifierJudge(Judge):
    """Judges classes by true labels."""

    truth: ClassVar[frozenset[str]] = frozenset({"label"})
    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS

    def facts(self, spec: Any) -> dict[str, Any]:
        return {"labels": list(spec.labels), "unknown_threshold": spec.unknown_threshold}

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        return {
            **score_classes(frames.columns["probabilities"], frames.truth.label),
            **score_refusals(frames.columns, facts.get("unknown_threshold")),
        }

    def sections(self) -> Sequence[Section]:
        return (CLASSIFICATION, OPEN_SET, UNCERTAINTY)

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds which answers change, and which right ones are lost, also by being called unknown."""
        asked, known = float32["predicted_label"] >= 0, _classified(float32)
        other = program["predicted_label"] != float32["predicted_label"]
        right, still = (
            (rows["predicted_label"] == rows["true_label"]) & (rows["kept"] != 0)
            for rows in (float32, program)
        )
        return {
            "lost": evidence.at_most(right & ~still, known, LOST),
            "agreement": evidence.at_least(other, asked, AGREEMENT, "first class agrees on {:.3f}"),
        }

    def said(self, rows: Rows) -> list[str]:
        """Returns which classes the network saw most often."""
        said = rows["predicted_label"][rows["predicted_label"] >= 0]
        if len(said) == 0 or (rows["true_label"] >= 0).any():
            return []
        classes, counts = np.unique(said, return_counts=True)
        lines = []
        for i in np.argsort(-counts, kind="stable")[:8]:
            confidence = rows["confidence"][rows["predicted_label"] == classes[i]].mean()
            lines.append(
                f"{rows.labels[classes[i]]}: {100 * counts[i] / len(said):.1f} % of the frames, "
                f"mean probability {float(confidence):.2f}"
            )
        return lines
