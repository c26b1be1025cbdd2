"""How cells are judged: how near the most probable one is, and whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robot_vision.contract.metrics import (
    Baseline,
    Columns,
    Frames,
    Gallery,
    Judge,
    Mask,
    Metric,
    Numbers,
    Part,
    Section,
    Shown,
    Statistics,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.heads.cells import figures
from robot_vision.heads.cells.evaluation import (
    SMALLEST_PROBABILITY,
    far_shares,
    score_cells,
    shares,
    statistics,
    within_name,
)
from robot_vision.heads.cells.ground import EARTH_RADII, RADII, ground_of
from robot_vision.statistics.bootstrap import Resampler, mean, quantiles
from robot_vision.statistics.paired import Bound, PairedEvidence
from robot_vision.statistics.reliability import reliability

ERRORS_RATIO, LOST = 1.03, 0.02  # of a program against float32
ROWS = {
    "cell": RowColumn("<i8", 1, "the most probable cell"),
    "true_cell": RowColumn("<i8", 1, "the cell that holds the true position, else the nearest"),
    "cell_distance_m": RowColumn("<f8", 1, "from the true position to the true cell; 0 in it"),
    "cell_confidence": RowColumn("<f8", 1, "probability of the most probable cell", identity=True),
    "true_cell_probability": RowColumn("<f8", 1, "probability of the true cell"),
    "cell_error_m": RowColumn("<f8", 1, "from the most probable cell's centre to the truth"),
    "cell_error_km": RowColumn("<f8", 1, "the same on the earth, in kilometres", optional=True),
    "expected_error_m": RowColumn("<f8", 1, "from the expected position to the truth"),
    "cell_entropy": RowColumn("<f8", 1, "of the probabilities, nats", identity=True),
    "prior_probability": RowColumn("<f8", 1, "share of the training images in the true cell"),
    "prior_error_m": RowColumn("<f8", 1, "from the fullest cell's centre to the truth"),
}
_WORDS = tuple(word for word in ROWS if not word.startswith("prior"))


def _placed(rows: Rows) -> Mask:
    return np.asarray((rows["cell"] >= 0) & (rows["true_cell"] >= 0))


def _statistics(rows: Rows, mask: Mask) -> Statistics:
    return statistics({word: rows[word][mask] for word in _WORDS})


def _prior(rows: Rows, mask: Mask) -> Statistics:
    error, share = rows["prior_error_m"][mask], rows["prior_probability"][mask]
    on_earth = bool(_on_earth(rows)[mask].any())
    return {
        **shares(error, RADII),
        **(shares(error, EARTH_RADII) if on_earth else {}),
        ("median_m", "p90_m"): quantiles(error, (0.5, 0.9)),
        "nll": mean(-np.log(np.maximum(share, SMALLEST_PROBABILITY))),
    }


def _on_earth(rows: Rows) -> Mask:
    return np.asarray(_placed(rows) & np.isfinite(rows["cell_error_km"]))


def _far(rows: Rows, mask: Mask) -> Statistics:
    return far_shares({"cell_error_km": rows["cell_error_km"][mask]})


def _details(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    mask = _placed(rows)
    right = rows["cell"][mask] == rows["true_cell"][mask]
    return {"reliability": reliability(rows["cell_confidence"][mask], right)}


def _distance(metres: float) -> str:
    return f"{metres:.2f} m" if metres < 1e4 else f"{metres / 1000:.0f} km"


def _surest_mistakes(rows: Rows) -> list[Shown]:
    """Returns frames off by more than half a metre, or on the earth a kilometre, surest first."""
    error, sure = rows["cell_error_m"], rows["cell_confidence"]
    least = np.where(_on_earth(rows), EARTH_RADII[0], RADII[0])
    wrong = _placed(rows) & (error > least)
    order = np.argsort(-np.where(wrong, sure, -np.inf), kind="stable")
    return [
        Shown(
            i,
            (
                f"off by {_distance(error[i])} ({sure[i]:.2f} sure)",
                f"the true cell was given {rows['true_cell_probability'][i]:.2f}",
            ),
        )
        for i in rows.apart(order[: int(wrong.sum())], 6)
    ]


CELLS = Section(
    "cells",
    "Where in the map, as cells",
    "How far the centre of the most probable cell is from the camera, in the plane of the cells or along the "
    "earth, and whether "
    "probabilities mean what they say. A position in no cell counts for the nearest one. The shares of the "
    "training images answer without an image.",
    (
        *(Metric(within_name(r), f"Within {r:g} m", "%") for r in RADII),
        *(Metric(within_name(r), f"Within {r / 1e3:g} km", "%") for r in EARTH_RADII),
        Metric("median_m", "Median distance", "m", False),
        Metric("p90_m", "90th percentile of the distance", "m", False),
        Metric("expected_median_m", "Median distance of the expected position", "m", False),
        Metric("top1", "True cell is the most probable", "%"),
        Metric("nll", "Negative log likelihood of the true cell", "", False),
        Metric("ece", "Expected calibration error", "%", False),
        Metric("entropy", "Mean entropy", "nats", False),
        Metric("covered", "Positions in a cell", "%"),
    ),
    (Part(_placed, _statistics, optional=True), Part(_on_earth, _far, optional=True)),
    {
        "prior": Baseline(
            "training images' shares",
            "always the shares of the training images in the cells",
            _prior,
        ),
    },
    details=_details,
    figures=figures.cells,
    galleries=(Gallery("Surest mistakes", _surest_mistakes),),
    headline="most probable cell {median_m} off",
)


class CellsJudge(Judge):
    """Judges cells by true poses."""

    truth: ClassVar[frozenset[str]] = frozenset({"pose"})
    needs: ClassVar[tuple[str, ...]] = ("cell_probabilities",)
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS
    oriented: ClassVar[bool] = False

    def facts(self, spec: Any) -> dict[str, Any]:
        return {"cells": spec.cells.tolist(), "images": list(spec.images), "plane": spec.plane}

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        count = len(frames.stamps_ns)
        if not facts:  # a recording without the model, which has the cells
            return {word: column.empty(count) for word, column in ROWS.items()}
        ground = ground_of(facts["plane"], np.array(facts["cells"]))
        images = np.array(facts["images"], np.float64)
        positions = ground.positions(frames.truth.positions)
        found = score_cells(frames.columns["cell_probabilities"], ground, positions)
        true, prior = found["true_cell"], images / images.sum()
        fullest = ground.centres[int(images.argmax())]
        return {
            **found,
            "prior_probability": np.where(true >= 0, prior[true], np.nan),
            "prior_error_m": ground.apart(positions, fullest),
        }

    def sections(self) -> Sequence[Section]:
        return (CELLS,)

    def why_not(self, settings: Numbers) -> str:
        return "where the cells are is in the model: give it with --model"

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds how much larger the mean distance is, and how many right cells are lost."""
        mask = _placed(float32)
        errors = [mean(rows["cell_error_m"][mask]) for rows in (program, float32)]
        right, still = (rows["cell"] == rows["true_cell"] for rows in (float32, program))
        return {
            "mean_m_ratio": evidence.ratio(
                errors, mask, ERRORS_RATIO, "mean distance of cells {:.3f} times"
            ),
            "cells_lost": evidence.at_most(right & ~still, mask, LOST),
        }
