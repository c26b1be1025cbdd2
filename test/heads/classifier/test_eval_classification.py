from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from eval_data import LABELS, QUICK, recording
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.contract.metrics import measure
from robot_vision.contract.rows import label_indices
from robot_vision.evaluation.measure.metrics import score_recording, sections_of, summarise
from robot_vision.heads.classifier.evaluation import score_classes, statistics
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.reliability import (
    BINS,
    area_under_risk_coverage,
    calibration_error,
    reliability,
    risk_coverage,
)

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


def numbers_of(probabilities: np.ndarray, target: np.ndarray) -> dict[str, float]:
    columns = {**score_classes(probabilities, target), "true_label": target}
    found = {}
    for names, statistic in statistics(columns).items():
        values = np.asarray(statistic(np.ones((1, len(target))))).reshape(-1)
        found.update(zip((names,) if isinstance(names, str) else names, values, strict=True))
    return found


def draw(seed: int, n: int, k: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.4), n)
    if ties:  # confidences that coincide, some of them exactly 1
        p = np.round(p * 4)
        p[p.sum(1) == 0] = 1
        p /= p.sum(1, keepdims=True)
    return p, rng.integers(0, max(2, k - 1), n)


cases = given(
    seed=st.integers(0, 10**6), n=st.integers(2, 80), k=st.integers(2, 12), ties=st.booleans()
)


@pytest.mark.slow
@settings(max_examples=40)
@cases
def test_numbers_match_scikit_learn(seed: int, n: int, k: int, ties: bool) -> None:
    p, y = draw(seed, n, k, ties)
    found = numbers_of(p, y)
    guess = p.argmax(1)
    present = np.unique(y)
    assert found["top1"] == pytest.approx(sklearn_metrics.accuracy_score(y, guess), abs=1e-12)
    for name, of in (("recall", "recall_score"), ("precision", "precision_score")):
        expected = getattr(sklearn_metrics, of)(
            y, guess, labels=present, average="macro", zero_division=0
        )
        assert found[f"macro_{name}"] == pytest.approx(expected, abs=1e-12)
    one_hot = np.eye(k)[y]
    assert found["brier"] == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), abs=1e-12)
    if not ties:
        expected = sklearn_metrics.log_loss(y, p, labels=range(k))
        assert found["nll"] == pytest.approx(expected, rel=1e-9)
        if k > 5:
            expected = sklearn_metrics.top_k_accuracy_score(y, p, k=5, labels=range(k))
            assert found["top5"] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 80), k=st.integers(2, 12))
def test_calibration_error_matches_torchmetrics(seed: int, n: int, k: int) -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    p, y = draw(seed, n, k, ties=False)
    expected = torchmetrics.multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(y), num_classes=k, n_bins=BINS, norm="l1"
    )
    # torchmetrics has float32 edges: a confidence between the two edges changes its bin.
    assert numbers_of(p, y)["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_certain_frames_share_the_last_bin() -> None:
    # 0.95 wrong and 1.0 right share the bin [14/15, 1]: mean confidence 0.975, and one of two is right.
    confidence, right = np.array([0.95, 1.0]), np.array([False, True])
    ece = calibration_error(confidence, right)(np.ones((1, 2)))
    assert ece[0] == pytest.approx(0.475, abs=1e-12)
    rows = reliability(confidence, right)
    assert len(rows) == BINS and rows[-1]["frames"] == 2
    assert rows[-1]["high"] == 1.0


@pytest.mark.parametrize(("confidence", "place"), [(0.0, 0), (1 / 15, 1), (0.5, 7), (1.0, 14)])
def test_bins_are_closed_below(confidence: float, place: int) -> None:
    rows = reliability(np.array([confidence]), np.array([True]))
    assert [row["frames"] for row in rows].index(1) == place


@pytest.mark.slow
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_risk_coverage_area_is_the_mean_over_orders_of_ties(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(0, 3, n) / 2, rng.random(n) < 0.6
    areas = []
    for _ in range(3000):
        shuffled = rng.permutation(n)
        order = shuffled[np.argsort(-confidence[shuffled], kind="stable")]
        areas.append((np.cumsum(~right[order]) / np.arange(1, n + 1)).mean())
    found = area_under_risk_coverage(confidence, right)(np.ones((1, n)))[0]
    spread = np.std(areas) / math.sqrt(len(areas))
    assert found == pytest.approx(np.mean(areas), abs=5 * spread + 1e-12)


def test_risk_coverage_area_counts_weights_as_repetitions() -> None:
    rng = np.random.default_rng(3)
    confidence, right = rng.random(40), rng.random(40) < 0.7
    w = rng.integers(0, 4, 40)
    repeated = area_under_risk_coverage(np.repeat(confidence, w), np.repeat(right, w))
    found = area_under_risk_coverage(confidence, right)(w[None].astype(float))
    assert found[0] == pytest.approx(repeated(np.ones((1, w.sum())))[0], abs=1e-12)


def test_risk_coverage_curve_ends_at_the_error_rate() -> None:
    rng = np.random.default_rng(4)
    confidence, right = rng.random(1000), rng.random(1000) < 0.7
    curve = risk_coverage(confidence, right)
    assert len(curve["risk"]) <= 200
    assert curve["coverage"][-1] == 1.0
    assert curve["risk"][-1] == pytest.approx(1 - right.mean(), abs=1e-12)
    half = int(np.argmin(np.abs(np.array(curve["coverage"]) - 0.5)))
    accepted = confidence >= curve["threshold"][half]
    assert curve["risk"][half] == pytest.approx(1 - right[accepted].mean(), abs=1e-12)


@settings(max_examples=20)
@cases
def test_weights_count_as_repetitions(seed: int, n: int, k: int, ties: bool) -> None:
    p, y = draw(seed, n, k, ties)
    w = np.random.default_rng(seed).integers(0, 4, n)
    if w.sum() == 0:
        return
    columns = {**score_classes(p, y), "true_label": y}
    again = {name: np.repeat(values, w, axis=0) for name, values in columns.items()}
    for (names, a), b in zip(statistics(columns).items(), statistics(again).values(), strict=True):
        assert a(w[None].astype(float)) == pytest.approx(b(np.ones((1, w.sum()))), abs=1e-10), names


def test_confusion_and_per_class_match_scikit_learn() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    found = summarise(scores, QUICK)["classification"]
    rows = scores["true_label"] >= 0
    y, guess = scores["true_label"][rows], scores["predicted_label"][rows]
    expected = sklearn_metrics.confusion_matrix(y, guess, labels=range(len(LABELS)))
    assert found["confusion"]["counts"] == expected.tolist()
    precision, recall, _, support = sklearn_metrics.precision_recall_fscore_support(
        y, guess, labels=range(len(LABELS)), zero_division=np.nan
    )
    for i, row in enumerate(found["per_class"]):
        assert row["label"] == LABELS[i] and row["frames"] == support[i]
        for name, value in (("precision", precision[i]), ("recall", recall[i])):
            assert row[name] == (None if np.isnan(value) else pytest.approx(value, abs=1e-12))


def test_class_prior_baseline_is_entropy_and_majority() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    y = scores["true_label"][scores["true_label"] >= 0]
    share = np.bincount(y) / len(y)
    prior = summarise(scores, QUICK)["classification"]["baselines"]["class_prior"]
    assert prior["top1"]["value"] == pytest.approx(share.max(), abs=1e-12)
    entropy = -(share * np.log(share)).sum()
    assert prior["nll"]["value"] == pytest.approx(entropy, abs=1e-12)
    assert prior["macro_recall"]["value"] == pytest.approx(1 / len(share), abs=1e-12)
    assert prior["aurc"]["value"] == pytest.approx(1 - share.max(), abs=1e-9)


def test_a_true_class_of_no_probability_keeps_the_mean_finite() -> None:
    found = numbers_of(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert found["nll"] == pytest.approx(-math.log(1e-12) / 2)


def test_frames_without_prediction_or_label_are_left_out() -> None:
    predictions, truth = recording()
    probabilities: Any = predictions.probabilities.copy()
    probabilities[::2] = np.nan
    holes = recording(probabilities=probabilities)[0]
    scores = score_recording(holes, truth, QUICK)
    kept = score_recording(predictions.take(np.arange(1, 200, 2)), truth, QUICK)
    resampler = Resampler(scores["stamps_ns"], scores.bounds, QUICK)
    assert np.all(scores["predicted_label"][::2] == -1)
    found, expected = (
        measure(sections_of(scores)["classification"], resampler),
        summarise(kept, QUICK)["classification"],
    )
    assert found is not None and expected is not None
    assert found["frames"] == expected["frames"]
    assert found["top1"]["value"] == expected["top1"]["value"]
    assert found["ece"]["value"] == pytest.approx(expected["ece"]["value"], abs=1e-12)


def test_labels_get_their_index_or_say_why_not() -> None:
    assert label_indices(["b", None, "z", "a"], ("a", "b")).tolist() == [1, -1, -2, 0]
