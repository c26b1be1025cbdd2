"""What the heads are worth on a split: accuracy, pose errors and their honesty, recall of places.

The numbers are `robot_vision.evaluation`'s, as an evaluation of a recording gives them; here are tensors in
and the few of them that a model card shows out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.geometry import rotations
from robot_vision.heads.classifier import evaluation as classification
from robot_vision.heads.place import evaluation as places
from robot_vision.heads.pose import evaluation as poses
from robot_vision.statistics.bootstrap import mean, values
from robot_vision.statistics.judging import judge
from robot_vision.statistics.normal import chi_squared_quantile
from robot_vision.statistics.settings import EvaluationSettings
from robot_vision.training.config import PlaceConfig

IDEAL_NEES = 6.0  # the mean of a chi-squared variable with six degrees of freedom

Array = NDArray[np.float64]
Metrics = dict[str, Any]
Targets = dict[str, Tensor]


def classifier_metrics(probabilities: Tensor, targets: Targets, labels: tuple[str, ...]) -> Metrics:
    """Measures class probabilities.

    Args:
        probabilities: (N, K).
        targets: `label`; samples with -1 are left out.
        labels: names of the K classes.

    Returns:
        accuracy, macro_recall (the mean over the classes that occur), nll (nats), ece (expected
        calibration error, see `evaluation.calibration`), errors, images, recall by label.
    """
    known = targets["label"] >= 0
    y = targets["label"][known].numpy()
    if len(y) == 0:
        return {"images": 0}
    columns = classification.score_classes(probabilities[known].numpy(), y)
    right = columns["predicted_label"] == y
    found = values(classification.statistics({**columns, "true_label": y}), len(y))
    return {
        "accuracy": found["top1"],
        "macro_recall": found["macro_recall"],
        "nll": found["nll"],
        "ece": found["ece"],
        "errors": int((~right).sum()),
        "images": len(y),
        "recall": {n: float(right[y == i].mean()) for i, n in enumerate(labels) if (y == i).any()},
    }


def quaternions_xyzw(rotations: Tensor) -> Tensor:
    """Returns unit quaternions (N, 4), w >= 0, of matrices (N, 3, 3) that are rotations up to rounding.

    Bar-Itzhack (2000): the eigenvector of the largest eigenvalue, without cases.
    """
    r = rotations.double()
    k = torch.zeros(len(r), 4, 4, dtype=torch.float64)
    trace = r.diagonal(dim1=1, dim2=2).sum(1)
    k[:, :3, :3] = r + r.transpose(1, 2) - trace[:, None, None] * torch.eye(3, dtype=torch.float64)
    k[:, 3, 3] = trace
    vector = torch.stack(
        [r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], 1
    )
    k[:, 3, :3] = k[:, :3, 3] = vector
    q = torch.linalg.eigh(k)[1][:, :, -1]
    return torch.where(q[:, 3:] < 0, -q, q)


def pose_errors(position: Tensor, xyzw: Tensor, T_map_camera: Tensor) -> Tensor:
    """Returns (N, 6) errors: metres along the map's axes, then the rotation vector about them in radians.

    The rotation is the one from the prediction to the truth, `R_true = exp(delta) @ R_predicted`.
    """
    error = rotations.pose_error(
        position.double().numpy(),
        xyzw.double().numpy(),
        T_map_camera[:, :3, 3].double().numpy(),
        quaternions_xyzw(T_map_camera[:, :3, :3]).numpy(),
    )
    return torch.from_numpy(error)


def pose_metrics(outputs: dict[str, Tensor], targets: Targets) -> Metrics:
    """Measures poses; samples without a true pose are left out.

    Args:
        outputs: `position`, `orientation_xyzw`, and `pose_covariance` where there is one.
        targets: `T_map_camera`, `has_pose`.

    Returns:
        Median and mean position error (m) and rotation error (deg); nees: the mean normalised
        estimation error squared over its ideal (1 is honest, more is overconfident); frames.
    """
    known = targets["has_pose"]
    if not bool(known.any()):
        return {"frames": 0}
    errors = pose_errors(
        outputs["position"][known],
        outputs["orientation_xyzw"][known],
        targets["T_map_camera"][known],
    )
    metres, degrees = _sizes(errors)
    found = values(poses.statistics(metres, degrees), len(metres))
    metrics: Metrics = {
        "median_position_m": found["median_m"],
        "median_rotation_deg": found["median_deg"],
        "mean_position_m": found["mean_m"],
        "mean_rotation_deg": found["mean_deg"],
        "within_25cm_5deg": found[poses.threshold_name(0.25, 5.0)],
        "frames": len(errors),
    }
    if "pose_covariance" in outputs:
        covariance = outputs["pose_covariance"][known].double()
        nees = poses.normalised_squares(errors.numpy(), covariance.numpy())
        nees = nees[np.isfinite(nees)]
        metrics["nees"] = float(nees.mean()) / IDEAL_NEES
        inside = nees <= chi_squared_quantile(0.95, 6)
        metrics["within_95_percent_ellipsoid"] = float(inside.mean())
    return metrics


def _sizes(errors: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns metres and degrees (N,) of errors (N, 6)."""
    metres = np.linalg.norm(errors[:, :3].numpy(), axis=1)
    return metres, np.degrees(np.linalg.norm(errors[:, 3:].numpy(), axis=1))


def place_metrics(
    descriptors: Tensor,
    targets: Targets,
    stored: Tensor,
    stored_targets: Targets,
    place: PlaceConfig,
    each: dict[str, Array] | None = None,
) -> Metrics:
    """Measures retrieval over the answerable queries: those with at least one image of the same place.

    Args:
        descriptors: (Q, n) of L2 norm 1, to look up.
        targets: `T_map_camera`, `has_pose`, of the queries; those without a pose are none.
        stored: (D, n), to look up in.
        stored_targets: of the D.
        place: what counts as the same place.
        each: see `measure`.

    Returns:
        recall_at_1, _5 and _10, queries, and how many of them are answerable.
    """
    settings = EvaluationSettings(
        place_radius_m=place.positive_m, place_heading_deg=place.positive_deg
    )
    columns = places.score_places(
        _to_look_up(descriptors, targets), _to_look_up(stored, stored_targets), settings, False
    )
    answerable = columns["place_positives"] > 0
    metrics: Metrics = {
        "queries": int((columns["place_match"] >= 0).sum()),
        "answerable": int(answerable.sum()),
    }
    if answerable.any():
        rank = columns["place_rank"][answerable]
        hits = {f"recall_at_{k}": mean(rank < k) for k in (1, 5, 10)}
        metrics.update(values(hits, len(rank)))
        if each is not None:
            each["place"] = np.full((len(answerable), 1), np.nan)
            each["place"][answerable, 0] = (rank < 1) + 0.01 * (rank < 5)
    return metrics


def _to_look_up(descriptors: Tensor, targets: Targets) -> places.Views:
    T_map_camera = targets["T_map_camera"].double()
    position = torch.where(targets["has_pose"][:, None], T_map_camera[:, :3, 3], torch.nan)
    xyzw = quaternions_xyzw(T_map_camera[:, :3, :3])
    none = np.zeros(len(position), np.int64)  # stamps: nothing is left out by them
    return places.Views(descriptors.float().numpy(), position.numpy(), xyzw.numpy(), none)


def score(metrics: dict[str, Metrics], spread: tuple[float, float]) -> float:
    """One number by which checkpoints are compared, higher is better: the mean over the heads.

    classifier: accuracy, less a hundredth of the negative log likelihood, which tells apart what small
    validation sets cannot. pose: one, less the mean of both median errors over those of the mean pose.
    place: recall@1, plus a hundredth of recall@5.

    Args:
        metrics: head to its metrics.
        spread: median position (m) and rotation (deg) error of the mean pose.
    """
    values = []
    for head, m in metrics.items():
        if head == "classifier" and "accuracy" in m:
            values.append(m["accuracy"] - 0.01 * m["nll"])
        elif head == "pose" and "median_position_m" in m:
            share = m["median_position_m"] / spread[0] + m["median_rotation_deg"] / spread[1]
            values.append(1 - share / 2)
        elif head == "place" and "recall_at_1" in m:
            values.append(m["recall_at_1"] + 0.01 * m["recall_at_5"])
    return float(np.mean(values)) if values else float("nan")


def measure(
    outputs: dict[str, Tensor],
    targets: Targets,
    stored: Tensor | None,
    stored_targets: Targets | None,
    labels: tuple[str, ...],
    heads: tuple[str, ...],
    place: PlaceConfig,
    each: dict[str, Array] | None = None,
) -> dict[str, Metrics]:
    """Measures final values, wherever they come from.

    Args:
        outputs: by the names of `NetworkSpec.outputs`, (N, ...).
        targets: of the N samples.
        stored: descriptors (D, n) of the database, or None.
        stored_targets: of the D samples.
        labels: of the classifier.
        heads: to measure.
        place: what counts as the same place.
        each: gets for each head what `score` averages, a row for each of the N samples; NaN where a sample
            has no truth.

    Returns:
        Head to its metrics.
    """
    metrics: dict[str, Metrics] = {}
    if each is not None:
        each.update(_of_each(outputs, targets, heads))
    if "classifier" in heads:
        metrics["classifier"] = classifier_metrics(outputs["probabilities"], targets, labels)
    if "pose" in heads:
        metrics["pose"] = pose_metrics(outputs, targets)
    if "place" in heads and stored is not None and stored_targets is not None:
        metrics["place"] = place_metrics(
            outputs["descriptor"], targets, stored, stored_targets, place, each
        )
    return metrics


def _of_each(
    outputs: dict[str, Tensor], targets: Targets, heads: tuple[str, ...]
) -> dict[str, Array]:
    """Returns (N, 1) of classifiers: right or not, less a hundredth of the nll; (N, 2) of poses."""
    found: dict[str, Array] = {}
    if "classifier" in heads:
        labels = targets["label"].numpy()
        columns = classification.score_classes(outputs["probabilities"].numpy(), labels)
        right = (columns["predicted_label"] == labels).astype(np.float64)
        loss = -np.log(np.maximum(columns["true_probability"], 1e-12))
        found["classifier"] = (right - 0.01 * loss)[:, None]
    if "pose" in heads and bool(targets["has_pose"].any()):
        known = targets["has_pose"]
        numbers = np.full((len(known), 2), np.nan)
        errors = pose_errors(
            outputs["position"][known],
            outputs["orientation_xyzw"][known],
            targets["T_map_camera"][known],
        )
        numbers[known.numpy()] = np.stack(_sizes(errors), axis=1)
        found["pose"] = numbers
    return found


def noise_of(
    now: dict[str, Array], best: dict[str, Array], spread: tuple[float, float], units: NDArray[Any]
) -> float:
    """Returns the standard error of the difference of two scores on the same samples.

    Samples are paired: what makes one hard is on both sides. Pose errors are taken up to twice those of the
    mean pose, since `score` takes medians, which no outlier moves.

    Args:
        now: what `measure` gave for each sample.
        best: of other weights.
        spread: as in `score`.
        units: (N,), which samples are alike and count as one.
    """
    squares = 0.0
    heads = set(now) & set(best)
    for head in heads:
        sides = []
        for numbers in (best[head], now[head]):
            if head == "pose":
                numbers = 1 - np.minimum(numbers / np.array(spread), 2.0)
            sides.append(numbers.mean(axis=1))
        there = np.isfinite(sides[0]) & np.isfinite(sides[1])
        if there.any():
            squares += judge(sides[0][there], sides[1][there], units[there]).noise ** 2
    return float(np.sqrt(squares)) / max(len(heads), 1)


def mean_pose(targets: Targets) -> tuple[Tensor, Tensor]:
    """Returns the mean position (3,) and the mean rotation as quaternion (4,) of the true poses."""
    known = targets["has_pose"]
    T_map_camera = targets["T_map_camera"][known].double()
    position, xyzw = rotations.mean_pose(
        T_map_camera[:, :3, 3].numpy(), quaternions_xyzw(T_map_camera[:, :3, :3]).numpy()
    )
    return torch.from_numpy(position), torch.from_numpy(xyzw)


def pose_spread(train: Targets, targets: Targets) -> tuple[float, float]:
    """Returns the median errors (m, deg) of always answering the training set's mean pose."""
    if not bool(train["has_pose"].any()) or not bool(targets["has_pose"].any()):
        return 1.0, 1.0
    position, q = mean_pose(train)
    known = targets["has_pose"]
    count = int(known.sum())
    errors = pose_errors(
        position.expand(count, 3), q.expand(count, 4), targets["T_map_camera"][known]
    )
    metres, degrees = (float(np.median(sizes)) for sizes in _sizes(errors))
    return max(metres, 1e-3), max(degrees, 1e-3)
