"""How poses are judged: errors without any alignment, honesty of the covariance, trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from robot_vision.charts.svg import number
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
    never,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.geometry.rotations import mean_pose, pose_error
from robot_vision.heads.pose import figures
from robot_vision.heads.pose.evaluation import COVERAGES, THRESHOLDS, score_poses, statistics
from robot_vision.heads.pose.trajectory_errors import TrajectorySettings, measure_trajectories
from robot_vision.statistics.bootstrap import Resampler, mean, quantiles
from robot_vision.statistics.normal import chi_squared_quantile
from robot_vision.statistics.paired import Bound, PairedEvidence

ERRORS_RATIO, COVERAGE_LOST = 1.03, 0.03  # of a program against float32
ROWS = {
    "spread_m": RowColumn(
        "<f8",
        1,
        "by which several answers differ: root of the trace of their covariance",
        optional=True,
    ),
    "spread_deg": RowColumn(
        "<f8", 1, "by which the rotations of several answers differ, degrees", optional=True
    ),
    "position": RowColumn("<f8", 3, "estimated, m", identity=True),
    "xyzw": RowColumn("<f8", 4, "estimated", identity=True),
    "pose_error": RowColumn(
        "<f8", 6, "m along and rad about the map's axes, from estimate to truth"
    ),
    "error_m": RowColumn("<f8", 1, "position error"),
    "error_deg": RowColumn("<f8", 1, "rotation error"),
    "sigma_m": RowColumn("<f8", 1, "predicted: root of the position covariance's trace"),
    "sigma_deg": RowColumn("<f8", 1, "predicted: root of the rotation covariance's trace"),
    "nees": RowColumn("<f8", 1, "normalised estimation error squared, 6 degrees of freedom"),
    "nees_position": RowColumn("<f8", 1, "3 degrees of freedom"),
    "nees_rotation": RowColumn("<f8", 1, "3 degrees of freedom"),
}


def _posed(rows: Rows) -> Mask:
    return np.isfinite(rows["error_m"])


def _errors(prefix: str = "") -> Callable[[Rows, Mask], Statistics]:
    return lambda rows, mask: statistics(
        rows[f"{prefix}error_m"][mask], rows[f"{prefix}error_deg"][mask]
    )


def _of_map(rows: Rows) -> list[float] | None:
    return rows.scores.extra.get("map_mean_pose")


def _always_the_mean(rows: Rows, mask: Mask) -> Statistics:
    position, xyzw = rows["true_position"][mask], rows["true_xyzw"][mask]
    given = _of_map(rows)
    middle = (np.array(given[:3]), np.array(given[3:])) if given else mean_pose(position, xyzw)
    said = [np.tile(part, (len(position), 1)) for part in middle]
    error = pose_error(said[0], said[1], position, xyzw)
    return statistics(
        np.linalg.norm(error[:, :3], axis=1), np.degrees(np.linalg.norm(error[:, 3:], axis=1))
    )


def _where(rows: Rows) -> str:
    return (
        "of the map"
        if rows.scores.has_map
        else "of the same recording, neighbours in time left out"
    )


def _retrieved(prefix: str) -> Callable[[Rows, Mask], Mask]:
    return lambda rows, mask: mask & np.isfinite(rows[f"{prefix}error_m"])


def _covariance(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    """Returns plain data on the predicted covariances; None where there is none."""
    posed = _posed(rows)
    mask = posed & np.isfinite(rows["nees"])
    if not mask.any():
        return {"covariance": None}
    found: dict[str, Any] = {
        "frames": int(mask.sum()),
        "not_positive_definite": int((posed & ~mask).sum()),
    }
    for part, degrees in (("nees", 6), ("nees_position", 3), ("nees_rotation", 3)):
        values = rows[part][mask]
        inside = values[:, None] <= [chi_squared_quantile(p, degrees) for p in COVERAGES]
        found[part] = {
            "degrees_of_freedom": degrees,
            **resampler.headlines(
                {
                    "mean_over_ideal": mean(values / degrees),
                    "median": quantiles(values, (0.5,)),
                    tuple(f"coverage_{round(100 * p)}" for p in COVERAGES): mean(inside),
                },
                mask,
            ),
        }
    return {"covariance": found}


def _furthest(rows: Rows) -> list[Shown]:
    """Returns frames whose position is furthest off."""
    error, shown = rows["error_m"], []
    order = np.argsort(-np.nan_to_num(error, nan=-np.inf), kind="stable")
    for i in rows.apart(order[: int(np.isfinite(error).sum())], 6):
        sigma = rows["sigma_m"][i]
        lines = [f"off by {error[i]:.2f} m, {rows['error_deg'][i]:.1f} deg"]
        lines += [f"predicted sigma {sigma:.2f} m"] if np.isfinite(sigma) else []
        shown.append(Shown(i, tuple(lines)))
    return shown


def _spread(word: str) -> Part:
    return Part(
        lambda rows: np.isfinite(rows[word]),
        lambda rows, mask: {word: quantiles(rows[word][mask], (0.5,))},
        never,
        optional=True,
    )


UNCERTAINTY = Section(
    "uncertainty",
    "Unknown images, and several answers to one",
    "By how much the answers to one image differ where the model answers several times.",
    (
        Metric("spread_m", "Median spread of positions", "m", False),
        Metric("spread_deg", "Median spread of rotations", "deg", False),
    ),
    (_spread("spread_m"), _spread("spread_deg")),
)

POSE = Section(
    "pose",
    "Camera pose in the map, without alignment",
    "Distance and angle between the estimated and the true camera, in the map's frame, as the robot gets "
    "them. Retrieval answers with the pose of the most similar image. Sigma is the root of the "
    "covariance's trace: the error that the network itself expects.",
    (
        Metric("median_m", "Median position error", "m", False),
        Metric("median_deg", "Median rotation error", "deg", False),
        Metric("mean_m", "Mean position error", "m", False),
        Metric("mean_deg", "Mean rotation error", "deg", False),
        Metric("p90_m", "90th percentile of position", "m", False),
        Metric("p90_deg", "90th percentile of rotation", "deg", False),
        *(
            Metric(f"within_{m:g}m_{d:g}deg", f"Within {m:g} m and {d:g} deg", "%")
            for m, d in THRESHOLDS
        ),
    ),
    (Part(_posed, _errors()),),
    {
        "mean_pose": Baseline(
            "mean pose",
            lambda rows: (
                "always the mean pose of the map"
                if _of_map(rows)
                else "always the mean true pose of these very frames"
            ),
            _always_the_mean,
            counted=True,
        ),
        "most_similar_image": Baseline(
            "most similar image",
            lambda rows: f"the pose of the most similar image {_where(rows)}",
            _errors("place_"),
            _retrieved("place_"),
            counted=True,
        ),
        "nearest_pose": Baseline(
            "nearest position",
            lambda rows: (
                f"the pose nearest in position {_where(rows)}: the best that retrieval could do"
            ),
            _errors("nearest_"),
            _retrieved("nearest_"),
            counted=True,
            bound=True,
        ),
    },
    lambda rows, mask: {"frames": int(mask.sum()), "alignment": "none"},
    details=_covariance,
    figures=figures.poses,
    galleries=(Gallery("Furthest off", _furthest),),
    headline="median pose error {median_m} and {median_deg}",
)


def _trajectory_table(numbers: Numbers) -> tuple[list[str], list[list[str]]]:
    cells = []
    for recording in numbers["recordings"]:
        for kind, parts in (recording.get("alignments") or {}).items():
            if not parts:
                continue
            for delta in parts.get("rpe") or [{}]:
                errors = [_rmse(p, u) for p in (parts.get("ate"), delta) for u in ("m", "deg")]
                over = f"{delta.get('delta_s', 0):.3g} s" if delta else ""
                cells.append([recording["name"], kind, *errors, over])
    return ["recording", "alignment", "ATE, m", "ATE, deg", "RPE, m", "RPE, deg", "over"], cells


def _rmse(part: Numbers | None, unit: str) -> str:
    value = (part or {}).get(f"rmse_{unit}")
    if isinstance(value, Mapping):
        value = value.get("value")
    return "-" if value is None else number(float(f"{value:.4g}"))


TRAJECTORY = Section(
    "trajectory",
    "Trajectory",
    "Absolute (ATE) and relative (RPE) trajectory errors as evo computes them, root mean square, after the "
    "alignment named. An aligned error says less about a robot than the errors above.",
    details=lambda rows, resampler: measure_trajectories(rows, resampler.settings) or {},
    table=_trajectory_table,
)


@dataclass(frozen=True, eq=False)
class _Prefixed(Rows):
    """Rows of a head whose words for poses begin with a prefix, seen as if they did not."""

    prefix: str = ""

    def __getitem__(self, word: str) -> Any:
        name = self.head.key(f"{self.prefix}{word}")
        return (
            self.scores.columns[name] if name in self.scores.columns else super().__getitem__(word)
        )


def prefixed(prefix: str, section: Section) -> Section:
    """Returns a section on poses for another head that gives them, whose rows and key have a prefix."""

    def seen(rows: Rows) -> Rows:
        return _Prefixed(rows.scores, rows.head, rows.settings, prefix)

    def through(function: Any) -> Any:
        return function and (lambda rows, *others: function(seen(rows), *others))

    return replace(
        section,
        key=f"{prefix}{section.key}",
        parts=[
            replace(p, usable=through(p.usable), statistics=through(p.statistics))
            for p in section.parts
        ],
        baselines={
            name: replace(
                b,
                text=b.text if isinstance(b.text, str) else through(b.text),
                statistics=through(b.statistics),
                usable=through(b.usable),
            )
            for name, b in section.baselines.items()
        },
        counts=through(section.counts),
        details=through(section.details),
        figures=through(section.figures),
        galleries=[replace(g, frames=through(g.frames)) for g in section.galleries],
    )


class PoseJudge(Judge):
    """Judges poses by true poses."""

    truth: ClassVar[frozenset[str]] = frozenset({"pose"})
    needs: ClassVar[tuple[str, ...]] = ("position", "orientation_xyzw")
    row_columns: ClassVar[Mapping[str, RowColumn]] = ROWS
    Settings: ClassVar[type[Any]] = TrajectorySettings
    trajectory: ClassVar[tuple[str, str] | None] = ("position", "xyzw")

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        said, truth = frames.columns, frames.truth
        columns = score_poses(
            said["position"],
            said["orientation_xyzw"],
            said.get("covariance"),
            truth.positions,
            truth.xyzw,
        )
        if "spread" in said:
            variances = np.diagonal(said["spread"], axis1=1, axis2=2).astype(np.float64)
            columns["spread_m"] = np.sqrt(variances[:, :3].sum(axis=1))
            columns["spread_deg"] = np.degrees(np.sqrt(variances[:, 3:].sum(axis=1)))
        return columns

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        return certify_poses(float32, program, evidence)

    def sections(self) -> Sequence[Section]:
        return (UNCERTAINTY, POSE, TRAJECTORY)


def certify_poses(
    float32: Rows, program: Rows, evidence: PairedEvidence, prefix: str = ""
) -> Mapping[str, Bound]:
    """Bounds how much larger the mean errors are, and how many truths leave the 95 % ellipsoid."""
    if prefix:
        float32, program = (
            _Prefixed(r.scores, r.head, r.settings, prefix) for r in (float32, program)
        )
    mask, pair = _posed(float32) & _posed(program), (program, float32)
    found = {
        f"mean_{unit}_ratio": evidence.ratio(
            [mean(rows[f"error_{unit}"][mask]) for rows in pair], mask, ERRORS_RATIO, words
        )
        for unit, words in (("m", "mean position error {:.3f} times"), ("deg", ""))
    }
    sure = mask & np.isfinite(float32["nees"])
    if sure.any():
        most = chi_squared_quantile(0.95, 6)
        inside = [mean(rows["nees"][sure] <= most) for rows in pair]
        found["coverage_95_lost"] = evidence.lost(inside, sure, COVERAGE_LOST)
    return found
