"""Makes pose covariances true: the head's part of them, and not the spread of several answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers, left_alone, poses_of
from robot_vision.geometry.rotations import pose_error
from robot_vision.heads.pose.evaluation import COVERAGES, normalised_squares
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.heads.pose.variance_scales import (
    BOTH,
    EACH,
    Views,
    fit_variance_scales,
    fit_view_growth,
    scaled,
)
from robot_vision.settings.declared import option
from robot_vision.statistics.bootstrap import Resampler, mean, quantiles
from robot_vision.statistics.judging import Judgement, cross_fit, judge
from robot_vision.statistics.known_scores import threshold_at
from robot_vision.statistics.normal import chi_squared_quantile

# The mean of n squared errors of three axes has a relative standard error of sqrt(2 / 3n): with 64 the
# variances are known to within 20 % at 95 % confidence.
MIN_POSED = 64
KEEP = 0.98  # share of known views that the threshold keeps

POSE_TITLES = {  # of `pose_numbers`
    "nees": "NEES over its ideal (1)",
    "nees_position": "  of the position",
    "nees_rotation": "  of the rotation",
    "nees_median": "  median (0.89)",
    **{f"coverage_{round(100 * p)}": f"within the {round(100 * p)} % ellipsoid" for p in COVERAGES},
}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationOptions:
    """How variances are scaled."""

    per_axis: bool = option(
        False, "fit one variance scale per axis of the pose instead of a common one"
    )


class PoseFitter(Fitter[PoseSpec]):
    """See `Fitter`."""

    parts: ClassVar[tuple[str, ...]] = ("pose",)
    turned: ClassVar[bool] = True
    Options = CalibrationOptions
    titles = POSE_TITLES

    def truth(self, part: str) -> str:
        return "pose"

    def fit(self, part: str, material: Fit[PoseSpec], options: CalibrationOptions) -> Fitted:
        asked = _Asked(self, material, EACH if options.per_axis else BOTH)
        rows, resampler = asked.rows, material.resampler
        self.require("pose", int(rows.sum()), MIN_POSED, "images with a true pose")
        scale, after, judgement = asked.scaled()
        numbers = (
            pose_numbers(asked.errors, asked.covariances, resampler, rows),
            pose_numbers(asked.errors, after, resampler, rows),
        )
        text = ", ".join(f"{v:.3g}" for v in scale)
        left = left_alone(judgement, numbers, f"variances times {text}", "they stay as they are")
        values = {"variance_scale": [float(f"{v:.6g}") for v in scale]}
        found = Fitted(values, *numbers, len(asked.errors), left)
        found.constants = asked.factor(scale)
        spread = material.outputs.get(self.key("pose_spread"))
        covariance = material.outputs[self.key("pose_covariance")].astype(np.float64)
        found.expected = {self.key("pose_covariance"): scaled(covariance, scale, spread)}
        where = "" if self.head.name == self.head.kind else f"{self.head.name}: "
        found.said = [f"{where}variances of x y z and rotation about X Y Z times {text}"]
        return found

    def tune(self, material: Fit[PoseSpec]) -> Fitted:
        asked = _Asked(self, material, BOTH)
        found = Fitted({"frames": len(asked.errors)}, {}, {}, len(asked.errors))
        if material.apart is not None:
            scale = self._tune_views(material, asked, found)
            found.constants |= asked.factor(scale)
        else:
            scale, _, judgement = asked.scaled()
            # One block has no neighbour that could judge.
            if judgement.worse and len(np.unique(asked.units)) > 1:
                text = ", ".join(f"{scale[axis]:.3g}" for axis in (0, 3))
                found.left = f"variances times {text} give a negative log likelihood of {judgement}"
                scale = np.ones(6)
            else:
                found.constants = asked.factor(scale)
        for word, axis in (("position", 0), ("rotation", 3)):
            found.values[f"{word}_variance_scale"] = float(scale[axis])
        return found

    def _tune_views(self, material: Fit[PoseSpec], asked: _Asked, found: Fitted) -> Array:
        """Fits how variances grow with the distance from known views, and where known views end.

        Returns:
            The factors (6,) at no distance.
        """
        assert material.apart is not None and asked.known_view is not None
        outputs, truth, regions = material.apart
        of_regions = replace(
            material, outputs=outputs, truth=truth, folds=regions, units=regions, blocks=regions
        )
        new = _Asked(self, of_regions, BOTH)
        assert new.known_view is not None
        scale, growth = fit_view_growth(
            [
                Views(
                    side.errors,
                    side.covariances,
                    side.fixed,
                    2 * np.sqrt(np.maximum(1 - known, 0.0)),
                )
                for side, known in ((asked, asked.known_view), (new, new.known_view))
            ]
        )
        keep = min(KEEP, 1 - 1 / (len(asked.known_view) + 1))  # of few images all are kept
        threshold = float(f"{threshold_at(asked.known_view, keep):.6g}")
        found.spec = {"unknown_threshold": threshold}
        found.constants = {"view_growth": growth.astype(np.float32)}
        found.values |= {"regions": len(np.unique(regions)), "unknown_view_below": threshold}
        for word, axis in (("position", 0), ("rotation", 3)):
            found.values[f"{word}_growth"] = float(growth[axis])
        return scale


class _Asked:
    """The images with a true pose: errors (n, 6), covariances (n, 6, 6) and the spread that is in them."""

    def __init__(self, fitter: PoseFitter, material: Fit[PoseSpec], groups: Sequence[int]) -> None:
        self.rows, position, xyzw = poses_of(material.truth)
        out = {word: material.outputs[fitter.key(word)][self.rows] for word in _WORDS}
        spread = material.outputs.get(fitter.key("pose_spread"))
        self.errors = pose_error(
            out["position"].astype(np.float64),
            out["orientation_xyzw"],
            position[self.rows],
            xyzw[self.rows],
        )
        self.covariances = out["pose_covariance"].astype(np.float64)
        self.fixed = (
            np.zeros_like(self.covariances)
            if spread is None
            else spread[self.rows].astype(np.float64)
        )
        self.units, self._folds = material.units[self.rows], material.folds[self.rows]
        self._blocks, self._groups = material.blocks[self.rows], groups
        self._now = material.constants["covariance_factor"]
        known = material.outputs.get(fitter.key("known_view"))
        self.known_view = None if known is None else known[self.rows].astype(np.float64)

    def scaled(self) -> tuple[Array, Array, Judgement]:
        """Returns the factors (6,), covariances (n, 6, 6) cross-fitted, and whether they are better."""

        def fit(rows: NDArray[np.bool_]) -> Array:
            e, c, fixed = (part[rows] for part in (self.errors, self.covariances, self.fixed))
            return fit_variance_scales(e, c, self._groups, self._blocks[rows], fixed)

        every = np.ones(len(self.errors), bool)
        after = self.covariances.copy()
        for asked, scale in cross_fit(self._folds, every, fit):
            after[asked] = scaled(self.covariances[asked], scale, self.fixed[asked])
        before, now = (pose_losses(self.errors, c) for c in (self.covariances, after))
        return fit(every), after, judge(before, now, self.units)

    def factor(self, scale: Array) -> dict[str, NDArray[np.float32]]:
        """Returns the head's constant: what it was, times the factor of each entry."""
        root = np.sqrt(scale)
        return {"covariance_factor": (self._now * np.outer(root, root)).astype(np.float32)}


_WORDS = ("position", "orientation_xyzw", "pose_covariance")


def pose_numbers(
    errors: Array, covariances: Array, resampler: Resampler, rows: NDArray[np.bool_]
) -> Numbers:
    """Returns NEES over its ideal (`nees`, and of both parts), its median, and the coverages."""
    nees = normalised_squares(errors, covariances)
    parts = np.stack(
        [
            nees / 6,
            normalised_squares(errors[:, :3], covariances[:, :3, :3]) / 3,
            normalised_squares(errors[:, 3:], covariances[:, 3:, 3:]) / 3,
        ],
        axis=1,
    )
    inside = nees[:, None] <= np.array([chi_squared_quantile(p, 6) for p in COVERAGES])
    names = tuple(f"coverage_{round(100 * p)}" for p in COVERAGES)
    return resampler.headlines(
        {
            ("nees", "nees_position", "nees_rotation"): mean(parts),
            "nees_median": quantiles(nees / 6, (0.5,)),
            names: mean(inside),
            "nll": mean(pose_losses(errors, covariances)),
        },
        rows,
    )


def pose_losses(errors: Array, covariances: Array) -> Array:
    """Returns minus the log likelihood (n,) of errors (n, 6) under covariances (n, 6, 6)."""
    log_determinant = np.linalg.slogdet(covariances)[1]
    nees = normalised_squares(errors, covariances)
    return np.asarray(0.5 * (nees + log_determinant + 6 * np.log(2 * np.pi)))
