"""What is assumed of classes and classifier, and what is believed: the two ends of the class filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.filters import markov_chain
from robot_vision.heads.classifier.answer import UNKNOWN, Hypothesis

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassModel:
    """What is assumed of the classes and of the classifier.

    Attributes:
        labels: of the K classes.
        prior: (K,), how probable each is without any image; 0 says that it does not exist. None: all alike.
        training_prior: (K,), shares of the classes that the classifier was trained on, or its class weights
            times them. None: all alike.
        dwell_s: mean time that the class stays the same; then any class follows, by its prior.
        rates: (K, K), changes a second from row to column, in place of `dwell_s`; the diagonal is ignored.
            A column is multiplied by its class's prior over the mean of all.
        correlation_time_s: after which a camera's errors are others.
        memory: probability that what was seen before holds for a new frame at all. 0 has the frames alone;
            1 trusts the memory as far as the chain does.
        camera_correlation: of the errors of two cameras at one time.
        unknown_prior: how probable none of the classes is; 0 for a world without unknowns.
        refused_known: share of images of known classes that the open-set threshold refuses.
        refused_unknown: share of other images that it refuses.

    Raises:
        ConfigError: a value out of range, or of a wrong size.
    """

    labels: tuple[str, ...]
    prior: NDArray[Any] | None = None
    training_prior: NDArray[Any] | None = None
    dwell_s: float = 10.0
    rates: NDArray[Any] | None = None
    correlation_time_s: float = 0.3
    memory: float = 0.15
    camera_correlation: float = 0.5
    unknown_prior: float = 0.02
    refused_known: float = 0.05
    refused_unknown: float = 0.5

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels are {list(self.labels)}: give at least one, all different")
        set_field = object.__setattr__
        for name in ("prior", "training_prior"):
            set_field(self, name, _distribution(name, getattr(self, name), len(self.labels)))
        if np.any(self.training_prior == 0):
            raise ConfigError(
                "training_prior has a 0: a class that was never trained cannot be seen"
            )
        if not 0 < self.dwell_s < math.inf:
            raise ConfigError(f"dwell_s is {self.dwell_s}: it must be above 0 seconds and finite")
        if not 0 <= self.correlation_time_s < math.inf:
            raise ConfigError(
                f"correlation_time_s is {self.correlation_time_s}: use at least 0 seconds"
            )
        for name, high in (
            ("memory", 1.0),
            ("camera_correlation", 1.0),
            ("unknown_prior", 0.99),
            ("refused_known", 0.99),
            ("refused_unknown", 1.0),
        ):
            if not 0 <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be from 0 to {high:g}")
        if self.rates is not None:
            rates = markov_chain.generator(np.asarray(self.rates, np.float64))
            if len(rates) != len(self.labels):
                raise ConfigError(
                    f"rates are {len(rates)} x {len(rates)} for {len(self.labels)} classes: give a row "
                    "and a column for each"
                )
            set_field(self, "rates", rates)

    @property
    def base(self) -> Array:
        """The prior of the states (K + 1): the classes, then unknown."""
        assert self.prior is not None
        return np.append(self.prior * (1 - self.unknown_prior), self.unknown_prior)

    def generator(self) -> Array:
        """Returns the generator of the chain over the states (K + 1, K + 1)."""
        if self.rates is None:
            return markov_chain.jump_generator(self.base, self.dwell_s)
        # The rates are between classes; unknown comes and goes as with dwell_s.
        assert self.prior is not None
        whole = markov_chain.jump_generator(self.base, self.dwell_s)
        whole[:-1, :-1] = self.rates * (self.prior * len(self.labels))
        return markov_chain.generator(whole)

    def chain(self) -> markov_chain.Chain:
        """Returns the chain over the states (K + 1)."""
        if self.rates is None:
            return markov_chain.JumpChain(self.base, self.dwell_s)
        return markov_chain.RateChain(self.generator())


def _distribution(name: str, values: NDArray[Any] | None, count: int) -> Array:
    if values is None:
        return np.full(count, 1.0 / count)
    array = np.asarray(values, np.float64).reshape(-1)
    if len(array) != count:
        raise ConfigError(f"{name} has {len(array)} numbers for {count} classes: give one for each")
    if not np.all(np.isfinite(array)) or np.any(array < 0) or array.sum() <= 0:
        raise ConfigError(
            f"{name} is {array.tolist()}: give numbers of at least 0, not all of them 0"
        )
    return np.asarray(array / array.sum())


@dataclass(frozen=True, eq=False)
class ClassBelief:
    """What the filter believes at one time.

    Attributes:
        stamp_ns: of the newest frame.
        labels: of the K classes.
        probabilities: (K,); with `unknown` they sum to 1.
        unknown: probability of none of them.
    """

    stamp_ns: int
    labels: tuple[str, ...]
    probabilities: Array
    unknown: float

    @property
    def known(self) -> Array:
        """The probabilities (K,) given that it is one of the classes."""
        total = self.probabilities.sum()
        if total <= 0:
            return np.full(len(self.labels), 1.0 / len(self.labels))
        return np.asarray(self.probabilities / total)

    def top_k(self, k: int) -> list[Hypothesis]:
        """Returns the k most probable labels; `unknown` comes first where it is the most probable."""
        order = np.argsort(-self.probabilities, kind="stable")[: max(k, 1)]
        best = [Hypothesis(self.labels[i], float(self.probabilities[i])) for i in order]
        return [Hypothesis(UNKNOWN, self.unknown), *best] if self.unknown > best[0].score else best
