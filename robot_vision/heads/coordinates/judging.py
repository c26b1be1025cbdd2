"""How poses from scene coordinates are judged: as those of the pose head, and by how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robot_vision.contract.metrics import (
    Columns,
    Frames,
    Judge,
    Mask,
    Metric,
    Part,
    Section,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.heads.coordinates.head import PREFIX
from robot_vision.heads.pose import judging as poses
from robot_vision.heads.pose.evaluation import score_poses
from robot_vision.statistics.bootstrap import Statistic, mean, quantiles
from robot_vision.statistics.paired import Bound, PairedEvidence

ANSWERED_LOST = 0.03  # of a program against float32: share of the images
_POSES = tuple(word for word in poses.ROWS if not word.startswith("spread"))
ROWS = {f"{PREFIX}{word}": poses.ROWS[word] for word in _POSES}
ROWS["inliers"] = RowColumn("<f8", 1, "share of the cells that agree on the pose", identity=True)
ROWS["has_truth"] = RowColumn("<f8", 1, "1 where there is a true pose")


def _judged(rows: Rows) -> Mask:
    return np.asarray((rows["has_truth"] == 1) & np.isfinite(rows["inliers"]))


def answered(rows: Mapping[str, Any] | Rows, mask: Mask) -> dict[Any, Statistic]:
    """Returns the share of frames with a pose, and the median share of cells that agree."""
    said = np.isfinite(rows[f"{PREFIX}position"][mask, 0]).astype(np.float64)
    return {"answered": mean(said), "inliers": quantiles(rows["inliers"][mask], (0.5,))}


COORDINATES = Section(
    "coordinates",
    "Scene coordinates",
    "Which share of the frames with a true pose has an estimate, since enough cells agree on one, and which "
    "share of the cells agrees. Errors are of the frames that have one.",
    (
        Metric("answered", "Frames with a pose", "%"),
        Metric("inliers", "Median share of cells that agree", "%"),
    ),
    (Part(_judged, answered),),
    headline="{answered} of the frames have a pose",
)


class CoordinatesJudge(Judge):
    """Judges poses by true poses."""

    truth: ClassVar[frozenset[str]] = frozenset({"pose"})
    needs: ClassVar[tuple[str, ...]] = (f"{PREFIX}position", f"{PREFIX}orientation_xyzw")
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS
    trajectory: ClassVar[tuple[str, str] | None] = (f"{PREFIX}position", f"{PREFIX}xyzw")

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        said, truth = frames.columns, frames.truth
        position = said[f"{PREFIX}position"]
        columns = score_poses(
            position,
            said[f"{PREFIX}orientation_xyzw"],
            said.get(f"{PREFIX}covariance", said.get(f"{PREFIX}published_covariance")),
            truth.positions,
            truth.xyzw,
        )
        found = {f"{PREFIX}{word}": columns[word] for word in _POSES if word in columns}
        inliers = said.get("inliers")
        if inliers is None:  # topics have poses alone
            inliers = np.full(len(position), np.nan)
        found["inliers"] = np.asarray(inliers, np.float64)
        found["has_truth"] = np.isfinite(truth.positions[:, 0]).astype(np.float64)
        return found

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds also how many images lose their pose."""
        mask = _judged(float32)
        said = [answered(rows, mask)["answered"] for rows in (program, float32)]
        return {
            "answered_lost": evidence.lost(said, mask, ANSWERED_LOST),
            **poses.certify_poses(float32, program, evidence, PREFIX),
        }

    def sections(self) -> Sequence[Section]:
        return (COORDINATES, poses.prefixed(PREFIX, poses.POSE))
