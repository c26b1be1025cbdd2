from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from eval_data import QUICK, recording
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.evaluation.measure.metrics import evaluate_frames, score_recording
from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.geometry.rotations import mean_pose, pose_error, rotation_vectors
from robot_vision.heads.pose.evaluation import normalised_squares, score_poses
from robot_vision.statistics.normal import chi_squared_cdf, chi_squared_quantile

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
Rotation = pytest.importorskip("scipy.spatial.transform").Rotation

seeds = given(seed=st.integers(0, 10**6))


@settings(max_examples=40)
@seeds
def test_errors_match_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = Rotation.random(20, random_state=rng), Rotation.random(20, random_state=rng)
    p, t = rng.normal(size=(2, 20, 3))
    error = pose_error(p, a.as_quat(), t, b.as_quat())
    assert np.allclose(error[:, :3], t - p, atol=1e-12)
    # R_true = exp(e) R: the rotation is about the axes of the map, on the left.
    assert np.allclose(error[:, 3:], (b * a.inv()).as_rotvec(), atol=1e-9)
    columns = score_poses(p, a.as_quat(), None, t, b.as_quat())
    assert np.allclose(columns["error_deg"], np.degrees((b * a.inv()).magnitude()), atol=1e-7)
    assert np.allclose(columns["error_m"], np.linalg.norm(t - p, axis=1), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-13, 1e-9, 1e-4, 1.0, np.pi - 1e-9, np.pi])
def test_rotation_vectors_hold_for_the_smallest_and_largest_angles(angle: float) -> None:
    axis = np.array([0.6, -0.8, 0.0])
    q = np.append(axis * np.sin(angle / 2), np.cos(angle / 2))
    for sign in (1, -1):
        assert np.linalg.norm(rotation_vectors(sign * q)) == pytest.approx(angle, rel=1e-9)
    assert np.allclose(rotation_vectors(q), axis * angle, rtol=1e-9, atol=1e-300) or angle == np.pi


@settings(max_examples=25)
@seeds
def test_normalised_squares_match_the_inverse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(10, 6, 6))
    C = factor @ factor.transpose(0, 2, 1) + 0.1 * np.eye(6)
    e = rng.normal(size=(10, 6))
    expected = [v @ np.linalg.inv(c) @ v for v, c in zip(e, C, strict=True)]
    assert np.allclose(normalised_squares(e, C), expected, rtol=1e-8)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda C: C * 0,
        lambda C: -C,
        lambda C: C * np.nan,
        lambda C: C * np.inf,
        lambda C: C + np.triu(np.ones((6, 6)), 1),
        lambda C: np.diag([1.0, 1, 1, 1, 1, 0]),
    ],
)
def test_what_is_no_covariance_is_counted_and_left_out(spoil: Any) -> None:
    predictions, truth = recording()
    covariance = predictions.covariance.copy()
    covariance[::4] = [spoil(C) for C in covariance[::4]]
    found = evaluate_frames(recording(covariance=covariance)[0], truth, QUICK)["pose"]
    assert found["frames"] == 200
    assert found["covariance"]["frames"] == 150
    assert found["covariance"]["not_positive_definite"] == 50
    kept = np.ones(200, bool)
    kept[::4] = False
    scores = score_recording(predictions, truth, QUICK)
    assert found["covariance"]["nees"]["mean_over_ideal"]["value"] == pytest.approx(
        scores["nees"][kept].mean() / 6, rel=1e-12
    )


@pytest.mark.parametrize("degrees", [3, 6])
def test_chi_squared_matches_scipy(degrees: int) -> None:
    for p in (0.01, 0.5, 0.68, 0.9, 0.95, 0.999):
        x = chi_squared_quantile(p, degrees)
        assert x == pytest.approx(stats.chi2.ppf(p, degrees), rel=1e-10)
        assert chi_squared_cdf(x, degrees) == pytest.approx(p, rel=1e-12)
    assert chi_squared_cdf(0.0, degrees) == 0.0


@pytest.mark.slow
def test_honest_covariances_have_their_nominal_coverage() -> None:
    predictions, truth = recording(n=4000)
    rng = np.random.default_rng(1)
    true = score_recording(predictions, truth, QUICK)
    factor = rng.normal(size=(4000, 6, 6)) * 0.02
    C = factor @ factor.transpose(0, 2, 1) + 1e-5 * np.eye(6)
    e = np.einsum("nij,nj->ni", np.linalg.cholesky(C), rng.normal(size=(4000, 6)))
    turned = Rotation.from_rotvec(-e[:, 3:]) * Rotation.from_quat(true["true_xyzw"])
    honest = recording(
        n=4000,
        position=true["true_position"] - e[:, :3],
        orientation_xyzw=turned.as_quat(),
        covariance=C,
        descriptor=None,
        probabilities=None,
        labels=(),
    )[0]
    covariance = evaluate_frames(honest, truth, QUICK)["pose"]["covariance"]
    for part in ("nees", "nees_position", "nees_rotation"):
        assert covariance[part]["mean_over_ideal"]["value"] == pytest.approx(1, abs=0.05)
        for percent in (50, 68, 90, 95):
            found = covariance[part][f"coverage_{percent}"]
            assert found["value"] == pytest.approx(percent / 100, abs=0.025)
            assert found["low"] <= found["value"] <= found["high"]


def test_headline_numbers_match_numpy() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    found = evaluate_frames(predictions, truth, QUICK)["pose"]
    m, d = scores["error_m"], scores["error_deg"]
    expected = {
        "median_m": np.median(m),
        "p90_m": np.percentile(m, 90),
        "mean_m": m.mean(),
        "median_deg": np.median(d),
        "p90_deg": np.percentile(d, 90),
        "mean_deg": d.mean(),
        "within_0.05m_2deg": ((m <= 0.05) & (d <= 2)).mean(),
        "within_0.25m_5deg": ((m <= 0.25) & (d <= 5)).mean(),
        "within_0.5m_10deg": ((m <= 0.5) & (d <= 10)).mean(),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-12), name
        assert found[name]["low"] <= value <= found[name]["high"], name


def test_mean_pose_baseline_matches_scipy() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    rotations = Rotation.from_quat(scores["true_xyzw"])
    position, xyzw = mean_pose(scores["true_position"], scores["true_xyzw"])
    assert np.allclose(xyzw, canonical_xyzw(rotations.mean().as_quat()), atol=1e-9)
    away = np.linalg.norm(scores["true_position"] - position, axis=1)
    turned = np.degrees((rotations.mean().inv() * rotations).magnitude())
    found = evaluate_frames(predictions, truth, QUICK)["pose"]["baselines"]["mean_pose"]
    assert found["median_m"]["value"] == pytest.approx(np.median(away), abs=1e-9)
    assert found["median_deg"]["value"] == pytest.approx(np.median(turned), abs=1e-6)


def test_frames_without_estimate_are_left_out() -> None:
    predictions, truth = recording()
    position, xyzw = predictions.position.copy(), predictions.orientation_xyzw.copy()
    position[:20], xyzw[20:40] = np.nan, 0.0
    found = evaluate_frames(recording(position=position, orientation_xyzw=xyzw)[0], truth, QUICK)
    kept = evaluate_frames(predictions.take(np.arange(40, 200)), truth, QUICK)
    assert found["pose"]["frames"] == kept["pose"]["frames"] == 160
    assert found["pose"]["median_m"]["value"] == kept["pose"]["median_m"]["value"]
