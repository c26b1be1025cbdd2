"""How depth is judged: by its errors, by these after scaling, and by whether its uncertainty is true."""

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
    Part,
    Section,
    Shown,
    Statistics,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.heads.depth import evaluation as measures
from robot_vision.heads.depth.evaluation import BINS, REMOVED, SUMS
from robot_vision.heads.depth.figures import sparsification_chart
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.paired import Bound, PairedEvidence, number_of

ERRORS_RATIO, COVERAGE_LOST = 1.03, 0.03  # of a program against float32
ROWS = {
    "depth_sums": RowColumn("<f8", len(SUMS), f"sums over pixels with truth: {', '.join(SUMS)}"),
    "depth_scaled": RowColumn("<f8", len(SUMS), "the same, scaled to the median of the truth"),
    "depth_scale": RowColumn("<f8", 1, "by which the frame was scaled for that"),
    "depth_silent": RowColumn("<f8", 1, "pixels with truth where nothing is said"),
    "depth_inside": RowColumn("<f8", 2, "pixels inside of the intervals of 50 and 90 percent"),
    "depth_order": RowColumn("<f8", 2 * BINS, "pixels by sigma, and their sums of AbsRel"),
    "depth_best": RowColumn("<f8", 2 * BINS, "pixels by error, and their sums of AbsRel"),
}


def _known(rows: Rows) -> Mask:
    return rows["depth_sums"][:, 0] > 0


def _sure(rows: Rows) -> Mask:
    return np.isfinite(rows["depth_inside"][:, 0])


def _errors(word: str) -> Part:
    return Part(_known, lambda rows, mask: measures.statistics(rows[word][mask]))


def _uncertainty(rows: Rows, mask: Mask) -> Statistics:
    pixels, inside = rows["depth_sums"][mask, 0], rows["depth_inside"][mask]
    order, best = rows["depth_order"][mask], rows["depth_best"][mask]
    return {**measures.coverages(pixels, inside), **measures.sparsification(order, best)}


def _curve(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    mask = _sure(rows)
    if not mask.any():
        return {}
    found = {
        name: measures.left(total[:BINS], total[BINS:], 1 - REMOVED).tolist()
        for name, total in (
            ("abs_rel", rows["depth_order"][mask].sum(axis=0)),
            ("best", rows["depth_best"][mask].sum(axis=0)),
        )
    }
    return {"sparsification": {"removed": REMOVED.tolist(), **found}}


def _counts(rows: Rows, mask: Mask) -> dict[str, Any]:
    pixels, silent = rows["depth_sums"][mask, 0].sum(), np.nansum(rows["depth_silent"][mask])
    return {"frames": int(mask.sum()), "pixels": int(pixels), "silent_pixels": int(silent)}


def _worst(rows: Rows) -> list[Shown]:
    sums = rows["depth_sums"]
    with np.errstate(divide="ignore", invalid="ignore"):
        error, inside = sums[:, 1] / sums[:, 0], sums[:, 6] / sums[:, 0]
    order = np.argsort(-np.nan_to_num(error, nan=-np.inf), kind="stable")[: int(_known(rows).sum())]
    return [
        Shown(i, (f"AbsRel {error[i]:.3f}", f"{100 * inside[i]:.0f}% within a factor of 1.25"))
        for i in rows.apart(order, 6)
    ]


_METRICS = (
    Metric("abs_rel", "AbsRel", "", False),
    Metric("sq_rel", "SqRel", "m", False),
    Metric("rmse", "RMSE", "m", False),
    Metric("rmse_log", "RMSE of the logarithm", "", False),
    Metric("log10", "log10", "", False),
    Metric("delta_1", "Within a factor of 1.25", "%"),
    Metric("delta_2", "Within a factor of 1.25²", "%"),
    Metric("delta_3", "Within a factor of 1.25³", "%"),
)

DEPTH = Section(
    "depth",
    "Depth",
    "How far the depth along the optical axis is from the true one, over all pixels that have a truth "
    "within the head's range (Eigen et al. 2014).",
    _METRICS,
    (_errors("depth_sums"),),
    {
        "constant": Baseline(
            "one depth",
            "always the geometric mean of these very depths",
            lambda rows, mask: measures.always_one_depth(rows["depth_sums"][mask]),
        )
    },
    _counts,
    galleries=(Gallery("Largest errors of depth", _worst, drawn=True),),
    headline="depth AbsRel {abs_rel}, {delta_1} within a factor of 1.25",
)

SCALED = Section(
    "depth_scaled",
    "Depth, scaled",
    "The same after each frame was scaled so that its median is the true one: what is left when the size of "
    "everything is known.",
    _METRICS,
    (_errors("depth_scaled"),),
    counts=_counts,
)

UNCERTAINTY = Section(
    "depth_uncertainty",
    "Uncertainty of depth",
    "Which share of the true depths lies within the intervals, and whether the least sure pixels are those "
    "that err (Ilg et al. 2018): the area between the sparsification curve and the best one, and AbsRel of "
    "the surest 70 percent, both as shares of AbsRel of all.",
    (
        Metric("coverage_90", "Within the 90 % interval", "%"),
        Metric("coverage_50", "Within the 50 % interval", "%"),
        Metric("ause", "Area under the sparsification error", "", False),
        Metric("surest_70", "AbsRel of the surest 70 % over that of all", "", False),
    ),
    (Part(_sure, _uncertainty),),
    counts=_counts,
    details=_curve,
    figures=lambda rows, numbers: sparsification_chart(numbers.get("sparsification")),
)


class DepthJudge(Judge):
    """Judges depth by true depth images."""

    truth: ClassVar[frozenset[str]] = frozenset({"image:depth"})
    needs: ClassVar[tuple[str, ...]] = ("depth",)
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS

    def facts(self, spec: DepthSpec) -> dict[str, Any]:
        return {"minimum": spec.minimum, "maximum": spec.maximum}

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        count = len(frames.stamps_ns)
        found = {word: column.empty(count) for word, column in ROWS.items()}
        deviations = frames.columns.get("depth_deviation")
        for i, said, true in frames.pairs("depth", "image:depth", np.nan):
            deviation = None if deviations is None else deviations[i]
            sigma = None if deviation is None else deviation / said.astype(np.float32)
            row = frame_row(said, sigma, true, facts)
            for word, numbers in row.items():
                found[word][i] = numbers
        return found

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds how much larger AbsRel is, and how many truths leave the 90 % intervals."""
        mask, sure = _known(float32), _sure(float32)
        pair = (program, float32)
        errors = [
            number_of(measures.statistics(rows["depth_sums"][mask]), "abs_rel") for rows in pair
        ]
        found = {"abs_rel_ratio": evidence.ratio(errors, mask, ERRORS_RATIO, "AbsRel {:.3f} times")}
        if sure.any():
            inside = [number_of(_uncertainty(rows, sure), "coverage_90") for rows in pair]
            found["coverage_90_lost"] = evidence.lost(inside, sure, COVERAGE_LOST)
        return found

    def sections(self) -> Sequence[Section]:
        return (DEPTH, SCALED, UNCERTAINTY)


def frame_row(said: Any, sigma: Any, true: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a frame's row, without what needs a sigma where there is none.

    Args:
        said: (h, w), metres; NaN where nothing is said.
        sigma: (h, w), or None.
        true: (h, w), metres; NaN where there is no truth.
        facts: `minimum` and `maximum` of the range.
    """
    said, true = np.asarray(said, np.float64), np.asarray(true, np.float64)
    with np.errstate(invalid="ignore"):
        known = (true >= facts["minimum"]) & (true <= facts["maximum"])
        spoken = known & (said > 0) & np.isfinite(said)
    silent = float(known.sum() - spoken.sum())
    if not spoken.any():
        return {"depth_sums": np.zeros(len(SUMS)), "depth_silent": silent}
    d, t = said[spoken], true[spoken]
    scale = measures.scale_of(d, t)
    row: dict[str, Any] = {
        "depth_sums": measures.error_sums(d, t),
        "depth_scaled": measures.error_sums(scale * d, t),
        "depth_scale": scale,
        "depth_silent": silent,
    }
    if sigma is not None:
        s, errors = np.asarray(sigma, np.float64)[spoken], np.abs(d - t) / t
        row["depth_inside"] = measures.inside_sums(d, s, t)
        row["depth_order"] = np.concatenate(measures.order_sums(errors, s))
        row["depth_best"] = np.concatenate(measures.order_sums(errors, errors))
    return row
