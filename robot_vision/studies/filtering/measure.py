"""What the filters make of a recording's predictions, and what that gains: no ROS is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.rows import Scores
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import MeasurementError, SourceError, unknown
from robot_vision.evaluation.measure.association import associate
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.filters.class_filter import ClassFilter, ClassModel
from robot_vision.filters.pose_filter import LOCALISED, PoseFilter, PoseFilterSettings
from robot_vision.filters.position_cells import PositionCells
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.heads.classifier.evaluation import SMALLEST_PROBABILITY
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.storage import slashed
from robot_vision.statistics.bootstrap import Resampler, Statistic, difference, mean, quantiles
from robot_vision.statistics.normal import chi_squared_quantile
from robot_vision.statistics.reliability import calibration_error
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors, simulated_odometry
from robot_vision.truth.tracks import Truth

Array = NDArray[np.float64]
ODOMETRY = "nav_msgs/msg/Odometry"

Statistics = dict[Any, Statistic]


@dataclass(frozen=True, eq=False)
class OdometryTrack:
    """Odometry of a recording.

    Attributes:
        stamps_ns: int64 (M,), increasing.
        poses: (M, 4, 4), of the camera in the odometry's frame.
        text: where it comes from.
    """

    stamps_ns: NDArray[np.int64]
    poses: Array
    text: str


@dataclass(frozen=True, eq=False)
class CellsTrack:
    """What a head of cells said of N images.

    Attributes:
        source: the head's name.
        corners: (K, 4), metres: low and high corner of each cell along two axes of the map.
        axes: the two, as numbers of x, y and z.
        probabilities: (N, K), NaN where nothing was said.
    """

    source: str
    corners: Array
    axes: tuple[int, int]
    probabilities: NDArray[Any]


def read_odometry(path: Path, topic: str, T_base_camera: Array) -> OdometryTrack:
    """Reads `nav_msgs/Odometry` of a bag.

    Args:
        path: the bag.
        topic: its name.
        T_base_camera: where the camera is on the robot (4, 4): the odometry is that of the robot.

    Raises:
        SourceError: no such topic, or nothing on it.
    """
    bag = BagFile(path)
    try:
        name = slashed(topic)
        there = [t for t, kind in bag.kinds.items() if kind == ODOMETRY]
        if name not in there:
            raise SourceError(f"{unknown('odometry topic', name, there or ['none'])} (in {path})")
        rows: dict[int, Array] = {}
        for record in bag.raw([name]):
            message = bag.message(record)
            p, q = message.pose.pose.position, message.pose.pose.orientation
            numbers = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
            if np.all(np.isfinite(numbers)) and abs(np.linalg.norm(numbers[3:]) - 1) < 0.01:
                matrix = pose_matrix(numbers[:3], numbers[3:])
                rows[stamp_to_ns(message.header.stamp)] = matrix @ T_base_camera
    finally:
        bag.close()
    if not rows:
        raise SourceError(f"{path}: {name} holds no odometry that can be used")
    stamps = sorted(rows)
    return OdometryTrack(np.array(stamps, np.int64), np.array([rows[s] for s in stamps]), name)


def odometry_of_truth(
    predictions: Predictions, truth: Truth, errors: OdometryErrors, seed: int
) -> OdometryTrack:
    """Makes odometry of the true poses of a recording's frames.

    Raises:
        SourceError: there are none.
    """
    found = associate(predictions, truth)
    there = np.isfinite(found.positions[:, 0])
    if not there.any():
        raise SourceError(
            f"{predictions.recording} has no true poses to make odometry from: use --odometry none"
        )
    stamps = found.predictions.stamps_ns[there]
    rows = zip(found.positions[there], found.xyzw[there], strict=True)
    poses = np.array([pose_matrix(p, q) for p, q in rows])
    made = simulated_odometry(stamps, poses, errors, seed)
    return OdometryTrack(stamps, made, f"simulated with seed {seed}: {errors.words()}")


def filtered_classes(
    predictions: Predictions, model: ClassModel, threshold: float | None
) -> Predictions:
    """Returns the predictions with class probabilities as the filter gives them.

    `probabilities` are those of the classes given that it is one of them, `known_score` is the probability
    of that. A frame that the filter refuses keeps what the network said.

    Args:
        predictions: of one camera.
        model: with the same labels.
        threshold: below this known score an image counts as refused; None for never.
    """
    assert predictions.probabilities is not None
    filter_ = ClassFilter(model)
    probabilities = np.array(predictions.probabilities, np.float64)
    known = np.ones(len(predictions))
    score = predictions.known_score
    for i in np.argsort(predictions.stamps_ns, kind="stable"):
        refused = threshold is not None and score is not None and bool(score[i] < threshold)
        try:
            belief = filter_.update(int(predictions.stamps_ns[i]), probabilities[i], refused)
        except MeasurementError:
            continue
        probabilities[i], known[i] = belief.known, 1 - belief.unknown
    return replace(predictions, probabilities=probabilities, known_score=known)


def filtered_poses(
    predictions: Predictions,
    settings: PoseFilterSettings,
    odometry: OdometryTrack | None,
    cells: Sequence[CellsTrack] = (),
) -> tuple[Predictions, dict[str, int]]:
    """Returns the predictions with poses as the filter gives them right after each image, and counts.

    Before there is an estimate, poses are NaN. Of one image the pose is used first and cells after it; both
    are of the camera. Counts are those of the filter node.
    """
    assert predictions.position is not None and predictions.orientation_xyzw is not None
    count = len(predictions)
    position = np.full((count, 3), np.nan)
    xyzw, covariance = np.full((count, 4), np.nan), np.full((count, 6, 6), np.nan)
    given = predictions.covariance
    filter_ = PoseFilter(settings)
    counts: Counter[str] = Counter()
    stamps = [] if odometry is None else odometry.stamps_ns.tolist()
    next_ = 0
    for i in np.argsort(predictions.stamps_ns, kind="stable"):
        stamp = int(predictions.stamps_ns[i])
        # One pose of the odometry beyond the image, where there is one: images wait for it.
        while odometry is not None and next_ < len(stamps):
            if next_ > 0 and stamps[next_ - 1] >= stamp:
                break
            for outcome in _added(filter_, stamps[next_], odometry.poses[next_], counts):
                counts[outcome.verdict] += 1
            next_ += 1
        try:
            T = pose_matrix(predictions.position[i], predictions.orientation_xyzw[i])
            C = np.full((6, 6), np.nan) if given is None else np.asarray(given[i], np.float64)
            for outcome in filter_.add_pose(stamp, T, C, "network"):
                counts[outcome.verdict] += 1
        except (MeasurementError, ValueError) as error:
            counts[f"refused_{getattr(error, 'reason', 'non_finite')}"] += 1
        for track in cells:
            p = np.asarray(track.probabilities[i], np.float64)
            counts["cells_received"] += 1
            try:
                if not np.all(np.isfinite(p)):
                    raise MeasurementError("non_finite", "a cell's probability is not finite")
                said = PositionCells(track.corners, p / p.sum(), track.axes)
                for outcome in filter_.add_cells(stamp, said, track.source):
                    counts[outcome.verdict] += 1
            except MeasurementError as error:
                counts[f"refused_{error.reason}"] += 1
        estimate = filter_.estimate(stamp)
        if estimate is not None:
            position[i], xyzw[i] = estimate.position, estimate.orientation_xyzw
            covariance[i] = estimate.covariance
            counts[LOCALISED] += filter_.condition(estimate) == LOCALISED
    return (
        replace(predictions, position=position, orientation_xyzw=xyzw, covariance=covariance),
        dict(counts),
    )


def _added(filter_: PoseFilter, stamp: int, T: Array, counts: Counter[str]) -> list[Any]:
    try:
        outcomes, why = filter_.add_odometry(stamp, T)
    except MeasurementError as error:
        counts[f"odometry_{error.reason}"] += 1
        return []
    counts["odometry_jumps"] += bool(why)
    return outcomes


# What it gains


def gains(
    raw: Scores, filtered: Scores, settings: EvaluationSettings
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns each number raw, filtered, and their difference with its interval, of the same frames.

    `classification` and `pose`, each a number by its name with `raw`, `filtered` and `difference` (`value`,
    `low`, `high`); and `frames`, those that have both.
    """
    resampler = Resampler(raw["stamps_ns"], raw.bounds, settings)
    plain = Resampler(raw["stamps_ns"], raw.bounds, replace(settings, resamples=0))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for section, make, usable in (
        ("classification", _class_statistics, _classified),
        ("pose", _pose_statistics, _posed),
    ):
        rows = usable(raw) & usable(filtered)
        if not rows.any():
            continue
        before, after = make(raw, rows), make(filtered, rows)
        gained = {name: difference(after[name], before[name]) for name in before}
        numbers: dict[str, dict[str, Any]] = {}
        was, now = plain.headlines(before, rows), plain.headlines(after, rows)
        for name, change in resampler.headlines(gained, rows).items():
            numbers[name] = {
                "raw": was[name]["value"],
                "filtered": now[name]["value"],
                "difference": change,
            }
        numbers["frames"] = {"raw": int(rows.sum()), "filtered": int(rows.sum())}
        found[section] = numbers
    return found


def _classified(s: Scores) -> NDArray[np.bool_]:
    return np.asarray((s["true_label"] >= 0) & (s["predicted_label"] >= 0))


def _posed(s: Scores) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(s["error_m"]))


def _class_statistics(s: Scores, rows: NDArray[np.bool_]) -> Statistics:
    right = (s["predicted_label"] == s["true_label"])[rows]
    nll = -np.log(np.maximum(s["true_probability"][rows], SMALLEST_PROBABILITY))
    return {
        ("accuracy", "nll", "brier"): mean(np.stack([right, nll, s["brier"][rows]], axis=1)),
        "ece": calibration_error(s["confidence"][rows], right),
    }


def _pose_statistics(s: Scores, rows: NDArray[np.bool_]) -> Statistics:
    statistics: Statistics = {
        ("median_m", "p95_m"): quantiles(s["error_m"][rows], (0.5, 0.95)),
        ("median_deg", "p95_deg"): quantiles(s["error_deg"][rows], (0.5, 0.95)),
    }
    nees = s["nees"][rows]
    if np.isfinite(nees).all():
        inside = nees <= chi_squared_quantile(0.95, 6)
        statistics["nees_over_ideal", "coverage_95"] = mean(np.stack([nees / 6, inside], axis=1))
    return statistics


def gain_lines(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """Returns rows of a table: number, raw, filtered, difference with its interval."""
    lines = []
    for section in found.values():
        for name, numbers in section.items():
            change = numbers.get("difference")
            cells = [name, _text(numbers["raw"]), _text(numbers["filtered"])]
            if change is None:
                lines.append([*cells, ""])
                continue
            interval = (
                f" [{change['low']:+.3g}, {change['high']:+.3g}]"
                if change["low"] is not None
                else ""
            )
            lines.append([*cells, f"{change['value']:+.3g}{interval}"])
    return lines


def _text(value: float | int | None) -> str:
    return "" if value is None else f"{value:.4g}"
