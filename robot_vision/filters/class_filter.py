"""A recursive Bayes filter over the classes of one place or thing, for one camera or several.

The true class is a Markov chain in continuous time; each frame says something of it. What a classifier says
is a posterior: divided by the shares of the classes that it was trained on, it is a likelihood.

Frames of a camera are not independent: what misleads it now does so in the next frame. Taken for independent,
a wrong answer that lasts a second becomes a certainty. Here the errors of two frames that are `d` seconds
apart are taken to have the correlation rho = exp(-d / correlation_time_s), and so

- frames within the correlation time are one piece of evidence, and the newest frame stands for it;
- the belief of the last frame before that is what is known beside it. It enters to the power
  (1 - rho) / (1 + rho) = tanh(d / (2 correlation_time_s)): two frames of correlation rho are worth
  2 / (1 + rho) independent ones, of which the newest counts as one.

    belief(k) ~ likelihood(k) * base(k) * (predicted(k) / base(k)) ** exponent

`predicted` is that older belief moved by the chain, `base` what the chain tends to without any evidence. With
a correlation time of zero this is the forward recursion of a hidden Markov model. The result does not depend
on the rate of the frames, as long as it is above one in the correlation time.

`unknown` is a class of its own where it has a prior. An image that the open-set threshold refused speaks for
it by the shares of known and of unknown images that are refused; the classifier's probabilities say nothing
of it, and so their likelihood is that of an average class: 1.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.filters import markov_chain
from robot_vision.filters.class_model import ClassBelief, ClassModel, from_hypotheses
from robot_vision.filters.refusal import MeasurementError

__all__ = ["ClassBelief", "ClassFilter", "ClassModel", "from_hypotheses"]

Array = NDArray[np.float64]

# No classifier knows better than this, whatever its softmax says; and 0 could never be taken back.
LEAST_PROBABILITY = 1e-6


@dataclass
class _Evidence:
    """The newest frame of a camera: its stamp and the likelihood (K + 1) of each state."""

    stamp_ns: int
    likelihood: Array


@dataclass(eq=False)
class ClassFilter:
    """The filter; see the module's text.

    Args:
        model: what is assumed. It can be replaced with `change`.
        reset_after_s: a stamp that goes back by more than this is a clock that was set back, or a
            recording that begins again: the filter then forgets everything.

    Attributes:
        resets: how often that happened.
    """

    model: ClassModel
    reset_after_s: float = 2.0
    resets: int = 0
    _history: deque[tuple[int, Array]] = field(default_factory=deque, repr=False)
    _newest: dict[str, _Evidence] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._prepare()

    def _prepare(self) -> None:
        self._generator = self.model.generator()
        base = self.model.base
        self._base = markov_chain.stationary(self._generator, base)
        self._base = np.where(base > 0, np.maximum(self._base, 1e-12), 0.0)
        self._base /= self._base.sum()
        self._transitions: dict[int, Array] = {}

    def reset(self) -> None:
        """Forgets every frame."""
        self._history.clear()
        self._newest.clear()

    def change(self, model: ClassModel) -> None:
        """Replaces what is assumed; what was believed is kept, weighted by the new prior over the old one.

        Raises:
            ConfigError: the labels are others.
        """
        if model.labels != self.model.labels:
            raise ConfigError("the labels are others: make a new filter")
        old = self._base
        self.model = model
        self._prepare()
        ratio = np.divide(self._base, old, out=np.where(self._base > 0, 1.0, 0.0), where=old > 0)
        kept = list(self._history)
        self._history.clear()
        for stamp, belief in kept:
            weighted = belief * ratio
            total = weighted.sum()
            self._history.append((stamp, weighted / total if total > 0 else self._base))

    def set_prior(self, prior: NDArray[Any]) -> None:
        """Replaces the prior (K,), as a map does that knows where the robot is.

        Raises:
            ConfigError: it is no distribution over the classes.
        """
        self.change(replace(self.model, prior=prior))

    def update(
        self,
        stamp_ns: int,
        probabilities: NDArray[Any],
        refused: bool = False,
        camera: str = "",
    ) -> ClassBelief:
        """Takes a frame and returns what is believed at the time of the newest frame of all cameras.

        Args:
            stamp_ns: of the image.
            probabilities: (K,), what the classifier said; it is scaled to sum to 1.
            refused: whether the open-set threshold refused the image.
            camera: its name; frames of one camera are correlated in time.

        Raises:
            MeasurementError: not finite, negative, of a wrong size, or not newer than this camera's last.
        """
        likelihood = self._likelihood(probabilities, refused)
        last = self._newest.get(camera)
        if last is not None and stamp_ns <= last.stamp_ns:
            if (last.stamp_ns - stamp_ns) * 1e-9 <= self.reset_after_s:
                raise MeasurementError(
                    "out_of_order",
                    f"stamp {stamp_ns} ns is not newer than the camera's last, {last.stamp_ns} ns",
                )
            self.resets += 1
            self.reset()
        elif self._history and (self._history[-1][0] - stamp_ns) * 1e-9 > self.reset_after_s:
            self.resets += 1
            self.reset()
        self._newest[camera] = _Evidence(int(stamp_ns), likelihood)
        now = max(int(stamp_ns), self._history[-1][0] if self._history else int(stamp_ns))
        belief = self._believed(now)
        while (
            self._history and self._history[-1][0] >= now
        ):  # another camera's frame of the same time
            self._history.pop()
        self._history.append((now, belief))
        self._forget(now)
        return ClassBelief(now, self.model.labels, belief[:-1].copy(), float(belief[-1]))

    @property
    def newest(self) -> ClassBelief | None:
        """What was believed with the newest frame; None without any."""
        return self.at(self._history[-1][0]) if self._history else None

    def at(self, stamp_ns: int) -> ClassBelief:
        """Returns what is believed at a time, without a frame of that time."""
        if not self._history:
            base = self._base
            return ClassBelief(int(stamp_ns), self.model.labels, base[:-1].copy(), float(base[-1]))
        last, belief = self._history[-1]
        moved = belief @ self._transition(max(0, int(stamp_ns) - last))
        return ClassBelief(int(stamp_ns), self.model.labels, moved[:-1].copy(), float(moved[-1]))

    # The recursion

    def _likelihood(self, probabilities: NDArray[Any], refused: bool) -> Array:
        p = np.asarray(probabilities, np.float64).reshape(-1)
        if len(p) != len(self.model.labels):
            raise MeasurementError(
                "shape", f"{len(p)} probabilities for {len(self.model.labels)} classes"
            )
        if not np.all(np.isfinite(p)) or np.any(p < 0) or p.sum() <= 0:
            raise MeasurementError("non_finite", f"probabilities are {p.tolist()}")
        m = self.model
        assert m.training_prior is not None
        p = np.maximum(p / p.sum(), LEAST_PROBABILITY)
        known = p / p.sum() / m.training_prior
        flag = (m.refused_known, m.refused_unknown)
        of_known, of_unknown = flag if refused else (1 - flag[0], 1 - flag[1])
        return np.asarray(np.maximum(np.append(known * of_known, of_unknown), 1e-300))

    def _believed(self, now: int) -> Array:
        """Returns the belief (K + 1,) at a time, of the newest frames and what was believed before them."""
        tau = self.model.correlation_time_s
        evidence = [e for e in self._newest.values() if (now - e.stamp_ns) * 1e-9 <= tau] or [
            max(self._newest.values(), key=lambda e: e.stamp_ns)
        ]
        share = 1.0 / (1.0 + (len(evidence) - 1) * self.model.camera_correlation)
        with np.errstate(divide="ignore"):
            log_base: Array = np.log(self._base)
        total = self._tempered_past(now, log_base)
        for e in evidence:
            total = total + share * np.log(self._aged(e, now))
        total = np.exp(total - total.max())
        return np.asarray(total / total.sum())

    def _tempered_past(self, now: int, log_base: Array) -> Array:
        """Returns log(base * (predicted / base) ** exponent) (K + 1,)."""
        tau = self.model.correlation_time_s
        newest_apart = now - round(tau * 1e9)
        for entry in reversed(self._history):
            if entry[0] <= newest_apart and entry[0] < now:
                stamp, belief = entry
                break
        else:
            return log_base
        predicted = belief @ self._transition(now - stamp)
        exponent = math.tanh((now - stamp) * 1e-9 / (2 * tau)) if tau > 0 else 1.0
        there = self._base > 0
        result = np.full(len(self._base), -np.inf)
        ratio = np.maximum(predicted[there], 1e-300) / self._base[there]
        result[there] = log_base[there] + exponent * np.log(ratio)
        return np.asarray(result)

    def _aged(self, evidence: _Evidence, now: int) -> Array:
        """Returns what a frame says of the state now (K + 1,), by the chain run backwards."""
        if evidence.stamp_ns >= now:
            return evidence.likelihood
        P = self._transition(now - evidence.stamp_ns)
        joint = self._base[:, None] * P  # state then, state now
        total = joint.sum(axis=0)
        backwards = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)
        return np.asarray(np.maximum(evidence.likelihood @ backwards, 1e-300))

    def _transition(self, dt_ns: int) -> Array:
        # Cameras have a rate: the same few intervals come again and again, up to their jitter.
        key = round(dt_ns / 1e5)
        found = self._transitions.get(key)
        if found is None:
            if len(self._transitions) > 256:
                self._transitions.clear()
            found = markov_chain.transition(self._generator, key * 1e-4)
            self._transitions[key] = found
        return found

    def _forget(self, now: int) -> None:
        """Drops beliefs that no later frame can need: all but one of those before the correlation time."""
        apart = now - round(self.model.correlation_time_s * 1e9)
        # One more interval is kept: another camera's late frame must not lose its past.
        while len(self._history) > 2 and self._history[1][0] <= apart - 1_000_000_000:
            self._history.popleft()
