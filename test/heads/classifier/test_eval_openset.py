from __future__ import annotations

import numpy as np
import pytest
from eval_data import QUICK, recording
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robot_vision.evaluation.measure.metrics import evaluate_frames, score_recording
from robot_vision.statistics.separation import separation

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


@pytest.mark.slow
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 100), ties=st.booleans())
def test_separation_matches_scikit_learn(seed: int, n: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    known = rng.random(n) < 0.6
    assume(known.any() and not known.all())
    score = rng.normal(size=n) + known
    if ties:
        score = np.round(score)
    auroc, aupr, aupr_unknown, fpr = separation(score, known)(np.ones((1, n)))[0]
    assert auroc == pytest.approx(sklearn_metrics.roc_auc_score(known, score), abs=1e-12)
    assert aupr == pytest.approx(sklearn_metrics.average_precision_score(known, score), abs=1e-12)
    expected = sklearn_metrics.average_precision_score(~known, -score)
    assert aupr_unknown == pytest.approx(expected, abs=1e-12)
    rates = sklearn_metrics.roc_curve(known, score, drop_intermediate=False)
    assert fpr == pytest.approx(rates[0][np.argmax(rates[1] >= 0.95 - 1e-12)], abs=1e-12)


def test_weights_count_as_repetitions() -> None:
    rng = np.random.default_rng(0)
    score, known = np.round(rng.normal(size=60), 1), rng.random(60) < 0.5
    w = rng.integers(0, 4, 60)
    again = separation(np.repeat(score, w), np.repeat(known, w))(np.ones((1, w.sum())))
    assert separation(score, known)(w[None].astype(float)) == pytest.approx(again, abs=1e-12)


def test_labels_that_the_model_does_not_know_are_unknown() -> None:
    predictions, truth = recording()
    found = evaluate_frames(predictions, truth, QUICK)["open_set"]
    scores = score_recording(predictions, truth, QUICK)
    known = scores["true_label"] >= 0
    assert (found["known"], found["unknown"]) == (known.sum(), (~known).sum()) == (175, 25)
    expected = sklearn_metrics.roc_auc_score(known, scores["known_score"])
    assert found["auroc"]["value"] == pytest.approx(expected, abs=1e-12)
    baseline = found["baselines"]["max_probability"]["auroc"]["value"]
    expected = sklearn_metrics.roc_auc_score(known, scores["confidence"])
    assert baseline == pytest.approx(expected, abs=1e-12)


def test_without_unknown_frames_there_is_no_open_set() -> None:
    predictions, truth = recording(n=100)
    assert evaluate_frames(predictions, truth, QUICK)["open_set"] is None


def test_labels_that_the_model_does_not_know_are_named() -> None:
    predictions, truth = recording()
    (one,) = evaluate_frames(predictions, truth, QUICK)["recordings"]
    assert one["unknown_labels"] == {"garden": 25}
    assert "garden (25 frames); it knows kitchen, hall" in one["truth"][-1]
    (one,) = evaluate_frames(*recording(n=100), QUICK)["recordings"]
    assert one["unknown_labels"] == {} and one["truth"] == []
