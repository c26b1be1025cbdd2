"""Fits each head's calibration and measures it by cross-fitting: no image judges numbers fitted on it.

The images are cut into folds (blocks of time for recordings). What is reported as "after" of a fold comes
from a fit on the other folds; what goes into the bundle comes from a fit on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle import ModelBundle
from robot_vision.calibration.covariance import BOTH, EACH, fit_variance_scales, scaled
from robot_vision.calibration.fit_open_set import fit_open_set
from robot_vision.calibration.fit_place import fit_place
from robot_vision.calibration.material import (
    FOLDS,
    MIN_LABELLED,
    Calibration,
    Fitted,
    Material,
    Options,
    cross_fit,
    require,
    true_poses,
)
from robot_vision.calibration.measure import (
    blocks_of,
    class_numbers,
    folds_of,
    pose_numbers,
    resampler_of,
)
from robot_vision.calibration.temperature import fit_temperature, log_softmax
from robot_vision.evaluation.bootstrap import Resampler
from robot_vision.evaluation.pose import pose_error

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
    found = Calibration()
    if "classifier" in options.heads:
        _fit_classifier(found, bundle, material, folds, resampler)
    if "open_set" in options.heads:
        fit_open_set(found, bundle, material, reference, folds, resampler, options)
    if "pose" in options.heads:
        groups = EACH if options.per_axis else BOTH
        _fit_pose(found, material, folds, resampler, groups)
    if "place" in options.heads:
        fit_place(found, material, reference, folds, resampler, options)
    return found


def _fit_classifier(
    found: Calibration,
    bundle: ModelBundle,
    material: Material,
    folds: NDArray[np.int64],
    resampler: Resampler,
) -> None:
    labels = material.labels(bundle)
    rows = labels >= 0
    require("classifier", int(rows.sum()), MIN_LABELLED, "images with a label of the model")
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


def _fit_pose(
    found: Calibration,
    material: Material,
    folds: NDArray[np.int64],
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
    found.covariance_scale = fit_variance_scales(errors, covariances, groups, blocks)
    found.heads["pose"] = Fitted(
        {"variance_scale": [float(f"{v:.6g}") for v in found.covariance_scale]},
        pose_numbers(errors, covariances, resampler, rows),
        pose_numbers(errors, after, resampler, rows),
        len(errors),
    )
