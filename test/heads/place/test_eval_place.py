from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from eval_data import QUICK, recording
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import PlaceReference, evaluate_frames, score_recording
from robot_vision.geometry.rigid import canonical_xyzw, rotation_error_deg
from robot_vision.heads.place import evaluation, sketch
from robot_vision.heads.place.evaluation import (
    PlaceViews,
    SamePlace,
    chance_of_hit,
    matching,
    precision_recall,
    score_places,
)
from robot_vision.truth.tracks import Truth


def views(seed: int, n: int, ties: bool = False) -> PlaceViews:
    rng = np.random.default_rng(seed)
    descriptor = rng.normal(size=(n, 6))
    if ties:
        descriptor = np.round(descriptor[:, :2])
    return PlaceViews(
        descriptor.astype(np.float32),
        rng.normal(size=(n, 3)),
        canonical_xyzw(rng.normal(size=(n, 4)) * 0.3 + [0, 0, 0, 1]),
        np.sort(rng.integers(0, 10**10, n)),
    )


def brute_force(
    q: PlaceViews, d: PlaceViews, settings: SamePlace, same_recording: bool
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in ("match", "rank", "positives", "database")}
    for i in range(len(q.position)):
        candidates = [
            j
            for j in range(len(d.position))
            if not same_recording
            or abs(int(q.stamps_ns[i]) - int(d.stamps_ns[j])) > settings.place_exclude_s * 1e9
        ]
        order = sorted(candidates, key=lambda j: -float(q.descriptor[i] @ d.descriptor[j]))
        right = [
            bool(
                np.linalg.norm(q.position[i] - d.position[j]) <= settings.place_radius_m
                and (
                    settings.place_heading_deg is None
                    or rotation_error_deg(q.xyzw[i], d.xyzw[j]) <= settings.place_heading_deg
                )
            )
            for j in order
        ]
        found["match"].append(order[0] if order else -1)
        found["rank"].append(right.index(True) if any(right) else -1)
        found["positives"].append(sum(right))
        found["database"].append(len(order))
    return found


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 25),
    ties=st.booleans(),
    same=st.booleans(),
    heading=st.sampled_from([None, 30.0, 90.0]),
)
def test_ranks_match_sorting_everything(
    seed: int, n: int, ties: bool, same: bool, heading: float | None
) -> None:
    asked = SamePlace(place_radius_m=1.2, place_heading_deg=heading, place_exclude_s=2.0)
    q = views(seed, n, ties)
    d = q if same else views(seed + 1, 17, ties)
    found = score_places(q, d, asked, same)
    for name, values in brute_force(q, d, asked, same).items():
        assert found[f"place_{name}"].tolist() == values, name


def test_neighbours_in_time_are_never_looked_up() -> None:
    # Each descriptor is its neighbours' twin: with them, every answer would be right.
    predictions, truth = recording()
    stamps = predictions.stamps_ns
    scores = score_recording(predictions, truth, EvaluationSettings(place_exclude_s=3.0))
    apart = np.abs(stamps[scores["place_match"]] - stamps)
    assert apart.min() > 3 * 10**9
    assert np.all(scores["place_database"] < 200 - 30)


def test_matched_pose_errors_are_those_of_the_match() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    match = scores["place_match"]
    p, q = scores["true_position"], scores["true_xyzw"]
    assert np.allclose(scores["place_error_m"], np.linalg.norm(p - p[match], axis=1), atol=1e-12)
    assert np.allclose(scores["place_error_deg"], rotation_error_deg(q, q[match]), atol=1e-9)
    assert np.all(scores["nearest_error_m"] <= scores["place_error_m"] + 1e-12)
    found = evaluate_frames(predictions, truth, QUICK)["pose"]["baselines"]
    expected = np.median(scores["place_error_m"])
    assert found["most_similar_image"]["median_m"]["value"] == pytest.approx(expected, abs=1e-12)


def test_a_map_is_looked_up_instead_of_the_recording() -> None:
    predictions, truth = recording()
    mapping = PlaceReference(*recording("map", n=150, seed=9))
    scores = score_recording(predictions, truth, QUICK, mapping)
    assert scores.has_map and set(scores["place_database"]) == {150}
    found = evaluate_frames(predictions, truth, QUICK, mapping)
    assert found["place"]["looked_up_in"] == "map"
    assert found["map"]["name"] == "map" and found["map"]["frames"] == 150
    assert "of the map" in found["pose"]["baselines"]["mean_pose"]["text"]


def test_a_map_of_another_model_is_refused() -> None:
    other, truth = recording("map")
    other = recording("map", descriptor=other.descriptor[:, :5])[0]
    with pytest.raises(ConfigError, match="have 16 numbers, those of the map 5"):
        score_recording(*recording(), QUICK, PlaceReference(other, truth))
    blind = recording("map", descriptor=None)[0]
    with pytest.raises(ConfigError, match="'map' has no descriptors"):
        score_recording(*recording(), QUICK, PlaceReference(blind, truth))


def test_frames_without_pose_or_descriptor_take_no_part() -> None:
    predictions, truth = recording()
    descriptor = predictions.descriptor.copy()
    descriptor[:10] = np.nan
    scores = score_recording(recording(descriptor=descriptor)[0], truth, QUICK)
    assert np.all(scores["place_match"][:10] == -1)
    assert scores["place_match"][10:].min() >= 10


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 60), ties=st.booleans())
def test_matching_follows_from_scikit_learn(seed: int, n: int, ties: bool) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    similarity = np.round(rng.random(n), 1 if ties else 8)
    right = rng.random(n) < 0.5
    answerable = right | (rng.random(n) < 0.5)
    if not right.any():
        return
    area, pure = matching(similarity, right, answerable)(np.ones((1, n)))[0]
    share = right.sum() / answerable.sum()  # scikit-learn's recall is of the right ones
    expected = sklearn_metrics.average_precision_score(right, similarity) * share
    assert area == pytest.approx(expected, abs=1e-12)
    worst = similarity[~right].max(initial=-np.inf)
    assert pure == pytest.approx((right & (similarity > worst)).sum() / answerable.sum())
    curve = precision_recall(similarity, right, answerable)
    for t, p, r in zip(curve["threshold"], curve["precision"], curve["recall"], strict=True):
        taken = similarity >= t
        assert p == pytest.approx(right[taken].mean())
        assert r == pytest.approx((right & taken).sum() / answerable.sum())


def test_chance_matches_the_hypergeometric_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    for p, m, k in ((1, 10, 1), (3, 50, 5), (20, 30, 20), (5, 5, 1), (2, 3, 10)):
        found = chance_of_hit(np.array([p]), np.array([m]), k)[0]
        expected = 1 - stats.hypergeom.pmf(0, m, p, min(k, m))
        assert found == pytest.approx(expected, abs=1e-12)


def test_recalls_count_answerable_queries_only() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    found = evaluate_frames(predictions, truth, QUICK)["place"]
    ok = scores["place_positives"] > 0
    assert found["answerable"] == ok.sum() < found["queries"] or ok.all()
    for k in (1, 5, 10, 20):
        expected = (scores["place_rank"][ok] < k).mean()
        assert found[f"recall_at_{k}"]["value"] == pytest.approx(expected, abs=1e-12)
    assert sum(found["distance_error"]["counts"]) == found["queries"]


def test_best_and_worst_matches_are_the_surest_right_and_wrong_ones() -> None:
    predictions, truth = recording()
    scores = score_recording(predictions, truth, QUICK)
    found = evaluate_frames(predictions, truth, QUICK)["place"]["matches"]
    right = (scores["place_positives"] > 0) & (scores["place_rank"] == 0)
    for name, mask in (("best", right), ("worst", ~right)):
        rows = [match["row"] for match in found[name]]
        assert mask[rows].all() and len(rows) == min(12, mask.sum())
        assert (
            scores["place_similarity"][rows].min()
            >= np.sort(scores["place_similarity"][mask])[-12:].min()
        )
        assert [m["match_row"] for m in found[name]] == scores["place_match"][rows].tolist()


def test_a_recording_shorter_than_the_excluded_time_has_no_queries() -> None:
    predictions, truth = recording(n=20)
    found = evaluate_frames(predictions, truth, EvaluationSettings(place_exclude_s=60.0))
    assert found["place"] is None
    assert "most_similar_image" not in found["pose"]["baselines"]


def test_places_without_a_second_visit_have_no_recall() -> None:
    n = 100
    line = np.stack([np.arange(n) * 1.0, np.zeros(n), np.zeros(n)], 1)
    predictions, _ = recording(n=n)
    truth = Truth.of_arrays(predictions.stamps_ns, None, line, np.tile([0.0, 0, 0, 1], (n, 1)))
    found = evaluate_frames(predictions, truth, EvaluationSettings(place_exclude_s=2.0))["place"]
    assert found["answerable"] == 0 and found["queries"] == n
    assert found["recall_at_1"]["value"] is None
    assert found["average_precision"]["value"] is None


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_pairs_that_a_sketch_rules_out_change_nothing(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Visits to 40 places, some images exactly repeated, against whole products of all pairs."""
    rng = np.random.default_rng(0)
    n, t = 1800, np.arange(1800)
    place = (t // 15) % 40
    x = rng.normal(size=(40, 256))[place] + noise * rng.normal(size=(n, 256))
    x[1000:1100] = x[400:500]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    position = np.stack([place * 1.5, 0 * t, 0 * t], 1) + rng.normal(size=(n, 3)) * 0.1
    position[200:260] += 100  # never seen again
    xyzw = np.tile([0.0, 0.0, 0.0, 1.0], (n, 1))
    frames = PlaceViews(x, position, xyzw, (t * 10**9 // 30).astype(np.int64))
    whole = score_places(frames, frames, SamePlace(), True)
    monkeypatch.setattr(sketch, "_LEAST_ROWS", 100)
    monkeypatch.setattr(sketch, "_ROWS", 1000)
    short = []
    few = evaluation._most_alike_of_few
    monkeypatch.setattr(
        evaluation, "_most_alike_of_few", lambda *a: short.append(few(*a)) or short[-1]
    )
    found = score_places(frames, frames, SamePlace(), True)
    assert sum(one is not None for one in short) > len(short) / 2
    # Products on several cores round otherwise than on one, and repeated images are equally similar.
    one, other = found["place_match"], whole["place_match"]
    gap = np.einsum("ij,ij->i", x, x[one] - x[other])
    assert np.abs(gap).max() < 2e-6
    same = one == other
    assert same.mean() > 0.98
    for name, expected in whole.items():
        atol = 2e-6 if name == "place_similarity" else 0.0
        np.testing.assert_allclose(found[name][same], expected[same], atol=atol, err_msg=name)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("same_recording", [False, True])
def test_blocks_that_a_bound_rules_out_change_nothing(seed: int, same_recording: bool) -> None:
    """Video and pictures in any order, far from the origin and near, against every pair looked at."""
    rng = np.random.default_rng(seed)
    n, places = int(rng.integers(5, 700)), int(rng.integers(3, 40))
    t = np.arange(n)
    k = (t // 20) % places if seed % 2 else rng.integers(places, size=n)
    x = rng.normal(size=(places, 16))[k] + rng.choice([0.0, 0.1, 1.0]) * rng.normal(size=(n, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    position = np.stack([k + (t % 20) * 0.05, 0 * t, 0 * t], 1) + rng.normal(size=(n, 3)) * 0.05
    position[rng.random(n) < 0.1] = np.nan
    position += rng.choice([0.0, 5e5])
    xyzw = np.tile([0.0, 0.0, 0.0, 1.0], (n, 1))
    stamps = (t * 10**9 // 30).astype(np.int64)
    frames = PlaceViews(x, position, xyzw, stamps)
    same = SamePlace(place_exclude_s=2.0, place_heading_deg=None)
    found = score_places(frames, frames, same, same_recording)
    there = np.isfinite(position[:, 0])
    for i in np.flatnonzero(there):
        open_ = there & ((np.abs(stamps - stamps[i]) > 2 * 10**9) | (not same_recording))
        assert found["place_database"][i] == open_.sum()
        if not open_.any():
            assert found["place_match"][i] == -1
            continue
        away = np.where(open_, np.linalg.norm(position - position[i], axis=1), np.inf)
        alike = np.where(open_, x.astype(float) @ x[i], -np.inf)
        right = away <= same.place_radius_m
        assert found["nearest_error_m"][i] == pytest.approx(away.min(), abs=1e-6)
        assert found["place_similarity"][i] == pytest.approx(alike.max(), abs=1e-5)
        assert found["place_positives"][i] == right.sum()
        if right.any():
            before = alike > alike[right].max()
            near = np.abs(alike - alike[right].max()) < 1e-5  # equal but for rounding
            rank = found["place_rank"][i]
            assert (before & ~near).sum() <= rank <= (before | near).sum()
