"""Scores of how much an image is like those of the known classes.

Every score is high for known images. Three need the logits alone, and are part of the network's graph:

    max_probability   the largest softmax probability (Hendrycks and Gimpel, ICLR 2017)
    max_logit         the largest logit (Hendrycks et al., ICML 2022)
    energy            T logsumexp(z / T) (Liu et al., NeurIPS 2020, eq. 4, without its sign)

Two look at where the image lies among features of known images, which the bundle keeps (`references`):

    knn               minus the distance to the k-th nearest of them, on the unit sphere (Sun et al.,
                      ICML 2022); FAISS where it is installed, NumPy else, both exact
    mahalanobis       minus the squared Mahalanobis distance to the nearest class mean, with one
                      covariance for all classes (Lee et al., NeurIPS 2018, eq. 2)
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown
from robot_vision.heads.classifier.spec import FEATURE_SCORES, LOGIT_SCORES
from robot_vision.statistics.known_scores import Floats, KnownScores

NEIGHBOURS = 5  # k of knn: a class with so few images still has itself as neighbours
MAX_REFERENCES = 4096  # of knn: 4096 x 1280 float32 are 20 MB and a millisecond a frame
# FAISS pays where there is much to search; below, a matrix product is as fast.
_FAISS_FROM = 1024


class FeatureScorer(Protocol):
    """Turns features (N, C) into known scores, float32 (N,)."""

    def __call__(self, features: Floats) -> NDArray[np.float32]:
        """Returns the scores, higher for known images."""
        ...


def logit_score(name: str, logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Returns a score (N,) of logits (N, K), as the network's graph computes it.

    Args:
        name: `max_probability`, `max_logit` or `energy`.
        logits: before the temperature.
        temperature: of the classifier; `max_logit` does not depend on it.

    Raises:
        ConfigError: another name.
    """
    z = np.asarray(logits, np.float64)
    if name == "max_logit":
        return np.asarray(z.max(axis=1))
    if name not in ("max_probability", "energy"):
        raise ConfigError(unknown("score of logits", name, LOGIT_SCORES))
    scaled = z / temperature
    largest = scaled.max(axis=1)
    logsumexp = largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
    if name == "energy":
        return np.asarray(temperature * logsumexp)
    return np.asarray(np.exp(largest - logsumexp))


def fit_references(
    name: str, features: Floats, labels: NDArray[np.int64], classes: int, seed: int = 0
) -> NDArray[np.float32]:
    """Returns what a bundle keeps of known images for a score of features.

    Args:
        name: `knn` or `mahalanobis`.
        features: (N, C), of images of known classes; best those that were trained on.
        labels: (N,), from 0 to `classes` - 1.
        classes: K.
        seed: of the draw, where there are more than `MAX_REFERENCES`.

    Returns:
        float32 (R, C). knn: R unit vectors. mahalanobis: C rows that whiten features, then K class means
        (of the classes that occur; a class without images has NaN).

    Raises:
        ConfigError: another name, or too few images.
    """
    x = np.asarray(features, np.float64)
    if name == "knn":
        if len(x) <= NEIGHBOURS:
            raise ConfigError(
                f"knn has {len(x)} images to compare with: it needs more than {NEIGHBOURS}"
            )
        chosen = _stratified(labels, MAX_REFERENCES, seed)
        return _unit(x[chosen]).astype(np.float32)
    if name != "mahalanobis":
        raise ConfigError(unknown("score of features", name, FEATURE_SCORES))
    means = np.full((classes, x.shape[1]), np.nan)
    centred = np.empty_like(x)
    for k in np.unique(labels):
        rows = labels == k
        means[k] = x[rows].mean(axis=0)
        centred[rows] = x[rows] - means[k]
    if len(x) <= len(np.unique(labels)):
        raise ConfigError(
            f"mahalanobis has {len(x)} images of {len(np.unique(labels))} classes: give more"
        )
    covariance = shrunk_covariance(centred)
    # |W (x - m)|^2 = (x - m)^T S^-1 (x - m), with W the inverse of S's Cholesky factor.
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.concatenate([whiten, means]).astype(np.float32)


def shrunk_covariance(centred: Floats) -> NDArray[np.float64]:
    """Returns the covariance (C, C) of centred rows (N, C), shrunk towards a multiple of the identity.

    Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance matrices",
    theorem 3.2 and lemmas 3.2 to 3.5: there are often fewer images than features, and the plain estimate
    then has no inverse. Never less than a millionth of the mean variance, for features that are constant.
    """
    x = np.asarray(centred, np.float64)
    n, c = x.shape
    sample = x.T @ x / n
    mu = float(np.trace(sample)) / c
    if mu <= 0:
        return np.eye(c)
    squared = x**2
    # beta: mean over images of |x x^T - S|^2, delta: |S - mu I|^2.
    beta = (float((squared.sum(axis=1) ** 2).sum()) / n - float((sample**2).sum())) / n
    delta = float((sample**2).sum()) - c * mu**2
    shrinkage = 0.0 if delta <= 0 else min(max(beta / delta, 0.0), 1.0)
    shrunk = (1 - shrinkage) * sample
    shrunk[np.diag_indices(c)] += shrinkage * mu + 1e-6 * mu
    return np.asarray(shrunk)


def make_scorer(name: str, references: NDArray[np.float32], classes: int) -> FeatureScorer:
    """Returns the scorer of a bundle.

    Args:
        name: `knn` or `mahalanobis`.
        references: what `fit_references` returned.
        classes: K.

    Raises:
        ConfigError: another name, or references that do not fit it.
    """
    if references.ndim != 2 or not references.size:
        raise ConfigError(f"References of shape {references.shape}: there must be rows of features")
    if name == "knn":
        return _Nearest(references)
    if name != "mahalanobis":
        raise ConfigError(unknown("score of features", name, FEATURE_SCORES))
    if len(references) != references.shape[1] + classes:
        raise ConfigError(
            f"References of shape {references.shape} for mahalanobis and {classes} classes: there must be "
            f"{references.shape[1] + classes} rows"
        )
    return _Mahalanobis(references, classes)


class _Nearest:
    """Distance to the k-th nearest reference."""

    def __init__(self, references: NDArray[np.float32]) -> None:
        self._references = np.ascontiguousarray(references)
        self._k = min(NEIGHBOURS, len(references))
        self._index: Any = None
        if len(references) >= _FAISS_FROM and importlib.util.find_spec("faiss") is not None:
            self._index = importlib.import_module("faiss").IndexFlatIP(references.shape[1])
            self._index.add(self._references)

    def __call__(self, features: Floats) -> NDArray[np.float32]:
        """See `FeatureScorer`."""
        queries = np.ascontiguousarray(_unit(np.asarray(features, np.float32)), np.float32)
        if self._index is not None:
            cosine = self._index.search(queries, self._k)[0][:, -1]
        else:
            similar = queries @ self._references.T  # (N, R)
            cosine = np.partition(similar, -self._k, axis=1)[:, -self._k]
        return np.asarray(-np.sqrt(np.maximum(2 - 2 * cosine, 0)), np.float32)


class _Mahalanobis:
    """Squared distance to the nearest class mean."""

    def __init__(self, references: NDArray[np.float32], classes: int) -> None:
        means = references[-classes:]
        self._whiten = np.ascontiguousarray(references[:-classes].T)  # (C, C)
        self._means = means[np.isfinite(means).all(axis=1)] @ self._whiten  # (K', C)

    def __call__(self, features: Floats) -> NDArray[np.float32]:
        """See `FeatureScorer`."""
        z = np.asarray(features, np.float32) @ self._whiten  # (N, C)
        squares = [((z - mean) ** 2).sum(axis=1) for mean in self._means]
        return np.asarray(-np.min(squares, axis=0), np.float32)


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _stratified(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Returns rows, at most `limit`, in which rare classes are kept as far as possible."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    place = np.empty(len(labels), np.int64)  # of each image within its class, in the drawn order
    for k in np.unique(labels):
        rows = order[labels[order] == k]
        place[rows] = np.arange(len(rows))
    return np.sort(order[np.argsort(place[order], kind="stable")][:limit])


def known_scores(calibration: Mapping[str, Any]) -> KnownScores | None:
    """Returns the distribution that a calibration found; None where it has none.

    Args:
        calibration: the head's records in the bundle.

    Raises:
        ConfigError: the record is damaged.
    """
    found = calibration.get("open_set") or {}
    data = found.get("known_scores") if isinstance(found, Mapping) else None
    return None if data is None else KnownScores.from_dict(data)
