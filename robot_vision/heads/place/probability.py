"""How sure a match is: from how similar the best place is, and how much less the runner-up, to a probability.

Cosine similarities mean something else for every model: 0.7 is a sure match for one descriptor and
chance for another. A logistic function of the similarity and of the margin to the runner-up (Platt 1999;
with two inputs, logistic regression) is fitted on matches that are known to be right or wrong:

    from robot_vision.heads.place.probability import PlaceProbability, fit

    probability = fit(similarities, correct)             # (N,) best matches, (N,) bool: was it right?
    probability = fit(similarities, correct, margins)    # with the margin, where it is known
    settings = probability.to_dict()                     # a few numbers, for bundle.yaml
    PlaceProbability.from_dict(settings)(0.83, margin=0.1)

The matches must be of images that the model was not trained on, and some of places that the map does not
hold, in about the share that the robot will meet. `self_calibration.calibrate_on_map` makes such
matches from a map itself, for models that come without.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robot_vision.errors import ConfigError, unknown

Array = NDArray[np.float64]

MIN_MATCHES = 20  # fewer say nothing about a slope
_PRIOR_DEVIATION = 5.0  # of the slopes, in logits for a standard deviation of the input
_STEPS = 100


@dataclass(frozen=True)
class PlaceProbability:
    """`logit P(right) = bias + similarity * s + margin * m`.

    Attributes:
        bias: log odds at similarity and margin 0.
        similarity: slope of the cosine similarity s of the best match, at least 0.
        margin: slope of the margin m: by how much s exceeds the similarity of the best match in
            another place, at least 0; 0 where the margin does not count.
        mean_margin: taken where the margin is not known.
        share_right: of the matches it was fitted on. Dividing by these odds gives the likelihood ratio,
            which a filter with a prior of its own needs.
        matches: how many it was fitted on; 0 says that nobody fitted it.

    Raises:
        ConfigError: a number that is not finite or out of range.
    """

    bias: float
    similarity: float
    margin: float = 0.0
    mean_margin: float = 0.0
    share_right: float = 0.5
    matches: int = 0

    def __post_init__(self) -> None:
        for name in ("bias", "similarity", "margin", "mean_margin", "share_right"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"Place probability: {name} is {value!r}: use a finite number")
        if self.similarity < 0 or self.margin < 0:
            raise ConfigError(
                "Place probability: the slopes of similarity and margin must be at least 0, and are "
                f"{self.similarity:g} and {self.margin:g}: fit it again"
            )
        if not 0 < self.share_right < 1:
            raise ConfigError(
                f"Place probability: share_right is {self.share_right!r}: use one between 0 and 1"
            )
        if not isinstance(self.matches, int) or self.matches < 0:
            raise ConfigError(f"Place probability: matches is {self.matches!r}: use at least 0")

    def __call__(self, similarity: ArrayLike, margin: ArrayLike | None = None) -> Array:
        """Returns the probability that matches (...) are right.

        Args:
            similarity: cosine similarities of best matches.
            margin: to the most similar image of another place; None or NaN where it is not known.
        """
        return np.asarray(1 / (1 + np.exp(-self.log_odds(similarity, margin))))

    def log_odds(self, similarity: ArrayLike, margin: ArrayLike | None = None) -> Array:
        """Returns the log odds of `__call__`, within +-50 so that nothing overflows."""
        m = np.asarray(np.nan if margin is None else margin, np.float64)
        m = np.where(np.isnan(m), self.mean_margin, m)
        logit = self.bias + self.similarity * np.asarray(similarity, np.float64) + self.margin * m
        return np.asarray(np.clip(logit, -50.0, 50.0))

    def log_ratio(self, similarity: ArrayLike, margin: ArrayLike | None = None) -> Array:
        """Returns log p(similarity, margin | right) / p(... | wrong), by Bayes from `log_odds`."""
        prior = math.log(self.share_right / (1 - self.share_right))
        return np.asarray(self.log_odds(similarity, margin) - prior)

    def to_dict(self) -> dict[str, float | int]:
        """Returns plain numbers for YAML or JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlaceProbability:
        """Returns what `to_dict` gave.

        Raises:
            ConfigError: an unknown or missing key, or a value that is not allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, Mapping):
            raise ConfigError(f"Place probability is {values!r}: give {', '.join(names)}")
        for name in values:
            if name not in names:
                raise ConfigError(unknown("place probability setting", name, names))
        for name in names[:2]:
            if name not in values:
                raise ConfigError(f"Place probability lacks {name}: give {', '.join(names)}")
        return cls(**values)


def fit(
    similarities: ArrayLike,
    correct: ArrayLike,
    margins: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> PlaceProbability:
    """Fits the probability that a match is right.

    Penalised maximum likelihood. Targets are Platt's (1999), (n+ + 1) / (n+ + 2) and 1 / (n- + 2), so
    that matches that are all right do not end in certainty; slopes have a wide normal prior, so that
    classes that do not overlap do not end in a step. A slope that comes out negative (more similar, less
    often right) is noise and set to 0.

    Args:
        similarities: (N,) cosine similarities of best matches.
        correct: (N,) bool, whether each was right.
        margins: (N,) margins to the most similar image of another place; NaN where not known.
        weights: (N,) how much each match counts; None for equally.

    Raises:
        ConfigError: fewer than `MIN_MATCHES` matches, other lengths, or similarities that are not finite.
    """
    s = np.asarray(similarities, np.float64)
    right = np.asarray(correct, bool)
    w = np.ones(len(s)) if weights is None else np.asarray(weights, np.float64)
    if s.ndim != 1 or right.shape != s.shape or w.shape != s.shape:
        raise ConfigError(
            f"Place probability: similarities {s.shape}, correct {right.shape} and weights {w.shape} "
            "must be of the same length"
        )
    if len(s) < MIN_MATCHES:
        raise ConfigError(
            f"Place probability: {len(s)} matches are too few to fit on: give at least {MIN_MATCHES}"
        )
    if not np.all(np.isfinite(s)) or not np.all(np.isfinite(w)) or w.min() < 0 or w.sum() <= 0:
        raise ConfigError("Place probability: similarities and weights must be finite numbers")
    m = np.zeros(len(s)) if margins is None else np.asarray(margins, np.float64)
    if m.shape != s.shape:
        raise ConfigError(f"Place probability: margins {m.shape} must be as many as similarities")
    known = np.isfinite(m)
    mean_margin = float(np.average(m[known], weights=w[known])) if w[known].sum() > 0 else 0.0
    inputs = np.stack([s, np.where(known, m, mean_margin)], axis=1)  # (N, 2)
    centre = np.average(inputs, axis=0, weights=w)
    scale = np.sqrt(np.average((inputs - centre) ** 2, axis=0, weights=w))
    w = w * len(w) / w.sum()
    positive, negative = float(w[right].sum()), float(w[~right].sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    free = scale > 1e-9
    while True:
        unit = np.where(free, (inputs - centre) / np.where(scale > 1e-9, scale, 1.0), 0.0)
        slopes, bias = _logistic(unit, target, w)
        if not np.any(slopes < 0):
            break
        free[int(np.argmin(slopes))] = False
    slopes = np.where(free, slopes / np.where(scale > 1e-9, scale, 1.0), 0.0)
    return PlaceProbability(
        bias=float(bias - slopes @ centre),
        similarity=float(slopes[0]),
        margin=float(slopes[1]),
        mean_margin=mean_margin,
        share_right=(positive + 1) / (positive + negative + 2),
        matches=len(s),
    )


def _logistic(x: Array, target: Array, w: Array) -> tuple[Array, float]:
    """Returns slopes (k,) and bias of the penalised fit by Newton's method with step halving."""
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    penalty = np.full(design.shape[1], 1 / _PRIOR_DEVIATION**2)
    penalty[-1] = 1e-9  # the bias is free; the number keeps the system regular

    def cost(beta: Array) -> float:
        logit = design @ beta
        return float(w @ (np.logaddexp(0, logit) - target * logit) + penalty @ beta**2 / 2)

    beta = np.zeros(design.shape[1])
    now = cost(beta)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -50, 50)))
        gradient = design.T @ (w * (p - target)) + penalty * beta
        hessian = (design * (w * p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian + 1e-12 * np.eye(len(beta)), gradient)
        size = 1.0
        while size > 1e-6 and cost(beta - size * step) > now:
            size /= 2
        beta = beta - size * step
        before, now = now, cost(beta)
        if before - now < 1e-12 * (1 + abs(now)):
            break
    return beta[:-1], float(beta[-1])
