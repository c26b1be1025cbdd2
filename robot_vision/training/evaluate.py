"""What the heads are worth on a split: accuracy, pose errors and their honesty, recall of places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import PlaceConfig
from robot_vision.training.data import Advance, SampleSet, batches
from robot_vision.training.features import FeatureCache

_CHUNK = 64
IDEAL_NEES = 6.0  # the mean of a chi-squared variable with six degrees of freedom

Metrics = dict[str, Any]
Targets = dict[str, Tensor]


@dataclass(frozen=True)
class Views:
    """One split with what is needed to predict it: its samples, and cached features where there are any."""

    samples: SampleSet
    cache: FeatureCache | None = None

    def __len__(self) -> int:
        return len(self.samples)


@torch.no_grad()
def predict(
    network: MultiHeadNetwork,
    views: Views,
    heads: tuple[str, ...],
    device: torch.device,
    threads: int = 2,
    advance: Advance = lambda n: None,
) -> dict[str, Tensor]:
    """Returns raw and decoded outputs of some heads for every sample, on the CPU in float32."""
    network.eval()
    parts: dict[str, list[Tensor]] = {}
    order = list(torch.arange(len(views)).split(_CHUNK))

    def raw_outputs() -> Any:
        if views.cache is not None:
            for index in order:
                features = {h: views.cache.features[h][index].to(device) for h in heads}
                yield network.raw_from_features(features), len(index)
        else:
            for batch in batches(views.samples, order, threads):
                features = network.forward_features(batch["images"].to(device))
                kept = {h: features[h] for h in heads}
                yield network.raw_from_features(kept), len(batch["index"])

    for raw, count in raw_outputs():
        outputs = dict(raw)
        for head in heads:
            part: Any = network.heads[head]
            outputs.update(part.decode(raw))
        for key, value in outputs.items():
            parts.setdefault(key, []).append(value.float().cpu())
        advance(count)
    return {key: torch.cat(values) for key, values in parts.items()}


def classifier_metrics(probabilities: Tensor, targets: Targets, labels: tuple[str, ...]) -> Metrics:
    """Measures class probabilities.

    Args:
        probabilities: (N, K).
        targets: `label`; samples with -1 are left out.
        labels: names of the K classes.

    Returns:
        accuracy, macro_recall (the mean over the classes that occur), nll (nats), ece (expected
        calibration error of 10 bins, Guo et al. 2017), errors, images, recall by label.
    """
    known = targets["label"] >= 0
    p, y = probabilities[known].double(), targets["label"][known]
    if len(y) == 0:
        return {"images": 0}
    best = p.argmax(dim=1)
    right = best == y
    recalls = {
        n: float(right[y == i].float().mean()) for i, n in enumerate(labels) if (y == i).any()
    }
    confidence = p.amax(dim=1)
    bins = (confidence * 10).long().clamp(max=9)
    gap = right.double() - confidence
    ece = sum(abs(float(gap[bins == b].sum())) for b in range(10)) / len(y)
    nll = -p[torch.arange(len(y)), y].clamp(min=1e-12).log().mean()
    return {
        "accuracy": float(right.double().mean()),
        "macro_recall": float(np.mean(list(recalls.values()))),
        "nll": float(nll),
        "ece": ece,
        "errors": int((~right).sum()),
        "images": len(y),
        "recall": recalls,
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
    t, p = quaternions_xyzw(T_map_camera[:, :3, :3]), xyzw.double()
    p = p / p.norm(dim=1, keepdim=True)
    tv, tw, pv, pw = t[:, :3], t[:, 3:], -p[:, :3], p[:, 3:]
    vector = tw * pv + pw * tv + torch.linalg.cross(tv, pv)
    scalar = tw * pw - (tv * pv).sum(1, keepdim=True)
    vector = torch.where(scalar < 0, -vector, vector)
    sine = vector.norm(dim=1, keepdim=True)
    delta = vector / sine.clamp(min=1e-12) * 2 * torch.atan2(sine, scalar.abs())
    return torch.cat([T_map_camera[:, :3, 3].double() - position.double(), delta], 1)


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
    metres, degrees = errors[:, :3].norm(dim=1), torch.rad2deg(errors[:, 3:].norm(dim=1))
    metrics: Metrics = {
        "median_position_m": median(metres),
        "median_rotation_deg": median(degrees),
        "mean_position_m": float(metres.mean()),
        "mean_rotation_deg": float(degrees.mean()),
        "within_25cm_5deg": float(((metres <= 0.25) & (degrees <= 5)).double().mean()),
        "frames": len(errors),
    }
    if "pose_covariance" in outputs:
        covariance = outputs["pose_covariance"][known].double()
        nees = (errors * torch.linalg.solve(covariance, errors[:, :, None])[:, :, 0]).sum(1)
        metrics["nees"] = float(nees.mean()) / IDEAL_NEES
        metrics["within_95_percent_ellipsoid"] = float((nees <= 12.592).double().mean())
    return metrics


def median(values: Tensor) -> float:
    """Returns the median as NumPy defines it: torch takes the lower of two."""
    return float(np.median(values.numpy()))


def positives(queries: Targets, database: Targets, place: PlaceConfig) -> Tensor:
    """Returns bool (Q, D): which database images show the query's place."""
    q, d = queries["T_map_camera"].double(), database["T_map_camera"].double()
    known = queries["has_pose"][:, None] & database["has_pose"][None, :]
    near = torch.cdist(q[:, :3, 3], d[:, :3, 3]) <= place.positive_m
    if place.positive_deg is None:
        return near & known
    cosine = (torch.einsum("aij,bij->ab", q[:, :3, :3], d[:, :3, :3]) - 1) / 2
    return near & known & (torch.rad2deg(cosine.clamp(-1, 1).arccos()) <= place.positive_deg)


def recall_metrics(similarity: Tensor, right: Tensor) -> Metrics:
    """Measures retrieval over the answerable queries: those with at least one right image.

    Args:
        similarity: (Q, D).
        right: bool (Q, D).

    Returns:
        recall_at_1, _5 and _10, queries, and how many of them are answerable.
    """
    answerable = right.any(dim=1)
    metrics: Metrics = {"queries": len(right), "answerable": int(answerable.sum())}
    if not bool(answerable.any()):
        return metrics
    best = similarity[answerable].topk(min(10, right.shape[1]), dim=1).indices
    hits = right[answerable].gather(1, best)
    for k in (1, 5, 10):
        metrics[f"recall_at_{k}"] = float(hits[:, :k].any(dim=1).double().mean())
    return metrics


def place_metrics(descriptors: Tensor, database: Tensor, right: Tensor) -> Metrics:
    """Measures descriptors (Q, n) against those of the database (D, n); see `recall_metrics`."""
    return recall_metrics(descriptors @ database.T, right)


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


def evaluate(
    network: MultiHeadNetwork,
    views: Views,
    database: Views | None,
    heads: tuple[str, ...],
    place: PlaceConfig,
    device: torch.device,
    threads: int = 2,
) -> dict[str, Metrics]:
    """Measures heads on a split.

    Args:
        network: on `device`.
        views: the split.
        database: where places are looked up: the training images.
        heads: to measure.
        place: what counts as the same place.
        device: of the network.
        threads: that read images.

    Returns:
        Head to its metrics.
    """
    outputs = predict(network, views, heads, device, threads)
    stored = None
    if "place" in heads and database is not None:
        stored = predict(network, database, ("place",), device, threads)["descriptor"]
    labels = network.spec.classifier.labels if network.spec.classifier else ()
    return measure(
        outputs,
        views.samples.targets,
        stored,
        None if database is None else database.samples.targets,
        labels,
        heads,
        place,
    )


def measure(
    outputs: dict[str, Tensor],
    targets: Targets,
    stored: Tensor | None,
    stored_targets: Targets | None,
    labels: tuple[str, ...],
    heads: tuple[str, ...],
    place: PlaceConfig,
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

    Returns:
        Head to its metrics.
    """
    metrics: dict[str, Metrics] = {}
    if "classifier" in heads:
        metrics["classifier"] = classifier_metrics(outputs["probabilities"], targets, labels)
    if "pose" in heads:
        metrics["pose"] = pose_metrics(outputs, targets)
    if "place" in heads and stored is not None and stored_targets is not None:
        right = positives(targets, stored_targets, place)
        metrics["place"] = place_metrics(outputs["descriptor"], stored, right)
    return metrics


def mean_pose(targets: Targets) -> tuple[Tensor, Tensor]:
    """Returns the mean position (3,) and the mean rotation as quaternion (4,) of the true poses.

    The mean rotation is the largest eigenvector of the quaternions' second moments (Markley 2007).
    """
    known = targets["has_pose"]
    poses = targets["T_map_camera"][known].double()
    q = quaternions_xyzw(poses[:, :3, :3])
    return poses[:, :3, 3].mean(dim=0), torch.linalg.eigh(q.T @ q)[1][:, -1]


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
    metres = median(errors[:, :3].norm(dim=1))
    degrees = median(torch.rad2deg(errors[:, 3:].norm(dim=1)))
    return max(metres, 1e-3), max(degrees, 1e-3)
