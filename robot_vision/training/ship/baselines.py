"""What simple methods make of the same features: the table that a trained head is compared with.

Classifiers are fitted on the pooled features of the training images; the pose and place baselines look up
the most similar training image. None of them sees a test image before it is measured on it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robot_vision.errors import ConfigError
from robot_vision.heads.pose.measures import (
    Metrics,
    Targets,
    classifier_metrics,
    mean_pose,
    place_metrics,
    pose_metrics,
    quaternions_xyzw,
)
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import PlaceConfig, TrainingConfig
from robot_vision.training.samples.features import FeatureCache
from robot_vision.training.ship.evaluate import Views

NEIGHBOURS = 5
GEM_POWER = 3.0  # Radenovic et al. (PAMI 2018) start there
_SEED = 0


def pooled(features: Tensor) -> Tensor:
    """Returns (N, C): the average over a feature map, or the features as they are."""
    return features.mean(dim=(2, 3)) if features.dim() == 4 else features


def poolings(features: Tensor) -> dict[str, Tensor]:
    """Returns descriptors of L2 norm 1 by the name of the pooling that made them.

    Args:
        features: (N, C, h, w), or (N, C), which allows no choice.
    """
    named = {"average pooling": pooled(features)}
    if features.dim() == 4:
        powers = features.clamp(min=1e-6).pow(GEM_POWER)
        named["GeM pooling"] = powers.mean(dim=(2, 3)).pow(1 / GEM_POWER)
        named["flattened map"] = features.flatten(1)
    return {name: F.normalize(value.float(), dim=1) for name, value in named.items()}


def classifier_baseline(
    name: str,
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    targets: Targets,
    labels: tuple[str, ...],
    seed: int = _SEED,
) -> Metrics:
    """Fits a classical classifier on pooled features and measures it.

    Args:
        name: knn, softmax or svm.
        train: features (N, C) or (N, C, h, w).
        train_labels: int64 (N,); -1 is left out.
        test: features.
        targets: of the test samples.
        labels: class names.
        seed: of the solvers.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ConfigError("baselines need scikit-learn: pip install scikit-learn") from error
    known = train_labels >= 0
    x, y = pooled(train)[known].numpy(), train_labels[known].numpy()
    count = min(NEIGHBOURS, len(y))
    model: Any = {
        "knn": lambda: KNeighborsClassifier(count, metric="cosine"),
        "softmax": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
        "svm": lambda: make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=seed)),
    }[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "did not converge": the measurement tells
        model.fit(x, y)
    columns = model.classes_
    z = pooled(test).numpy()
    probabilities = np.full((len(z), len(labels)), 0.0)
    if hasattr(model, "predict_proba"):
        probabilities[:, columns] = model.predict_proba(z)
    else:
        probabilities[np.arange(len(z)), model.predict(z)] = 1.0
    metrics = classifier_metrics(torch.from_numpy(probabilities), targets, labels)
    if name == "svm":  # decisions without probabilities
        metrics.pop("nll", None), metrics.pop("ece", None)
    return metrics


def mean_pose_baseline(train: Targets, targets: Targets) -> Metrics:
    """Measures the answer that never looks at the image: the training set's mean pose."""
    position, xyzw = mean_pose(train)
    count = len(targets["has_pose"])
    outputs = {"position": position.expand(count, 3), "orientation_xyzw": xyzw.expand(count, 4)}
    return pose_metrics(outputs, targets)


def retrieval_baselines(
    train: Tensor, train_targets: Targets, test: Tensor, targets: Targets
) -> dict[str, Metrics]:
    """Measures the pose of the most similar training image, for each way of pooling."""
    has = train_targets["has_pose"]
    poses = train_targets["T_map_camera"][has]
    q = quaternions_xyzw(poses[:, :3, :3])
    stored, asked = poolings(train[has]), poolings(test)
    found = {}
    for name in stored:
        best = (asked[name] @ stored[name].T).argmax(dim=1)
        outputs = {"position": poses[best, :3, 3], "orientation_xyzw": q[best]}
        found[f"most similar image, {name}"] = pose_metrics(outputs, targets)
    return found


def place_baselines(
    train: Tensor, train_targets: Targets, test: Tensor, targets: Targets, place: PlaceConfig
) -> dict[str, Metrics]:
    """Measures untrained descriptors: average pooling, GeM and the flattened map."""
    stored, asked = poolings(train), poolings(test)
    found = {}
    for name in stored:
        found[name] = place_metrics(asked[name], targets, stored[name], train_targets, place)
        found[name]["numbers"] = stored[name].shape[1]
    return found


def nearest_pose_bound(train: Targets, targets: Targets) -> Metrics:
    """Measures the best that retrieval could do: the pose of the nearest training position."""
    has = train["has_pose"]
    poses = train["T_map_camera"][has]
    # In float64: cdist multiplies matrices, and at 300 m float32 leaves it decimetres.
    asked = targets["T_map_camera"][:, :3, 3].double()
    best = torch.cdist(asked, poses[:, :3, 3].double()).argmin(dim=1)
    q = quaternions_xyzw(poses[best, :3, :3])
    return pose_metrics({"position": poses[best, :3, 3], "orientation_xyzw": q}, targets)


def run_baselines(
    network: MultiHeadNetwork, train: Views, held_out: Views, config: TrainingConfig
) -> dict[str, dict[str, Metrics]]:
    """Runs the baselines that the configuration names and that make sense for its heads.

    Args:
        network: whose backbone gives the features.
        train: to fit on or to look up in.
        held_out: to measure on.
        config: `baselines`, `heads` and `place`.

    Returns:
        Head to baseline's name to its metrics.
    """
    device = network.pixel_scale.device
    caches = []
    for views in (train, held_out):
        cache = views.cache or FeatureCache.compute(network, views.samples, config.heads, device)
        caches.append({head: value.float() for head, value in cache.features.items()})
    seen, asked = caches
    known, targets = train.samples.targets, held_out.samples.targets
    found: dict[str, dict[str, Metrics]] = {}
    if "classifier" in config.heads:
        assert network.spec.classifier is not None
        labels = network.spec.classifier.labels
        x, z = seen["classifier"], asked["classifier"]
        titles = {"knn": f"{NEIGHBOURS} nearest neighbours", "softmax": "linear softmax"}
        found["classifier"] = {
            titles.get(name, "linear SVM"): classifier_baseline(
                name, x, known["label"], z, targets, labels, config.loop.seed
            )
            for name in ("knn", "softmax", "svm")
            if name in config.baselines
        }
    if "pose" in config.heads:
        poses: dict[str, Metrics] = {}
        if "mean_pose" in config.baselines:
            poses["always the mean pose"] = mean_pose_baseline(known, targets)
        if "retrieval" in config.baselines:
            poses |= retrieval_baselines(seen["pose"], known, asked["pose"], targets)
            poses["nearest training pose (the most that retrieval allows)"] = nearest_pose_bound(
                known, targets
            )
        found["pose"] = poses
    if "place" in config.heads and "pooling" in config.baselines:
        found["place"] = place_baselines(
            seen["place"], known, asked["place"], targets, config.place
        )
    return {head: values for head, values in found.items() if values}
