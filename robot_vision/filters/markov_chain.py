"""A Markov chain in continuous time over a few states: how probabilities move between irregular stamps."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

Array = NDArray[np.float64]

_TERMS = 20  # of a power series with an argument of at most 1: the rest is below 1e-19
_LONGEST = 64  # halvings of the interval; beyond, every chain has forgotten where it was
_SHORT = 64.0  # changes that a state expects in an interval up to which a distribution is moved by itself
_MIXING = (
    64  # steps in which a chain may forget where it was, before a matrix of a long interval is made
)
_ROUNDING = 1e-15  # of what is left out of a sum
_STILL = 1e-12  # of what a distribution may still change by when it counts as settled
_KEPT = 4  # matrices of long intervals that are kept


def generator(rates: NDArray[np.float64]) -> Array:
    """Returns the generator Q (K, K) of rates a second from row to column; the diagonal is ignored.

    Raises:
        ConfigError: not square, not finite, or a negative rate.
    """
    Q = np.array(rates, np.float64)
    if Q.ndim != 2 or Q.shape[0] != Q.shape[1]:
        raise ConfigError(f"rates have shape {Q.shape}: give one row and one column for each class")
    np.fill_diagonal(Q, 0.0)
    if not np.all(np.isfinite(Q)) or np.any(Q < 0):
        worst = float(np.nanmin(Q)) if np.any(Q < 0) else float("nan")
        raise ConfigError(f"a rate is {worst}: rates per second must be finite and at least 0")
    np.fill_diagonal(Q, -Q.sum(axis=1))
    return Q


def jump_generator(stationary: NDArray[np.float64], dwell_s: float) -> Array:
    """Returns the generator of the chain that leaves a state and goes wherever `stationary` says.

    The rate is that with which the mean time in a state, over the states as frequent as they are, is
    `dwell_s`. `stationary` is what the chain tends to.
    """
    leave = 1.0 - float((stationary**2).sum())
    rate = 0.0 if leave <= 0 else 1.0 / (dwell_s * leave)
    return generator(rate * np.tile(stationary, (len(stationary), 1)))


def transition(Q: NDArray[np.float64], dt_s: float) -> Array:
    """Returns P(dt) = expm(Q dt) (K, K), each row a distribution.

    By uniformisation: with r the largest rate out of a state, P = sum_k e^-r r^k / k! (I + Q / r)^k has no
    negative term and so no cancellation. Long intervals are halved first and squared back.
    """
    assert dt_s >= 0, dt_s
    r = float(-np.diagonal(Q).min()) * dt_s if len(Q) else 0.0
    identity = np.eye(len(Q))
    if r < np.finfo(np.float64).tiny:  # a subnormal number has no reciprocal
        return identity
    halvings = min(max(0, math.ceil(math.log2(r))), _LONGEST) if r > 1 else 0
    r_small = min(r / 2.0**halvings, 1.0)
    step = identity + (Q * (dt_s / 2.0**halvings)) / r_small  # in this order nothing overflows
    step = np.maximum(step, 0.0)
    term = identity * math.exp(-r_small)
    total = term.copy()
    for k in range(1, _TERMS):
        term = term @ step * (r_small / k)
        total += term
    total /= total.sum(axis=1, keepdims=True)
    for _ in range(halvings):
        total = total @ total
        total /= total.sum(axis=1, keepdims=True)
    return total


def stationary(Q: NDArray[np.float64], start: NDArray[np.float64]) -> Array:
    """Returns the distribution (K,) that the chain tends to from `start`."""
    fastest = float(-np.diagonal(Q).min()) if len(Q) else 0.0
    if fastest == 0.0:
        return np.array(start, np.float64)
    slowest = -np.diagonal(Q)[np.diagonal(Q) < 0].max()
    return np.asarray(start @ transition(Q, 1e6 / float(slowest)), np.float64)


class JumpChain:
    """A chain that leaves a state and goes wherever `share` says (see `jump_generator`), in O(K).

    P(dt) = e^-rt I + (1 - e^-rt) 1 share^T, with r the rate.

    Args:
        share: (K,), what it tends to.
        dwell_s: mean time in a state, over the states as frequent as they are.
    """

    def __init__(self, share: NDArray[np.float64], dwell_s: float) -> None:
        self._share = np.asarray(share, np.float64)
        leave = 1.0 - float((self._share**2).sum())
        self._rate = 0.0 if leave <= 0 else 1.0 / (dwell_s * leave)

    def moved(self, p: NDArray[np.float64], dt_s: float) -> Array:
        """Returns a row of weights (K,) moved by an interval; their sum stays the same."""
        stays = math.exp(-self._rate * dt_s)
        return np.asarray(stays * p + (1 - stays) * p.sum() * self._share)

    def stationary(self, start: NDArray[np.float64]) -> Array:
        """Returns the distribution (K,) that the chain tends to from `start`."""
        return np.array(start if self._rate == 0 else self._share)


class RateChain:
    """A chain of given rates. A short interval takes a few products of a row and Q, not of matrices.

    Args:
        Q: the generator (K, K).
    """

    def __init__(self, Q: NDArray[np.float64]) -> None:
        self._Q = np.asarray(Q, np.float64)
        self._rate = float(-np.diagonal(self._Q).min()) if len(self._Q) else 0.0
        self._long: OrderedDict[float, Array] = OrderedDict()

    def moved(self, p: NDArray[np.float64], dt_s: float) -> Array:
        """Returns a row of weights (K,) moved by an interval; their sum stays the same."""
        r = self._rate * dt_s
        term = np.asarray(p, np.float64)
        size = float(np.abs(term).sum())
        if r < np.finfo(np.float64).tiny or size == 0:
            return term.copy()
        # Uniformisation, as in `transition`, for one row: P = sum_k w_k S^k with S = I + Q / rate and Poisson
        # weights w. No step changes more than the one before, so that where one changes next to nothing the
        # rest of the sum is known: a chain that has forgotten where it was costs no more for long intervals.
        most = math.ceil(r + 12 * math.sqrt(r) + 20)  # the weights beyond are below 1e-16 together
        weight = -r  # its logarithm
        total, left = math.exp(weight) * term, 1 - math.exp(weight)
        for k in range(1, most if r <= _SHORT else _MIXING):
            before, term = term, np.maximum(term + term @ self._Q / self._rate, 0.0)
            change = float(np.abs(term - before).sum())
            if change * (most - k) <= _STILL * size:
                return np.asarray((total + left * term) * (size / (total + left * term).sum()))
            weight += math.log(r / k)
            total += math.exp(weight) * term
            left -= math.exp(weight)
            if k > r and left < _ROUNDING:
                break
        else:
            if r > _SHORT:
                return np.asarray(p @ self._matrix(dt_s))
        return np.asarray(total * (size / total.sum()))

    def _matrix(self, dt_s: float) -> Array:
        found = self._long.pop(dt_s, None)
        if found is None:
            found = transition(self._Q, dt_s)
        self._long[dt_s] = found
        if len(self._long) > _KEPT:
            self._long.popitem(last=False)
        return found

    def stationary(self, start: NDArray[np.float64]) -> Array:
        """Returns the distribution (K,) that the chain tends to from `start`."""
        return stationary(self._Q, start)


Chain = JumpChain | RateChain
