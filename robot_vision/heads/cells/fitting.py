"""Makes the probabilities of cells true: the temperature of their softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.calibration import Fit, Fitted, Fitter, Numbers, left_alone, poses_of
from robot_vision.heads.cells.evaluation import score_cells, statistics, true_cells
from robot_vision.heads.cells.spec import CellsSpec
from robot_vision.statistics.temperature import at_limit, judged_temperature, log_probabilities

MIN_POSED = 100  # with fewer images one wrong cell moves the accuracy by more than one per cent


class CellsFitter(Fitter[CellsSpec]):
    """See `Fitter`. The true cell of a position in no cell is the nearest one, as it is judged."""

    parts: ClassVar[tuple[str, ...]] = ("cells",)
    inner: ClassVar[tuple[str, ...]] = ("cell_logits",)
    titles: ClassVar[dict[str, str]] = {
        "ece": "expected calibration error of cells",
        "nll": "negative log likelihood of cells",
        "top1": "true cell is the most probable",
    }

    def truth(self, part: str) -> str:
        return "pose"

    def fit(self, part: str, material: Fit[CellsSpec], options: Any) -> Fitted:
        spec = material.spec
        rows, positions, true = _truth(material.truth, spec)
        self.require(part, int(rows.sum()), MIN_POSED, "images with a true pose")
        z = np.asarray(material.outputs[self.key("cell_logits")], np.float64)
        now = float(material.constants["temperature"])
        before = np.exp(log_probabilities(z[rows], now))
        fitted, after, judgement = judged_temperature(
            z[rows], true, material.folds[rows], material.units[rows], before, now
        )

        def numbers(probabilities: NDArray[np.float64]) -> Numbers:
            columns = score_cells(probabilities, spec.ground, positions)
            found = material.resampler.headlines(statistics(columns), rows)
            return {name: found[name] for name in self.titles}

        sides = numbers(before), numbers(after)
        left = left_alone(
            judgement, sides, f"temperature {fitted:.4g}", f"it stays {now:.4g}", sure=True
        )
        values = {"temperature": float(f"{fitted:.6g}")}
        found = Fitted(values, *sides, int(rows.sum()), left).with_temperature(fitted)
        found.expected = {self.key("cell_probabilities"): np.exp(log_probabilities(z, fitted))}
        where = "" if self.head.name == self.head.kind else f"{self.head.name}: "
        found.said = [f"{where}temperature of cells: {fitted:.4f}{at_limit(fitted)}"]
        return found

    def tune(self, material: Fit[CellsSpec]) -> Fitted:
        rows, _, true = _truth(material.truth, material.spec)
        z = np.asarray(material.outputs[self.key("cell_logits")], np.float64)[rows]
        before = np.exp(log_probabilities(z))
        fitted, _, judgement = judged_temperature(
            z, true, material.folds[rows], material.units[rows], before
        )
        return Fitted.tuned(fitted, judgement, int(rows.sum()))


def _truth(
    truth: Sequence[Any], spec: CellsSpec
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Returns which (N,) have a pose, and of those n their places (n, D) and true cells (n,)."""
    rows, positions, _ = poses_of(truth)
    own = spec.ground.positions(positions[rows])
    return rows, own, true_cells(own, spec.ground)[0]
