"""Makes the covariances of poses from scene coordinates true: 95 percent lie within their ellipsoids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers, left_alone, poses_of
from robot_vision.geometry.rotations import pose_error
from robot_vision.heads.coordinates.head import answer_of
from robot_vision.heads.coordinates.spec import CoordinatesSpec
from robot_vision.heads.pose.evaluation import normalised_squares
from robot_vision.heads.pose.fitting import POSE_TITLES, pose_losses, pose_numbers
from robot_vision.statistics.judging import Judgement, cross_fit, judge
from robot_vision.statistics.normal import chi_squared_quantile

MIN_POSED = 20
_INSIDE = 0.95
_PARTS = (slice(0, 3), slice(3, 6))  # position, rotation

Array = NDArray[np.float64]


class CoordinatesFitter(Fitter[CoordinatesSpec]):
    """See `Fitter`. Only frames with a pose count.

    Neighbouring cells err together, and held-out frames say by how much the covariance of independent ones
    is too small for that: first each part's factor makes its own 95 percent quantile of e^T C^-1 e that of a
    chi-squared variable with three degrees of freedom, then a common one that of the whole with six.
    """

    parts: ClassVar[tuple[str, ...]] = ("coordinates",)
    turned: ClassVar[bool] = True
    titles = POSE_TITLES

    def truth(self, part: str) -> str:
        return "pose"

    def fit(self, part: str, material: Fit[CoordinatesSpec], options: Any) -> Fitted:
        asked = _Asked(self, material)
        self.require(
            "coordinates", len(asked.errors), MIN_POSED, "images with a true pose and an answer"
        )
        scale, after, judgement = asked.scaled()
        numbers: tuple[Numbers, Numbers] = (
            pose_numbers(asked.errors, asked.covariances, material.resampler, asked.rows),
            pose_numbers(asked.errors, after, material.resampler, asked.rows),
        )
        text = ", ".join(f"{v:.3g}" for v in scale)
        left = left_alone(judgement, numbers, f"variances times {text}", "they stay as they are")
        found = self._fitted(material.spec, scale, len(asked.errors))
        where = "" if self.head.name == self.head.kind else f"{self.head.name}: "
        said = [f"{where}variances of position and rotation times {text}"]
        return replace(found, before=numbers[0], after=numbers[1], left=left, said=said)

    def tune(self, material: Fit[CoordinatesSpec]) -> Fitted:
        asked = _Asked(self, material)
        if len(asked.errors) < MIN_POSED:
            few = f"{len(asked.errors)} images have a pose and an answer, {MIN_POSED} are needed"
            return Fitted({"frames": len(asked.errors)}, {}, {}, len(asked.errors), few)
        return self._fitted(
            material.spec, asked.fit(np.ones(len(asked.errors), bool)), len(asked.errors)
        )

    def _fitted(self, spec: CoordinatesSpec, scale: Array, count: int) -> Fitted:
        position, rotation = (
            float(f"{np.clip(was * s, 1e-6, 1e6):.6g}")
            for was, s in zip((spec.position_scale, spec.rotation_scale), scale, strict=True)
        )
        values = {"frames": count, "position_scale": position, "rotation_scale": rotation}
        found = Fitted(values, {}, {}, count)
        found.spec = {"position_scale": position, "rotation_scale": rotation}
        return found


class _Asked:
    """The frames with a true pose and an answer: errors (n, 6), covariances (n, 6, 6)."""

    def __init__(self, fitter: CoordinatesFitter, material: Fit[CoordinatesSpec]) -> None:
        rows, position, xyzw = poses_of(material.truth)
        points, deviations = (
            material.outputs[fitter.key(f"scene_{word}")] for word in ("points", "deviation")
        )
        answers = {
            i: answer_of(points[i].transpose(1, 2, 0), deviations[i], material.spec)
            for i in np.flatnonzero(rows).tolist()
        }
        answers = {i: a for i, a in answers.items() if not a.is_refused}
        index = np.array(list(answers), np.int64)
        self.rows = np.isin(np.arange(len(rows)), index)
        self.errors = pose_error(
            np.array([a.position for a in answers.values()]).reshape(-1, 3),
            np.array([a.orientation_xyzw for a in answers.values()]).reshape(-1, 4),
            position[index],
            xyzw[index],
        )
        self.covariances = np.array([a.covariance for a in answers.values()]).reshape(-1, 6, 6)
        self.units, self._folds = material.units[index], material.folds[index]

    def fit(self, rows: NDArray[np.bool_]) -> Array:
        """Returns the factors (2,) of the variances of position and rotation for some frames."""
        e, C = self.errors[rows], self.covariances[rows]
        scale = np.array(
            [_factor(normalised_squares(e[:, p], C[:, p, p]), 3) for p in _PARTS], np.float64
        )
        return scale * _factor(normalised_squares(e, _scaled(C, scale)), 6)

    def scaled(self) -> tuple[Array, Array, Judgement]:
        """Returns the factors (2,), covariances (n, 6, 6) cross-fitted, and whether they are better."""
        every, after = np.ones(len(self.errors), bool), self.covariances.copy()
        for asked, scale in cross_fit(self._folds, every, self.fit):
            after[asked] = _scaled(self.covariances[asked], scale)
        before, now = (pose_losses(self.errors, c) for c in (self.covariances, after))
        return self.fit(every), after, judge(before, now, self.units)


def _factor(nees: Array, degrees: int) -> float:
    nees = nees[np.isfinite(nees)]
    if not len(nees):
        return 1.0
    return float(max(np.quantile(nees, _INSIDE), 1e-6) / chi_squared_quantile(_INSIDE, degrees))


def _scaled(covariances: Array, scale: Array) -> Array:
    root = np.sqrt(np.repeat(scale, 3))
    return np.asarray(covariances * np.outer(root, root))
