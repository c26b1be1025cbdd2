"""Classical classifiers on pooled features: what a trained head is compared with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_vision.contract.pooling import pooled
from robot_vision.contract.training import Features
from robot_vision.errors import ConfigError

NEIGHBOURS = 5
TITLES = {
    "knn": f"{NEIGHBOURS} nearest neighbours",
    "softmax": "linear softmax",
    "svm": "linear SVM",
}


def probabilities_of(name: str, seen: Features, asked: Features, classes: int, seed: int) -> Tensor:
    """Fits a classical classifier on the pooled features of labelled images.

    Args:
        name: of `TITLES`.
        seen: to fit on.
        asked: to answer for.
        classes: K.
        seed: of the solvers.

    Returns:
        (N, K); of the SVM, which has no probabilities, 1 for the class it decides for.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ConfigError("baselines need scikit-learn: pip install scikit-learn") from error
    labels = seen.targets["label"]
    known = labels >= 0
    x, y = pooled(seen.first())[known].numpy(), labels[known].numpy()
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
    z = pooled(asked.first()).numpy()
    probabilities = np.full((len(z), classes), 0.0)
    if hasattr(model, "predict_proba"):
        probabilities[:, columns] = model.predict_proba(z)
    else:
        probabilities[np.arange(len(z)), model.predict(z)] = 1.0
    return torch.from_numpy(probabilities)
