"""Makes class probabilities true, and sets the threshold below which an image is called unknown."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers, left_alone
from robot_vision.contract.rows import label_indices
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.evaluation import score_classes, statistics
from robot_vision.heads.classifier.graph_scores import put_score
from robot_vision.heads.classifier.known_scores import (
    fit_references,
    logit_score,
    make_scorer,
)
from robot_vision.heads.classifier.spec import (
    FEATURE_SCORES,
    KNOWN_SCORES,
    REFERENCES,
    ClassifierSpec,
)
from robot_vision.settings.declared import option
from robot_vision.statistics.bootstrap import Headline, Resampler, mean
from robot_vision.statistics.judging import cross_fit
from robot_vision.statistics.known_scores import KnownScores, threshold_at
from robot_vision.statistics.separation import separation
from robot_vision.statistics.temperature import (
    at_limit,
    changed_classes,
    judged_temperature,
    log_probabilities,
)
from robot_vision.text.counts import counted

# With fewer images one wrong answer moves the accuracy by more than one per cent.
MIN_LABELLED = 100
_SEPARATION = ("auroc", "aupr_known", "aupr_unknown", "fpr_at_95_tpr")
_BEYOND = 5  # images that must lie beyond the threshold


@dataclass(frozen=True)
class CalibrationOptions:
    """How the threshold of unknown images is set."""

    # In docs/uncertainty_results.md no score is the best everywhere, and on average they hardly differ; this
    # one is in the graph, and needs no features of training images.
    score: str = option(
        "energy", "score that tells known from unknown images", choices=KNOWN_SCORES
    )
    keep: float = option(0.95, "share of known images that should not be called unknown")

    def __post_init__(self) -> None:
        if not 0.5 <= self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: use a share from 0.5 to below 1, such as 0.95")


class ClassifierFitter(Fitter[ClassifierSpec]):
    """See `Fitter`."""

    parts: ClassVar[tuple[str, ...]] = ("classifier", "open_set")
    Options = CalibrationOptions
    inner: ClassVar[tuple[str, ...]] = ("logits", "logit_samples", "features")
    titles: ClassVar[dict[str, str]] = {
        "ece": "expected calibration error",
        "nll": "negative log likelihood",
        "brier": "Brier score",
        "top1": "accuracy",
        "share_kept": "known images kept",
        "auroc": "AUROC, known and unknown",
        "aupr_known": "AUPR, known",
        "aupr_unknown": "AUPR, unknown",
        "fpr_at_95_tpr": "unknown kept at 95 % known",
    }

    def truth(self, part: str) -> str:
        return "label" if self.head.name == self.head.kind else f"label:{self.head.name}"

    def knows(self, spec: ClassifierSpec, value: Any) -> bool:
        return value in spec.labels

    def compares(self, part: str, options: CalibrationOptions) -> bool:
        return part == "open_set" and options.score in FEATURE_SCORES

    def notes(self, spec: ClassifierSpec, model: str, truth: Sequence[Any]) -> list[str]:
        counts = Counter(label for label in truth if label is not None)
        strange = {name: n for name, n in counts.most_common() if name not in spec.labels}
        unseen = [name for name in spec.labels if name not in counts]
        notes = []
        if strange:
            notes.append(
                f"{counted(sum(strange.values()), 'image has a label', 'images have labels')} that {model} "
                f"does not know ({_some([f'{name}: {n}' for name, n in strange.items()])}): nothing is "
                "fitted on them, and the open set's numbers count them as unknown images; if a class is only "
                f"spelled differently, rename it (it knows {_some(spec.labels)})"
            )
        if unseen:
            notes.append(
                f"no image shows {_some(unseen)}, which {model} knows: its answers about them were not "
                "checked"
            )
        return notes

    def fit(self, part: str, material: Fit[ClassifierSpec], options: CalibrationOptions) -> Fitted:
        return (self._fit_open_set if part == "open_set" else self._fit_classes)(material, options)

    def _labels(self, material: Fit[ClassifierSpec]) -> NDArray[np.int64]:
        return label_indices(material.truth, material.spec.labels)

    def _logits(self, material: Fit[ClassifierSpec]) -> NDArray[np.float64]:
        """Returns logits (N, K), or those of several answers (N, S, K)."""
        found = material.outputs.get(self.key("logit_samples"))
        return np.asarray(
            material.outputs[self.key("logits")] if found is None else found, np.float64
        )

    def tune(self, material: Fit[ClassifierSpec]) -> Fitted:
        labels = self._labels(material)
        rows = labels >= 0
        z = self._logits(material)
        before = np.exp(log_probabilities(z[rows]))
        fitted, _, judgement = judged_temperature(
            z[rows], labels[rows], material.folds[rows], material.units[rows], before
        )
        return Fitted.tuned(fitted, judgement, int(rows.sum()))

    def _fit_classes(self, material: Fit[ClassifierSpec], options: CalibrationOptions) -> Fitted:
        labels, z, spec = self._labels(material), self._logits(material), material.spec
        rows = labels >= 0
        self.require(
            "classifier", int(rows.sum()), MIN_LABELLED, "images with a label of the model"
        )
        now = float(material.constants["temperature"])
        before = np.asarray(material.outputs[self.key("probabilities")], np.float64)[rows]
        true = labels[rows]
        fitted, after, judgement = judged_temperature(
            z[rows], true, material.folds[rows], material.units[rows], before, now
        )
        numbers = (
            class_numbers(before, true, material.resampler, rows),
            class_numbers(after, true, material.resampler, rows),
        )
        left = left_alone(
            judgement, numbers, f"temperature {fitted:.4g}", f"it stays {now:.4g}", sure=True
        )
        values = {"temperature": float(f"{fitted:.6g}")}
        found = Fitted(values, *numbers, int(rows.sum()), left).with_temperature(fitted)
        found.expected = {self.key("probabilities"): np.exp(log_probabilities(z, fitted))}
        found.said = [f"{self.key('temperature')}: {fitted:.4f}{at_limit(fitted)}"]
        if moved := changed_classes(z, now, fitted):
            found.said.append(
                f"{self.key('classifier')}: {counted(moved, 'image gets', 'images get')} another class, of "
                f"{len(z)}: the mean of several answers depends on the temperature"
            )
        if spec.score in ("max_probability", "energy"):
            found.spec["unknown_threshold"] = None
            if spec.unknown_threshold is not None:
                found.undoes["open_set"] = (
                    "the threshold of unknown images is dropped, since it was for scores at another "
                    "temperature: calibrate open_set too"
                )
        if material.old:
            found.edit = lambda graph: put_score(graph, self.head, spec.score, spec.feature_size)
        return found

    def _fit_open_set(self, material: Fit[ClassifierSpec], options: CalibrationOptions) -> Fitted:
        """Sets the threshold that keeps the share asked for, and what features are compared with.

        Images with labels that the model lacks count as unknown, and are only measured.
        """
        spec, was, resampler = material.spec, material.was or material.spec, material.resampler
        labels = self._labels(material)
        rows = labels >= 0
        needed = max(MIN_LABELLED, math.ceil(_BEYOND / (1 - options.keep) - 1e-9))
        self.require("open_set", int(rows.sum()), needed, "images with a label of the model")
        score, references, compared = self._scores(material, options, labels)
        kept = np.zeros(len(rows))
        for asked, threshold in cross_fit(
            material.folds, rows, lambda seen: threshold_at(score[seen], options.keep)
        ):
            kept[asked] = score[asked] >= threshold
        threshold = float(f"{threshold_at(score[rows], options.keep):.7g}")
        old, least = material.outputs.get(self.key("known_score")), was.unknown_threshold
        before: Numbers = {}
        if old is not None and least is not None:
            kept_before = np.asarray(old >= least, np.float64)
            before = resampler.headlines({"share_kept": mean(kept_before[rows])}, rows)
        after = resampler.headlines({"share_kept": mean(kept[rows])}, rows)
        left = ""
        if before and options.score == was.score and spec.temperature == was.temperature:
            left = _further_off(before["share_kept"], after["share_kept"], options.keep)
        strangers = labels == -2
        if strangers.any():
            both = rows | strangers
            tells = separation(score[both], rows[both])
            after.update(resampler.headlines({_SEPARATION: tells}, both))
            if old is not None and least is not None:
                separated = separation(np.asarray(old, np.float64)[both], rows[both])
                before.update(resampler.headlines({_SEPARATION: separated}, both))
                more = resampler.headlines({_SEPARATION: lambda w: tells(w) - separated(w)}, both)
                left = _worse_score(before, after, more["auroc"], was.score, options) or left
        found = Fitted(
            {
                "score": options.score,
                "keep": options.keep,
                "threshold": threshold,
                "known_scores": KnownScores.of(score[rows]).to_dict(),
                "compared_with": compared,
            },
            before,
            after,
            int(rows.sum()),
            left,
        )
        width = 0 if references is None else references.shape[1]
        found.spec = {
            "score": options.score,
            "unknown_threshold": threshold,
            "feature_size": width,
        }
        found.files = {REFERENCES: None if references is None else _npy(references)}
        if (options.score, width) != (spec.score, spec.feature_size):
            found.edit = lambda graph: put_score(graph, self.head, options.score, width)
        found.said = [
            f"unknown below {options.score} {threshold:.5g}, which keeps {options.keep:.1%} of known images"
        ]
        return found

    def _scores(
        self, material: Fit[ClassifierSpec], options: CalibrationOptions, labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, str]:
        """Returns known scores (N,) that images were not fitted on, references, and whose."""
        name, temperature, classes = (
            options.score,
            material.spec.temperature,
            len(material.spec.labels),
        )
        these = "these images"
        if name == "max_probability":
            p = np.exp(log_probabilities(self._logits(material), temperature))
            return p.max(axis=1), None, these
        if name not in FEATURE_SCORES:
            return logit_score(name, material.outputs[self.key("logits")], temperature), None, these
        features = material.outputs.get(self.key("features"))
        if features is None:
            raise ConfigError(
                f"{material.model}: its graph has no last layer that can be found, so {name} has no "
                "features to compare: use a score of logits"
            )

        def references(x: NDArray[Any], true: NDArray[np.int64]) -> NDArray[np.float32]:
            use = true >= 0
            return fit_references(name, x[use], true[use], classes, material.seed)

        if material.reference is not None:
            outputs, truth = material.reference
            theirs = label_indices(truth, material.spec.labels)
            if (theirs >= 0).any():
                found = references(outputs[self.key("features")], theirs)
                score = np.asarray(make_scorer(name, found, classes)(features), np.float64)
                return score, found, "training images"
        found = references(features, labels)
        score = np.asarray(make_scorer(name, found, classes)(features), np.float64)
        # An image is not compared with itself.
        for asked, scorer in cross_fit(
            material.folds,
            labels >= 0,
            lambda seen: make_scorer(name, references(features[seen], labels[seen]), classes),
        ):
            score[asked] = scorer(features[asked])
        return score, found, these


def class_numbers(
    probabilities: NDArray[Any],
    labels: NDArray[np.int64],
    resampler: Resampler,
    rows: NDArray[np.bool_],
) -> Numbers:
    """Returns `ece`, `nll`, `brier` and `top1` of probabilities (n, K) and true labels (n,).

    Args:
        probabilities: of the samples in `rows`.
        labels: of the same samples.
        resampler: over all samples.
        rows: mask over all samples.
    """
    columns = {**score_classes(probabilities, labels), "true_label": labels}
    found = resampler.headlines(statistics(columns), rows)
    return {name: found[name] for name in ("ece", "nll", "brier", "top1")}


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f", {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _worse_score(
    before: Numbers, after: Numbers, more: Headline, now: str, options: CalibrationOptions
) -> str:
    """Returns why the score stays: the new one surely separates less well."""
    if more["high"] is None or more["high"] >= 0:
        return ""
    return (
        f"the score stays {now}, since {options.score} separates known and unknown images with an AUROC of "
        f"{after['auroc']['value']:.4f} on images left out, and {now} with "
        f"{before['auroc']['value']:.4f} (difference {more['low']:+.4f} to {more['high']:+.4f}): calibrate "
        f"with --score {now}"
    )


def _further_off(before: Headline, after: Headline, keep: float) -> str:
    """Returns why the threshold stays: the new one is surely off the share asked for, the old one is less."""
    was, now, low, high = before["value"], after["value"], after["low"], after["high"]
    if was is None or now is None or low is None or high is None or low <= keep <= high:
        return ""
    if abs(now - keep) <= abs(was - keep):
        return ""
    return (
        f"the threshold stays, since the new one keeps {now:.1%} of known images left out ({low:.1%} to "
        f"{high:.1%}), and the present one {was:.1%}, where {keep:.1%} are asked for"
    )
