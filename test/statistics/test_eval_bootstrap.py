from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.statistics.bootstrap import (
    Resampler,
    group_sums,
    groups,
    mean,
    quantiles,
    root_mean_square,
)


def stamps(n: int, hz: float = 10.0) -> np.ndarray:
    return (np.arange(n) * 1e9 / hz).astype(np.int64)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_weighted_statistics_match_numpy_on_repeated_values(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values, w = np.round(rng.normal(size=n), 1), rng.integers(0, 4, n)
    w[rng.integers(n)] += 1
    again, weights = np.repeat(values, w), w[None].astype(float)
    assert mean(values)(weights)[0] == pytest.approx(again.mean(), abs=1e-12)
    assert root_mean_square(values)(weights)[0] == pytest.approx(np.sqrt((again**2).mean()))
    levels = (0.0, 0.1, 0.5, 0.9, 1.0)
    assert quantiles(values, levels)(weights)[0] == pytest.approx(
        np.quantile(again, levels), abs=1e-12
    )


def test_group_sums_add_what_belongs_together() -> None:
    values = np.array([3, 1, 3, 2, 1])
    order, starts = groups(values)
    assert group_sums(np.arange(5.0)[None], order, starts).tolist() == [[5.0, 3.0, 2.0]]
    order, starts = groups(values, descending=True)
    assert group_sums(np.arange(5.0)[None], order, starts).tolist() == [[2.0, 3.0, 5.0]]


def test_resamples_are_blocks_of_consecutive_frames() -> None:
    asked = EvaluationSettings(resamples=300, block_s=1.0)
    resampler = Resampler(stamps(100), [(0, 60), (60, 100)], asked)
    assert resampler.block_frames == 10
    (weights,) = resampler.weights()
    assert weights.shape == (300, 100)
    assert np.all(weights.sum(1) == 100)
    # Ten blocks of ten: the weights change at most twice a block, and at the join of the recordings.
    assert (np.diff(weights, axis=1) != 0).sum(1).max() <= 20
    # The ends of a recording are in fewer blocks; the middle counts as often as anything else.
    assert weights[:, 10:50].mean() == pytest.approx(weights[:, 70:90].mean(), rel=0.15)


def test_frames_of_short_recordings_count_as_much_as_those_of_long_ones() -> None:
    bounds = [(0, 3), (3, 6), (6, 206)]
    resampler = Resampler(stamps(206), bounds, EvaluationSettings(resamples=4000, block_s=2.0))
    weights = np.concatenate(list(resampler.weights()))
    assert weights[:, :6].mean() == pytest.approx(1.0, rel=0.15)
    assert weights[:, 6:].mean() == pytest.approx(1.0, rel=0.05)


def test_intervals_are_the_same_at_every_call_and_change_with_the_seed() -> None:
    values = np.random.default_rng(0).normal(size=200)
    found = [
        Resampler(stamps(200), [(0, 200)], EvaluationSettings(resamples=50, seed=seed)).headlines(
            {"mean": mean(values)}
        )["mean"]
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_intervals_cover_the_truth_although_frames_are_alike() -> None:
    # An autoregressive error whose neighbours correlate by 0.95, as in video. Frame by frame the interval
    # would be several times too narrow.
    rng = np.random.default_rng(0)
    covered = {0.1: 0, 8.0: 0}
    for _ in range(80):
        noise = rng.normal(size=1000)
        x = np.empty(1000)
        x[0] = noise[0]
        for i in range(1, 1000):
            x[i] = 0.95 * x[i - 1] + np.sqrt(1 - 0.95**2) * noise[i]
        for block_s in covered:
            asked = EvaluationSettings(resamples=100, block_s=block_s)
            found = Resampler(stamps(1000), [(0, 1000)], asked).headlines({"m": mean(x)})["m"]
            covered[block_s] += found["low"] <= 0 <= found["high"]
    assert covered[8.0] >= 0.8 * 80
    assert covered[0.1] <= 0.5 * 80


@pytest.mark.slow
def test_interval_narrows_with_the_root_of_the_frames() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for n in (400, 6400):
        asked = EvaluationSettings(resamples=300, block_s=0.1)
        found = Resampler(stamps(n), [(0, n)], asked).headlines({"m": mean(rng.normal(size=n))})
        widths.append(found["m"]["high"] - found["m"]["low"])
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.2)


def test_statistics_see_only_the_rows_that_they_are_about() -> None:
    values = np.arange(100.0)
    rows = values % 2 == 0
    resampler = Resampler(stamps(100), [(0, 100)], EvaluationSettings(resamples=20))
    found = resampler.headlines({"m": mean(values[rows])}, rows)["m"]
    assert found["value"] == values[rows].mean()


def test_blocks_are_shortened_where_there_are_few_frames() -> None:
    resampler = Resampler(stamps(50), [(0, 50)], EvaluationSettings(block_s=60.0))
    assert resampler.block_frames == 10
    assert resampler.describe()["block_s"] == pytest.approx(1.0)
    assert resampler.describe()["block_s_asked"] == 60.0


@pytest.mark.parametrize("n", [0, 1, 9])
def test_few_frames_have_no_interval(n: int) -> None:
    resampler = Resampler(stamps(n), [(0, n)], EvaluationSettings(resamples=20))
    found = resampler.headlines({"m": mean(np.ones(n))})["m"]
    assert found == {"value": 1.0 if n else None, "low": None, "high": None}


@pytest.mark.parametrize("rows", [1, 9, 10])
def test_few_rows_of_many_frames_have_no_interval(rows: int) -> None:
    resampler = Resampler(stamps(1000), [(0, 1000)], EvaluationSettings(resamples=50))
    chosen = np.arange(0, 1000, 100)[:rows]
    found = resampler.headlines({"m": mean(np.ones(rows))}, chosen)["m"]
    interval = 1.0 if rows == 10 else None
    assert found == {"value": 1.0, "low": interval, "high": interval}
