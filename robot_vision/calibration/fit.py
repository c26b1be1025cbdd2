"""Fits each head's calibration and measures it by cross-fitting: no image judges numbers fitted on it.

The images are cut into folds (blocks of time for recordings). What is reported as "after" of a fold comes
from a fit on the other folds; what goes into the bundle comes from a fit on all of them. It goes there only
where "after" is better than the bundle as it is, by more than noise (`judging`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.folds import (
    blocks_of,
    class_numbers,
    folds_of,
    left_alone,
    pose_losses,
    pose_numbers,
    resampler_of,
    units_of,
)
from robot_vision.calibration.old_graphs import GraphEditor
from robot_vision.contract.calibration import (
    FOLDS,
    MIN_LABELLED,
    Calibration,
    Fitted,
    Material,
    Options,
    require,
    true_poses,
)
from robot_vision.geometry.rotations import pose_error
from robot_vision.heads.classifier.open_set_calibration import fit_open_set
from robot_vision.heads.classifier.temperature import cross_fitted, fit_temperature
from robot_vision.heads.place.calibration import fit_place
from robot_vision.heads.pose.variance_scales import BOTH, EACH, fit_variance_scales, scaled
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.judging import cross_fit, judge, log_loss

# The mean of n squared errors of three axes has a relative standard error of sqrt(2 / 3n): with 64 the
# variances are known to within 20 % at 95 % confidence.
MIN_POSED = 64


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
    units = units_of(material.samples, FOLDS)
    found = Calibration()
    if "classifier" in options.heads:
        _fit_classifier(found, bundle, material, folds, units, resampler)
    if "open_set" in options.heads:
        fit_open_set(found, bundle, material, reference, folds, resampler, options)
    if "pose" in options.heads:
        groups = EACH if options.per_axis else BOTH
        _fit_pose(found, material, folds, units, resampler, groups)
    if "place" in options.heads:
        fit_place(found, bundle, material, reference, folds, units, resampler, options)
    return found


def _fit_classifier(
    found: Calibration,
    bundle: ModelBundle,
    material: Material,
    folds: NDArray[np.int64],
    units: NDArray[np.int64],
    resampler: Resampler,
) -> None:
    labels = material.labels(bundle)
    rows = labels >= 0
    require("classifier", int(rows.sum()), MIN_LABELLED, "images with a label of the model")
    z = np.asarray(material.outputs["logits"], np.float64)[rows]
    true = labels[rows]
    now = GraphEditor(bundle.graph).temperature()
    before = np.asarray(material.outputs["probabilities"], np.float64)[rows]
    after = np.exp(cross_fitted(z, true, folds[rows], now))
    fitted = fit_temperature(z, true, now)
    numbers = (
        class_numbers(before, true, resampler, rows),
        class_numbers(after, true, resampler, rows),
    )
    at = np.arange(len(true)), true
    judgement = judge(log_loss(before[at]), log_loss(after[at]), units[rows])
    left = left_alone(
        judgement, numbers, f"temperature {fitted:.4g}", f"it stays {now:.4g}", sure=True
    )
    if not left:
        found.temperature = fitted
    found.heads["classifier"] = Fitted(
        {"temperature": float(f"{fitted:.6g}")}, *numbers, int(rows.sum()), left
    )


def _fit_pose(
    found: Calibration,
    material: Material,
    folds: NDArray[np.int64],
    units: NDArray[np.int64],
    resampler: Resampler,
    groups: Sequence[int],
) -> None:
    rows = material.posed
    require("pose", int(rows.sum()), MIN_POSED, "images with a true pose")
    true = true_poses(material, rows)
    out = material.outputs
    errors = pose_error(
        out["position"][rows].astype(np.float64), out["orientation_xyzw"][rows], true[0], true[1]
    )
    covariances = out["pose_covariance"][rows].astype(np.float64)
    every = np.ones(len(errors), bool)
    blocks = blocks_of(material.samples)[rows]
    after = covariances.copy()
    for asked, scale in cross_fit(
        folds[rows],
        every,
        lambda seen: fit_variance_scales(errors[seen], covariances[seen], groups, blocks[seen]),
    ):
        after[asked] = scaled(covariances[asked], scale)
    scale = fit_variance_scales(errors, covariances, groups, blocks)
    numbers = (
        pose_numbers(errors, covariances, resampler, rows),
        pose_numbers(errors, after, resampler, rows),
    )
    judgement = judge(pose_losses(errors, covariances), pose_losses(errors, after), units[rows])
    text = ", ".join(f"{v:.3g}" for v in scale)
    left = left_alone(judgement, numbers, f"variances times {text}", "they stay as they are")
    if not left:
        found.covariance_scale = scale
    found.heads["pose"] = Fitted(
        {"variance_scale": [float(f"{v:.6g}") for v in scale]}, *numbers, len(errors), left
    )
