"""Fits each head's calibration and measures it by cross-fitting: no image judges numbers fitted on it.

The images are cut into folds (blocks of time for recordings). What is reported as "after" of a fold comes
from a fit on the other folds; what goes into the bundle comes from a fit on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle import ModelBundle
from robot_vision.calibration.covariance import BOTH, EACH, fit_variance_scales, scaled
from robot_vision.calibration.measure import (
    class_numbers,
    folds_of,
    match_numbers,
    pose_numbers,
    reliability_rows,
    resampler_of,
)
from robot_vision.calibration.predict import Outputs
from robot_vision.calibration.temperature import fit_temperature, log_softmax
from robot_vision.datasets.sample import Sample
from robot_vision.errors import ConfigError
from robot_vision.evaluation.bootstrap import Headline, Resampler, mean
from robot_vision.evaluation.classification import label_indices
from robot_vision.evaluation.openset import separation
from robot_vision.evaluation.place import Views, score_places
from robot_vision.evaluation.pose import pose_error
from robot_vision.evaluation.settings import EvaluationSettings
from robot_vision.geometry import xyzw_from_matrix
from robot_vision.open_set import (
    KnownScores,
    fit_references,
    logit_score,
    make_scorer,
    threshold_at,
)
from robot_vision.places.place_probability import fit as fit_place
from robot_vision.spec import FEATURE_SCORES

HEADS = ("classifier", "open_set", "pose", "place")
DEFAULT_SCORE = "energy"
FOLDS = 5
# With fewer images one wrong answer moves the accuracy by more than one per cent.
MIN_LABELLED = 100
# The mean of n squared errors of three axes has a relative standard error of sqrt(2 / 3n): with 64 the
# variances are known to within 20 % at 95 % confidence.
MIN_POSED = 64
# Ten events for each of the two numbers that are fitted (Peduzzi et al. 1996), of the rarer kind.
MIN_OF_EACH_OUTCOME = 20
_BEYOND = 5  # images that must lie beyond the threshold

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What is fitted, and how.

    Attributes:
        heads: of `HEADS`.
        keep: share of known images that shall not be called unknown.
        score: the open-set score.
        per_axis: a factor for each axis of the pose, and not one each for position and rotation.
        settings: what the same place is, and the bootstrap.
        seed: of the folds.
    """

    heads: tuple[str, ...]
    keep: float = 0.95
    score: str = DEFAULT_SCORE
    per_axis: bool = False
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: use a share from 0.5 to below 1, such as 0.95")


@dataclass
class Fitted:
    """One head's calibration.

    Attributes:
        values: what was found, for the bundle.
        before: numbers of the bundle as it is; `after`: cross-fitted.
        images: that it was fitted on.
    """

    values: dict[str, Any]
    before: dict[str, Headline]
    after: dict[str, Headline]
    images: int

    def record(self) -> dict[str, Any]:
        """Returns plain data for `bundle.yaml`."""
        return {
            **self.values,
            "images": self.images,
            "before": {name: _short(value) for name, value in self.before.items()},
            "after": {name: _short(value) for name, value in self.after.items()},
        }


def _short(value: Headline) -> list[float | None]:
    numbers = (value["value"], value["low"], value["high"])
    return [None if v is None else float(f"{v:.4g}") for v in numbers]


@dataclass
class Calibration:
    """All that was fitted.

    Attributes:
        heads: name to `Fitted`.
        temperature: of the classifier; None to leave it.
        covariance_scale: (6,), or None.
        references: for a score of features, or None.
        threshold: of the open set, or None.
        notes: a line each.
    """

    heads: dict[str, Fitted] = field(default_factory=dict)
    temperature: float | None = None
    covariance_scale: Array | None = None
    references: NDArray[np.float32] | None = None
    threshold: float | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Material:
    """Samples and what the bundle says of them.

    Attributes:
        samples: (N), those that could be read.
        outputs: of `predict`.
    """

    samples: Sequence[Sample]
    outputs: Outputs

    def labels(self, bundle: ModelBundle) -> NDArray[np.int64]:
        """Returns the index (N,) of each label; negative where there is none, or one the model lacks."""
        assert bundle.spec.classifier is not None
        return label_indices([s.label for s in self.samples], bundle.spec.classifier.labels)

    @property
    def posed(self) -> NDArray[np.bool_]:
        """Which (N,) have a true pose."""
        return np.array([s.T_map_camera is not None for s in self.samples])


def fit(
    bundle: ModelBundle, material: Material, reference: Material | None, options: Options
) -> Calibration:
    """Fits what the options ask for.

    Args:
        bundle: as it is.
        material: held out.
        reference: other images, that may have been trained on: features are compared with those of the
            labelled ones, and places are looked up in those with poses. None takes other folds of
            `material` instead, and looks places up in it without neighbours in time.
        options: what and how.

    Raises:
        ConfigError: too few images; the message says how many are needed.
    """
    resampler = resampler_of(material.samples, options.settings)
    folds = folds_of(material.samples, FOLDS, options.seed)
    found = Calibration()
    if "classifier" in options.heads:
        _fit_classifier(found, bundle, material, folds, resampler)
    if "open_set" in options.heads:
        _fit_open_set(found, bundle, material, reference, folds, resampler, options)
    if "pose" in options.heads:
        groups = EACH if options.per_axis else BOTH
        _fit_pose(found, material, folds, resampler, groups)
    if "place" in options.heads:
        _fit_place(found, material, reference, folds, resampler, options)
    return found


def cross_fit(
    folds: NDArray[np.int64], rows: NDArray[np.bool_], make: Callable[[NDArray[np.bool_]], Any]
) -> list[tuple[NDArray[np.bool_], Any]]:
    """Returns for each fold its rows, and what `make` fitted on the rows of the other folds."""
    parts = []
    for number in np.unique(folds[rows]):
        asked = rows & (folds == number)
        seen = rows & (folds != number)
        parts.append((asked, make(seen if seen.any() else rows)))
    return parts


def _fit_classifier(
    found: Calibration,
    bundle: ModelBundle,
    material: Material,
    folds: NDArray[np.int64],
    resampler: Resampler,
) -> None:
    labels = material.labels(bundle)
    rows = labels >= 0
    _require("classifier", int(rows.sum()), MIN_LABELLED, "images with a label of the model")
    z = np.asarray(material.outputs["logits"], np.float64)
    before = np.asarray(material.outputs["probabilities"], np.float64)
    after = np.zeros_like(z)
    for asked, t in cross_fit(folds, rows, lambda seen: fit_temperature(z[seen], labels[seen])):
        after[asked] = np.exp(log_softmax(z[asked] / t))
    found.temperature = fit_temperature(z[rows], labels[rows])
    found.heads["classifier"] = Fitted(
        {"temperature": float(f"{found.temperature:.6g}")},
        class_numbers(before[rows], labels[rows], resampler, rows),
        class_numbers(after[rows], labels[rows], resampler, rows),
        int(rows.sum()),
    )


def _fit_open_set(
    found: Calibration,
    bundle: ModelBundle,
    material: Material,
    reference: Material | None,
    folds: NDArray[np.int64],
    resampler: Resampler,
    options: Options,
) -> None:
    classifier = bundle.spec.classifier
    assert classifier is not None
    labels = material.labels(bundle)
    rows = labels >= 0
    needed = max(MIN_LABELLED, math.ceil(_BEYOND / (1 - options.keep) - 1e-9))
    _require("open_set", int(rows.sum()), needed, "images with a label of the model")
    classes = len(classifier.labels)
    temperature = found.temperature or classifier.temperature
    held_back: Material | None = None
    if options.score not in FEATURE_SCORES:
        score = logit_score(options.score, material.outputs["logits"], temperature)
    elif "features" not in material.outputs:
        raise ConfigError(
            f"{bundle.name}: its graph has no last layer that can be found, so {options.score} has no "
            "features to compare: use a score of logits"
        )
    else:
        features = material.outputs["features"]
        if reference is not None and (reference.labels(bundle) >= 0).any():
            held_back = reference
        if held_back is not None:
            theirs = held_back.labels(bundle)
            use = theirs >= 0
            found.references = fit_references(
                options.score,
                held_back.outputs["features"][use],
                theirs[use],
                classes,
                options.seed,
            )
            scorer = make_scorer(options.score, found.references, classes)
            score = np.asarray(scorer(features), np.float64)
        else:
            found.references = fit_references(
                options.score, features[rows], labels[rows], classes, options.seed
            )
            whole = make_scorer(options.score, found.references, classes)
            score = np.asarray(whole(features), np.float64)

            def others(seen: NDArray[np.bool_]) -> Any:
                return make_scorer(
                    options.score,
                    fit_references(
                        options.score, features[seen], labels[seen], classes, options.seed
                    ),
                    classes,
                )

            # An image is not compared with itself.
            for asked, scorer in cross_fit(folds, rows, others):
                score[asked] = scorer(features[asked])
    kept = np.zeros(len(rows))
    for asked, threshold in cross_fit(
        folds, rows, lambda seen: threshold_at(score[seen], options.keep)
    ):
        kept[asked] = score[asked] >= threshold
    found.threshold = float(f"{threshold_at(score[rows], options.keep):.7g}")
    before = _share_kept_before(bundle, material, rows)
    after = resampler.headlines({"share_kept": mean(kept[rows])}, rows)
    strangers = labels == -2
    if strangers.any():
        both = rows | strangers
        names = ("auroc", "aupr_known", "aupr_unknown", "fpr_at_95_tpr")
        after.update(resampler.headlines({names: separation(score[both], rows[both])}, both))
    found.heads["open_set"] = Fitted(
        {
            "score": options.score,
            "keep": options.keep,
            "threshold": found.threshold,
            "known_scores": KnownScores.of(score[rows]).to_dict(),
            "compared_with": "training images" if held_back is not None else "these images",
        },
        {} if before is None else resampler.headlines({"share_kept": mean(before[rows])}, rows),
        after,
        int(rows.sum()),
    )


def _share_kept_before(
    bundle: ModelBundle, material: Material, rows: NDArray[np.bool_]
) -> Array | None:
    classifier = bundle.spec.classifier
    assert classifier is not None
    known = material.outputs.get("known_score")
    if known is None or classifier.unknown_threshold is None:
        return None
    return np.asarray(known >= classifier.unknown_threshold, np.float64)


def _fit_pose(
    found: Calibration,
    material: Material,
    folds: NDArray[np.int64],
    resampler: Resampler,
    groups: Sequence[int],
) -> None:
    rows = material.posed
    _require("pose", int(rows.sum()), MIN_POSED, "images with a true pose")
    true = _poses(material, rows)
    out = material.outputs
    errors = pose_error(
        out["position"][rows].astype(np.float64), out["orientation_xyzw"][rows], true[0], true[1]
    )
    covariances = out["pose_covariance"][rows].astype(np.float64)
    every = np.ones(len(errors), bool)
    after = covariances.copy()
    for asked, scale in cross_fit(
        folds[rows],
        every,
        lambda seen: fit_variance_scales(errors[seen], covariances[seen], groups),
    ):
        after[asked] = scaled(covariances[asked], scale)
    found.covariance_scale = fit_variance_scales(errors, covariances, groups)
    found.heads["pose"] = Fitted(
        {"variance_scale": [float(f"{v:.6g}") for v in found.covariance_scale]},
        pose_numbers(errors, covariances, resampler, rows),
        pose_numbers(errors, after, resampler, rows),
        len(errors),
    )


def _fit_place(
    found: Calibration,
    material: Material,
    reference: Material | None,
    folds: NDArray[np.int64],
    resampler: Resampler,
    options: Options,
) -> None:
    queries = _views(material)
    if reference is not None and reference.posed.any():
        columns = score_places(queries, _views(reference), options.settings, same_recording=False)
        where = "training images"
    else:
        columns = score_places(queries, queries, options.settings, same_recording=True)
        where = "these images, without neighbours in time"
    similarity = columns["place_similarity"]
    rows = np.isfinite(similarity)
    heading = options.settings.place_heading_deg
    right = columns["place_error_m"] <= options.settings.place_radius_m
    if heading is not None:
        right &= columns["place_error_deg"] <= heading
    rarer = int(min(right[rows].sum(), (~right[rows]).sum()))
    if rarer < MIN_OF_EACH_OUTCOME:
        raise ConfigError(
            f"place: of {int(rows.sum())} best matches {int(right[rows].sum())} are right: at least "
            f"{MIN_OF_EACH_OUTCOME} right and {MIN_OF_EACH_OUTCOME} wrong ones are needed to tell them "
            "apart; give more images, or leave it out with --heads"
        )
    before = np.clip(similarity, 0.0, 1.0)
    after = np.zeros(len(rows))
    for asked, curve in cross_fit(
        folds, rows, lambda seen: fit_place(similarity[seen], right[seen])
    ):
        after[asked] = curve(similarity[asked])
    found.heads["place"] = Fitted(
        {
            "probability": fit_place(similarity[rows], right[rows]).to_dict(),
            "looked_up_in": where,
            "radius_m": options.settings.place_radius_m,
            "heading_deg": heading,
            "reliability": reliability_rows(after[rows], right[rows]),
        },
        match_numbers(before[rows], right[rows], resampler, rows),
        match_numbers(after[rows], right[rows], resampler, rows),
        int(rows.sum()),
    )


def _poses(material: Material, rows: NDArray[np.bool_]) -> tuple[Array, Array]:
    poses = [s.T_map_camera for s, use in zip(material.samples, rows, strict=True) if use]
    known = [pose for pose in poses if pose is not None]
    positions = np.array([pose[:3, 3] for pose in known]).reshape(-1, 3)
    return positions, np.array([xyzw_from_matrix(pose[:3, :3]) for pose in known]).reshape(-1, 4)


def _views(material: Material) -> Views:
    rows = material.posed
    count = len(rows)
    position, xyzw = np.full((count, 3), np.nan), np.tile([0.0, 0.0, 0.0, 1.0], (count, 1))
    position[rows], xyzw[rows] = _poses(material, rows)
    # Without stamps of their own, frames follow each other at a camera's usual rate.
    stamps = [
        i * 33_333_333 if s.stamp_ns is None else s.stamp_ns for i, s in enumerate(material.samples)
    ]
    return Views(material.outputs["descriptor"], position, xyzw, np.array(stamps, np.int64))


def _require(head: str, count: int, needed: int, what: str) -> None:
    if count < needed:
        raise ConfigError(
            f"{head}: {count} {what} are too few to calibrate on: at least {needed} are needed; give more, "
            "or leave it out with --heads"
        )
