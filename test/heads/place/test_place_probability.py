"""The probability that a match is right, next to scikit-learn and closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.heads.place.probability import PlaceProbability, fit


def drawn(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Returns similarities, margins and outcomes from a known logistic law."""
    rng = np.random.default_rng(seed)
    s, m = rng.uniform(0.2, 0.9, n), rng.uniform(0, 0.3, n)
    p = 1 / (1 + np.exp(-(-8 + 12 * s + 10 * m)))
    return s, m, rng.random(n) < p


def test_slopes_come_back_from_matches_that_follow_a_known_law() -> None:
    s, m, right = drawn(40_000, 0)
    found = fit(s, right, m)
    assert found.similarity == pytest.approx(12, rel=0.05)
    assert found.margin == pytest.approx(10, rel=0.08)
    assert found.bias == pytest.approx(-8, rel=0.05)
    assert found.share_right == pytest.approx(right.mean(), abs=1e-3)
    assert found.matches == 40_000


def test_probabilities_agree_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    s, m, right = drawn(400, 1)
    inputs = np.stack([s, m], axis=1)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0)
    # The same prior of the slopes; Platt's targets as a weighted pair of labels for each match.
    n, k = right.sum(), (~right).sum()
    target = np.where(right, (n + 1) / (n + 2), 1 / (k + 2))
    model = sklearn.LogisticRegression(C=25.0, tol=1e-10, max_iter=1000)
    model.fit(
        np.concatenate([scaled, scaled]),
        np.repeat([True, False], len(s)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    assert fit(s, right, m)(s, m) == pytest.approx(model.predict_proba(scaled)[:, 1], abs=1e-5)


def test_claims_are_honest_on_matches_that_were_not_fitted() -> None:
    s, m, right = drawn(2000, 2)
    found = fit(s, right, m)
    s, m, right = drawn(20_000, 3)
    p = found(s, m)
    for low in np.arange(0, 1, 0.2):
        chosen = (p >= low) & (p < low + 0.2)
        assert p[chosen].mean() == pytest.approx(right[chosen].mean(), abs=0.04)


def test_small_margin_lowers_the_probability() -> None:
    s, m, right = drawn(4000, 4)
    found = fit(s, right, m)
    assert found(0.6, 0.01) < found(0.6, 0.25) - 0.2
    assert found(0.6) == found(0.6, found.mean_margin) == found(0.6, np.nan)


def test_matches_that_are_all_right_leave_a_doubt() -> None:
    found = fit(np.linspace(0.7, 0.9, 50), np.ones(50, bool))
    assert found([0.7, 0.9]) == pytest.approx(51 / 52, abs=2e-3)
    assert 0 < found.share_right < 1


def test_classes_without_overlap_do_not_end_in_a_step() -> None:
    s = np.concatenate([np.linspace(0.1, 0.3, 50), np.linspace(0.7, 0.9, 50)])
    found = fit(s, s > 0.5)
    assert found([0.2, 0.8]) == pytest.approx([0.02, 0.98], abs=0.03)
    assert 0.2 < found(0.5) < 0.8
    assert found.similarity < 100


def test_slope_is_never_negative() -> None:
    rng = np.random.default_rng(5)
    s = rng.uniform(0, 1, 300)
    found = fit(s, rng.random(300) > s)
    assert found.similarity == 0
    assert found(0.9) == pytest.approx(found(0.1))


def test_weights_count_as_repeated_matches() -> None:
    s, m, right = drawn(1000, 6)
    weight = np.random.default_rng(0).integers(1, 4, 1000)
    a = fit(s, right, m, weights=weight / weight.mean())
    b = fit(np.repeat(s, weight), np.repeat(right, weight), np.repeat(m, weight))
    # Only the prior counts more where there are fewer matches.
    assert a(s, m) == pytest.approx(b(s, m), abs=0.03)


def test_likelihood_ratio_is_posterior_over_prior_odds() -> None:
    p = PlaceProbability(-3.0, 5.0, share_right=0.8)
    prior = math.log(0.8 / 0.2)
    assert p.log_ratio(0.4) == pytest.approx(-3 + 5 * 0.4 - prior)


def test_dictionary_goes_through_json() -> None:
    s, m, right = drawn(200, 7)
    found = fit(s, right, m)
    assert PlaceProbability.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"bias": 0.0}, "lacks similarity"),
        ({"bias": 0.0, "similarty": 1.0}, "did you mean 'similarity'"),
        ({"bias": float("nan"), "similarity": 1.0}, "finite"),
        ({"bias": 0.0, "similarity": -1.0}, "at least 0"),
        ({"bias": "high", "similarity": 1.0}, "finite"),
        ({"bias": 0.0, "similarity": 1.0, "share_right": 1.0}, "between 0 and 1"),
        ({"bias": 0.0, "similarity": 1.0, "matches": -3}, "matches"),
        ("logistic", "give bias"),
    ],
)
def test_settings_that_are_wrong_are_named(values: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PlaceProbability.from_dict(values)  # type: ignore[arg-type]


def test_matches_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few"):
        fit([0.5] * 5, [True] * 5)
    with pytest.raises(ConfigError, match="same length"):
        fit([0.5] * 30, [True] * 29)
    with pytest.raises(ConfigError, match="finite"):
        fit([0.5] * 29 + [math.nan], [True] * 30)
