"""A recursive Bayes filter over the classes of one place or thing, for one camera or several.

The true class is a Markov chain in continuous time; each frame says something of it. What a classifier says
is a posterior: divided by the shares of the classes that it was trained on, it is a likelihood.

Frames of a camera are not independent: what misleads it now does so in the next frame. Here the errors of two
frames that are `d` seconds apart are taken to have the correlation rho = exp(-d / correlation_time_s). Of n
such frames the best average is worth 1 + (n - 1) (1 - rho) / (1 + rho) independent ones. So the newest frame
counts as one, and each that it follows enters the memory to the power (1 - rho) / (1 + rho) =
tanh(d / (2 correlation_time_s)):

    memory(k) ~ predicted(k) * likelihood(k) ** tanh(...)
    belief(k) ~ likelihood(k) * (trust * predicted(k) + (1 - trust) * base(k))

`predicted` is the memory moved by the chain to the time of the newest frame, `base` what the chain tends to
without any evidence. `trust` is the probability that the memory holds for this frame at all. Otherwise the
class changed just now, at a door that neither chain nor memory knows of; or what the memory was made of
misled the classifier all along. So the past can tilt a frame, at most by the factor
1 + trust / ((1 - trust) base(k)), and does not overrule one that is sure, however certain the memory is.

With a correlation time of zero and a trust of one this is the forward recursion of a hidden Markov model;
with a trust of zero it is the classifier itself. The result hardly depends on the rate of the frames.

`unknown` is a class of its own where it has a prior. An image that the open-set threshold refused speaks for
it by the shares of known and of unknown images that are refused; the classifier's probabilities say nothing
of it, and so their likelihood is that of an average class: 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, MeasurementError
from robot_vision.filters.class_model import ClassBelief, ClassModel
from robot_vision.heads.classifier.hypotheses import from_hypotheses
from robot_vision.messages.stamps import nanoseconds

__all__ = ["ClassBelief", "ClassFilter", "ClassModel", "from_hypotheses"]

Array = NDArray[np.float64]

# No classifier knows better than this, whatever its softmax says; and 0 could never be taken back.
LEAST_PROBABILITY = 1e-6


@dataclass
class _Evidence:
    """The newest frame of a camera.

    Attributes:
        stamp_ns: of the image.
        seen_ns: time of the newest frame of all cameras when it came.
        likelihood: (K + 1) of each state.
        remembered: it has become part of the memory.
    """

    stamp_ns: int
    seen_ns: int
    likelihood: Array
    remembered: bool = False


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
    _newest: dict[str, _Evidence] = field(default_factory=dict, repr=False)
    _memory: tuple[int, Array] | None = field(default=None, repr=False)
    _belief: tuple[int, Array] | None = field(default=None, repr=False)
    _prediction: tuple[tuple[int, Array], int, Array] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._prepare()

    def _prepare(self) -> None:
        self._chain = self.model.chain()
        base = self.model.base
        self._base = self._chain.stationary(base)
        self._base = np.where(base > 0, np.maximum(self._base, 1e-12), 0.0)
        self._base /= self._base.sum()
        self._prediction = None

    def reset(self) -> None:
        """Forgets every frame."""
        self._newest.clear()
        self._memory = self._belief = None

    def change(self, model: ClassModel) -> None:
        """Replaces what is assumed; what was believed is kept, weighted by the new prior over the old one.

        Raises:
            ConfigError: the labels are others.
        """
        if model.labels != self.model.labels:
            raise ConfigError("the labels differ: make a new filter")
        old = self._base
        self.model = model
        self._prepare()
        ratio = np.divide(self._base, old, out=np.where(self._base > 0, 1.0, 0.0), where=old > 0)
        self._memory = self._reweighted(self._memory, ratio)
        self._belief = self._reweighted(self._belief, ratio)

    def _reweighted(
        self, state: tuple[int, Array] | None, ratio: Array
    ) -> tuple[int, Array] | None:
        if state is None:
            return None
        weighted = state[1] * ratio
        total = weighted.sum()
        return state[0], weighted / total if total > 0 else self._base

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
        elif (
            last is None  # a camera that was always so late is no clock that went back
            and self._belief is not None
            and (self._belief[0] - stamp_ns) * 1e-9 > self.reset_after_s
        ):
            self.resets += 1
            self.reset()
        now = int(stamp_ns) if self._belief is None else max(int(stamp_ns), self._belief[0])
        self._remember(camera, int(stamp_ns), now)
        self._newest[camera] = _Evidence(int(stamp_ns), now, likelihood)
        belief = self._believed(now)
        self._belief = now, belief
        return ClassBelief(now, self.model.labels, belief[:-1].copy(), float(belief[-1]))

    @property
    def newest(self) -> ClassBelief | None:
        """What was believed with the newest frame; None without any."""
        return self.at(self._belief[0]) if self._belief is not None else None

    def at(self, stamp_ns: int) -> ClassBelief:
        """Returns what is believed at a time, without a frame of that time."""
        moved = self._base
        if self._belief is not None:
            last, belief = self._belief
            moved = self._moved(belief, int(stamp_ns) - last)
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

    def _remember(self, camera: str, stamp_ns: int, now: int) -> None:
        """Moves into the memory what is no longer the newest frame of its camera, or too old for one."""
        tau = nanoseconds(self.model.correlation_time_s)
        in_force = self._in_force(now)
        for name, e in sorted(self._newest.items(), key=lambda item: item[1].stamp_ns):
            if e.remembered or (name != camera and now - e.seen_ns <= tau):
                continue
            apart = stamp_ns - e.stamp_ns if name == camera else now - e.seen_ns
            share = math.tanh(apart / (2 * tau)) if tau > 0 else 1.0
            share /= 1.0 + (max(len(in_force), 1) - 1) * self.model.camera_correlation
            time, past = self._predicted(e.stamp_ns)
            said = np.log(self._aged(e, time))
            self._memory = time, _normalised(np.where(past > 0, _log(past) + share * said, -np.inf))
            e.remembered = True

    def _predicted(self, now: int) -> tuple[int, Array]:
        """Returns the memory (K + 1,) moved to a time, or to its own where that is later; and that time."""
        if self._memory is None:
            return now, self._base
        last, past = self._memory
        # What a frame was judged by is asked for again when the next one comes.
        known = self._prediction
        if known is None or known[0] is not self._memory or known[1] != now:
            known = self._prediction = self._memory, now, self._moved(past, now - last)
        moved = known[2]
        # What exists is never quite excluded, or no later frame could bring it back.
        return max(now, last), np.where(self._base > 0, np.maximum(moved, 1e-300), 0.0)

    def _in_force(self, now: int) -> list[_Evidence]:
        """Returns the newest frames of the cameras that still run."""
        tau = self.model.correlation_time_s
        return [e for e in self._newest.values() if (now - e.seen_ns) * 1e-9 <= tau]

    def _believed(self, now: int) -> Array:
        """Returns the belief (K + 1,) at a time, of the newest frames and of the memory."""
        evidence = [e for e in self._in_force(now) if not e.remembered]
        share = 1.0 / (1.0 + (len(evidence) - 1) * self.model.camera_correlation)
        trust = self.model.memory
        total = _log(trust * self._predicted(now)[1] + (1 - trust) * self._base)
        for e in evidence:
            total = total + share * np.log(self._aged(e, now))
        return _normalised(total)

    def _aged(self, evidence: _Evidence, now: int) -> Array:
        """Returns what a frame says of the state now (K + 1,), by the chain run backwards."""
        if evidence.stamp_ns >= now:
            return evidence.likelihood
        apart = now - evidence.stamp_ns
        # P(state then | state now) = base(then) P(then, now) / its sum over then.
        total = self._moved(self._base, apart)
        said = self._moved(self._base * evidence.likelihood, apart)
        aged = np.divide(said, total, out=np.zeros_like(said), where=total > 0)
        return np.asarray(np.maximum(aged, 1e-300))

    def _moved(self, row: Array, dt_ns: int) -> Array:
        return self._chain.moved(row, max(0, dt_ns) * 1e-9)


def _log(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


def _normalised(logarithms: Array) -> Array:
    values = np.exp(logarithms - logarithms.max())
    return np.asarray(values / values.sum())
