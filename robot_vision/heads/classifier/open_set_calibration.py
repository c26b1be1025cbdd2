"""The open-set threshold: references for scores of features, and how known images are scored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.calibration import (
    MIN_LABELLED,
    Calibration,
    Fitted,
    Material,
    Options,
    require,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.known_scores import (
    KnownScores,
    fit_references,
    logit_score,
    make_scorer,
    threshold_at,
)
from robot_vision.heads.classifier.spec import FEATURE_SCORES
from robot_vision.statistics.bootstrap import Headline, Resampler, mean
from robot_vision.statistics.judging import cross_fit
from robot_vision.statistics.separation import separation

_SEPARATION = ("auroc", "aupr_known", "aupr_unknown", "fpr_at_95_tpr")
_BEYOND = 5  # images that must lie beyond the threshold


def fit_open_set(
    found: Calibration,
    bundle: ModelBundle,
    material: Material,
    reference: Material | None,
    folds: NDArray[np.int64],
    resampler: Resampler,
    options: Options,
) -> None:
    """Sets the threshold that keeps the share asked for, and what features are compared with.

    Args:
        found: gets the result; has the new temperature already.
        bundle: as it is.
        material: held out; images with labels that the model lacks count as unknown, and are only measured.
        reference: with features to compare with, or None for those of other folds.
        folds: (N,).
        resampler: over the samples.
        options: score and share.

    Raises:
        ConfigError: too few images, or a score of features that the graph cannot give.
    """
    classifier = bundle.spec.classifier
    assert classifier is not None
    labels = material.labels(bundle)
    rows = labels >= 0
    needed = max(MIN_LABELLED, math.ceil(_BEYOND / (1 - options.keep) - 1e-9))
    require("open_set", int(rows.sum()), needed, "images with a label of the model")
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
    found.threshold = threshold = float(f"{threshold_at(score[rows], options.keep):.7g}")
    old = material.outputs.get("known_score")
    before = {}
    if old is not None and classifier.unknown_threshold is not None:
        kept_before = np.asarray(old >= classifier.unknown_threshold, np.float64)
        before = resampler.headlines({"share_kept": mean(kept_before[rows])}, rows)
    after = resampler.headlines({"share_kept": mean(kept[rows])}, rows)
    left = ""
    if before and options.score == classifier.score and found.temperature is None:
        left = _further_off(before["share_kept"], after["share_kept"], options.keep)
    strangers = labels == -2
    if strangers.any():
        both = rows | strangers
        tells = separation(score[both], rows[both])
        after.update(resampler.headlines({_SEPARATION: tells}, both))
        if old is not None and classifier.unknown_threshold is not None:
            old_separation = separation(np.asarray(old, np.float64)[both], rows[both])
            before.update(resampler.headlines({_SEPARATION: old_separation}, both))
            more = resampler.headlines({_SEPARATION: lambda w: tells(w) - old_separation(w)}, both)[
                "auroc"
            ]
            if more["high"] is not None and more["high"] < 0:
                left = (
                    f"the score stays {classifier.score}, since {options.score} separates known and unknown "
                    f"images with an AUROC of {after['auroc']['value']:.4f} on images left out, and "
                    f"{classifier.score} with {before['auroc']['value']:.4f} (difference {more['low']:+.4f} "
                    f"to {more['high']:+.4f}): calibrate with --score {classifier.score}"
                )
    if left:
        found.references = found.threshold = None
    found.heads["open_set"] = Fitted(
        {
            "score": options.score,
            "keep": options.keep,
            "threshold": threshold,
            "known_scores": KnownScores.of(score[rows]).to_dict(),
            "compared_with": "training images" if held_back is not None else "these images",
        },
        before,
        after,
        int(rows.sum()),
        left,
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
